"""Tasks of reasoning-gym: what is drawn and refused, what an answer earns, and what hostile text costs."""

import json
import pickle
import random
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest


pytest.importorskip("reasoning_gym")

from reasoning_gym.factory import DATASETS

from rlvr_trl.data import load_reasoning_gym
from rlvr_trl.gym_tasks import REFUSED, RUNS_ANSWER, RUNS_ITEM, SCORER_SETTINGS, make_task
from rlvr_trl.rewards import ReasoningGymReward, reasoning_gym_reward
from rlvr_trl.rewards.named_rewards import build_reward


SUPPORTED = sorted(DATASETS.keys() - REFUSED.keys())
NONSENSE = ["", "nan", "1e999", "-1", "true", "None", "[]", '{"a": 1}', "(", "0/0", "A=1", "9" * 5000, "x!", "['a']"]


@pytest.fixture(scope="module")
def reward():
    """Takes every task, and gives what the scorer gives."""
    made = ReasoningGymReward(threshold=None, run_text=True, num_workers=1)
    tasks = ["leg_counting", "color_cube_rotation", "prime_factorization", "shortest_path", "time_intervals"]
    tasks += ["rush_hour", "graph_color", *RUNS_ANSWER, *RUNS_ITEM]
    rows = [row for task in tasks for row in load_reasoning_gym(task, 1, run_text=True)]
    made([""] * len(rows), [row["task"] for row in rows], [row["item"] for row in rows])  # loads all tasks at once
    yield made
    made.close()


def rate(reward, problem, *answers):
    """The rewards of answers to one problem."""
    completions = [f"<answer>{answer}</answer>" for answer in answers]
    return reward(completions, [problem["task"]] * len(answers), [problem["item"]] * len(answers))


# --- the questions ---


def test_the_same_arguments_draw_the_same_questions_and_two_seeds_share_none():
    first, again, other = (load_reasoning_gym("chain_sum", 200, seed) for seed in (1, 1, 2))
    assert first[:] == again[:] and first.column_names == ["prompt", "task", "question", "solution", "item"]
    assert len(set(first["question"])) == 200 and not set(first["question"]) & set(other["question"])
    # reasoning-gym's own seeds share all items but one
    own = [{make_task("chain_sum", seed, 200, {})[i]["question"] for i in range(200)} for seed in (1, 2)]
    assert len(own[0] & own[1]) > 190


def test_a_training_set_has_no_question_of_the_test_set():
    few = partial(load_reasoning_gym, "gcd", max_value=8)  # 64 questions
    test = few(20, seed=1)
    assert set(test["question"]) & set(few(40)["question"])
    for exclude in (test, test["question"][:]):
        assert not set(test["question"]) & set(few(40, exclude=exclude)["question"])
    with pytest.raises(ValueError, match=r"found \d+ of size=60 questions of the task 'gcd'.*'max_value': 8"):
        few(60, exclude=test)
    with pytest.raises(ValueError, match="exclude must have a `question` column"):
        few(20, exclude=test.rename_column("question", "problem"))
    with pytest.raises(ValueError, match="found a single string"):
        few(20, exclude=test["question"][0])


def test_the_random_numbers_of_the_process_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    for task in SUPPORTED:
        load_reasoning_gym(task, 1, run_text=True)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_page_names_what_is_refused_and_what_evaluates_text():
    page = (Path(__file__).parents[1] / "docs" / "puzzles.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$", page.partition("### Tasks that are refused")[2], re.MULTILINE
    )
    listed = {name: reason for names, reason in rows for name in re.findall(r"\w+", names)}
    assert listed.keys() == REFUSED.keys() and f"the {len(SUPPORTED)} others" in page
    assert {name for name in listed if not REFUSED[name].startswith(listed[name])} == set()
    evaluating = page.partition("### Tasks that evaluate text")[2].partition("They are refused")[0]
    assert {*re.findall(r"`(\w+)`", evaluating)} == {*RUNS_ANSWER, *RUNS_ITEM, "eval"}


def test_prompts():
    (row,) = load_reasoning_gym("chain_sum", 1)
    (message,) = row["prompt"]
    assert message["role"] == "user" and message["content"].startswith(row["question"] + "\n\n")
    assert "inside <answer> and </answer>" in message["content"]
    (bare,) = load_reasoning_gym("chain_sum", 1, template="{problem}\n")
    assert bare["prompt"] == row["question"] + "\n" and bare["item"] == row["item"]


@pytest.mark.parametrize("task", REFUSED)
def test_a_task_that_is_wrong_is_refused_by_its_name(task):
    assert task in DATASETS
    with pytest.raises(ValueError, match=f"task='{task}' of reasoning-gym cannot be trained on: "):
        load_reasoning_gym(task, 1, run_text=True)
    with pytest.raises(ValueError, match=f"task='{task}' of reasoning-gym cannot be trained on: "):
        reasoning_gym_reward(["<answer>1</answer>"], [task], ["{}"])


@pytest.mark.parametrize("task", RUNS_ANSWER + RUNS_ITEM)
def test_a_task_whose_scorer_evaluates_text_has_to_be_asked_for(task):
    with pytest.raises(ValueError, match=f"task='{task}' needs `run_text=True`"):
        load_reasoning_gym(task, 1)
    problem = load_reasoning_gym(task, 1, run_text=True)[0]
    with pytest.raises(ValueError, match=f"task='{task}' needs `run_text=True`"):
        rate(reasoning_gym_reward, problem, "1")
    assert reasoning_gym_reward.workers.pool.pids == []  # nothing was started for it


def test_mistakes_in_the_arguments():
    for arguments, message in (
        ({"task": "leg_countin"}, "no task of reasoning-gym. Did you mean 'leg_counting'"),
        ({"size": 0}, "`size` must be an integer of at least 1, got 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"max_animal": 3}, "settings {'max_animal': 3} of the task 'leg_counting' cannot be used"),
        ({"min_animals": 30}, "settings {'min_animals': 30} of the task 'leg_counting' cannot be used"),
        ({"template": "no slot"}, "template must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            load_reasoning_gym(**{"task": "leg_counting", "size": 1} | arguments)
    for arguments, message in (
        ({"threshold": 0}, r"`threshold` must be in \(0, 1\], or None"),
        ({"time_limit": 0}, "`time_limit` must be a positive number"),
        ({"thinking_tags": ["<think>"]}, "`thinking_tags` must be pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            ReasoningGymReward(**arguments)


# --- the answers ---


def test_where_the_answer_is(reward):
    problem = load_reasoning_gym("leg_counting", 1)[0]
    right, logged = problem["solution"], {}
    texts = [
        f"<answer>1</answer> no, <answer>\n{right} </answer>",
        f"<think><answer>{right}</answer></think> <answer>1</answer>",
        f"<think><answer>{right}</answer>",
        f"It is {right}.",
        "<answer>" + right + " " * 30_000 + "</answer>",
    ]
    completions = [*texts, [{"role": "assistant", "content": texts[0]}]]
    columns = {"task": [problem["task"]] * 6, "item": [problem["item"]] * 6}
    assert reward(completions, **columns, log_extra=logged.setdefault, more=None) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert logged["extracted_answer"] == [right, "1", None, None, None, right]
    metrics = {}
    assert reward([texts[0]], **{k: v[:1] for k, v in columns.items()}, log_metric=metrics.__setitem__) == [1.0]
    assert metrics == {f"reasoning_gym_reward/{name}": 0.0 for name in ("timed_out", "died", "lost", "failed")}
    with pytest.raises(ValueError, match="`task` must have one entry for each of 2 completions, got 1"):
        reward(texts[:2], [problem["task"]], [problem["item"]] * 2)
    assert reward([texts[1]], **{k: v[:1] for k, v in columns.items()}, thinking_tags=[("<t>", "</t>")]) == [0.0]


def test_nonsense_earns_nothing_unless_the_score_is_asked_for(reward):
    problem = load_reasoning_gym("color_cube_rotation", 1)[0]
    assert rate(reward, problem, "plaid", problem["solution"]) == [0.01, 1.0]
    binary = ReasoningGymReward(num_workers=1)
    assert rate(binary, problem, "plaid", problem["solution"]) == [0.0, 1.0]
    binary.close()


def test_a_scorer_that_raises_an_error_on_an_answer_makes_it_wrong(reward):
    problem = load_reasoning_gym("prime_factorization", 1)[0]
    with pytest.raises(ValueError, match="invalid literal"):
        make_task("prime_factorization", 0, 1, {}).score_answer("two", json.loads(problem["item"]))
    assert rate(reward, problem, "two", problem["solution"]) == [0.0, 1.0]


def test_settings_that_a_scorer_reads_come_with_the_item(reward):
    for places, right in ((1, True), (5, False)):
        problem = load_reasoning_gym(
            "decimal_arithmetic", 1, min_num_decimal_places=1, max_num_decimal_places=places, precision=8
        )[0]
        assert json.loads(problem["item"])["config"] == {"max_num_decimal_places": places}
        near = str(float(problem["solution"]) + 0.01)
        assert rate(reward, problem, near, problem["solution"]) == [float(right), 1.0]
    for task, names in SCORER_SETTINGS.items():
        assert set(names) <= set(DATASETS[task][1].__dataclass_fields__)
    entry = json.loads(problem["item"]) | {"config": {"max_num_decimal_places": "../../etc"}}
    with pytest.raises(ValueError, match="`max_num_decimal_places` of the task 'decimal_arithmetic' must be a number"):
        rate(reward, problem | {"item": json.dumps(entry)}, "1")


def test_a_broken_item_is_an_error_and_no_label(reward):
    problem = load_reasoning_gym("shortest_path", 1)[0]
    entry = json.loads(problem["item"])
    for item, message in (
        ("{", "Row 0 of the batch has a broken item of the task 'shortest_path': it is not JSON"),
        (None, "it is not JSON"),
        ("[1]", "it lacks question, metadata, config"),
        (json.dumps({name: entry[name] for name in ("question", "metadata", "config")}), "it lacks answer"),
        (json.dumps(entry | {"question": 5}), "it lacks question"),
    ):
        with pytest.raises(ValueError, match=message):
            rate(reward, problem | {"item": item}, "right")
    legs = load_reasoning_gym("time_intervals", 1)[0]
    changed = json.loads(legs["item"]) | {"metadata": {}}
    for answer in ("1", None):  # also where there is nothing to score
        completions = ["none" if answer is None else f"<answer>{answer}</answer>"]
        with pytest.raises(ValueError, match="its own answer .* scores 0, and not 1"):
            reward(completions, ["time_intervals"], [json.dumps(changed)])
    for task in ("rush_hour", "graph_color"):  # whose items have no answer of their own
        found = load_reasoning_gym(task, 1)[0]
        changed = json.loads(found["item"]) | {"metadata": {}}
        with pytest.raises(ValueError, match="its metadata (lack .*board_config|have no right answer)"):
            rate(reward, found | {"item": json.dumps(changed)}, "1")


def test_a_task_that_comes_later_starts_new_workers():
    reward = ReasoningGymReward(num_workers=1)
    legs, sums = (load_reasoning_gym(task, 1)[0] for task in ("leg_counting", "chain_sum"))
    assert rate(reward, legs, legs["solution"]) == [1.0]
    pids = reward.workers.pool.pids
    assert rate(reward, legs, "0") == [0.0] and reward.workers.pool.pids == pids
    both = reward(
        [f"<answer>{one['solution']}</answer>" for one in (sums, legs)],
        [sums["task"], legs["task"]],
        [sums["item"], legs["item"]],
    )
    assert both == [1.0, 1.0] and reward.workers.pool.pids != pids
    reward.close()


def test_by_name_and_in_another_process():
    made = build_reward("{name: reasoning_gym_reward, threshold: 0.5, run_text: true, num_workers: 1}")
    again = pickle.loads(pickle.dumps(made))
    assert (again.threshold, again.run_text, again.__name__) == (0.5, True, "reasoning_gym_reward")
    assert again.workers.pool.num_workers == 1 and again.packages == ("reasoning_gym",)


@pytest.mark.slow
def test_every_task_pays_its_right_answers_and_no_nonsense():
    """And no scorer asks a locked worker for something: that would end it with every such answer."""
    reward = ReasoningGymReward(run_text=True, num_workers=2)
    problems = [row for task in SUPPORTED for row in load_reasoning_gym(task, 3, seed=11, run_text=True)]
    columns = {name: [problem[name] for problem in problems] for name in ("task", "item")}
    right = reward([f"<answer>{problem['solution']}</answer>" for problem in problems], **columns)
    assert {p["task"] for p, value in zip(problems, right, strict=True) if value != 1} == {"rush_hour"}  # has none
    for answer in NONSENSE:
        rewards = reward([f"<answer>{answer}</answer>"] * len(problems), **columns)
        paid = [problem for problem, value in zip(problems, rewards, strict=True) if value != 0]
        # gsm_symbolic reads the first digits of a text, whatever else is in it
        assert [p for p in paid if p["solution"] != answer and p["task"] != "gsm_symbolic"] == [], answer
    for pool in (reward.workers.pool, reward.arithmetic_workers.pool):
        ends = {name: pool.counts[name] for name in ("failed", "timed_out", "died", "lost", "refused")}
        assert ends == dict.fromkeys(ends, 0) and pool.counts["done"] > 0
    reward.close()


# --- hostile text ---


def test_text_that_is_evaluated_is_arithmetic(reward):
    problem = load_reasoning_gym("countdown", 1, run_text=True)[0]
    answers = [problem["solution"], f"({problem['solution']})*1", "5!", "Max(1, 2)", "2**3"]
    assert rate(reward, problem, *answers) == [1.0, 0.05, 0.0, 0.0, 0.0]
    integral = load_reasoning_gym("simple_integration", 1, run_text=True)[0]
    integrand = json.loads(integral["item"])["metadata"]["integrand"]
    variable = json.loads(integral["item"])["metadata"]["variable"]
    undone = f"Integral({integrand}, {variable})"  # which the scorer alone takes for an answer
    own = make_task("simple_integration", 0, 1, {}).score_answer(undone, json.loads(integral["item"]))
    assert own == 1.0
    assert rate(reward, integral, integral["solution"], undone) == [1.0, 0.0]


def test_an_answer_that_would_run_runs_nowhere(reward, tmp_path):
    canary = tmp_path / "canary"
    texts = [
        f"__import__('os').system('touch {canary}')",
        f"[open('{canary}', 'w')]",
        f"[x for x in ().__class__.__base__.__subclasses__() if open('{canary}', 'w')]",
        f"Symbol('x').func('__import__(\"os\").system(\"touch {canary}\")')",
        f"sin(\"__import__('os').system('touch {canary}')\")",
        f"sympify(\"__import__('os').system('touch {canary}')\")",
    ]
    for task in RUNS_ANSWER + RUNS_ITEM:
        problem = load_reasoning_gym(task, 1, seed=3, run_text=True)[0]
        assert max(rate(reward, problem, *texts)) < 0.1 and not canary.exists(), task
        if task in RUNS_ITEM:  # nor does the text of an item
            entry = json.loads(problem["item"])
            entry["answer"], entry["metadata"]["problem"] = texts[0], texts[0]
            with pytest.raises(ValueError, match="its own answer"):
                rate(reward, problem | {"item": json.dumps(entry)}, "0x0")
            assert not canary.exists()
    assert reward.arithmetic_workers.pool.counts["refused"] == 0  # it ended before it asked for anything


@pytest.mark.slow
def test_what_long_answers_cost(reward):
    problems = [load_reasoning_gym(task, 1, run_text=True)[0] for task in ("leg_counting", *RUNS_ANSWER)]
    for problem in problems:
        done = reward.workers.pool.counts["done"] + reward.arithmetic_workers.pool.counts["done"]
        begin = time.monotonic()
        assert rate(reward, problem, *["1" * 100_000, "(" * 100_000, "9**" * 40_000 + "9"]) == [0.0] * 3
        assert time.monotonic() - begin < 5 and done + 1 >= (  # they are not read
            reward.workers.pool.counts["done"] + reward.arithmetic_workers.pool.counts["done"]
        )
    quick = ReasoningGymReward(threshold=None, run_text=True, num_workers=1, time_limit=0.5)
    problem = problems[1 + RUNS_ANSWER.index("simple_integration")]
    assert rate(quick, problem, problem["solution"]) == [1.0]  # starts a worker
    begin = time.monotonic()
    for answer in ("9**9**9", "(" * 19_000, "1+" * 9_000 + "1", "9" * 19_000, "[" * 19_000):
        assert max(rate(quick, problem, answer)) == 0.0, answer
    assert time.monotonic() - begin < 600  # a worker is started anew for each that is out of time
    quick.close()
