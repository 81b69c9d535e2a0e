"""Sudoku, sums and countdown: rules against brute force, rewards against hostile answers, draws and demonstrations."""

import itertools
import math
import random
import re
import time
from collections import Counter

import numpy as np
import pytest

from rlvr_trl.puzzles import (
    countdown_solutions,
    draw_countdown,
    draw_sudoku,
    draw_sums,
    expressions_by_countdown,
    grids_by_sums,
    solves_countdown,
    solves_sudoku,
    solves_sums,
    sudoku_grids,
    sudoku_solutions,
    sums_of,
    sums_solutions,
    value_of,
)
from rlvr_trl.rewards import countdown_reward, sudoku_reward, sums_reward
from rlvr_trl.testbed import TASKS


PUZZLES = ("sudoku", "sums", "countdown")
PROBLEM = {"sudoku": "1...3....1....2.", "sums": "1111\n1111", "countdown": "1479=30"}
ANSWER = {"sudoku": "1234341221434321", "sums": "1000010000100001", "countdown": "1+4*9-7"}


def reward_of(name, answer, problem=None):
    (reward,) = TASKS[name].reward(completions=[f"<answer>{answer}</answer>"], **{name: [problem or PROBLEM[name]]})
    return reward


# --- rules ---


def is_valid_sudoku(grid):
    cells = np.array(list(grid)).reshape(4, 4)
    boxes = [cells[i : i + 2, j : j + 2].ravel() for i in (0, 2) for j in (0, 2)]
    return all({*unit} == {*"1234"} for unit in (*cells, *cells.T, *boxes))


def test_sudoku_grids_are_all_that_are_valid():
    rows = ["".join(row) for row in itertools.permutations("1234")]
    # of 24 ** 4, those whose columns have no digit twice; the boxes are checked cell by cell
    latin = [
        "".join(grid)
        for grid in itertools.product(rows, repeat=4)
        if all(a != b for x, y in itertools.combinations(grid, 2) for a, b in zip(x, y, strict=True))
    ]
    assert len(latin) == 576
    valid = {grid for grid in latin if is_valid_sudoku(grid)}
    assert {*sudoku_grids()} == valid and len(sudoku_grids()) == len(valid) == 288


def test_sudoku_solutions_are_the_grids_that_agree():
    rng = random.Random(0)
    counts = Counter()
    for sudoku in (draw_sudoku(rng) for _ in range(300)):
        agreeing = [grid for grid in sudoku_grids() if re.fullmatch(sudoku, grid)]
        assert sudoku_solutions(sudoku) == agreeing and agreeing
        assert [grid for grid in sudoku_grids() if solves_sudoku(sudoku, grid)] == agreeing
        counts[16 - sudoku.count(".")] += 1
    assert set(counts) == {4, 5, 6} and min(counts.values()) > 70  # 100 expected, standard deviation 8
    broken = list(ANSWER["sudoku"])
    broken[5], broken[6] = broken[6], broken[5]
    assert not is_valid_sudoku(broken) and not solves_sudoku("." * 16, "".join(broken))


def test_sums_of_every_grid():
    bits = (np.arange(2**16)[:, None] >> np.arange(15, -1, -1) & 1).reshape(-1, 4, 4)
    sums = np.concatenate([bits.sum(2), bits.sum(1)], axis=1)
    expected = ["".join(map(str, row[:4])) + "\n" + "".join(map(str, row[4:])) for row in sums.tolist()]
    grids = [f"{number:016b}" for number in range(2**16)]
    assert [sums_of(grid) for grid in grids] == expected
    assert {grid: sums for sums, those in grids_by_sums().items() for grid in those} == dict(
        zip(grids, expected, strict=True)
    )
    assert len(grids_by_sums()) == 16_145  # OEIS A029894
    rng = random.Random(0)
    for sums in (draw_sums(rng) for _ in range(3)):
        right = [grid for grid in grids if solves_sums(sums, grid)]
        assert right == sums_solutions(sums) and right


def by_terms(expression):
    """The value of an expression by another route: the sum of its terms, each a product with a sign."""
    terms = re.findall(r"[+-]?[^+-]+", expression)
    return sum(math.prod(map(int, term.lstrip("+-").split("*"))) * (-1 if term[0] == "-" else 1) for term in terms)


def test_countdown_against_all_expressions():
    assert by_terms("1-2*3+4") == -1 and by_terms("2*3*4-9") == 15
    all_problems = set()
    for digits in itertools.combinations_with_replacement("123456789", 4):
        values = set()
        for order in set(itertools.permutations(digits)):
            for operators in itertools.product("+-*", repeat=3):
                expression = "".join(itertools.chain.from_iterable(zip(order, operators, strict=False))) + order[3]
                value = by_terms(expression)
                assert value_of(expression) == value
                values.add(value)
        all_problems |= {f"{''.join(digits)}={value}" for value in values if 1 <= value <= 99}
    assert {*expressions_by_countdown()} == all_problems and len(all_problems) == 10_446
    rng = random.Random(0)
    for countdown in (draw_countdown(rng) for _ in range(100)):
        digits, target = countdown.split("=")
        right = {
            a + x + b + y + c + z + d
            for a, b, c, d in itertools.permutations(digits)
            for x, y, z in itertools.product("+-*", repeat=3)
            if by_terms(a + x + b + y + c + z + d) == int(target)
        }
        assert {*countdown_solutions(countdown)} == right and len(countdown_solutions(countdown)) == len(right)
        assert all(solves_countdown(countdown, expression) for expression in right)


def test_no_solution_is_no_error_of_the_reward():
    assert countdown_solutions("1111=99") == [] and sums_solutions("4444\n0000") == []
    assert reward_of("countdown", "1+1+1+1", "1111=99") == 0.0
    with pytest.raises(ValueError, match="there is no answer to '1111=99'"):
        TASKS["countdown"].demonstrate("1111=99", random.Random(0))


# --- rewards ---


@pytest.mark.parametrize(
    ("name", "answer", "reward"),
    [
        ("sudoku", "1234341221434321", 1.0),
        ("sudoku", "1234\n3412\n2143\n4321\n", 1.0),
        ("sudoku", "1, 2, 3, 4, 3412 2143 4321", 1.0),
        ("sudoku", "1243342121344312", 0.0),  # another grid: a given digit differs
        ("sudoku", "1234341221434312", 0.0),  # agrees, but is no grid
        ("sudoku", "123434122143432", 0.0),
        ("sudoku", "12343412214343211", 0.0),
        ("sudoku", "1...3....1....2.", 0.0),
        ("sudoku", "１２３４３４１２２１４３４３２１", 0.0),
        ("sums", "1000010000100001", 1.0),
        ("sums", "0001 0010 0100 1000", 1.0),
        ("sums", "1000100001000001", 0.0),
        ("sums", "100001000010000", 0.0),
        ("sums", "10000100001000010", 0.0),
        ("sums", "0b10000100001000", 0.0),
        ("countdown", "1+4*9-7", 1.0),
        ("countdown", "9 * 4 + 1 - 7", 1.0),
        ("countdown", "1-7+9*4", 1.0),
        ("countdown", "1+4*9-7=30", 0.0),
        ("countdown", "4*9-7+1*1", 0.0),  # a digit twice
        ("countdown", "4*9-7", 0.0),
        ("countdown", "1+9+4*7", 0.0),
        ("countdown", "(1+4*9-7)", 0.0),
        ("countdown", "30", 0.0),
        ("countdown", "+1+4*9-7", 0.0),
        ("countdown", "1+4*9--7", 0.0),
        ("countdown", "1+4**9-7", 0.0),
        ("countdown", "01+4*9-7", 0.0),
        ("countdown", "1+4*9-7.0", 0.0),
        ("countdown", "1+4*9-7#", 0.0),
        ("countdown", "1e9", 0.0),
        ("countdown", "1+4×9-7", 0.0),
        ("countdown", "1+4*9−7", 0.0),
        ("countdown", "１+4*9-7", 0.0),
        ("countdown", "1+4*٩-7", 0.0),
        ("countdown", "14*7-9", 0.0),
    ],
)
def test_rewards_by_hand(name, answer, reward):
    assert reward_of(name, answer) == reward
    function = TASKS[name].reward
    message = [{"role": "assistant", "content": f"<think>hm</think> <answer>0</answer><answer>{answer}</answer>"}]
    assert function(completions=[message, answer, f"<answer>{answer}"], **{name: [PROBLEM[name]] * 3}) == [
        reward,
        0,
        0,
    ]


@pytest.mark.parametrize("name", PUZZLES)
def test_hostile_answers_score_0_soon(name, tmp_path):
    trace = tmp_path / "ran"
    right, long = ANSWER[name], 300_000
    hostile = [
        f"__import__('pathlib').Path({str(trace)!r}).touch()",
        f"{right}+__import__('pathlib').Path({str(trace)!r}).touch()",
        "9**9**9**9**9",
        right * long,
        right + "+1" * long,
        right + "0" * long,
        "1" * 2 * long,
        "1+" * long,
        "(" * long + right + ")" * long,
        "<answer>" * 50_000 + "1",
        "\x00" + right,
        "\ud800" + right,
        right[:-1] + "\u0661",
        "",
        " ",
    ]
    broken = [None, 3, [], [None], [{}], [{"role": "assistant", "content": None}]]
    completions = [*(f"<answer>{answer}</answer>" for answer in hostile), *broken]
    start, logged = time.process_time(), {}
    rewards = TASKS[name].reward(
        completions=completions, log_extra=logged.__setitem__, **{name: [PROBLEM[name]] * len(completions)}
    )
    assert rewards == [0.0] * len(completions) and not trace.exists()
    assert time.process_time() - start < 3
    assert logged["extracted_answer"][-6:] == [None] * 6


@pytest.mark.parametrize("name", PUZZLES)
def test_random_answers_are_judged_as_by_the_list_of_all(name):
    rng = random.Random(0)
    task, symbols = TASKS[name], {"sudoku": "1234.", "sums": "01 ", "countdown": "1479+-*"}[name]
    right = {"sudoku": sudoku_solutions, "sums": sums_solutions, "countdown": countdown_solutions}[name](PROBLEM[name])
    answers = [*right]
    for _ in range(2_000):  # a right answer with up to two characters changed, taken out or put in
        answer = list(rng.choice(right))
        for _ in range(rng.randrange(3)):
            place = rng.randrange(len(answer))
            answer[place : place + rng.randrange(2)] = rng.choices(symbols, k=rng.randrange(2))
        answers.append("".join(answer))
    completions = [f"<answer>{answer}</answer>" for answer in answers]
    rewards = task.reward(completions=completions, **{name: [PROBLEM[name]] * len(answers)})
    assert rewards == [float(answer.replace(" ", "") in right) for answer in answers]
    assert 0 < sum(rewards) < len(rewards)


def test_extracted_answers_are_logged():
    logged = {}
    completions = [f"<answer>{text}</answer>" for text in ("1 + 2", "1+", "", "12")]
    countdown_reward(completions=completions, countdown=[PROBLEM["countdown"]] * 4, log_extra=logged.__setitem__)
    assert logged == {"extracted_answer": ["1+2", None, None, None]}
    sums_reward(completions=["<answer>1,0\n1</answer>"], sums=["1111\n1111"], log_extra=logged.__setitem__)
    assert logged == {"extracted_answer": ["101"]}


@pytest.mark.parametrize(
    ("reward", "problem", "message"),
    [
        (sudoku_reward, "1...3....1....2", "a sudoku is 16 characters"),
        (sudoku_reward, "1...3....1....2.\n", "a sudoku is 16 characters"),
        (sudoku_reward, "1...3....1....25", "a sudoku is 16 characters"),
        (sudoku_reward, None, "a sudoku is 16 characters"),
        (sums_reward, "11111111", "sums are four digits"),
        (sums_reward, "1115\n1111", "sums are four digits"),
        (sums_reward, "1111\n1111\n", "sums are four digits"),
        (countdown_reward, "1479=0", "a countdown is four digits"),
        (countdown_reward, "1479=100", "a countdown is four digits"),
        (countdown_reward, "4179=30", "in ascending order"),
        (countdown_reward, "0479=30", "a countdown is four digits"),
        (countdown_reward, 1479, "a countdown is four digits"),
    ],
)
def test_a_broken_problem_is_a_mistake_in_the_dataset(reward, problem, message):
    name = reward.__name__.removesuffix("_reward")
    with pytest.raises(ValueError, match=message):
        reward(completions=["no answer"], **{name: [problem]})
    with pytest.raises(ValueError, match=f"{name} must have one entry for each of the 2 completions, found 1"):
        reward(completions=["", ""], **{name: [PROBLEM[name]]})


# --- draws and demonstrations ---


@pytest.mark.parametrize("name", TASKS)
def test_draws_are_distinct_disjoint_and_seeded(name):
    task = TASKS[name]
    test = task.draw(200, seed=0)
    train = task.draw(1_000, seed=0, exclude=test)
    texts = train[name][:]
    assert len(set(texts)) == 1_000 and not set(texts) & set(test[name])
    assert test[:] == task.draw(200, seed=0)[:] and texts == task.draw(1_000, seed=0, exclude=test[name])[name][:]
    assert test[name][:] != task.draw(200, seed=1)[name][:]
    assert all(row["prompt"] == row[name] + "\n" for row in test)
    with pytest.raises(ValueError, match="exclude must be an iterable"):
        task.draw(1, exclude=texts[0])
    with pytest.raises(ValueError, match=f"exclude must have a `{name}` column"):
        task.draw(1, exclude=test.remove_columns(name))
    with pytest.raises(ValueError, match=" (is|are|holds) "):
        task.draw(1, exclude=[texts[0] + "\n"])


@pytest.mark.parametrize("name", ["sums", "countdown"])
def test_problems_are_drawn_uniformly_until_there_are_no_more(name):
    every = {"sums": grids_by_sums, "countdown": expressions_by_countdown}[name]()
    rest = sorted(every)[:40]
    exclude = [problem for problem in every if problem not in set(rest)]
    assert sorted(TASKS[name].draw(30, exclude=exclude)[name]) != rest[:30]
    assert set(TASKS[name].draw(30, exclude=exclude)[name]) < set(rest)
    with pytest.raises(ValueError, match=rf"found \d+ of count=41 {name} problems: 20000 draws in a row"):
        TASKS[name].draw(41, exclude=exclude)
    with pytest.raises(ValueError, match="`count` must be an integer of at least 1, got 0"):
        TASKS[name].draw(0)


@pytest.mark.parametrize("name", TASKS)
def test_demonstrations_are_right_and_fit(name):
    task = TASKS[name]
    problems = task.draw(300, seed=1)[name][:]
    shown = task.demonstrations(problems, 2_000, seed=1)
    assert task.reward(completions=shown["completion"][:], **{name: shown[name][:]}) == [1.0] * 2_000
    assert shown[:] == task.demonstrations(problems, 2_000, seed=1)[:]
    assert len(set(shown[name])) > 290
    ids = task.build_tokenizer()(list(shown["completion"]))["input_ids"]
    assert max(map(len, ids)) + 1 == task.max_completion_length
    for text in shown[name][:100]:
        assert task.reward(completions=[task.demonstrate(text, random.Random(0))], **{name: [text]}) == [1.0]
    with pytest.raises(ValueError, match=f"at least one {name} problem"):
        task.demonstrations([], 1)


@pytest.mark.parametrize("name", PUZZLES)
def test_all_right_answers_are_demonstrated_equally_often(name):
    solutions = {"sudoku": sudoku_solutions, "sums": sums_solutions, "countdown": countdown_solutions}[name]
    expected = len(solutions(PROBLEM[name]))
    count = 100 * expected
    counts = Counter(TASKS[name].demonstrations([PROBLEM[name]], count)["answer"])
    assert len(counts) == expected and sum(counts.values()) == count
    assert expected > 1 and max(counts.values()) < 160 and min(counts.values()) > 50  # 100 expected, deviation 10
