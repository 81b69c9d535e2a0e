"""The measurement of staleness: its page says what its runs hold."""

import shutil
import sys
from pathlib import Path


sys.path.append(str(Path(__file__).parents[1] / "with_vllm"))

import staleness


def test_the_page_has_the_table_of_the_runs(tmp_path):
    page = tmp_path / "page.md"
    shutil.copy(staleness.PAGE, page)
    staleness.report(staleness.RESULTS, page)
    assert page.read_text(encoding="utf-8") == staleness.PAGE.read_text(encoding="utf-8")
