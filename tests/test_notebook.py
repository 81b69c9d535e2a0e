"""The quickstart notebook, run by a real kernel, and what a notebook shows."""

import re
from pathlib import Path

import pytest


nbclient = pytest.importorskip("nbclient")  # in the environment of `make test`
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "examples/quickstart.ipynb"
SIZES = {"WARMUP_STEPS": 40, "STEPS": 2, "TEST_MAZES": 6, "SAMPLES": 8}  # in the place of its own


@pytest.fixture(scope="module")
def cells():
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_committed_without_outputs(cells):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))


@pytest.mark.slow
def test_it_runs_and_shows_reward_and_pass_at_k(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, size in SIZES.items():
        found = [re.subn(rf"(?m)^{name} = \d+", f"{name} = {size}", cell.source) for cell in notebook.cells]
        assert sum(count for _, count in found) == 1
        for cell, (source, _) in zip(notebook.cells, found, strict=True):
            cell.source = source
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not [
        text for text in said if "Traceback" in text or "rlvr_trl" in text
    ]  # bars and notes of libraries may be
    shown = [output.data for output in outputs if "data" in output]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    progress = [table for table in tables if "<progress" in table]
    assert len(progress) == 2  # of GRPO and of Pass@k; the warm-up has a bar
    for table in progress:
        assert "step 2 of 2" in table and "Loss" not in table
        header, *rows = re.findall("<tr>(.*?)</tr>", table)
        assert re.findall("<td>(.*?)</td>", header) == ["step", "reward", "length", "pass@1", "pass@16"]
        cells = [re.findall("<td>(.*?)</td>", row) for row in rows]
        assert [row[0] for row in cells] == ["0", "2"] and cells[0][1] == "" != cells[1][1]
        assert all(re.fullmatch(r"\d\.\d{3}", row[3]) for row in cells[:1])
    (result,) = [data for data in shown if "EvaluationResult" in data.get("text/html", "")]
    assert f"{SIZES['TEST_MAZES']} problems, 8 samples each" in result["text/plain"]
    assert len(result["text/plain"]) < 300 and len(result["text/html"]) < 600
    assert any("image/png" in data for data in shown)
