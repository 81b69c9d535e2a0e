"""
What a reader of the pages has at hand, at a tiny size: a folder in which programs of the pages run.

Ids of the Hub are folders there, which `from_pretrained` and `load_dataset` read like a repository. All models are one
tiny model that was never trained and says answers; datasets have a few rows in the columns of those published. A
program keeps its settings but for those of size (lengths, steps, prompts, samples) and of the device.
"""

import ast
import json
import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import trl
import yaml
from datasets import Dataset
from published import CHOICES, PUBLISHED
from snippets import ROOT, Snippet
from tiny_text_model import ANSWERS, save_text_model
from tiny_training import ON_CPU
from transformers import AutoTokenizer, Qwen2ForCausalLM

import rlvr_trl.cli
import rlvr_trl.trainer
from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import Scheduled
from rlvr_trl.analysis import advantage_curves
from rlvr_trl.data import SOURCES, load_benchmark, make_maze_dataset
from rlvr_trl.data.maze import PUBLISHED_MAZES
from rlvr_trl.rewards import boxed_format_reward, math_reward, maze_reward


MODEL = "Qwen/Qwen2.5-0.5B"
LARGEST = {  # settings of size, and the largest value that is kept
    "max_completion_length": 12,
    "max_new_tokens": 2,
    "max_steps": 4,
    "num_mazes": 20,
    "num_samples": 16,
    "prompts_per_batch": 2,
    "prompts_per_update": 2,
}


def save_guessing_model(folder: Path) -> str:
    """Writes a model of which nearly every token is one of `ANSWERS` or the end, so that groups are mixed."""
    tokenizer = AutoTokenizer.from_pretrained(save_text_model(folder))
    model = Qwen2ForCausalLM.from_pretrained(folder)
    likely = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(ANSWERS)]
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 10  # large in every token, so that it stays positive in every last state
        head = embeddings.clone()
        head[:, 0] = 0
        head[likely, 0] = 3
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    return str(folder)


def math_rows() -> list[dict[str, Any]]:
    """Problems in most of the columns that sources of mathematics have."""
    columns = ("problem", "answer", "solution", "generations")
    answers = [str(1 + i % 2) for i in range(16)]
    rows = [(f"{i + 1 + i % 2} - {i}?", a, rf"$\boxed{{{a}}}$", [rf"\boxed{{{a}}}"]) for i, a in enumerate(answers)]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def chat_rows() -> list[dict[str, Any]]:
    """The same in the columns of DeepMath-103K, of which TRL's first example is made."""
    return [
        {"prompt": [{"role": "user", "content": row["problem"]}], "solution": row["solution"]} for row in math_rows()
    ]


def rows_of(source: str) -> list[dict[str, Any]]:
    """Rows of a source, in its own columns where a problem and an answer are not enough."""
    if source == "math":  # in which two answers are missing
        rows = [{"problem": row["problem"], "solution": row["solution"]} for row in math_rows()]
        return [*rows, {"problem": "Which?", "solution": r"There is none: $\boxed{}$"}]
    if all({"problem", "answer", "solution"} & set(names.split("|")) for names in SOURCES[source].columns):
        return math_rows()
    if source in CHOICES:
        return CHOICES[source][0]
    return next((rows for (name, _), (rows, _) in PUBLISHED.items() if name == source), [])


def write_dataset(folder: Path, rows: list[dict[str, Any]], split: str, configs: tuple[str, ...]) -> None:
    """Writes a dataset as a repository of the Hub holds it, with the same rows in each configuration."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = [{"split": split, "path": "rows.jsonl"}]
    described = {"configs": [{"config_name": name, "data_files": files} for name in configs or ("default",)]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(described)}---\n", encoding="utf-8")


def write_published(folder: Path) -> None:
    """Writes all sources but those with images, mazes, and the dataset of TRL's first example."""
    write_dataset(folder / "trl-lib/DeepMath-103K", chat_rows(), "train", ())
    mazes = make_maze_dataset(4, size=[7, 9], walls="lattice", border=True, max_path_length=None, prompt_style="paper")
    mazes = [{"prompt": row["prompt"], "reward_model": {"ground_truth": row["maze"]}} for row in mazes]
    write_dataset(folder / PUBLISHED_MAZES, mazes, "train", ())
    for name, source in SOURCES.items():
        if rows := rows_of(name):
            write_dataset(folder / source.hub, rows, source.split, source.configs)


class Reader:
    """
    A reader at work in a folder, where the scripts of the repository are as well.

    Args:
        folder (`Path`): an empty folder, which is the working directory as well.
        shared (`Path`): what [`prepare`] has made.
    """

    def __init__(self, folder: Path, shared: Path):
        self.folder, self.shared = folder, shared
        for path in (ROOT / name for name in ("accelerate_configs", "benchmarks", "examples", "tests")):
            (folder / path.name).symlink_to(path)
        (folder / "my_module.py").write_text(
            "from rlvr_trl.rewards import math_reward as my_reward\n", encoding="utf-8"
        )
        for path in shared.glob("hub/*"):
            shutil.copytree(path, folder / path.name)
        self.trainers: list[Any] = []

    @staticmethod
    def prepare(shared: Path) -> None:
        """Makes the model, the datasets and a run of `rlvr-trl eval`."""
        save_guessing_model(shared / "model")
        write_published(shared / "hub")
        options = ["--num-samples", "4", "--max-new-tokens", "2", "--output-dir", str(shared / "run")]
        problems = shared / "hub" / SOURCES["math500"].hub
        assert rlvr_trl.cli.main(["eval", str(shared / "model"), "--benchmarks", f"math500={problems}", *options]) == 0

    @cached_property
    def names(self) -> dict[str, Any]:
        """Names that programs use and do not define: the reader has a model, a tokenizer, problems and a reward."""
        model, tokenizer = str(self.shared / "model"), AutoTokenizer.from_pretrained(self.shared / "model")
        problems = load_benchmark("math500", self.shared / "hub" / SOURCES["math500"].hub)
        problems = problems.add_column("maze", ["S.\n*E"] * len(problems))  # so that every reward has what it needs
        return {
            "__name__": "__main__",
            "model": Qwen2ForCausalLM.from_pretrained(model),
            "tokenizer": tokenizer,
            "dataset": problems,
            "test_set": problems.select(range(4)),
            "reward_func": math_reward,
            "math_reward": math_reward,
            "maze_reward": maze_reward,
            "boxed_format_reward": boxed_format_reward,
            "GRPOTrainer": trl.GRPOTrainer,
            **{name: getattr(rlvr_trl, name) for name in ("PassAtKCallback", "RLVRConfig", "RLVRTrainer")},
            "_call": self.call,
        }

    # --- what a program names ---

    def provide(self, word: str) -> None:
        """Makes the file or folder that a program names, if it is one of those that a reader brings."""
        path = self.folder / word
        if path.exists() or word.startswith(("/", ".")):
            return
        if path.suffix in (".parquet", ".jsonl"):
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = Dataset.from_list(math_rows())
            rows.to_parquet(str(path)) if path.suffix == ".parquet" else rows.to_json(str(path))
        elif path.name == "results.json":
            shutil.copytree(self.shared / "run", path.parent)
        elif path.is_relative_to(output := self.folder / "output_dir"):  # of a training
            shutil.copytree(self.shared / "model", path, dirs_exist_ok=True)
            (output / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# A model\n", encoding="utf-8")

    def provide_for(self, program: str) -> None:
        """Makes what the strings of a Python program name: files and, in the form `Owner/name`, models of the Hub."""
        for word in re.findall(r"""["']([\w./-]+)["']""", program):
            self.provide(word)
            if re.fullmatch(r"[A-Z][\w-]*/[\w.-]+", word):
                self.provide_model(word)

    def provide_settings(self, text: str) -> None:
        """Writes the first YAML of a page to the file that its programs read, with settings for a CPU."""
        path = self.folder / "run.yaml"
        if not path.exists():
            path.write_text(f"{text}\n{yaml.safe_dump(ON_CPU)}", encoding="utf-8")

    def provide_model(self, name: str) -> None:
        """Makes the folder or Hub id of a model."""
        if not (self.folder / name).exists():
            shutil.copytree(self.shared / "model", self.folder / name)

    def provide_run(self, name: str) -> None:
        """Makes the folder of a run of `rlvr-trl eval`."""
        if not (self.folder / name).exists():
            shutil.copytree(self.shared / "run", self.folder / name)

    # --- Python ---

    def run(self, program: Snippet, names: dict[str, Any] | None = None) -> None:
        """
        Runs a Python program as it stands but for sizes and device. A trainer that it makes trains at least once.

        Args:
            names (`dict`, *optional*): what the program knows besides what programs before it have defined.
        """
        self.provide_for(program.text)
        made = len(self.trainers)
        text = "\n" * (program.line - 1) + program.text  # so that errors name the line of the page
        tree = ast.fix_missing_locations(_Calls().visit(ast.parse(text)))
        exec(compile(tree, str(program.path), "exec"), self.names if names is None else names | self.names)
        for trainer in self.trainers[made:]:
            self.check_trained(trainer)

    def made_small(self, source: str) -> str:
        """A statement of a session in a docstring, as [`run`] runs it."""
        return ast.unparse(ast.fix_missing_locations(_Calls().visit(ast.parse(source)))) + "\n"

    def call(self, function, *args, **kwargs):
        """What a program calls that has sizes, a device, or arguments that the page leaves out (`...`)."""
        name = function.__name__
        given = [value for value in args if value is not ...]
        if name.endswith("Config"):
            return self.config(function, *(given or ["run"]), **kwargs)
        if name.endswith("Trainer"):
            return self.trainer(function, *given, left_out=... in args, **kwargs)
        if name == "evaluate" and ... in args:
            given = [self.names[key] for key in ("model", "tokenizer", "train", "reward_func")]
            kwargs |= {"num_samples": 4, "max_new_tokens": 2}
        if name == "make_maze_dataset":
            given = [min(given[0], LARGEST["num_mazes"]), *given[1:]]
        return function(*given, **smaller(kwargs))

    def config(self, config_class, *args, **settings):
        """The configuration that a program states, at a small size; it must also be one as it is stated."""
        stated = config_class(*args, **settings | ON_CPU)
        if isinstance(stated, RLVRConfig):
            check_signal(stated, stated.build_advantages())
        here = {"max_steps": 1, "max_completion_length": 4} | smaller(settings) | ON_CPU
        if "save_steps" not in settings:
            here["save_strategy"] = "no"
        return config_class(*args, **here | ({"use_vllm": False} if "use_vllm" in settings else {}))

    def trainer(self, trainer_class, *args, left_out=False, **kwargs):
        """The trainer that a program makes, with what the page leaves out."""
        if left_out:
            kwargs = {"model": self.names["model"], "processing_class": self.names["tokenizer"]} | kwargs
            kwargs = {"reward_funcs": self.names["reward_func"], "train_dataset": self.names["dataset"]} | kwargs
            if getattr(kwargs.get("args"), "eval_strategy", "no") != "no":
                kwargs["eval_dataset"] = self.names["test_set"]
        if "args" not in kwargs:
            config_class = getattr(trainer_class, "_config_class", trl.GRPOConfig)
            kwargs["args"] = config_class("run", max_completion_length=2, max_steps=1, **ON_CPU)
        self.trainers.append(trainer_class(*args, **kwargs))
        return self.trainers[-1]

    def check_trained(self, trainer) -> None:
        """Trains a trainer that the program only makes; and what it trained on must have had a signal."""
        if trainer.state.global_step == 0:
            trainer.args.max_steps = 1
            trainer.train()
        assert trainer.state.global_step > 0
        if hasattr(trainer, "advantages"):
            check_signal(trainer.args, trainer.advantages)


class _Calls(ast.NodeTransformer):
    """Sends calls of trainers, configurations and what else has a size through [`Reader.call`]."""

    def visit_Call(self, node):
        self.generic_visit(node)
        name = getattr(node.func, "id", "")
        if name.endswith(("Trainer", "Config")) or name in ("evaluate", "make_maze_dataset"):
            function = ast.Name("_call", ast.Load())
            return ast.copy_location(ast.Call(function, [node.func, *node.args], node.keywords), node)
        return node


def smaller(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of size made small."""
    return {name: min(value, LARGEST[name]) if name in LARGEST else value for name, value in settings.items()}


def check_signal(config, estimator) -> None:
    """Raises if no group of `num_generations` would train anything, whatever its rewards."""
    stages = [stage for _, stage in estimator.stages] if isinstance(estimator, Scheduled) else [estimator]
    for stage in stages:
        assert advantage_curves(stage, config.num_generations).total.any(), (
            f"{stage} gives no completion of a group of num_generations={config.num_generations} an advantage"
        )


def config_of(text: str) -> RLVRConfig:
    """The configuration that a block describes: an RLVRConfig, or the class that its first line names."""
    named = re.match(r"# (\w+Config)\n", text)
    config_class = getattr(rlvr_trl.trainer, named[1]) if named else RLVRConfig
    return config_class("run", **yaml.safe_load(text) | ON_CPU)
