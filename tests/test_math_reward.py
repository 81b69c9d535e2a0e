"""The rewards of mathematical answers and of choices: right and wrong pairs, abuse, workers that are killed."""

import json
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from launching import launch_with


pytest.importorskip("math_verify")

from rlvr_trl.answer_text import MAX_TEXT_CHARS
from rlvr_trl.rewards import MathReward, WeightedReward, boxed_format_reward, choice_reward, math_reward
from rlvr_trl.rewards.answers.kinds import show
from rlvr_trl.rewards.answers.reader import read
from rlvr_trl.rewards.math import MAX_ANSWER_CHARS, read_answers, read_gold
from rlvr_trl.rewards.workers import Outcome, WorkerPool


pytestmark = pytest.mark.slow


LAUNCH_CONFIG = Path(__file__).parents[1] / "accelerate_configs" / "multi_gpu.yaml"
MATH_TRAIN = Path(__file__).parents[2] / "shared" / "data" / "math_train.parquet"

EQUAL = [
    (r"\frac{1}{2}", r"\frac12"),
    (r"\frac{1}{2}", r"\dfrac{1}{2}"),
    (r"\frac{1}{2}", r"\tfrac1{2}"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", ".5"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{3}", "0.333333333"),
    (r"3\frac{1}{2}", "3.5"),
    (r"3\frac{1}{2}", r"\frac{7}{2}"),
    ("5", r"x = 5"),
    ("5", "5.0"),
    ("5", r"5\text{ cm}^2"),
    ("5", "5 square units"),
    ("12", r"\$12"),
    ("12", "12 dollars"),
    ("60", r"60^\circ"),
    ("60", r"60^{\circ}"),
    ("50", r"50\%"),
    ("0.5", r"50\%"),
    ("1000000", r"1{,}000{,}000"),
    ("1,000,000", r"1,\!000,\!000"),
    ("10080", "10,080"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"\pi r^2", r"r^2 \pi"),
    ("2,3,4", r"2, 3, \text{ and } 4"),
    ("2,3,4", r"\{4, 3, 2\}"),
    (r"(1,\frac12)", r"\left( 1, 0.5 \right)"),
    (r"(-\infty,3]", r"\left(-\infty, 3\right]"),
    (r"[3,7]\cup[8,9)", r"[8,9) \cup [3,7]"),
    ("y=2x+3", "2x+3"),
    ("2x+3", "3+2x"),
    ("x^2-1", "(x-1)(x+1)"),
    (r"\text{Friday}", "friday"),
    ("{odd}", r"\text{odd}"),
    ("(C)", r"\text{C}"),
    ("1204_9", "1204_{9}"),
    (r"\begin{pmatrix}1\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac42 \end{bmatrix}"),
    ("2-9i,-2+9i", "-2+9i, 2-9i"),
]
DIFFERENT = [
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\frac{1}{3}", "0.33"),
    ("5", "-5"),
    ("5", "55"),
    ("0.000000001", "0.000000002"),
    ("100000000000000000001", "100000000000000000002"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("(1,2)", "[1,2]"),
    ("[3,7)", "[3,7]"),
    ("2,3,4", "2,3"),
    ("2,3,4", "2,3,5"),
    ("2,2,3", "2,3,3"),
    ("2", "2,3"),
    ("2,3", "2"),
    ("y=2x+3", "y=2x-3"),
    ("x=5", "y=5"),
    (r"\text{Friday}", "Sunday"),
    ("CBAD", "ABCD"),
    ("even", "neven"),
    ("C", "D"),
    ("1204_9", "1204_8"),
    ("0.5", r"0.5\pi"),
    (r"50\%", r"0.5\%"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    ("x+1", "x-1"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    ("8:34", "8:35"),
    (r"5\text{ million}", "5"),
    ("1", "1=2"),
]


@pytest.fixture(scope="module")
def reward():
    reward = MathReward(time_limit=2.0, num_workers=1)
    yield reward
    reward.close()


def pairs_to_columns(pairs):
    return {"completions": [rf"So it is $\boxed{{{a}}}$." for _, a in pairs], "answer": [g for g, _ in pairs]}


def test_equal_pairs(reward):
    rewards = reward(**pairs_to_columns(EQUAL))
    assert [pair for pair, value in zip(EQUAL, rewards, strict=True) if value != 1.0] == []


def test_different_pairs(reward):
    rewards = reward(**pairs_to_columns(DIFFERENT))
    assert [pair for pair, value in zip(DIFFERENT, rewards, strict=True) if value != 0.0] == []


def test_where_the_answer_is():
    for text, expected in {
        r"\boxed{1} then, no: \boxed{2}": ("2",),
        r"$\boxed{(-2,18)}$ and $\boxed{(8,38)}$": ("(-2,18), (8,38)", "(8,38)"),
        r"\boxed{1} or \boxed{2}": ("1, 2",),
        r"\boxed{1}, \boxed{2} and \boxed{3}": ("1, 2, 3",),
        r"\boxed{\boxed{3}}": ("3",),
        r"\boxed{4} and cut \boxed{5": ("4",),
        r"\boxed{a{b}": (),
        r"\boxed 7": ("7",),
        r"\boxed{}": (),
        "<answer> 8 </answer>": ("8",),
        "The final answer is: $9$. I hope it is correct.": ("9",),
        "Answer: 10\n": ("10",),
        "It may be 11": (),
        "So\n\n$x = 12$": ("x = 12",),
        "I give up": (),
        "": (),
        r"<think>\boxed{13}</think>": (),
        r"<think>\boxed{13}</think> The answer is 14.": ("14",),
        r"<think>\boxed{13} or": (),
        r"\boxed{" + "1" * (MAX_ANSWER_CHARS + 1) + "}": (),
        r"\boxed{1}" + " " * MAX_TEXT_CHARS: (),
    }.items():
        assert read_answers(text) == expected, text[:80]


def test_thinking_is_a_setting():
    text, answer = r"<musing>\boxed{5}</musing> so \boxed{4}", ["4"]
    assert MathReward()([r"\boxed{5} so <musing>\boxed{4}"], answer=answer) == [1.0]
    own = MathReward(thinking_tags=[("<musing>", "</musing>")])
    assert own([text, r"\boxed{5} so <musing>\boxed{4}"], answer=answer * 2) == [1.0, 0.0]
    opened = MathReward(starts_thinking=True)
    assert opened([r"\boxed{4}", r"\boxed{4}</think>", r"\boxed{5}</think>\boxed{4}"], answer=answer * 3) == [0, 0, 1]
    with pytest.raises(ValueError, match="thinking_tags"):
        MathReward(thinking_tags="<think>")


def test_options_of_mixed_benchmarks(reward):
    chosen = [
        r"\boxed{B. 17}",
        r"\boxed{\textbf{(B)}\ 17}",
        r"\boxed{b}",
        r"\boxed{A. 17}",
        r"\boxed{17}",
        r"\boxed{A, B}",
    ]
    assert reward(chosen, answer=["B"] * 6) == [1, 1, 1, 0, 0, 0]


def test_columns_and_messages(reward):
    assert reward(["\\boxed{1}"], solution=["Thus $\\boxed{1}$."]) == [1.0]
    assert reward(["\\boxed{1}"], solution=["\\boxed{2}"], answer=["1"]) == [1.0]
    assert reward(completions=[[{"role": "assistant", "content": "\\boxed{1}"}], [], None], answer=["1"] * 3) == [
        1,
        0,
        0,
    ]
    with pytest.raises(ValueError, match="`answer` or `solution`"):
        reward(["\\boxed{1}"])
    with pytest.raises(ValueError, match="each of the 1 completions, found 2"):
        reward(["\\boxed{1}"], answer=["1", "2"])


def test_a_reference_that_cannot_be_read_gives_none(reward):
    references = ["", "  ", "$$", "{", None, "\\boxed{}", "word " * 30, "9" * 2_000, "#### 1,234"]
    assert reward(["\\boxed{1234}"] * 9, answer=references) == [None] * 8 + [1.0]
    assert read_gold("...") is None


def test_logs(reward):
    extra, metrics = {}, {}
    reward(["\\boxed{\\dfrac12}", "?"], answer=["1", "1"], log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert extra == {"extracted_answer": [r"\frac{1}{2}", None]}
    names = ("timed_out", "died", "lost", "failed", "refused", "retried")
    assert metrics == dict.fromkeys((f"math_reward/{name}" for name in names), 0.0)
    assert math_reward.__name__ == reward.__name__ == "math_reward"


def adversarial():
    rng = random.Random(0)
    bombs = [r"9^{9^{9^9}}", "9^{9^{9^{9^{9^9}}}}", "10^{10^{10}}!", "((9!)!)!", r"\binom{10^9}{5\cdot10^8}"]
    texts = [rf"\boxed{{{bomb}}}" for bomb in bombs]
    texts += ["\\boxed{" * n + "1" + "}" * n for n in (2, 10, 1_000, 100_000)]
    texts += ["\\boxed{" * 100_000, "\\boxed{1" * 50_000, "{" * 1_000_000, "}" * 1_000_000, "\\boxed" * 160_000]
    texts += ["\\boxed{" + "7" * n + "}" for n in (999, 5_000, 900_000, 5_000_000)]
    texts += ["\\boxed{" + "(" * n + "1" + ")" * n + "}" for n in (50, 400)]
    texts += ["\\boxed{" + "\\frac{1}{" * n + "2" + "}" * n + "}" for n in (5, 30, 90)]
    texts += ["\\boxed{" + "\\sqrt{" * n + "2" + "}" * n + "}" for n in (5, 90)]
    texts += ["\\boxed{1\0}", "\0" * 1_000, "\\boxed{\ud800}", "\\boxed{½٣²}", "\\boxed{1/0}", "\\boxed{0^0}"]
    texts += [
        "\\boxed{1}\\boxed{2}\\boxed{3}",
        "\\boxed{1,2,3,4,5,6}",
        "\\boxed{1=2=3=42}",
        "\\boxed{x}",
        "\\boxed{\\ }",
    ]
    texts += ["\\boxed{" + ",".join(map(str, range(200))) + "}", "\\boxed{\\text{" + "a" * 900 + "}}"]
    texts += ["answer is " * 50_000, "<answer>" * 100_000, "<answer></answer>", "Answer:" * 50_000, "\\boxed {}"]
    texts += ["\\boxed{__import__('os').system('exit')}", "\\boxed{\\input{/etc/passwd}}", "\\boxed{\\int_0^1 x^x dx}"]
    alphabet = [
        "{",
        "}",
        "\\",
        "boxed",
        "\\frac",
        "^",
        "_",
        "(",
        ")",
        ",",
        "1",
        "x",
        "$",
        "%",
        "\\text",
        "=",
        "\n",
        "&",
    ]
    texts += ["\\boxed{" + "".join(rng.choices(alphabet, k=25)) + "}" for _ in range(55)]
    return texts


def test_abuse_is_bounded_and_raises_nothing():
    reward = MathReward(time_limit=0.5, num_workers=2)
    texts, start, extra = adversarial(), time.monotonic(), {}
    assert len(texts) >= 95
    rewards = reward(texts, answer=["42.5"] * len(texts), log_extra=extra.__setitem__)
    assert time.monotonic() - start < 120  # 7 s on a quiet machine
    assert [t[:60] for t, r in zip(texts, rewards, strict=True) if r != 0.0] == []
    assert all(answer is None or len(answer) <= 2 * MAX_ANSWER_CHARS for answer in extra["extracted_answer"])
    assert reward([r"\boxed{\sqrt{8}}"], answer=[r"2\sqrt{2}"]) == [1.0]
    reward.close()


SLOW = r"\boxed{\sum_{n=1}^{10000000}\frac{1}{n^2+1}}"


def test_a_judgement_that_hangs_is_ended_and_remembered():
    reward = MathReward(time_limit=2.0, num_workers=1)
    reward([r"\boxed{\sqrt{8}}"], answer=[r"2\sqrt{2}"])  # the worker is ready
    metrics, start = {}, time.monotonic()
    completions, answers = [SLOW, r"\boxed{\sqrt{12}}", SLOW], ["2", r"2\sqrt{3}", "2"]
    assert reward(completions, answer=answers, log_metric=metrics.__setitem__) == [0.0, 1.0, 0.0]
    assert metrics["math_reward/timed_out"] == metrics["math_reward/retried"] == 1
    assert time.monotonic() - start < 600  # two workers load SymPy meanwhile
    judged = sum(reward.pool.counts.values())
    assert reward(completions, answer=answers) == [0.0, 1.0, 0.0] and sum(reward.pool.counts.values()) == judged
    reward.close()


class _Ending(WorkerPool):
    """A pool in which every judgement ends in the same way."""

    outcome = None

    def run(self, jobs):
        return [self.outcome] * len(jobs)


@pytest.mark.parametrize(
    ("status", "value", "reward_then"),
    [
        ("lost", "its worker was ended by SIGKILL", None),
        ("failed", "ZeroDivisionError()", None),
        ("failed", "refused: open", 0.0),
        ("died", "its worker was ended by SIGSEGV", 0.0),
    ],
)
def test_what_says_nothing_of_the_answer_is_no_label_and_is_not_remembered(monkeypatch, status, value, reward_then):
    reward = MathReward(num_workers=1)
    pool, metrics, ending = reward.pool, {}, _Ending(abs, num_workers=1, time_limit=1)
    ending.outcome = Outcome(status, value)
    monkeypatch.setattr(reward, "pool", ending)
    texts, answers = [r"\boxed{\sqrt{8}}", r"\boxed{2}", r"\boxed{3}"], [r"2\sqrt{2}", "2", "2"]
    assert reward(texts, answer=answers, log_metric=metrics.__setitem__) == [reward_then, 1.0, 0.0]
    assert metrics[f"math_reward/{status}"] == 1
    monkeypatch.setattr(reward, "pool", pool)
    assert reward(texts, answer=answers) == [1.0 if reward_then is None else 0.0, 1.0, 0.0]
    pool.close()


def test_equal_pairs_are_judged_once(reward):
    before = reward.pool.counts["done"]
    completions, answer = [r"\boxed{\sqrt{18}}", r"\boxed{\sqrt{ 18 }}"] * 20, [r"3\sqrt{2}", r"$3\sqrt 2$"] * 20
    assert reward(completions, answer=answer) == [1.0] * 40
    assert reward(completions, answer=answer) == [1.0] * 40
    assert reward.pool.counts["done"] == before + 1
    reward([r"\boxed{7}"] * 8, answer=["7"] * 8)  # no worker is asked
    assert reward.pool.counts["done"] == before + 1


def test_settings_are_checked():
    for settings, named in [
        ({"num_workers": 0}, "num_workers"),
        ({"time_limit": 0}, "time_limit"),
        ({"memory_limit_mb": 0.5}, "memory_limit_mb"),
        ({"start_method": "forkserver"}, "start_method"),
    ]:
        with pytest.raises(ValueError, match=named):
            MathReward(**settings)


def test_from_threads():
    reward, results = MathReward(time_limit=5, num_workers=2), {}

    def judge_one(i):
        results[i] = reward([rf"\boxed{{\sqrt{{{i * i * 2}}}}}"], answer=[rf"{i}\sqrt{{2}}"])

    for _ in range(2):  # the workers outlive the threads that started them
        threads = [threading.Thread(target=judge_one, args=(i,)) for i in range(2, 6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        time.sleep(0.2)
    assert results == {i: [1.0] for i in range(2, 6)}
    assert len(reward.pool.pids) <= 2 and all(map(alive, reward.pool.pids))
    reward.close()


def _judge_in_child(reward, connection):
    connection.send((reward([r"\boxed{\sqrt{50}}"], answer=[r"5\sqrt{2}"]), reward.pool.pids))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_a_child_process(reward, method):
    reward([r"\boxed{\sqrt{32}}"], answer=[r"4\sqrt{2}"])
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    child = context.Process(target=_judge_in_child, args=(reward, there), daemon=True)
    child.start()
    rewards, pids = here.recv()
    child.join()
    assert rewards == [1.0] and not set(pids) & set(reward.pool.pids)
    assert all(map(alive, reward.pool.pids))


def test_under_accelerate_launch(tmp_path):
    launch_with("math_rewards.py", str(tmp_path), processes=2, config=LAUNCH_CONFIG)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["rewards"] == [1.0, 1.0, 1.0, 0.0] and second["rewards"] == [0.0, 1.0, 1.0, 0.0]
    assert set(first["metrics"].values()) == {0.0} and "math_reward/timed_out" in first["metrics"]
    for rank in (first, second):  # they share the cores
        assert rank["workers"] == max(1, min(4, rank["cores"] // 2))
        assert rank["pids"] and not any(map(alive, rank["pids"]))
    assert not set(first["pids"]) & set(second["pids"])


def test_pickling_keeps_the_settings():
    copy = pickle.loads(pickle.dumps(MathReward(time_limit=3, num_workers=2, memory_limit_mb=None)))
    assert (copy.pool.time_limit, copy.pool.num_workers, copy.pool.memory_limit_mb) == (3, 2, None)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_importing_the_rewards_needs_no_math_verify():
    script = """
import sys
sys.modules["math_verify"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "math_verify" else find(name, *rest)
sys.modules["flint"] = None
from rlvr_trl.rewards import choice_reward, math_reward, maze_reward
try:
    math_reward(["1"], answer=["1"])
except ImportError as error:
    assert "pip install math-verify" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_choice_reward():
    extra = {}
    texts = {
        r"\boxed{C}": "C",
        r"\boxed{\text{(C)}}": "C",
        r"\boxed{\textbf{C. Paris}}": "C",
        r"\boxed{5} (C)": None,
        "The answer is (C).": "C",
        "The answer is **C**": "C",
        "the correct answer is option c": "C",
        "Answer: J": "J",
        "<answer>C</answer>": "C",
        "The answer is a number, so (C) it is": "C",
        "(A) no, (B) no, (C)": "C",
        "(K)": None,
        "Cats": None,
        "": None,
    }
    choice_reward(list(texts), answer=["C"] * len(texts), log_extra=extra.__setitem__)
    found = dict(zip(texts, extra["extracted_answer"], strict=True))
    assert found.pop("The answer is a number, so (C) it is") in ("A", "C")  # "a" is read as a letter
    texts.pop("The answer is a number, so (C) it is")
    assert found == texts
    assert choice_reward(["(A)"] * 4, answer=["A", "(B)", r"\boxed{A}", "?"]) == [1.0, 0.0, 1.0, None]
    with pytest.raises(ValueError, match="`answer` or `solution`"):
        choice_reward(["(A)"])


def test_boxed_format_reward():
    texts = [r"\boxed{4}", r"\boxed{ }", r"\boxed{4", "4", r"\boxed 4", r"\boxed{\frac{1}{2}} \boxed{", "\\boxed{{}"]
    assert boxed_format_reward(completions=texts) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_weighted_reward(reward):
    weighted = WeightedReward({reward: 0.9, boxed_format_reward: 0.1})
    assert weighted.__name__ == "math_reward_and_boxed_format_reward"
    rewards = weighted(completions=[r"\boxed{4}", r"\boxed{5}", "answer is 4", "", "4"], answer=["4"] * 4 + [""])
    assert rewards == [pytest.approx(1.0), 0.1, 0.9, 0.0, None]
    for broken in ({}, {"x": 1.0}, {reward: None}):
        with pytest.raises(ValueError):
            WeightedReward(broken)
    logged = defaultdict(list)
    both = WeightedReward({reward: 0.5, choice_reward: 0.5})
    for _ in range(2):  # as TRL has it, which appends
        both(
            completions=["(B)", "(C)"],
            answer=["B", "A"],
            log_extra=lambda column, values: logged[column].extend(values),
        )
    assert len(logged["extracted_answer"]) == 4
    assert logged["extracted_answer (choice_reward)"] == ["B", "C"] * 2
    columns = []
    partials = [partial(choice_reward, answer=[letter]) for letter in "ABC"]
    WeightedReward(dict.fromkeys(partials, 1.0))(
        completions=["(B)"], log_extra=lambda column, values: columns.append(column)
    )
    assert columns == ["extracted_answer", "extracted_answer (choice_reward)", "extracted_answer (choice_reward 2)"]


@pytest.mark.skipif(not MATH_TRAIN.exists(), reason="needs ../shared/data/math_train.parquet")
def test_gold_solutions_of_math(reward):
    from datasets import Dataset

    data = Dataset.from_parquet(str(MATH_TRAIN)).shuffle(seed=0).select(range(500))
    solutions, answers = list(data["solution"]), list(data["answer"])
    rewards = reward(solutions, answer=answers)
    assert sum(value == 1.0 for value in rewards) >= 0.99 * len(rewards)
    shuffled = random.Random(0).sample(answers, len(answers))
    rewards = reward(solutions, answer=shuffled)
    wrong = [
        (a, s)
        for a, s, r in zip(answers, shuffled, rewards, strict=True)
        if r == 1.0 and show(read(a)[0]) != show(read(s)[0])
    ]
    assert wrong == []
