"""docs/one_step.md against the code: what it names is where it says, and a real step runs through nothing else."""

import ast
import re
import sys
from pathlib import Path

import rlvr_trl
from rlvr_trl import DARSConfig, DARSTrainer
from rlvr_trl.testbed import build_model


ROOT = Path(rlvr_trl.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "one_step.md"
LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./rlvr_trl/([\w/]+\.py)\)")


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_everything_named_is_in_the_file_that_is_linked():
    line, beside = PAGE.read_text().split("## Beside the line")
    links = LINK.findall(line)
    assert len(links) > 12
    assert [(name, file) for name, file in links if name not in names_in(file)] == []
    assert [(name, file) for name, file in LINK.findall(beside) if Path(file).name != name] == []
    in_files = set().union(*(names_in(file) for _, file in links))
    words = {
        word for word in re.findall(r"`(\w+)`", line) if word.startswith("_") or re.match(r"[A-Z][a-z]\w+[a-z]$", word)
    }
    assert len(words) > 8 and words <= in_files, words - in_files


def test_twelve_files_hold_the_line():
    line, _ = PAGE.read_text().split("## Beside the line")
    assert len({file for _, file in LINK.findall(line)}) <= 12


def test_a_real_step_runs_through_the_files_of_the_page_and_no_others(cpu_settings, mazes, tokenizer):
    def right_moves(completions, **kwargs):
        return [float("R" in completion) for completion in completions]

    args = DARSConfig(**cpu_settings | {"max_steps": 1})
    trainer = DARSTrainer(build_model(tokenizer, seed=0), right_moves, args, mazes, processing_class=tokenizer)
    files, training_step = set(), trainer.training_step

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            files.add(path.relative_to(ROOT).as_posix())

    def traced(*args, **kwargs):
        sys.setprofile(note)
        try:
            return training_step(*args, **kwargs)
        finally:
            sys.setprofile(None)

    trainer.training_step = traced
    trainer.train()
    assert trainer.state.log_history[0]["rollouts/extra"] > 0
    line, beside = PAGE.read_text().split("## Beside the line")
    main = {file for _, file in LINK.findall(line)}
    assert main - files == {"trainer/method_trainers.py"}  # which has done its part at construction
    assert files - main <= {file for _, file in LINK.findall(beside)}
