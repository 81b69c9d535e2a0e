"""The command line as a whole: help, errors in one line, traces on demand."""

import subprocess
import sys

import pytest

from rlvr_trl.cli import main


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
