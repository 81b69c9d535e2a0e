"""The verifiers of Enigmata, from a stand-in for its repository: what they give, and what hostile text and rows do."""

import json
import pickle
import time

import pytest

from rlvr_trl.data import load_enigmata
from rlvr_trl.rewards import EnigmataReward
from rlvr_trl.rewards.named_rewards import build_reward
from rlvr_trl.rewards.task_workers import judgement, score_of
from rlvr_trl.rewards.workers import Outcome


# Written for these tests, in the form of the repository's: verify(pred, answer, meta), with the last code block as the
# answer, and with what its verifiers do to it
VERIFIERS = {
    "game24": """
import json, re
def verify(pred, answer, meta):
    numbers = json.loads(meta)["question"]
    blocks = re.findall(r"```.*?\\n(.*?)```", pred, re.DOTALL)
    if not blocks:
        return 0
    try:
        return int(abs(eval(blocks[-1]) - 24) < 1e-4 and sorted(re.findall("[0-9]+", blocks[-1])) == sorted(numbers))
    except Exception:
        return 0
""",
    "hitori": """
import ast, json, re
def verify(pred, answer, meta):
    blocks = re.findall(r"```.*?\\n(.*?)```", pred, re.DOTALL)
    return blocks and ast.literal_eval(blocks[-1].strip()) == json.loads(answer)
""",
    "knights_and_knaves": """
import re
def verify(pred, answer, meta):
    return re.findall(r"```.*?\\n(.*?)```", pred, re.DOTALL)[-1].strip() == answer
""",
    "sudoku": """
def verify(pred, answer, meta):
    while pred:
        pass
""",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Enigmata")
    for name, text in VERIFIERS.items():
        task = folder / "verifiable_tasks" / "tasks" / name
        task.mkdir(parents=True)
        (task / "verifier.py").write_text(text, encoding="utf-8")
        (task / "README.md").write_text("The rules.", encoding="utf-8")
    tasks = folder / "verifiable_tasks" / "tasks"
    (tasks / "not-a-name").mkdir()
    (tasks / "not-a-name" / "verifier.py").write_text("raise SystemExit", encoding="utf-8")
    (tasks / "no_verifier").mkdir()
    return folder


@pytest.fixture(scope="module")
def reward(checkout):
    made = EnigmataReward(checkout, num_workers=1)
    yield made
    made.close()


def rate(reward, task, answer, meta, *texts):
    columns = {"task_name": [task] * len(texts), "answer": [answer] * len(texts), "meta": [meta] * len(texts)}
    return reward(list(texts), **columns)


def block(text):
    return f"So:\n```\n{text}\n```"


QUESTION = json.dumps({"question": ["8", "2", "8", "2"]})


def test_what_the_end_of_a_scoring_says_about_an_answer():
    for outcome, score in (
        (Outcome("done", 0.25), 0.25),
        (Outcome("timed_out", "it used all its processor time"), 0.0),
        (Outcome("died", "it ran out of memory"), 0.0),
        (Outcome("failed", "refused: os.system"), 0.0),
        (Outcome("failed", "KeyError('leg_counting')"), None),  # our fault
        (Outcome("lost", "its worker was ended by SIGKILL"), None),
    ):
        assert score_of(outcome, 0, "item") == score
    with pytest.raises(ValueError, match="Row 3 of the batch has a broken item: it lacks legs."):
        score_of(Outcome("done", "it lacks legs."), 3, "item")
    assert [judgement(score, 1.0) for score in (None, 0.99, 1.0)] == [None, 0.0, 1.0]
    assert [judgement(score, None) for score in (None, 0.05, 1.0)] == [None, 0.05, 1.0]


def test_the_verifiers_of_the_checkout(checkout, reward):
    assert list(reward.verifiers) == list(VERIFIERS)
    texts = [block("(8/2)*(8-2)"), block("8+8+8"), "24", f"<think>{block('(8/2)*(8-2)')}"]
    assert rate(reward, "game24", "", QUESTION, *texts) == [1.0, 0.0, 0.0, 0.0]
    conversation = [[{"role": "assistant", "content": f"<think>no</think>{texts[0]}"}]]
    assert reward(conversation, task_name=["game24"], answer=[None], meta=[QUESTION], prompts=[""]) == [1.0]
    assert rate(reward, "hitori", "[[1, 2]]", "{}", block("[[1, 2]]"), block("[[1]]"), block("[[")) == [1.0, 0.0, 0.0]
    assert rate(reward, "knights_and_knaves", "true", "{}", block("true"), block("false"), "true") == [1.0, 0.0, 0.0]
    assert not [*checkout.rglob("*.pyc")]


def test_an_answer_that_would_run_runs_nowhere(reward, tmp_path):
    canary = tmp_path / "canary"
    texts = [
        f"__import__('os').system('touch {canary}')",
        f"open('{canary}', 'w')",
        f"[c for c in ().__class__.__base__.__subclasses__()] and open('{canary}', 'w')",
        f"(lambda: open('{canary}', 'w'))()",
        "exec('verify = lambda *a: 1')",
        "(8).__class__",
    ]
    for task, answer in (("game24", ""), ("hitori", "[]")):
        assert rate(reward, task, answer, QUESTION, *map(block, texts)) == [0.0] * len(texts)
    assert not canary.exists() and rate(reward, "game24", "", QUESTION, block("24"), block("(8/2)*(8-2)")) == [
        0.0,
        1.0,
    ]
    assert reward.workers.pool.counts["refused"] == 0  # nothing got as far as to ask for anything


@pytest.mark.slow
def test_time_is_bounded(checkout):
    quick = EnigmataReward(checkout, num_workers=1, time_limit=0.5)
    metrics, begin = {}, time.monotonic()
    columns = {"task_name": ["game24", "sudoku"], "answer": ["", ""], "meta": [QUESTION, QUESTION]}
    assert quick([block("9**9**9"), "forever"], **columns, log_metric=metrics.__setitem__) == [0.0, 0.0]
    assert time.monotonic() - begin < 60 and metrics["enigmata_reward/timed_out"] >= 1
    quick.close()


def test_a_row_never_names_a_file(reward):
    for name in ("../../evil", "not-a-name", "no_verifier", "os", "game24.verifier", "/game24", "", None):
        with pytest.raises(ValueError, match="`task_name` .* has no verifier in the checkout"):
            rate(reward, name, "", QUESTION, "24")
    with pytest.raises(ValueError, match="Did you mean 'game24'.*It has game24, hitori, "):
        rate(reward, "game_24", "", QUESTION, "24")


def test_a_broken_row_is_an_error_and_no_label(reward):
    for meta in ("{}", "no JSON", None):
        with pytest.raises(ValueError, match="Row 0 of the batch has a broken row of the task 'game24': the verifier"):
            rate(reward, "game24", "", meta, block("(8/2)*(8-2)"))
    with pytest.raises(ValueError, match="`meta` must have one entry for each of 2 completions, got 1"):
        reward(["a", "b"], task_name=["game24"] * 2, answer=[""] * 2, meta=[QUESTION])


def test_a_folder_without_verifiers(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="`checkout` must be a clone of github.com/BytedTsinghua-SIA/Enigmata"):
            EnigmataReward(folder)
    with pytest.raises(ValueError, match="needs the field 'checkout'"):
        build_reward("enigmata_reward")


def test_a_verifier_that_cannot_be_loaded(checkout, tmp_path):
    task = tmp_path / "verifiable_tasks" / "tasks" / "slant"
    task.mkdir(parents=True)
    (task / "verifier.py").write_text("import a_package_that_is_not_here", encoding="utf-8")
    broken = EnigmataReward(tmp_path, num_workers=1)
    with pytest.raises(RuntimeError, match="ended while it started: ModuleNotFoundError.*a_package_that_is_not_here"):
        rate(broken, "slant", "", "{}", "text")
    broken.close()


def test_by_name_and_in_another_process(checkout):
    made = build_reward({"name": "enigmata_reward", "checkout": str(checkout), "num_workers": 1, "threshold": None})
    again = pickle.loads(pickle.dumps(made))
    assert again.verifiers == made.verifiers and (again.threshold, again.__name__) == (None, "enigmata_reward")
    assert again.workers.pool.num_workers == 1


def test_the_data(tmp_path):
    rows = [
        {"prompt": "A?", "answer": [[1, 2]], "task_name": "hitori", "ability": "search", "language": "en"},
        {"prompt": "B?", "answer": [[3]], "task_name": "hitori", "ability": "search", "language": "zh"},
        {"prompt": "B?", "answer": [[3]], "task_name": "maze", "ability": "graph", "language": "en"},
    ]
    lines = [json.dumps(row | {"meta": QUESTION, "difficulty": "easy"}) + "\n" for row in rows]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    loaded = load_enigmata(file, distinct=False)
    assert loaded.column_names == ["prompt", "task_name", "answer", "meta"] and len(loaded) == 3
    assert loaded[0] == {"prompt": "A?", "task_name": "hitori", "answer": "[[1, 2]]", "meta": QUESTION}
    assert load_enigmata(file, tasks=["hitori"], language="en")["prompt"][:] == ["A?"]
    assert load_enigmata(file, language="en")["task_name"][:] == ["hitori", "maze"]
    with pytest.raises(ValueError, match="has no task 'slant'. It has hitori, maze."):
        load_enigmata(file, tasks=["slant"])
    with pytest.raises(ValueError, match="has no rows of language='fr'"):
        load_enigmata(file, language="fr")
    file.write_text('{"prompt": "A?", "answer": "1"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="Enigmata needs the columns task_name, meta"):
        load_enigmata(file)
