"""The example scripts, each started as its docstring says, on tiny models."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hub_stand_in import OWNER, running_hub
from launching import environment, free_port, run_script
from test_recipes import EXAMPLES, ON_CPU, script_of
from tiny_text_model import only_answers, save_problems, save_text_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import ModelConfig

from rlvr_trl import RLVRConfig
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.recipes import SCRIPTS
from rlvr_trl.scripts import build_reward, checkpoint_to_resume


pytestmark = pytest.mark.slow


ROOT = EXAMPLES.parent
needs_setuptools = pytest.mark.skipif(
    int(version("setuptools").split(".")[0]) < 77, reason="a wheel is built by setuptools 77 or newer"
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    return save_text_model(folder / "model"), save_problems(folder / "problems.jsonl")


@pytest.fixture
def small(text):
    """Arguments of a script that trains on problems: two steps of 2 prompts x 4 completions a process."""
    model, problems = text
    arguments = ["--model_name_or_path", model, "--dataset_path", problems, "--generation_kwargs", only_answers()]
    arguments += ["--num_generations", "4", "--per_device_train_batch_size", "8", "--max_completion_length", "2"]
    return [*arguments, *ON_CPU, "--max_steps", "2", "--logging_steps", "1", "--learning_rate", "1e-3"]


def run(script: Path | str, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Output of a script that must succeed."""
    if env is None:
        result = run_script(script, *arguments, timeout=300)
    else:
        command = [sys.executable, str(script), *arguments]
        result = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_a_resumed_run_ends_like_one_that_was_not_stopped(small, tmp_path):
    module = script_of("train_math")

    def train(folder, *more):
        saving = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--disable_tqdm", "true"]
        arguments = [*small, *saving, "--output_dir", str(folder), *more]
        return module.main(*module.make_parser().parse_args_and_config(arguments))

    whole = train(tmp_path / "whole", "--resume_from_checkpoint", "auto")  # there is none: from the start
    assert [entry["step"] for entry in whole.state.log_history if "loss" in entry] == [1, 2, 3, 4]
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "stopped" / "checkpoint-2")
    for wanted in ("true", "auto", str(tmp_path / "stopped" / "checkpoint-2")):
        shutil.copytree(tmp_path / "stopped", tmp_path / "again", dirs_exist_ok=True)
        train(tmp_path / "again", "--resume_from_checkpoint", wanted)
        expected = weights(tmp_path / "whole")
        assert all(torch.equal(weight, expected[name]) for name, weight in weights(tmp_path / "again").items())
        shutil.rmtree(tmp_path / "again")


def test_what_resume_may_be(tmp_path):
    assert checkpoint_to_resume(None, str(tmp_path)) is None and checkpoint_to_resume("false", str(tmp_path)) is None
    assert checkpoint_to_resume(True, str(tmp_path)) is True and checkpoint_to_resume("True", str(tmp_path)) is True
    assert checkpoint_to_resume("auto", str(tmp_path)) is None
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    assert checkpoint_to_resume("auto", str(tmp_path)) is True  # the newest whole one


def test_rewards_by_name():
    noisy = build_reward('{"name": "noisy_reward", "reward_func": {"name": "maze_reward"}, "share": 0.3, "seed": 1}')
    assert (noisy.__name__, noisy.share, noisy.seed) == ("maze_reward_noisy", 0.3, 1)
    assert build_reward("math_reward") is build_reward({"name": "math_reward"})
    for wrong, message in (
        ("accuracy", "Unknown reward function 'accuracy'.*Valid names: math_reward"),
        ({"name": "noisy_reward", "reward_func": "maze_reward"}, "needs the field 'share'"),
        ({"name": "length_reward", "reward_func": "maze"}, "Unknown reward function 'maze'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_reward(wrong)


def test_train_maze_with_a_warm_up(text, tmp_path):
    arguments = ["--model_name_or_path", text[0], "--output_dir", str(tmp_path), *ON_CPU, "--max_steps", "1"]
    arguments += ["--sizes", "5", "--mazes_per_size", "8", "--sft_steps", "2", "--sft_learning_rate", "1e-2"]
    arguments += ["--eval_mazes_per_size", "2", "--eval_every", "1", "--eval_num_samples", "2"]
    arguments += ["--eval_greedy", "true", "--eval_temperature", "0.8"]
    arguments += ["--num_generations", "4", "--per_device_train_batch_size", "8", "--max_completion_length", "4"]
    output = run(EXAMPLES / "train_maze.py", *arguments, "--advantages", '{"name": "pass_at_k", "k": 2}')
    assert "eval_pass@2" in output and "eval_greedy_pass@1" in output and f"Model saved to {tmp_path}." in output
    before, warm, after = weights(Path(text[0])), weights(tmp_path / "warmup"), weights(tmp_path)
    change = max((warm[name] - weight).abs().max() for name, weight in before.items())
    assert change > 1e-3
    # one step of reinforcement learning at TRL's rate of 1e-6 is far less than the two before
    assert max((after[name] - weight).abs().max() for name, weight in warm.items()) < 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_greedy": True}, "`eval_greedy` is set, but there are no held-out prompts"),
        ({"eval_temperature": 0.5}, "`eval_temperature` is set, but there are no held-out prompts"),
        ({"eval_temperature": -1}, r"`eval_temperature` must be 0 \(greedy\) or a positive number, got -1"),
        ({"eval_temperature": 0.0}, "all 8 completions of a prompt would be the same greedy one"),
    ],
)
def test_measurements_that_cannot_be_are_refused_before_a_model_loads(settings, message):
    module = script_of("train_maze")
    with pytest.raises(ValueError, match=message):
        script_args = module.MazeScriptArguments(sizes=[5], mazes_per_size=2, **settings)
        module.main(script_args, RLVRConfig("run", use_cpu=True, bf16=False), ModelConfig("no-such-model"))


def test_published_mazes_are_trained_on_whole(tmp_path):
    """With their own prompts; settings of drawn mazes have no effect on them, and are refused."""
    drawn = make_maze_dataset(3, size=5, walls="lattice", border=True, max_path_length=None, prompt_style="paper")
    path = tmp_path / "mazes.jsonl"
    rows = [{"prompt": row["prompt"], "reward_model": {"ground_truth": row["maze"]}} for row in drawn]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = script_of("train_maze")
    assert module.published_mazes(module.MazeScriptArguments(published_mazes=str(path)))[:] == drawn[:]
    with pytest.raises(ValueError, match="`sizes` is for drawn mazes and has no effect on `published_mazes`"):
        module.published_mazes(module.MazeScriptArguments(published_mazes=str(path), sizes=[7]))


def test_mazes_are_new_and_of_the_sizes_asked_for():
    module = script_of("train_maze")
    script_args = module.MazeScriptArguments(sizes=[7, 9])
    held_out = module.make_mazes(script_args, 5, 1, None)
    mazes = module.make_mazes(script_args, 20, 0, held_out)
    assert sorted(mazes["size"]) == [7] * 20 + [9] * 20
    assert not set(mazes["maze"]) & set(held_out["maze"])


def test_pass_at_k_then_pass_at_1_and_push(small, tmp_path):
    local = tmp_path / "then"
    arguments = ["--k_schedule", '{"0": 2, "0.5": 1}', "--output_dir", str(local), "--push_to_hub", "true"]
    with running_hub(tmp_path / "hub") as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_none"}
        env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "home")}
        output = run(EXAMPLES / "pass_at_k_then_pass_at_1.py", *small, *arguments, env=environment() | env)
    assert f"Model saved to {local}." in output and output.count("'loss'") == 2
    assert f"Model pushed to https://huggingface.co/{OWNER}/then." in output
    pushed = tmp_path / "hub" / OWNER / "then"
    assert (pushed / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
    assert "PassAtK" in (pushed / "README.md").read_text()


def test_evaluate_compares_models(text, tmp_path):
    model, problems = text
    other = shutil.copytree(model, tmp_path / "other")
    arguments = ["--models", model, str(other), "--output_dir", str(tmp_path / "runs"), "--num_samples", "4"]
    arguments += ["--max_new_tokens", "2", "--benchmark", "math500", "--benchmark_path", problems]
    output = run(EXAMPLES / "evaluate.py", *arguments)
    assert f"{model}: pass@1 " in output and "\n  pass@4 +0.000 [-0." in output  # they are the same
    assert (tmp_path / "runs" / "pass_at_k.png").stat().st_size > 1000
    assert run(EXAMPLES / "evaluate.py", *arguments) == output


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel installs, built from what git would give to another machine."""
    folder = tmp_path_factory.mktemp("wheel")
    sources, site = folder / "sources", folder / "site"
    for part in ("rlvr_trl", "examples", "benchmarks/results/comparison"):
        shutil.copytree(ROOT / part, sources / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", folder, sources], check=True)
    (wheel,) = folder.glob("rlvr_trl-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", site, wheel], check=True)
    return site


@needs_setuptools
def test_custom_advantage_against_the_installed_wheel(installed, tmp_path):
    source = (EXAMPLES / "custom_advantage.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60 and source.count("steps=300") == 1
    script = tmp_path / "custom_advantage.py"
    script.write_text(source.replace("steps=300", "steps=10"), encoding="utf-8")  # of the warm-up, to save time
    env = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-c", "import rlvr_trl; print(rlvr_trl.__file__)"]
    found = subprocess.run(where, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(installed)
    output = run(script, "--max_steps", "2", "--logging_steps", "1", "--output_dir", "run", env=env, cwd=tmp_path)
    assert "step 1: " in output and "step 2: " in output and "Model saved to run." in output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "qwen2"


@needs_setuptools
def test_the_wheel_has_the_recipes_and_their_scripts(installed):
    here = {path.relative_to(EXAMPLES) for path in EXAMPLES.glob("recipes/*/*.yaml")}
    here |= {Path(f"{name}.py") for name in SCRIPTS}
    folder = installed / "rlvr_trl" / "examples"
    assert {path.relative_to(folder) for kind in ("py", "yaml") for path in folder.rglob(f"*.{kind}")} == here


@needs_setuptools
def test_the_wheel_has_the_published_cells_and_their_base_models(installed, tmp_path):
    here, there = (folder / "benchmarks/results/comparison" for folder in (ROOT, installed / "rlvr_trl"))
    published = {path for pattern in ("*.jsonl", "bases/*.safetensors", "bases/*.json") for path in here.glob(pattern)}
    assert {path.relative_to(here) for path in published} == {
        path.relative_to(there) for path in there.rglob("*") if path.is_file()
    }
    code = "from rlvr_trl.testbed.bench import *; print(published_folder(), len(Published(published_folder()).bases))"
    env = environment() | {"PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    folder, tasks = found.stdout.split()
    assert Path(folder) == there and int(tasks) >= 1


@needs_setuptools
def test_an_installed_recipe_on_two_processes(installed, text, small, tmp_path):
    """`accelerate launch -m rlvr_trl train --recipe …`, with a reward of the user's own, in the current folder."""
    names = [name[2:] for name in small[::2]]
    changes = [f"{name}={value}" for name, value in zip(names, small[1::2], strict=True) if name != "dataset_path"]
    changes += [
        "num_generations=8",
        "prompts_per_batch=4",
        "output_dir=run",
        f"dataset_path={text[1]}",
        f"eval_path={text[1]}",
    ]
    (tmp_path / "my_rewards.py").write_text(
        "def says_one(completions, **kwargs):\n"
        "    return [float('1' in completion[-1]['content']) for completion in completions]\n"
    )
    changes += ["reward_funcs=[math_reward, my_rewards.says_one]"]
    config = tmp_path / "accelerate.yaml"
    settings = (ROOT / "accelerate_configs" / "multi_gpu.yaml").read_text()
    config.write_text(settings.replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    launcher = ["-m", "accelerate.commands.launch", f"--config_file={config}", "--num_processes=2"]
    launcher += [f"--main_process_port={free_port()}", "-m", "rlvr_trl"]
    command = [sys.executable, *launcher, "train", "--recipe", "dars/1.5b_dars_hw", *changes]
    env = environment() | {"PYTHONPATH": str(installed)}
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    assert "Batch: 4 prompts x 8 generations = 32 completions on 2 processes, 16 each" in result.stdout
    assert "'rewards/says_one/mean'" in result.stdout and "Model saved to run." in result.stdout
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_an_error_of_training_is_shown_with_its_trace(small, tmp_path):
    (tmp_path / "my_rewards.py").write_text(
        "def fails(completions, **kwargs):\n    raise ValueError('in the reward')\n"
    )
    (tmp_path / "own.yaml").write_text("script: train_math\nreward_funcs: my_rewards.fails\n")
    changes = [f"{name[2:]}={value}" for name, value in zip(small[::2], small[1::2], strict=True)]
    command = [sys.executable, "-m", "rlvr_trl", "train", "--config", "own.yaml", *changes, "output_dir=run"]
    result = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode != 0 and "Traceback" in result.stderr and "in fails" in result.stderr


def test_a_reward_model_and_a_dataset_of_ones_own(small, text, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(text[0], num_labels=1)
    model.save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(text[0]).save_pretrained(tmp_path / "judge")
    own = tmp_path / "own.csv"
    own.write_text("prompt,answer,level\n" + "".join(f"{i}?,{1 + i % 2},007\n" for i in range(8)))
    arguments = [own if argument == text[1] else argument for argument in small]
    arguments[arguments.index("--dataset_path")] = "--dataset_name"
    module = script_of("train_math")
    more = ["--reward_model_name_or_path", tmp_path / "judge", "--output_dir", tmp_path / "run", "--max_steps", "1"]
    trainer = module.main(*module.make_parser().parse_args_and_config([*map(str, [*arguments, *more])]))
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"rewards/judge/mean", "rewards/math_reward/mean"} <= logged.keys()
    assert trainer.reward_func_names == ["judge", "math_reward"] and trainer.args.correctness_reward == "math_reward"
    assert trainer.train_dataset["level"][:] == ["007"] * 8


def test_no_reward_and_the_settings_of_another_script(small, tmp_path):
    module = script_of("train_math")
    (tmp_path / "own.yaml").write_text("reward_funcs:\n")
    parsed = module.make_parser().parse_args_and_config([*small, "--config", str(tmp_path / "own.yaml")])
    with pytest.raises(ValueError, match="`reward_funcs` is empty"):
        module.main(*parsed)
    with pytest.raises(ValueError, match="for the script 'train_maze', and this is 'train_math'"):
        module.make_parser().parse_args_and_config(["--config", str(EXAMPLES / "recipes/pass_at_k/pass_at_8.yaml")])
