"""The pages under docs/: settings parse, code compiles, links lead somewhere, and the table is what is computed."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

import rlvr_trl.trainer
from rlvr_trl import RLVRConfig
from rlvr_trl.advantages import ESTIMATORS, build_estimator
from rlvr_trl.analysis import advantage_curves
from rlvr_trl.rollouts import ALLOCATORS


ROOT = Path(__file__).parents[1]
METHODS = sorted((ROOT / "docs/methods").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(page, *languages):
    """Language and text of the fenced blocks of a page in these languages, with a name for the test."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [
        pytest.param(page, language, text, id=f"{page.parent.name}/{page.name}-{i}")
        for i, (language, text) in enumerate(blocks)
        if language in languages
    ]


YAML_BLOCKS = [block for page in PAGES for block in code_blocks(page, "yaml")]
PYTHON_BLOCKS = [block for page in METHODS for block in code_blocks(page, "python")]


def config_of(text, output_dir):
    """The configuration that a block describes: an RLVRConfig, or the class that its first line names."""
    named = re.match(r"# (\w+Config)\n", text)
    config_class = getattr(rlvr_trl.trainer, named[1]) if named else RLVRConfig
    settings = {"num_generations": 32} | yaml.safe_load(text)
    settings.setdefault("per_device_train_batch_size", settings["num_generations"])
    return config_class(output_dir=str(output_dir), bf16=False, use_cpu=True, report_to="none", **settings)


def imported_names(text):
    """What the `from rlvr_trl… import …` of a block bring in."""
    return {
        alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "rlvr_trl"
        for alias in node.names
    }


@pytest.mark.parametrize(("page", "language", "text"), YAML_BLOCKS)
def test_yaml_blocks_are_configurations(page, language, text, tmp_path):
    config = config_of(text, tmp_path)
    assert callable(config.build_advantages())
    assert (config.build_rollouts() is None) == (config.rollouts is None)


@pytest.mark.parametrize(("page", "language", "text"), PYTHON_BLOCKS)
def test_python_blocks_compile_and_import_what_exists(page, language, text):
    compile(text, str(page), "exec")
    imported_names(text)


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.name)
def test_python_beside_yaml_makes_the_same(page, tmp_path):
    blocks = [block.values[1:] for block in code_blocks(page, "yaml", "python")]
    pairs = [
        (first, second)
        for (one, first), (other, second) in zip(blocks, blocks[1:], strict=False)
        if (one, other) == ("yaml", "python")
    ]
    for described, written in pairs:
        config, names = config_of(described, tmp_path), imported_names(written)
        for keyword in (node for node in ast.walk(ast.parse(written)) if isinstance(node, ast.keyword)):
            if keyword.arg in ("advantages", "rollouts"):
                made = eval(compile(ast.Expression(keyword.value), str(page), "eval"), names)
                assert made == getattr(config, f"build_{keyword.arg}")()


def test_every_registered_name_is_described():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in METHODS)
    blocks = [yaml.safe_load(block.values[2]) for block in YAML_BLOCKS if block.values[0] in METHODS]
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
