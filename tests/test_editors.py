"""What an editor shows of the public names: jedi completes them and knows what they take."""

import importlib
import inspect
from pathlib import Path

import jedi
import pytest


ROOT = Path(__file__).parents[1]
PACKAGES = ("rlvr_trl", "rlvr_trl.advantages", "rlvr_trl.analysis", "rlvr_trl.data", "rlvr_trl.evaluation")
PACKAGES += ("rlvr_trl.evaluation.engines", "rlvr_trl.rewards", "rlvr_trl.rollouts")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Opens code in the project of a user, who has the package on the path."""
    project = jedi.Project(tmp_path_factory.mktemp("project"), added_sys_path=[str(ROOT)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jedi.settings, "cache_directory", str(tmp_path_factory.mktemp("cache")))
        yield lambda code: jedi.Script(code, project=project, environment=jedi.InterpreterEnvironment())


@pytest.fixture
def parameters(script):
    """Names of the parameters of each signature that is shown once the bracket of a call is open."""
    return lambda package, name: [
        [parameter.name for parameter in signature.params]
        for signature in script(f"from {package} import {name}\n{name}(").get_signatures()
    ]


def test_a_name_is_completed(script):
    assert [completion.name for completion in script("from rlvr_trl import RLVRTra").complete()] == ["RLVRTrainer"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_offered(script, package):
    offered = {completion.name for completion in script(f"from {package} import ").complete()}
    assert set(importlib.import_module(package).__all__) - {"__version__"} <= offered


@pytest.mark.parametrize(
    ("package", "name", "some"),
    [
        ("rlvr_trl", "RLVRTrainer", ["model", "reward_funcs", "args", "peft_config", "advantages", "rollouts"]),
        ("rlvr_trl", "PassAtKTrainer", ["model", "reward_funcs", "args", "train_dataset"]),
        ("rlvr_trl", "PassAtKConfig", ["output_dir", "learning_rate", "num_generations", "k"]),
        ("rlvr_trl.advantages", "PassAtK", ["k", "method"]),
        ("rlvr_trl.data", "load_math", ["path_or_id", "split", "template"]),
        ("rlvr_trl.data", "make_maze_dataset", ["num_mazes", "size", "seed"]),
        ("rlvr_trl.evaluation", "compare", ["a", "b", "k", "confidence"]),
        ("rlvr_trl.evaluation", "evaluate", ["model", "tokenizer", "num_samples", "max_new_tokens", "temperature"]),
        ("rlvr_trl.rewards", "choice_reward", ["completions", "solution"]),
        ("rlvr_trl.rewards", "math_reward", ["completions", "solution", "thinking_tags"]),
        ("rlvr_trl.rollouts", "DARS", ["schedule", "max_generations"]),
    ],
)
def test_parameters(parameters, package, name, some):
    (shown,) = parameters(package, name)
    assert set(some) <= set(shown)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_called_has_its_parameters(parameters, package):
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and not hasattr(value, "_fields"):  # of a named tuple jedi knows only what tuples take
            taken = inspect.signature(value).parameters.values()
            named = {each.name for each in taken if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
            assert any(named <= set(shown) for shown in parameters(package, name)), name
