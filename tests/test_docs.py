"""The pages: links lead somewhere, tables are what is computed. `test_snippets.py` runs the programs in them."""

import argparse
import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
import trl
import yaml
from reader import config_of
from snippets import PAGES, ROOT, page_blocks

import rlvr_trl
from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import ESTIMATORS, build_estimator
from rlvr_trl.analysis import advantage_curves
from rlvr_trl.cli import _parser
from rlvr_trl.rollouts import ALLOCATORS
from rlvr_trl.trainer.passes import longest_first, split_sizes
from rlvr_trl.trainer.validation import describe_batch


METHODS = sorted((ROOT / "docs/methods").glob("*.md"))
CONCEPTS, QUICKSTART, TROUBLES = (ROOT / f"docs/{name}.md" for name in ("concepts", "quickstart", "troubleshooting"))


def imported_names(text):
    """What the `from rlvr_trl… import …` of a block bring in."""
    return {
        alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "rlvr_trl"
        for alias in node.names
    }


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.name)
def test_python_beside_yaml_makes_the_same(page):
    blocks = [block[-2:] for block in page_blocks(page) if block.kind in ("yaml", "python")]
    pairs = [
        (first, second)
        for (one, first), (other, second) in zip(blocks, blocks[1:], strict=False)
        if (one, other) == ("yaml", "python")
    ]
    for described, written in pairs:
        config, names = config_of(described), imported_names(written)
        for keyword in (node for node in ast.walk(ast.parse(written)) if isinstance(node, ast.keyword)):
            if keyword.arg in ("advantages", "rollouts"):
                made = eval(compile(ast.Expression(keyword.value), str(page), "eval"), names)
                assert made == getattr(config, f"build_{keyword.arg}")()


def test_every_registered_name_is_described():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in METHODS)
    blocks = [yaml.safe_load(block.text) for page in METHODS for block in page_blocks(page) if block.kind == "yaml"]
    used = set(re.findall(r"'name': '(\w+)'|'(?:advantages|rollouts|base)': '(\w+)'", str(blocks)))
    used = {name for pair in used for name in pair}
    for name in [*ESTIMATORS, *ALLOCATORS]:
        assert f"`{name}`" in pages, f"{name} is in no page of docs/methods"
        assert name in used, f"{name} is in no YAML block of docs/methods"


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", text):
        target, _, anchor = "".join(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(path), f"{page.name} links to #{anchor}, which {path.name} has not"


def test_table_of_cumulative_advantages_is_what_the_estimators_give():
    text = (ROOT / "docs/methods/README.md").read_text(encoding="utf-8")
    header, columns = re.search(r"^\| estimator \| (largest at c =) \| c = (.+) \|$", text, re.MULTILINE).groups()
    counts = [int(count) for count in columns.split(" | ")]
    rows = re.findall(r"^\| `(\{name: .+?\})` \| (\d+) \| (.+) \|$", text, re.MULTILINE)
    assert {yaml.safe_load(spec)["name"] for spec, _, _ in rows} == set(ESTIMATORS) - {"scheduled"}
    for spec, peak, values in rows:
        total = advantage_curves(build_estimator(yaml.safe_load(spec)), 32).total
        assert total.argmax() == int(peak), spec
        assert [f"{total[c]:.2f}" for c in counts] == values.split(" | "), spec


def commands(parser, name="rlvr-trl"):
    """Every command that a parser knows and that has no commands of its own."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        return [name]
    return [found for action in nested for sub, p in action.choices.items() for found in commands(p, f"{name} {sub}")]


def test_every_command_is_in_the_reference():
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(rlvr-trl .+?)` \|", text, re.MULTILINE) == commands(_parser())


@pytest.mark.parametrize(
    "package", ["trainer", "advantages", "rollouts", "rewards", "data", "evaluation", "analysis", "testbed"]
)
def test_every_public_name_is_in_the_reference(package):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    module = importlib.import_module(f"rlvr_trl.{package}")
    listed = dict(path.rpartition(".")[::-2] for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    for name in module.__all__:
        assert name in listed, f"rlvr_trl.{package}.{name} is in no page of docs/reference"
        assert getattr(importlib.import_module(listed[name]), name) is getattr(module, name)


def on_processes(count, **settings):
    """A configuration as it would be on so many processes."""
    config_class = type("OnProcesses", (RLVRConfig,), {"world_size": count})
    return config_class("run", bf16=False, use_cpu=True, report_to="none", **settings)


def test_breadth_of_the_concepts_is_what_the_trainer_prints():
    text = CONCEPTS.read_text(encoding="utf-8")
    (settings,) = (yaml.safe_load(block.text) for block in page_blocks(CONCEPTS) if block.kind == "yaml")
    assert describe_batch(on_processes(2, **settings)) in text
    sums = re.findall(r"(\d+) ([×/]) (\d+) = (\d+) \|", text)
    assert len(sums) == 4
    for a, sign, b, result in sums:
        assert (int(a) * int(b) if sign == "×" else int(a) // int(b)) == int(result)
    assert f"{(15 / 16) ** 8:.3f}" == re.search(r"\(15/16\)⁸ = (0\.\d+)", text)[1]
    assert f"With 32 it is {(15 / 16) ** 32:.0%}" == re.search(r"With 32 it is .+? %", text)[0].replace(" %", "%")


def test_batch_of_the_quickstart_is_what_the_trainer_prints():
    program = next(block.text for block in page_blocks(QUICKSTART) if block.kind == "python")
    (call,) = (
        node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PassAtKConfig"
    )
    names = ("num_generations", "prompts_per_batch", "per_device_train_batch_size")
    settings = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg in names}
    assert describe_batch(on_processes(8, **settings)) in QUICKSTART.read_text(encoding="utf-8")


def test_passes_of_the_concepts_are_those_of_the_package():
    text = CONCEPTS.read_text(encoding="utf-8")
    given, rows = re.search(r"completions of ([\d, ]+) tokens; per_device_train_batch_size=(\d+)", text).groups()
    completions = torch.tensor([int(length) for length in given.split(", ")])
    lengths = torch.stack([torch.zeros_like(completions), completions], dim=1)
    lengths = lengths[longest_first(lengths, torch.arange(len(lengths)))]
    sizes = split_sizes(lengths, int(rows))
    passes = [part[:, 1].tolist() for part in lengths.split(sizes)]
    drawn = re.search(r"^sorted +([\d |]+?) +3 passes, of (.+) rows$", text, re.MULTILINE)
    assert [[int(n) for n in part.split()] for part in drawn[1].split("|")] == passes
    assert drawn[2] == "{}, {} and {}".format(*sizes)
    widths = [max(part[0], 2) for part in passes]  # no completion gets fewer columns
    assert re.search(r"^padded to +(\d+) +\| +(\d+) +\| +(\d+) ", text, re.MULTILINE).groups() == tuple(
        map(str, widths)
    )
    trimmed = sum(len(part) * width for part, width in zip(passes, widths, strict=True))
    assert f"in all:  {len(lengths)} × {passes[0][0]} = {len(lengths) * passes[0][0]}" in text
    assert f"= {trimmed}, of which {int(completions.sum())} are no padding" in text


def test_k_of_the_whole_group_trains_nothing():
    curves = advantage_curves(build_estimator({"name": "pass_at_k", "k": 8}), 8)
    assert not curves.total.any()


@cache
def messages(*packages):
    """Every string in the sources of these packages, what is filled in as `…`."""
    found = []
    for package in packages:
        for path in Path(package).rglob("*.py") if Path(package).is_dir() else [Path(package)]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


# vLLM is not installed where these tests run; as vLLM 0.31 says it
VLLM_MESSAGES = {
    "No available memory for the cache blocks.",
    "Free memory on device … is less than desired GPU memory utilization",
}


def test_troubleshooting_has_twenty_entries_with_real_messages():
    text = TROUBLES.read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [int(entry.split(".")[0]) for entry in entries] == list(range(1, 21))
    sources = ["trainer.py", "training_args.py", "tokenization_utils_base.py", "modeling_layers.py"]
    folders = [Path(module.__file__).parent for module in (rlvr_trl, trl, transformers)]
    said = messages(*folders[:2], *(folders[2] / name for name in sources))
    quoted = 0
    for entry in entries:
        assert "**Why.**" in entry and "**Set**" in entry, entry.splitlines()[0]
        seen = entry.split("**Why.**")[0]
        assert "```text" in seen or "Seen: " in seen
        for message in re.findall(r"```text\n(.*?)```|or `([^`]+)`", seen, re.DOTALL):
            message = " ".join("".join(message).split())
            from_vllm = message in VLLM_MESSAGES
            assert from_vllm or message in said, f"no source says: {message}"
            quoted += not from_vllm
    assert quoted >= 14


def test_the_warnings_of_the_page_are_those_that_are_given():
    section = TROUBLES.read_text(encoding="utf-8").split("## Warnings")[1].split("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    said = messages(Path(rlvr_trl.__file__).parent)
    quoted = [message for row in rows for message in re.findall(r"`([^`]{20,})`", row)]
    assert len(quoted) >= len(rows) == 7
    for message in quoted:
        assert message.removeprefix("… ") in said, f"nothing says: {message}"


def test_metrics_of_the_pages_are_logged():
    names = set(
        re.findall(
            r"`((?:groups|completions|clip_ratio|sampling|rollouts|advantages|micro_batch)/\w+[\w/]*)`",
            "\n".join(page.read_text(encoding="utf-8") for page in (TROUBLES, QUICKSTART, ROOT / "docs/metrics.md")),
        )
    )
    said = messages(Path(rlvr_trl.__file__).parent, Path(trl.__file__).parent / "trainer")
    assert len(names) >= 15
    for name in names:
        assert name in said, f"nothing logs {name}"


def test_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\]", changes, re.MULTILINE)[1] == project["version"]


def test_pre_commit_runs_the_ruff_of_ci():
    (pinned,) = re.findall(r"^ruff==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]
    assert all(hook["additional_dependencies"] == [pinned] for hook in hooks)
