"""The command line as a whole: help, errors in one line, traces on demand."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from rich.table import Table

from rlvr_trl.cli import main
from rlvr_trl.recipes import SCRIPTS, find_recipes
from rlvr_trl.terminal import print_tables


def test_without_a_command_it_says_what_to_do(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for text in (
        "rlvr-trl demo --quick",
        "rlvr-trl bench my_module.my_estimator",
        "rlvr-trl eval --help",
        "rlvr-trl recipes",
        "rlvr_trl train --recipe pass_at_k/pass_at_8",
    ):
        assert text in shown
    for command in ("demo", "bench", "train", "recipes", "eval", "score", "compare", "plot"):
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
        "import _thread, signal, threading, sys\n"
        "from rlvr_trl.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores\n"
        "threading.Timer(3, _thread.interrupt_main).start()\n"
        "sys.exit(main(['plot', 'bandit', '--seeds', '200', '--steps', '100000', '--output-dir', sys.argv[1]]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, "plots"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130 and ended.stderr == "rlvr-trl: interrupted\n"


def test_recipes_are_listed_and_printed(capsys):
    recipes = find_recipes()
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipes)
    for line, path in zip(lines, recipes.values(), strict=True):
        text = path.read_text(encoding="utf-8")
        command = re.search(r"examples/(\w+)\.py", text)[1]
        assert line.split()[1] == command == yaml.safe_load(text)["script"] and command in SCRIPTS
        assert re.search(r"arXiv \d{4}\.\d{5}\)\.$", line)
    assert main(["recipes", "dars"]) == main(["recipes", "dars/"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == 2 * shown[: len(shown) // 2] and {line.split("/")[0] for line in shown} == {"dars"}
    assert main(["recipes", "dars/1.5b_dars_hw"]) == 0
    assert capsys.readouterr().out == recipes["dars/1.5b_dars_hw"].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "dar"], "Unknown recipe 'dar'."),
        (["recipes", "../recipes/dars"], "Unknown recipe '../recipes/dars'."),
        (["train", "--recipe", "dars/1.5b_dars_hv"], "Unknown recipe 'dars/1.5b_dars_hv'. Did you mean 'dars/1.5b_da"),
        (["train", "--recipe", "../recipes/dars/1.5b_dars_hw"], "Unknown recipe '../recipes/dars/1.5b_dars_hw'."),
        (["train", "--recipe", ""], "Unknown recipe ''."),
        (["train", "--recipe", "OWN"], "own.yaml' is a file of your own and no recipe of this package: give it as --"),
        (["train", "--config", "nothing.yaml"], "The file of settings is 'nothing.yaml', but there is no such file"),
        (["train", "--config", "OWN", "max_step=2"], "Unknown setting 'max_step'. Did you mean 'max_steps'?"),
        (["train", "--config", "OWN", "max_steps"], "is written name=value, such as max_steps=100, got 'max_steps'"),
        (
            ["train", "--config", "OWN", "max-steps=1"],
            "is written name=value, such as max_steps=100, got 'max-steps=1'",
        ),
        (["train", "--config", "OWN", "max_steps="], "'max_steps=' gives no value. max_steps=null is none at all."),
        (["train", "--config", "OWN", "advantages={"], "The value of advantages, '{', is neither YAML nor JSON"),
        (["train", "--config", "OWN", "script=train_mase"], "Unknown script 'train_mase'. Did you mean 'train_maze'?"),
        (["train", "--config", "OWN", "script=../../evil"], "Unknown script '../../evil'."),
        (["train", "--config", "OWN", "script=evaluate"], "Unknown script 'evaluate'."),
        (["train", "--config", "OWN", "ключ=1"], "Unknown setting 'ключ'."),
        (["train", "--config", "OWN", "sizes=[5]"], "Unknown setting 'sizes'"),
        (["train", "--config", "OWN", "max_steps=viele"], "invalid int value: 'viele'"),
        (
            ["train", "--config", "OWN", "reward_funcs=[sums_rewrd]", "--dry-run"],
            "Unknown reward function 'sums_rewrd'. Did you mean 'sums_reward'?",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text("output_dir: out\nuse_cpu: true\nbf16: false", encoding="utf-8")
    assert main([str(own) if argument == "OWN" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("rlvr-trl: ") and message in error.splitlines()[-1]


def test_the_settings_of_a_dry_run(capsys):
    changes = [
        "save_strategy=no",
        "learning_rate=1e-5",
        "rollouts={name: dars, max_generations: 16}",
        "eval_path=null",
    ]
    assert main(["train", "--recipe", "dars/1.5b_dars_hw", *changes, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    settings = yaml.safe_load(find_recipes()["dars/1.5b_dars_hw"].read_text(encoding="utf-8"))
    expected = {"save_strategy": "no", "learning_rate": 1e-5, "eval_path": None}
    assert yaml.safe_load(shown) == settings | expected | {"rollouts": {"name": "dars", "max_generations": 16}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--recipe", "x", "--dry_rum"], "--dry_rum. Did you mean '--dry-run'?"),
        (["train", "--recipe", "x", "--max_steps", "2"], "--max_steps. A setting is written max_steps=value here."),
        (["train", "--recipe", "x", "--max_steps=2"], "--max_steps=2. A setting is written max_steps=value here."),
        (["score", "x", "--rewards=y"], "--rewards=y. Did you mean '--reward'?"),
    ],
)
def test_misspelt_options(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"unrecognized argument: {message}" in capsys.readouterr().err


def test_a_reader_that_has_gone():
    command = f"{sys.executable} -m rlvr_trl recipes | true"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr) == ("", "")


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
