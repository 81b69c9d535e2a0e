"""The command line as a whole: help, errors in one line, traces on demand."""

import os
import subprocess
import sys

import pytest
from rich.table import Table

from rlvr_trl.cli import main
from rlvr_trl.terminal import print_tables


def test_without_a_command_it_says_what_to_do(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for text in ("rlvr-trl demo --quick", "rlvr-trl eval --help", "accelerate launch examples/train_math.py"):
        assert text in shown
    for command in ("demo", "eval", "score", "compare", "plot"):
        assert f"\n    {command} " in shown


def test_a_wrong_setting_is_one_line(capsys, tmp_path):
    run = ["score", str(tmp_path / "nothing")]
    assert main(run) == 2
    error = capsys.readouterr().err
    assert error.startswith("rlvr-trl: ") and error.count("\n") == 1
    assert main([*run, "--verbose"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error and error.rstrip().splitlines()[-1].startswith("rlvr-trl: ")


@pytest.mark.parametrize("position", ["before", "after", "in between"])
def test_any_other_error_is_one_line_too(capsys, tmp_path, position):
    (tmp_path / "file").write_text("")
    draw = ["plot", "bandit", "--seeds", "2", "--steps", "2", "--output-dir", str(tmp_path / "file" / "plots")]
    assert main(draw) == 1
    error = capsys.readouterr().err
    assert error.startswith("rlvr-trl: NotADirectoryError: ") and error.count("\n") == 1
    where = {"before": 0, "after": len(draw), "in between": 1}[position]
    assert main([*draw[:where], "--verbose", *draw[where:]]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupted():
    code = (
        "import _thread, threading, sys\n"
        "from rlvr_trl.cli import main\n"
        "threading.Timer(3, _thread.interrupt_main).start()\n"
        "sys.exit(main(['plot', 'bandit', '--seeds', '200', '--steps', '100000', '--output-dir', sys.argv[1]]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, "plots"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130 and ended.stderr == "rlvr-trl: interrupted\n"


def test_a_narrow_terminal_cuts_no_number(capsys, monkeypatch):
    numbers = [f"0.{i}23 [-0.{i}00, +0.{i}99]" for i in range(4)]
    table = Table(title="Numbers")
    for i in range(4):
        table.add_column(f"a long header {i}", no_wrap=i > 0)
    table.add_row(*numbers)
    shown = []
    for columns in ("20", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        print_tables(table)
        shown.append(capsys.readouterr().out)
        assert all(number in shown[-1] for number in numbers[1:])
    assert len(shown[0].splitlines()) > len(shown[1].splitlines())  # the first column may wrap, between words


def test_a_terminal_without_unicode():
    command = [sys.executable, "-c", "from rlvr_trl.cli import main; main([]); print(chr(177) + '0.1')"]
    ended = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert ended.returncode == 0 and ended.stdout.endswith(b"?0.1\n"), ended.stderr
