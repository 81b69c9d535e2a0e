"""Names and texts of others on a terminal, in a figure and in a model card: they are shown, and nothing obeys them."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from rlvr_trl.cli import main
from rlvr_trl.evaluation.comparison import Comparison
from rlvr_trl.evaluation.display import comparison_table, plot_pass_at_k, result_tables
from rlvr_trl.evaluation.results import SavedCounts
from rlvr_trl.hub.card_results import add_results_to_card, results_in
from rlvr_trl.hub.model_card import _settings
from rlvr_trl.terminal import printable
from rlvr_trl.trainer import RLVRConfig


NAMES = ["[red]a", "runs/[/a]", "[link=http://x]y", "a\\", "[bold]m\x1b[2J", "\x1b]0;title\x07"]


def on_terminal(table) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, no_color=True)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_tables_show_names_as_they_are(name):
    compared = comparison_table(name, name, [Comparison(name, 1, 0.1, 0.2, 0.1, 0.0, 0.2, "higher")])
    measured = {"num_problems": 1, "pass_at_k": {"1": 0.5}, "pass_at_k_intervals": {"1": [0, 1]}}
    measured |= dict.fromkeys(
        ("answer_entropy", "wrong_answer_diversity", "token_entropy", "mean_length", "truncated_share")
    )
    measured |= {"settings": {"num_samples": 1}, "num_unscorable_completions": 0}
    tables = result_tables({"benchmarks": {name: measured}})
    for table, times in ((compared, 3), *((table, 1) for table in tables)):
        shown = on_terminal(table)
        assert shown.count(printable(name)) == times
        assert not {"\x1b[2J", "\x1b]", "\x07"} & {shown[i : i + n] for i in range(len(shown)) for n in (1, 2, 4)}


def test_printable_leaves_all_but_control_characters():
    text = "π ≤ 3,5\u00a0\u3000中\n\t[red]"
    assert printable(text) == text
    assert printable("\x1b[31m\r\u202e\ud800\u200b") == r"\x1b[31m\r\u202e\ud800\u200b"


def test_errors_of_the_command_line_are_printable(tmp_path, capsys):
    assert main(["compare", str(tmp_path / "\x1b[2J"), "b"]) == 2
    printed = capsys.readouterr().err
    assert r"\x1b[2J" in printed and "\x1b" not in printed


def saved_run(folder, names):
    problems = [{"id": "p", "prompt": "x", "num_samples": 2, "num_correct": 1}]
    settings = {"settings": {"num_samples": 2, "temperature": 1.0}, "problems": problems}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"benchmarks": dict.fromkeys(names, settings)}))
    return folder


def test_names_of_benchmarks_cannot_leave_their_cell_of_a_card(tmp_path):
    names = ["a | b", "<img src=x>", "[x](http://y)", "two\n\n# lines", "<!-- rlvr_trl: end of pass@k -->", "math_500"]
    (tmp_path / "README.md").write_text("---\ntags: [x]\n---\n\n# Card\n")
    for run in ("a", "b"):  # what was written is found again, and replaced as a whole
        add_results_to_card(tmp_path, saved_run(tmp_path / run, names))
        text = ModelCard.load(tmp_path / "README.md").text
        assert text.count("<!-- rlvr_trl: end of pass@k -->") == 1
    rows = [line for line in results_in(text).splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(names) and all(row.replace(r"\|", "").count("|") == 7 for row in rows)
    assert r"\<img src=x\>" in text and r"\[x\](http" in text and "| math_500 |" in text and "\n# lines" not in text


def test_settings_cannot_leave_their_fence_in_a_card(tmp_path):
    args = RLVRConfig(output_dir=str(tmp_path), bf16=False, chat_template_kwargs={"x": "a\n```\n<img src=x>\n````\n"})
    lines = _settings(SimpleNamespace(args=args)).splitlines()
    assert [line for line in lines if line.strip().startswith("`" * 5)] == ["`" * 5 + "yaml", "`" * 5]


def test_a_label_is_no_formula(tmp_path):
    counts = SavedCounts(["p"], np.array([2]), np.array([1]))
    plot_pass_at_k({r"a$\frac$b": counts}, tmp_path / "x.svg", title="t")
    assert (tmp_path / "x.svg").stat().st_size > 0
