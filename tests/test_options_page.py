"""docs/options.md: every option of TRL has a row, every cell an answer, and every test that it names exists."""

import ast
import dataclasses
import functools
import inspect
import re
from pathlib import Path

import pytest
from test_options import NOT_BY_ROW, OPTIONS
from transformers import TrainingArguments
from trl import GRPOConfig, GRPOTrainer


ROOT = Path(__file__).parents[1]
ANSWERS = ("tested: ", "refused: ", "TRL refuses: ", "transformers refuses: ", "no effect: ", "not run: ")
EQUAL = "test_equal_groups_train_stock_grpo_to_the_last_bit"
BY_ROW = "test_ragged_groups_have_the_gradient_of_their_rows"
WITH_THE_REST = "test_ragged_groups_train_with_the_rest"


def read_rows():
    """The rows of all tables of the page, as lists of four cells."""
    lines = (ROOT / "docs/options.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] != "option"]


ROWS = read_rows()


def named(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


@functools.cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_option_of_trl_has_a_row():
    fields = {field.name for field in dataclasses.fields(GRPOConfig)}
    fields -= {field.name for field in dataclasses.fields(TrainingArguments)}
    arguments = set(inspect.signature(GRPOTrainer.__init__).parameters) - {"self", "args"}
    options = set().union(*(named(row[0]) for row in ROWS))
    assert len(fields) > 70 and fields | arguments <= options, sorted((fields | arguments) - options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_cell_has_an_answer_and_every_test_exists(row):
    assert len(row) == 4
    for cell in row[1:]:
        assert cell.startswith(ANSWERS), cell
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)
        assert tests or not cell.startswith("tested"), cell
        for path, name in tests:
            assert name in functions_of(path), f"{path} has no {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_test_of_many_options_is_named_for_is_among_them(row):
    of_trl = {field.name for field in dataclasses.fields(GRPOConfig)}
    for cell, test, covered in (
        (row[1], f"test_options.py::{EQUAL}`", OPTIONS),
        (row[2], f"test_options.py::{BY_ROW}`", OPTIONS.keys() - NOT_BY_ROW),
        (row[2], f"test_options.py::{WITH_THE_REST}`", NOT_BY_ROW),
    ):
        if test in cell:
            settings = {name: value for option in covered for name, value in OPTIONS[option].items()}
            assert named(row[0]) & of_trl <= settings.keys(), test
            if "`loss_type`" in row[0]:
                losses = set(re.findall(r"\b(?:\w*grpo|bnpo|dapo|cispo|sapo|luspo|vespo)\b", row[0]))
                assert losses and losses <= {OPTIONS[option].get("loss_type") for option in covered}
