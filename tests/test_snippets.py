"""
Every program in the pages, docstrings, comments and messages, run by one harness on one process.

Python runs as it stands but for sizes and the device (`tests/reader.py`), a page from top to bottom, as a reader runs
it. YAML is the configuration that it shows. Of a diff, the program after the change runs. Shell commands are parsed by
the program that they call, and run where that takes a moment (`tests/shell.py`). What cannot be run is in `CANNOT`.
"""

import contextlib
import doctest
import importlib
import importlib.util
import io
import json
import re
import traceback
from collections.abc import Callable, Iterable
from unittest.mock import patch

import datasets
import pytest
import trl
from reader import Reader, check_signal, config_of
from shell import Shell
from snippets import (
    CODE,
    COMMENTED,
    PAGES,
    PROGRAMS,
    ROOT,
    Snippet,
    commands_in_blocks,
    commands_in_text,
    docstring_blocks,
    page_blocks,
)

from rlvr_trl.advantages import ESTIMATORS
from rlvr_trl.rollouts import ALLOCATORS


# Where a snippet's file and text are like this, it is not run, for this reason
CANNOT = {
    r": rlvr-trl COMMAND": "COMMAND stands for any command",
    r": accelerate launch --multi_gpu --num_processes N": "N stands for any number",
    r": accelerate launch … -m rlvr_trl train …": "… stands for any settings",
    r"(gpu|README)\.md: python benchmarks/gpu/report\.py": "needs results of a GPU",
    r": accelerate launch --num_processes$": "names an option",
    r": (python|accelerate launch .*) train\.py": "the reader's own script; the quickstart shows it, and that is run",
    r": trl vllm-serve": "goes with TRL 2.0; the page says so",
    r": VLLM_SERVER_DEV_MODE=1 vllm serve": "needs vLLM; tests/with_vllm starts it",
    r": pip install '?(\.\[)?…": "filled in with what is missing; test_trl_compat.py and test_math_reward.py read it",
    r": rlvr-trl eval my-model --base-url": "needs a server; tests/test_hostile_server.py has one",
    r"hub/push\.py.*: hf upload": "filled in with the run's own names; tests/test_hub.py reads it",
    r"comparison\.py --only NAME": "NAME stands for any row",
    r"recipes/pass_at_k/enigmata_": "needs a clone of Enigmata; test_recipes.py has a stand-in",
    r"EnigmataReward\(\"Enigmata\"\)": "needs a clone of Enigmata; test_enigmata.py has a stand-in",
    r"puzzles\.md: import asyncio": "needs verifiers, which is no dependency; the page says where it was run",
    r": hf (auth login|upload)$": "names a command",
    r"AsyncRLVRTrainer\(": "needs a vLLM server; test_async_trainer.py makes turns up in place of one",
}
if importlib.util.find_spec("reasoning_gym") is None:  # it is compiled in part
    CANNOT[r"reasoning_gym|countdown = |examples/train_puzzles"] = "needs the extra puzzles"
OUTPUT = "text"  # the language of blocks that show output, files or drawings


def reason(snippet: Snippet) -> str | None:
    described = f"{snippet.path.relative_to(ROOT)}: {snippet.text}"
    return next((why for pattern, why in CANNOT.items() if re.search(pattern, described)), None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    Reader.prepare(folder)
    return folder


@pytest.fixture
def reader(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(shared / "cache"))
    with patch.dict(ESTIMATORS), patch.dict(ALLOCATORS):  # a page adds its own
        yield Reader(tmp_path, shared)


def run_block(block: Snippet, reader: Reader) -> None:
    if block.kind == "python":
        reader.run(block)
    elif block.kind == "diff":
        lines = block.text.splitlines()
        before, after = ("".join(line[1:] + "\n" for line in lines if line[:1] in signs) for signs in (" -", " +"))
        assert all(line in trl.GRPOTrainer.__doc__ for line in before.splitlines())
        reader.run(block._replace(text=after))
    elif block.kind == "yaml":
        config = config_of(block.text)
        assert (config.build_rollouts() is None) == (config.rollouts is None)
        check_signal(config, config.build_advantages())
    elif block.kind == "json":
        json.loads(block.text)
    else:
        assert block.kind == OUTPUT, f"nothing runs {block.kind!r}"
        shown = re.findall(rf"^{PROGRAMS} .*", block.text, re.MULTILINE)
        assert not shown, f"a command in a block that is not of bash: {shown}"


def failures_of(snippets: Iterable[Snippet], run: Callable[[Snippet], None]) -> list[str]:
    """Runs what can be run, and returns place, first line and error of each snippet that fails."""
    failures = []
    for snippet in snippets:
        if reason(snippet) is not None:
            continue
        try:
            with contextlib.redirect_stderr(io.StringIO()) as told:
                run(snippet)
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            if isinstance(error, SystemExit) or not str(error):  # a command line says what is wrong and ends
                said = told.getvalue().strip().rpartition("\n")[2]
            lines = range(snippet.line, snippet.line + snippet.text.count("\n") + 1)
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.lineno in lines]
            line = next((f.lineno for f in frames if f.filename == str(snippet.path)), snippet.line)
            shown = snippet.text.splitlines()[line - snippet.line]
            failures.append(f"{snippet.path.relative_to(ROOT)}:{line}: {shown}\n    {said}")
    return failures


def check(failures: list[str]) -> None:
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, reader, monkeypatch):
    shell, blocks = Shell(reader, monkeypatch), page_blocks(page)
    for block in blocks:
        if block.kind == "yaml":
            reader.provide_settings(block.text)
    failures = []
    for block in blocks:
        if block.kind == "bash":
            failures += failures_of(commands_in_blocks([block]), shell.run)
        else:
            failures += failures_of([block], lambda block: run_block(block, reader))
    failures += failures_of(commands_in_text(page), shell.run)
    check(failures)


@pytest.mark.parametrize("folder", sorted({path.relative_to(ROOT).parts[0] for path in [*CODE, *COMMENTED]}))
def test_commands_of_code_and_comments(folder, reader, monkeypatch):
    failures = []
    for path in [*CODE, *COMMENTED]:
        if path.relative_to(ROOT).parts[0] == folder:
            failures += failures_of(commands_in_text(path), Shell(reader, monkeypatch).run)
    check(failures)


def run_docstring(block: Snippet, reader: Reader) -> None:
    """Runs a program, or a session (`>>>`) with what it prints, with the names of its module."""
    assert block.kind == "python", f"nothing runs {block.kind!r}"
    module = ".".join(block.path.relative_to(ROOT).with_suffix("").parts)
    names = vars(importlib.import_module(module))
    examples = doctest.DocTestParser().get_examples(block.text)
    if not examples:
        reader.run(block, names)
        return
    reader.provide_for(block.text)
    test = doctest.DocTest(examples, reader.names | names, module, str(block.path), block.line - 1, block.text)
    for example in examples:
        example.source = reader.made_small(example.source)
    told: list[str] = []
    assert doctest.DocTestRunner().run(test, out=told.append).failed == 0, "".join(told)


def test_docstrings(reader):
    blocks = [block for path in CODE for block in docstring_blocks(path) if block.kind != OUTPUT]
    assert len(blocks) > 10
    failures = failures_of(blocks, lambda block: run_docstring(block, reader))
    check(failures)


def test_nothing_is_listed_that_is_not_there():
    everything = [snippet for path in [*PAGES, *CODE, *COMMENTED] for snippet in commands_in_text(path)]
    blocks = [block for page in PAGES for block in page_blocks(page)]
    everything += [block for path in CODE for block in docstring_blocks(path)]
    everything += blocks + commands_in_blocks([block for block in blocks if block.kind == "bash"])
    described = [f"{snippet.path.relative_to(ROOT)}: {snippet.text}" for snippet in everything]
    for pattern in CANNOT:
        assert any(re.search(pattern, text) for text in described), f"{pattern!r} matches no snippet"
