"""Rewards, estimators and allocators by name, by dotted path and as YAML; what is misspelt is guessed."""

import json
import subprocess
import sys

import pytest
import torch
from trl.rewards import accuracy_reward, think_format_reward

from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import AGRAE, PassAtK, RolloutGroups, build_estimator
from rlvr_trl.plain_yaml import read_yaml, read_yaml_file
from rlvr_trl.registry import did_you_mean
from rlvr_trl.rewards import math_reward
from rlvr_trl.rewards.named_rewards import REWARDS, build_reward
from rlvr_trl.rollouts import DARS, build_allocator


MINE = """
import dataclasses
import torch

def reward(completions, **kwargs):
    return [1.0] * len(completions)

def make_reward(scale):
    return lambda completions, **kwargs: [scale] * len(completions)

def not_a_maker(**kwargs):
    return [1.0]

@dataclasses.dataclass(frozen=True)
class Scaled:
    scale: float = 1.0
    reward_func: object = None
    def __call__(self, completions, **kwargs):
        return [self.scale] * len(completions)

@dataclasses.dataclass(frozen=True)
class Doubled:
    base: object
    def __call__(self, groups):
        return 2 * self.base(groups)

class OneMore:
    max_generations = 9
    def __init__(self, most=1):
        self.most = most
    def start_batch(self, progress): ...
    def state_dict(self): return {}
    def load_state_dict(self, state): ...
    def __call__(self, stage, num_samples, num_correct, num_judged):
        return torch.full_like(num_samples, self.most if stage == 1 else 0)

number = 3
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder that is the current one, with modules of a user in it."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "own_parts").mkdir()
    (folder / "own_parts" / "things.py").write_text(MINE, encoding="utf-8")
    (folder / "needs_more.py").write_text("import a_package_that_nobody_has", encoding="utf-8")
    (folder / "bröken.py").write_text("raise RuntimeError('inside')", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
        yield folder


def test_own_parts_by_dotted_path(mine):
    groups = RolloutGroups(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 0, 0]))
    reward = build_reward("own_parts.things.reward")
    assert reward(completions=["a", "b"]) == [1.0, 1.0] and build_reward({"name": "own_parts.things.reward"}) is reward
    assert build_reward("own_parts.things.Scaled")(completions=["a"]) == [1.0]
    scaled = build_reward("{name: own_parts.things.Scaled, scale: 2, reward_func: math_reward}")
    assert scaled(completions=["a"]) == [2] and scaled.reward_func is math_reward
    assert build_reward({"name": "own_parts.things.make_reward", "scale": 3})(completions=["a"]) == [3]
    noisy = build_reward({"name": "noisy_reward", "reward_func": "own_parts.things.reward", "share": 0.5})
    assert noisy.__name__ == "reward_noisy"
    doubled = build_estimator({"name": "own_parts.things.Doubled", "base": {"name": "pass_at_k", "k": 2}})
    assert torch.equal(doubled(groups), 2 * PassAtK(2)(groups))
    nested = build_estimator(
        {"name": "a_grae", "base": {"name": "own_parts.things.Doubled", "base": "group_relative"}}
    )
    assert isinstance(nested, AGRAE)
    assert build_allocator({"name": "own_parts.things.OneMore", "most": 4}).most == 4
    args = RLVRConfig("out", bf16=False, rollouts="own_parts.things.OneMore", advantages="{name: pass_at_k, k: 4}")
    assert args.build_rollouts().max_generations == 9 and args.build_advantages() == PassAtK(4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package.reward", "there is no module 'no_such_package', neither installed nor in "),
        ("own_parts.thing.reward", "there is no module 'own_parts.thing'"),
        ("own_parts.things.rewards", r"own_parts.things \(.*things.py\) has no 'rewards'. Did you mean 'reward'"),
        ("own_parts.things.number", "cannot be called: number in .* is 3"),
        ({"name": "own_parts.things.not_a_maker", "x": 1}, "makes a list, which cannot be called"),
        ({"name": "own_parts.things.Scaled", "scael": 2}, "no field 'scael'. Did you mean 'scale'"),
        ({"name": "own_parts.things.reward", "scale": 2}, "needs the field 'completions'"),
        ("own_parts.things.", "Unknown reward function 'own_parts.things.'"),
        (".reward", "Unknown reward function '.reward'"),
        ("../own_parts/things.reward", "Unknown reward function"),
        ("", "Unknown reward function ''"),
        ("math_rewrd", "Did you mean 'math_reward'"),
        ("MathReward", "Did you mean 'math_reward'"),
        ({"name": "noisy_reward", "reward_func": "maze_rward", "share": 1}, "Did you mean 'maze_reward'"),
        ("{name: math_reward, ", "is neither YAML nor JSON"),
        (["math_reward"], "must be a name or a dict"),
        (None, "must be a name or a dict"),
        ({"name": None}, "a name is text"),
    ],
)
def test_what_cannot_be_built_is_refused(mine, spec, message):
    with pytest.raises(ValueError, match=message):
        build_reward(spec)


def test_errors_of_the_users_own_modules_are_shown_as_they_are(mine):
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        build_reward("needs_more.reward")
    with pytest.raises(RuntimeError, match="inside"):
        build_reward("bröken.reward")


def test_an_allocator_of_ones_own_has_the_members_of_one(mine):
    with pytest.raises(ValueError, match="has no max_generations, start_batch, state_dict, load_state_dict"):
        build_allocator("own_parts.things.reward")


def test_a_file_in_the_current_folder_replaces_no_installed_package(tmp_path):
    """A console script does not search the current folder; a dotted path looks there last."""
    (tmp_path / "rlvr_trl.py").write_text("raise RuntimeError('this is not the package')")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('this is not the module of Python')")
    (tmp_path / "mine.py").write_text("def reward(completions, **kwargs): return []")
    script = tmp_path / "bin" / "script"
    script.parent.mkdir()
    script.write_text(
        "from rlvr_trl.rewards.named_rewards import build_reward\n"
        "print(build_reward('mine.reward').__module__, build_reward('colorsys.rgb_to_hsv').__module__,"
        " build_reward('rlvr_trl.rewards.choice_reward').__module__)"
    )
    shown = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["mine", "colorsys", "rlvr_trl.rewards.choice"]


def test_rewards_of_trl():
    assert build_reward("accuracy_reward") is accuracy_reward
    assert build_reward("think_format_reward") is think_format_reward
    assert build_reward("trl.rewards.think_format_reward") is think_format_reward
    punished = build_reward("get_soft_overlong_punishment")  # with the numbers of `trl grpo`
    assert (punished.max_completion_len, punished.soft_punish_cache) == (1280, 256)
    punished = build_reward("{name: get_soft_overlong_punishment, max_completion_len: 10, soft_punish_cache: 5}")
    assert punished(completion_ids=[[0] * 5, [0] * 10, [0] * 11]) == [0, -1, -1]
    with pytest.raises(ValueError, match="needs the field 'max_len'"):
        build_reward("get_cosine_scaled_reward")
    assert {"reasoning_accuracy_reward", "get_repetition_penalty_reward"} <= REWARDS.keys()


@pytest.mark.parametrize("text", ['{"name": "pass_at_k", "k": 4}', "{name: pass_at_k, k: 4}", "pass_at_k"])
def test_yaml_and_json_mean_the_same(text):
    if text == "pass_at_k":
        with pytest.raises(ValueError, match="needs the field 'k'"):
            build_estimator(text)
    else:
        assert build_estimator(text) == PassAtK(4)
        args = RLVRConfig("out", bf16=False, advantages=text, generation_kwargs="{top_k: 5, min_p: 1e-1}")
        assert args.build_advantages() == PassAtK(4) and args.advantages == {"name": "pass_at_k", "k": 4}
        assert args.generation_kwargs == {"top_k": 5, "min_p": 0.1}
    assert build_allocator("{name: dars, max_generations: 64}") == DARS(max_generations=64)


def test_yaml_is_read_as_it_is_written():
    text = "{a: no, b: 1e-6, c: 010, d: 2024-01-01, e: 12:30:00, f: 0x10, g: true, h: ~, i: -.5, j: '007', k: 1_000}"
    expected = {"a": "no", "b": 1e-6, "c": 10, "d": "2024-01-01", "e": "12:30:00", "f": "0x10", "g": True, "h": None}
    assert read_yaml(text, "it") == expected | {"i": -0.5, "j": "007", "k": "1_000"}
    for value in (0, -7, 1.5, 1e-300, 12345678901234567890123, True, None, "ä", [], {"a": [1, "no"]}):
        assert read_yaml(json.dumps(value), "it") == value
    for word in ("NaN", "Infinity", "-Infinity"):
        assert read_yaml(word, "it") == word
    twice = ("{a: 1, a: 2}", '{"a": 1, "a": 2}')
    for wrong in ("{", "a: b: c", "!!python/object/apply:os.system [echo]", *twice, "\x00"):
        with pytest.raises(ValueError, match="The text is neither YAML nor JSON"):
            read_yaml(wrong, "The text")
    for deep in ("[" * 100_000 + "]" * 100_000, "[" * 100_000, "[a, " * 2000):
        with pytest.raises(ValueError, match="The text is nested too deeply"):
            read_yaml(deep, "The text")


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("- a\n- b", "a list"), ("word", "a str"), ("1: 2", "the name 1")]
)
def test_a_file_of_settings_is_a_mapping(text, found, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"--config .*settings.yaml must hold settings, .* but holds {found}"):
        read_yaml_file(path, "--config")
    with pytest.raises(ValueError, match="there is no such file"):
        read_yaml_file(tmp_path, "--config")


def test_did_you_mean():
    names = ["learning_rate", "lr_scheduler_type", "max_steps"]
    assert did_you_mean("lerning_rate", names) == " Did you mean 'learning_rate'?"
    assert did_you_mean("MAX_STEP", names) == " Did you mean 'max_steps'?"
    assert did_you_mean("temperature", names) == did_you_mean("", names) == did_you_mean("max_steps", []) == ""


@pytest.mark.parametrize(
    "spec",
    [
        "{name: repo, rescale: no}",
        "{name: reinforce_plus_plus, group_baseline: off}",
        "{name: a_grae, suppression: no}",
        "{name: difficulty_focused, zero_uniform: n}",
    ],
)
def test_a_word_is_no_switch(spec):
    """In a file that TRL reads, `no` is false; in a text it is a word, which must not switch on what it turns off."""
    with pytest.raises(ValueError, match="must be true or false, got '(no|off|n)'"):
        build_estimator(spec)


@pytest.mark.parametrize("name", ["group_relative", "pass_at_k", "max_at_k", "reinforce_plus_plus"])
def test_eps_must_be_a_number(name):
    """TRL's parser reads 1e-6 in a file as text; with NaN every advantage would be 0."""
    fields = {"k": 2} if name.endswith("at_k") else {}
    for eps in ("1e-6", None, float("nan"), -1.0):
        with pytest.raises(ValueError, match="`eps` must be a number of at least 0"):
            build_estimator({"name": name, **fields, "eps": eps})
