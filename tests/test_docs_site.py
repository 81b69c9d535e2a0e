"""The site of docs/ builds without a warning and without a network, and holds what the pages promise."""

import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[1]


def load(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every page of the site as HTML, by its path, built strictly where no network can be reached."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "HTTP", "HTTPS")}
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return {page.relative_to(folder).as_posix(): page.read_text(encoding="utf-8") for page in folder.rglob("*.html")}


def test_every_page_is_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix("")
        folder = path.parent if path.name in ("index", "README") else path
        assert (folder / "index.html").as_posix() in site


def test_reading_needs_no_network(site):
    for name, page in site.items():
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"?((?:https?:)?//[^\"\s>]+)", page)
        fetched += re.findall(r"<link[^>]+rel=\"?stylesheet[^>]+href=\"?((?:https?:)?//[^\"\s>]+)", page)
        assert not fetched, f"{name} fetches {fetched}"


def test_reference_has_every_object_with_its_text(site):
    for name in (ROOT / "docs/reference").glob("*.md"):
        page = site[f"reference/{name.stem}/index.html"]
        for path in re.findall(r"^::: (\S+)$", name.read_text(encoding="utf-8"), re.MULTILINE):
            assert f'id="{path}"' in page
    page = site["reference/trainers/index.html"]
    start = page.index('id="rlvr_trl.trainer.method_trainers.DARSConfig"')
    text = html.unescape(re.sub(r"<[^>]+>", "", page[start:]))
    text = "".join(text.split())
    assert "max_generations(int,default:32)–Completionsofoneprompt" in text
    assert 'href="#rlvr_trl.trainer.method_trainers.DARSTrainer"' in page


def test_no_reference_and_no_formula_is_left_as_it_was_written(site):
    for name, page in site.items():
        prose = re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)
        assert not re.search(r"\[<code|arithmatex", prose), name
        assert "$$" not in prose, name
    assert site["methods/pass_at_k/index.html"].count("<math") > 3


def test_hugging_face_docstrings_as_griffe_reads_them():
    docstrings = load("docstrings")
    written = """Does it.

Args:
    rewards (`Tensor` of shape `(T,)`, *optional*):
        See [`Groups`], (not this):
    k (`int` or `None`, *optional*, defaults to `8`): how many.
    trainer ([`~trl.GRPOTrainer`]): any.
    mazes (iterable of `str`): some.

Attributes:
    low, high (`float`): both.

Returns:
    `Tensor` of shape `(T,)`: `int64`: see
    [`Groups`]: and more.

Raises:
    `ValueError`: one error
    in two lines: so.
    RuntimeError: another.

Note (`int`): text."""
    read = """Does it.

Args:
    rewards (Tensor): Of shape `(T,)`.
        See [`Groups`], (not this):
    k (int or None): how many.
    trainer (GRPOTrainer): any.
    mazes (iterable of str): some.

Attributes:
    low,\u00a0high (float): both.

Returns:
    Tensor: Of shape `(T,)`. `int64`: see
    [`Groups`]: and more.

Raises:
    ValueError: one error
        in two lines: so.
    RuntimeError: another.

Note (`int`): text."""
    assert docstrings.to_google_style(written) == read


def test_references_lead_to_the_page_that_has_them():
    link, places = load("docstrings").link, {"Groups": "package.groups.Groups"}
    assert link("[`Groups`]", places) == "[`Groups`][package.groups.Groups]"
    assert link("[`~other.Groups`]", places) == "[`Groups`][package.groups.Groups]"
    assert link("[`~package.Groups.sizes`]", places) == "[`Groups.sizes`][package.groups.Groups.sizes]"
    assert link("[`~trl.GRPOTrainer`]", places) == "`GRPOTrainer`"
    assert link("[`Groups`](page.md), [`Groups`][x], [0, 1]", places) == "[`Groups`](page.md), [`Groups`][x], [0, 1]"


class Page:
    """What the hook reads of a page of MkDocs."""

    def __init__(self, src_uri):
        self.file = self
        self.src_uri = src_uri


def test_links_out_of_docs_become_paths():
    linked = load("hooks").on_page_markdown
    text = "[table](../../README.md#top) [page](../batches.md) `[code](../../a.md)` ![image](../../a.png)"
    assert linked(text, Page("methods/dars.md")) == (
        "table (`README.md`) [page](../batches.md) `[code](../../a.md)` ![image](../../a.png)"
    )
    assert linked("[`pages.py`](../../x/pages.py)", Page("methods/dars.md")) == "`x/pages.py`"
    block = "```\n[code](../../a.md)\n```\n"
    assert linked(block, Page("methods/dars.md")) == block


def test_formulas_become_mathml():
    converted = load("hooks").on_page_content(r'<p><span class="arithmatex">\(a &lt; \sqrt{b}\)</span></p>')
    assert re.fullmatch(r'<p><math [^>]*display="inline".*<msqrt>.*</math></p>', converted)
    converted = load("hooks").on_page_content('<div class="arithmatex">\\[\n\\frac{a}{b}\n\\]</div>')
    assert re.fullmatch(r'<math [^>]*display="block".*<mfrac>.*</math>', converted)


def test_brackets_fit_without_a_font_for_mathematics():
    """A stretched bracket needs such a font; one of a given size does not."""
    converted = load("hooks").on_page_content(
        r'<p><span class="arithmatex">\(\left( \binom{n}{k} \right)\)</span></p>'
    )
    sizes = re.findall(r'<mpadded voffset="(-[\d.]+)em"><mo stretchy="false" [^>]*mathsize="([\d.]+)em">', converted)
    assert len(sizes) == 4 and all(float(size) > 1 for _, size in sizes)
    assert 'stretchy="true"' not in converted and "minsize" not in converted


def test_long_names_break_where_a_reader_would_and_short_ones_do_not():
    shown = load("hooks").on_page_content
    assert shown("<code>vllm_importance_sampling</code>") == '<code class="whole">vllm_importance_sampling</code>'
    test = "tests/test_options.py::test_what_trl_refuses_is_refused_here"
    parts = re.sub("</?code>", "", shown(f"<code>{test}</code>")).split("<wbr>")
    assert "".join(parts) == test and parts[0] == "tests/test_options.py::" and parts[1] == "test_"
    path = "rlvr_trl/trainer/generation_progress.py"
    assert shown(f"<code>{path}</code>") == "<code>rlvr_trl/<wbr>trainer/<wbr>generation_progress.py</code>"
    command = "python scripts/make_a_long_line.py --steps 20"
    assert '.py <span class="whole">--steps</span> 20' in shown(f"<code>{command}</code>")
    assert shown("<td>of W-REINFORCE</td>") == '<td>of <span class="whole">W-REINFORCE</span></td>'
    assert shown("<td>+0.1 [-0.2, +0.3]</td>") == "<td>+0.1 [-0.2,&nbsp;+0.3]</td>"
    block = f"<pre><code>{test} [-0.2, +0.3]</code></pre>"
    assert shown(block) == block


def test_no_cell_holds_a_word_too_long_for_a_phone(site):
    """What cannot break makes a column as wide as itself."""
    limit = 45  # characters of small type
    for name, page in site.items():
        for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, re.DOTALL):
            pieces = re.split(r"<wbr>|<br ?/?>|\s", re.sub(r"<(?!wbr|br)[^>]+>", "", cell))
            assert max(len(html.unescape(piece)) for piece in pieces) <= limit, f"{name}: {cell}"
