"""The parser of training scripts: what it takes beyond TRL's, and what it says to what is wrong."""

import json
import os
from dataclasses import dataclass, field

import pytest
import yaml
from trl import ModelConfig, TrlParser

from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import PassAtK
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import SourceScriptArguments, build_reward


TYPES = (SourceScriptArguments, RLVRConfig, ModelConfig)
ON_CPU = ["--use_cpu", "true", "--bf16", "false", "--output_dir", "out"]


@dataclass
class Sizes:
    sizes: list[int] = field(default_factory=lambda: [9])
    rates: list[float] | None = None
    words: list[str] | None = None
    name: str | None = None
    share: float = 0.5
    count: int = 1
    flag: bool = False


def parse(*arguments: str, types=TYPES):
    return ScriptParser(types, "train_math").parse_args_and_config([*ON_CPU, *arguments])


def sizes(text: str, *arguments: str) -> dict:
    (parsed,) = ScriptParser((Sizes,)).parse_settings(yaml.safe_load(text) or {}, arguments)
    return vars(parsed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sizes: 5", {"sizes": [5]}),
        ("sizes: '5'", {"sizes": [5]}),
        ("sizes: [5, '7']", {"sizes": [5, 7]}),
        ("rates: 1e-1", {"rates": [0.1]}),
        ("rates: [1, 1e-6]", {"rates": [1.0, 1e-6]}),
        ("words: one", {"words": ["one"]}),
        ("words: {name: one}", {"words": [{"name": "one"}]}),
        ("words:", {"words": None}),
        ("name: 007", {"name": "7"}),  # as yaml.safe_load reads it
        ("share: 1", {"share": 1.0}),
        ("flag: yes", {"flag": True}),
    ],
)
def test_single_values_and_types(text, expected):
    assert sizes(text) == vars(Sizes()) | expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sizes", "5", "7"], [5, 7]),
        (["--sizes", "[5, 7]"], [5, 7]),
        (["--sizes", "[5]", "7", "--count", "2"], [5, 7]),
        (["--words", "[one, {name: two, x: 1}]"], ["one", '{"name": "two", "x": 1}']),
        (["--words", "no", "[no]"], ["no", "no"]),
    ],
)
def test_lists_on_the_command_line(arguments, expected):
    assert sizes("", *arguments)[arguments[0][2:]] == expected


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"lerning_rate": 1}, [], "Unknown setting 'lerning_rate'. Did you mean 'learning_rate'"),
        ({"rewards_func": "math_reward"}, [], "Unknown setting 'rewards_func'. Did you mean 'reward_funcs'"),
        ({"zzzzzz": 1}, [], "Unknown setting 'zzzzzz'.$"),
        ({"ä": 1}, [], "Unknown setting 'ä'"),
        ({}, ["--lerning_rate", "1"], "Unknown argument '--lerning_rate'. Did you mean '--learning_rate'"),
        ({}, ["--dataset_split", "x"], "Unknown argument '--dataset_split'. Did you mean"),
        ({}, ["stray"], "Unknown argument 'stray'"),
        ({}, ["--max_steps", "many"], "Argument --max_steps.*: invalid int value: 'many'"),
        ({"max_steps": "many"}, [], "Argument --max_steps.*: invalid int value: 'many'"),
        ({"max_steps": 2.5}, [], "Argument --max_steps.*: invalid int value: '2.5'"),
        ({"use_vllm": "perhaps"}, [], "Truthy value expected: got perhaps"),
        ({"advantages": "pass_at_q"}, [], "Unknown advantage estimator 'pass_at_q'. Did you mean 'pass_at_k'"),
        ({"advantages": {"name": "pass_at_k", "K": 2}}, [], "no field 'K'. Did you mean 'k'"),
        ({"advantages": ["pass_at_k"]}, [], "must be a name or a dict"),
        ({"rollouts": "dras"}, [], "Unknown rollout allocator 'dras'. Did you mean 'dars'"),
        ({}, ["--rollouts", "{name: dars"], "`rollouts`='{name: dars' is neither YAML nor JSON"),
        (
            {"script": "train_maze"},
            [],
            "for the script 'train_maze', and this is 'train_math'. Run examples/train_maze",
        ),
    ],
)
def test_what_is_wrong_is_said(settings, arguments, message):
    with pytest.raises(ValueError, match=message):
        ScriptParser(TYPES, "train_math").parse_settings(settings, [*ON_CPU, *arguments])


def test_the_file_of_settings(tmp_path, monkeypatch):
    config = tmp_path / "own.yaml"
    config.write_text(
        "script: train_math\nreward_funcs: math_reward\nsave_strategy: no\nlearning_rate: 1e-5\nmax_steps: 3"
    )
    for given in (["--config", str(config)], [f"--config={config}"]):
        script_args, args, _ = parse(*given, "--max_steps", "4")
        assert script_args.reward_funcs == ["math_reward"] and (args.learning_rate, args.max_steps) == (1e-5, 4)
        assert args.save_strategy == "no"
    for wrong, message in (("- a", "holds a list"), ("", "holds nothing"), ("a: [", "is neither YAML nor JSON")):
        config.write_text(wrong)
        with pytest.raises(ValueError, match=f"--config .*own.yaml.*{message}"):
            parse("--config", str(config))
    with pytest.raises(ValueError, match="--config is 'nothing.yaml', but there is no such file"):
        parse("--config", "nothing.yaml")
    with pytest.raises(ValueError, match="--config needs the path"):
        parse("--config")
    monkeypatch.delenv("A_VARIABLE", raising=False)
    config.write_text("env: {A_VARIABLE: 7}")
    parse("--config", str(config))
    assert os.environ.pop("A_VARIABLE") == "7"


def test_methods_and_rewards_as_yaml_and_json():
    for text in ("{name: pass_at_k, k: 4}", json.dumps({"name": "pass_at_k", "k": 4})):
        script_args, args, _ = parse(
            *["--advantages", text, "--reward_funcs", "{name: noisy_reward, reward_func: maze_reward, share: 0.3}"],
            *["[accuracy_reward, think_format_reward]", "get_soft_overlong_punishment"],
        )
        assert args.build_advantages() == PassAtK(4)
        names = [getattr(reward, "__name__", None) for reward in map(build_reward, script_args.reward_funcs)]
        assert names[:3] == ["maze_reward_noisy", "accuracy_reward", "think_format_reward"] and len(names) == 4


def test_what_trl_parses_is_parsed_to_the_same(tmp_path):
    """A file of every kind of setting, read by both."""
    config = tmp_path / "own.yaml"
    settings = {"learning_rate": 5e-7, "num_generations": 4, "max_steps": 7, "warmup_steps": 10, "save_steps": 3}
    settings |= {"loss_type": "dapo", "scale_rewards": "none", "use_vllm": False, "logging_steps": 1, "seed": 5}
    settings |= {"reward_weights": [0.5, 1.0], "report_to": ["tensorboard"], "generation_kwargs": {"top_k": 3}}
    settings |= {"epsilon_high": 0.28, "beta": 0.0, "lr_scheduler_type": "constant", "reward_funcs": ["math_reward"]}
    config.write_text(yaml.safe_dump(settings))
    ours, theirs = (
        [vars(one) for one in parser.parse_args_and_config([*ON_CPU, "--config", str(config), "--top_p", "0.9"])]
        for parser in (ScriptParser(TYPES), TrlParser(TYPES))
    )
    for one, other in zip(ours, theirs, strict=True):
        same = {name for name in one if name not in ("distributed_state", "logging_dir")}
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
