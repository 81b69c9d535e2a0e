"""Shell commands of the texts: each is parsed by the program that it calls, and run where that takes a moment."""

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from launching import environment
from packaging.requirements import Requirement
from reader import Reader, check_signal
from snippets import ELLIPSIS, ROOT, Snippet, parts_of
from torch.distributed.run import get_args_parser
from trl import TrlParser

import rlvr_trl.cli
from rlvr_trl import RLVRConfig


ON_CPU = ["--use_cpu", "true", "--bf16", "false", "--gradient_checkpointing", "false", "--report_to", "none"]
ON_CPU_SETTINGS = [f"{option[2:]}={value}" for option, value in zip(ON_CPU[::2], ON_CPU[1::2], strict=True)]
# Longest and most, where a command is run; what comes later on a command line counts
SMALL = {
    "eval": ["--num-samples", "4", "--max-new-tokens", "2"],
    "evaluate.py": ["--num_samples", "4", "--max_new_tokens", "2", "--engine", "transformers"],
    "training": ["--max_steps", "1", "--max_completion_length", "2", "--use_vllm", "false", "--save_strategy", "no"],
}
RUN = ("compare", "eval", "plot", "recipes", "score")  # commands of rlvr-trl that take a moment; others are parsed


class Parsed(BaseException):
    """Ends a script when its arguments are parsed; no `except Exception` in a script stops it."""


class Shell:
    """
    A shell in the folder of a reader.

    `…` stands for what the command before has in its place, or for nothing where there is none.
    """

    def __init__(self, reader: Reader, monkeypatch: pytest.MonkeyPatch):
        self.reader, self.monkeypatch = reader, monkeypatch
        self.before: list[str] = []  # the last command, without a launcher

    def run(self, command: Snippet) -> None:
        """Runs or parses each program of a command line. Running text may only name it: "`rlvr-trl eval` writes…"."""
        for words in parts_of(command.text):
            if words[0] in ELLIPSIS:
                words = [*self.before, *words[1:]]
            if words[:2] == ["accelerate", "launch"]:
                words = self.launched(words[2:])
            elif words[0].endswith(("python", "python3")):
                words = self.python(words[1:])
            words = self.filled_in(words)
            if words:
                self.before = words
                self.program(words, is_name=command.kind == "command")

    def filled_in(self, words: list[str]) -> list[str]:
        for place, word in enumerate(words):
            if word in ELLIPSIS:
                same = words[:place] == self.before[:place]
                return words[:place] + (self.before[place:] if same else []) + words[place + 1 :]
        return words

    def program(self, words: list[str], is_name: bool) -> None:
        name, arguments = words[0], words[1:]
        if name.endswith(".py"):
            self.script(name, arguments)
        elif name == "rlvr-trl":
            self.rlvr_trl(arguments, is_name)
        else:
            programs: dict[str, Callable[[list[str]], Any]] = {
                "hf": self.hf,
                "make": self.make,
                "pip": pip,
                "pre-commit": lambda words: None,
                "pytest": pytest_options,
                "sbatch": self.sbatch,
                "trl": lambda words: importlib.import_module(f"trl.scripts.{words[0].replace('-', '_')}"),
                "torchrun": lambda words: get_args_parser().parse_args([*words, "script.py"]),
            }
            assert name in programs, f"nothing here parses {name!r}"
            programs[name](arguments)

    # --- launchers: what they start ---

    def launched(self, options: list[str]) -> list[str]:
        if options[0] in ELLIPSIS:
            return [*self.before, *options[1:]]
        has_script = any(word.endswith(".py") for word in options) or "-m" in options
        args = launch_command_parser().parse_args(options if has_script else [*options, "script"])
        if args.config_file is not None:
            assert load_config_from_file(str(self.reader.folder / args.config_file)).num_processes > 0
        if not has_script:
            return []
        rest = args.training_script_args
        return self.module(args.training_script, rest) if args.module else [args.training_script, *rest]

    def python(self, words: list[str]) -> list[str]:
        return self.module(words[1], words[2:]) if words[0] == "-m" else words

    def module(self, name: str, arguments: list[str]) -> list[str]:
        if name in ("rlvr_trl", "rlvr_trl.cli"):
            return ["rlvr-trl", *arguments]
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"there is no module {name}"
        if name == "pytest":
            return [name, *arguments]
        assert not arguments and "__main__" in Path(spec.origin).read_text(encoding="utf-8")
        return []

    # --- programs ---

    def rlvr_trl(self, arguments: list[str], is_name: bool) -> None:
        if is_name and not any(word.startswith("-") for word in arguments):
            arguments = [*arguments, "--help"]
        try:
            args = rlvr_trl.cli._parser().parse_args(arguments)
        except SystemExit as end:
            if end.code != 0:  # not help or the version
                raise
            return
        command = arguments[0] if arguments else ""
        if command == "train":
            words = [word for word in arguments if word != "--dry-run"]
            changed = [place for place, word in enumerate(words) if "=" in word and not word.startswith("-")]
            place = changed[-1] + 1 if changed else len(words)  # changes stand side by side
            assert rlvr_trl.cli.main([*words[:place], *ON_CPU_SETTINGS, *words[place:], "--dry-run"]) == 0
        if command == "eval":
            self.reader.provide_model(args.model)
            for benchmark in args.benchmarks:
                self.reader.provide(benchmark.partition("=")[2] or ".")
        for run in [args.run_dir] if command == "score" else []:
            self.reader.provide_run(run)
        for run in [args.reference, *args.runs] if command == "compare" else []:
            self.reader.provide_run(run)
        if command in RUN:
            assert rlvr_trl.cli.main([*arguments, *SMALL.get(command, [])]) == 0

    def script(self, path: str, arguments: list[str]) -> None:
        """
        Has a script parse its arguments, with a CPU instead of a GPU.

        `SMALL` names what is run as well, and a training without a recipe; `tests/test_recipes.py` trains the recipes.
        """
        assert (ROOT / path).is_file(), f"there is no {path}"
        for option in ("--models", "--model_name_or_path"):
            given = arguments[arguments.index(option) + 1 :] if option in arguments else []
            for name in itertools.takewhile(lambda word: not word.startswith("-"), given):
                self.reader.provide_model(name)
        small = SMALL.get(Path(path).name)
        with self.monkeypatch.context() as patch, contextlib.suppress(Parsed):
            patch.syspath_prepend(str((ROOT / path).parent))
            patch.setattr(sys, "argv", [path, *arguments, *(small or [])])
            if small is None:
                _end_when_parsed(patch)
            names = runpy.run_path(path, run_name="__main__" if "make_parser" not in _source(path) else path)
            if "make_parser" in names and "--help" not in arguments:
                self.training(names["make_parser"], names["main"], arguments)

    def training(self, make_parser: Callable[[], TrlParser], main: Callable[..., Any], arguments: list[str]) -> None:
        configs = make_parser().parse_args_and_config([*arguments, *ON_CPU])
        (config,) = (config for config in configs if isinstance(config, RLVRConfig))
        check_signal(config, config.build_advantages())
        if "--config" in arguments or "--dataset_name" not in arguments:
            return
        few = [f"--{name}=2" for name in ("prompts_per_batch", "prompts_per_update") if getattr(config, name, None)]
        main(*make_parser().parse_args_and_config([*arguments, *ON_CPU, *SMALL["training"], *few]))

    def make(self, words: list[str]) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words:
            name, _, value = word.partition("=")
            if name == "ARGS":
                recipe = re.search(rf"^{words[0]}:.*\n\t(.+?) \$\(ARGS\)$", makefile, re.MULTILINE)
                assert recipe, f"make {words[0]} takes no ARGS"
                program = recipe[1].replace("$(VENV)/bin/", "").replace("$(PYTEST)", "python -m pytest")
                self.run(Snippet(ROOT / "Makefile", 1, "bash", f"{program} {value}"))
            elif value:
                assert re.search(rf"^{name} \?=", makefile, re.MULTILINE), f"the Makefile has no variable {name}"
            else:
                assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"the Makefile has no target {name}"

    def hf(self, words: list[str]) -> None:
        """Runs the Hub's own command line without a network: it gets beyond its arguments, and no further."""
        for word in words:
            self.reader.provide(word)
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", *words]
        env = environment() | {"HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", errors="replace")
        assert ended.returncode == 1 and "offline mode" in ended.stderr, ended.stderr  # 2 for wrong arguments

    def sbatch(self, words: list[str]) -> None:
        place = next(i for i, word in enumerate(words) if word.endswith(".sh"))
        job = (ROOT / words[place]).read_text(encoding="utf-8")
        script = re.search(r"^SCRIPT=\$\{SCRIPT:-(.+)\}$", job, re.MULTILINE)
        self.script(script[1], ["--model_name_or_path", "model", *words[place + 1 :]])


def _source(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _end_when_parsed(patch: pytest.MonkeyPatch) -> None:
    """Ends scripts when their parser, argparse's or TRL's, has read the arguments without an error."""
    parse_args, parse_all = argparse.ArgumentParser.parse_args, TrlParser.parse_args_and_config

    def end_after(parse, added):
        def parse_and_end(parser, *_):
            parse(parser, [*sys.argv[1:], *added])
            raise Parsed

        return parse_and_end

    patch.setattr(argparse.ArgumentParser, "parse_args", end_after(parse_args, []))
    patch.setattr(TrlParser, "parse_args_and_config", end_after(parse_all, ON_CPU))


def pytest_options(words: list[str]) -> None:
    """The files that a call of pytest names; its options are known to a running pytest only."""
    for word in words:
        assert not word.endswith(".py") or (ROOT / word).is_file(), f"there is no {word}"


def pip(words: list[str]) -> None:
    """What `pip install` names is in a clone, or one of the libraries that this project asks for itself."""
    assert words[0] in ("install", "freeze", "check"), f"pip has no command {words[0]}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    libraries = {Requirement(text).name for text in itertools.chain(project["dependencies"], *extras.values())}
    for word in words[1:]:
        clone = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", word)
        if clone:
            unknown = set((clone[1] or "").split(",")) - {"", *extras}
            assert not unknown, f"pyproject.toml has no extra {unknown}"
        elif not word.startswith("-"):
            name = Requirement(word).name
            assert name != project["name"], f"{name} is on no index, and its name there is anyone's"
            assert name in (*libraries, "pre-commit", "trackio", "wandb"), (
                f"{name} is no library that this project asks for"
            )
