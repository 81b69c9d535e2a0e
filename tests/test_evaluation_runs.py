"""Folders of evaluations: resumed, killed, on several processes, scored again."""

import json
import multiprocessing
import os
import random
import signal
import time
from itertools import combinations

import numpy as np
import pytest
from interrupted import evaluate_mazes, evaluate_to_be_killed
from launching import launch
from PIL import Image

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import Sample, compare, evaluate, evaluate_engine, load_results, rescore
from rlvr_trl.evaluation.comparison import compare_runs
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer


pytestmark = pytest.mark.slow


class Countdown:
    """An engine whose completions are numbers. Fails after `lifetime` batches of 2."""

    def __init__(self, name="countdown", lifetime=None):
        self.name, self.lifetime = name, lifetime
        self.requests = []

    def check(self, prompts):
        if "" in prompts:
            raise ValueError("A prompt is empty.")

    def sample(self, prompts, requests, settings):
        self.requests += requests
        for batch, start in enumerate(range(0, len(requests), 2)):
            if batch == self.lifetime:
                raise ValueError("The engine has stopped.")
            yield [self.complete(settings.seed, *request) for request in requests[start : start + 2]]

    def complete(self, seed, problem, sample):
        text = str(100 * problem + 10 * sample + seed)
        return Sample(problem, sample, text, None, len(text), truncated=sample == 0, entropy=None)

    def describe(self):
        return {"engine": "countdown", "model": self.name}


ROWS = [{"prompt": f"{i}?", "answer": str(i)} for i in range(5)]


def below_220(completions, log_extra, **kwargs):
    log_extra("extracted_answer", completions)
    return [float(int(text) < 220) for text in completions]


def run(folder, engine=None, reward=below_220, rows=ROWS, **settings):
    settings = {"num_samples": 4, "max_new_tokens": 6, "progress": False} | settings
    return evaluate_engine(engine or Countdown(), rows, reward, output_dir=folder, **settings)


def lines_of(folder):
    """What is in the files of the samples, in order."""
    return [json.loads(line) for path in sorted(folder.glob("samples-*")) for line in path.read_text().splitlines()]


def requests_of(folder):
    return [(line["problem"], line["sample"]) for line in lines_of(folder)]


EVERY_REQUEST = [(problem, sample) for problem in range(5) for sample in range(4)]


def test_a_run_writes_everything_and_is_read_again(tmp_path):
    result = run(tmp_path / "run", record={"benchmark": "numbers"})
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("settings.json", "problems.jsonl", "samples-0.jsonl", "scores.jsonl", "results.json", "lock")
    }
    saved = json.loads((tmp_path / "run/results.json").read_text())
    assert saved == result.to_dict() and saved["avg_at_n"] == saved["pass_at_k"]["1"]
    assert saved["token_entropy"] is None  # the engine does not tell
    assert saved["truncated_share"] == 0.25 and saved["num_unscorable_completions"] == 0
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    for name, value in {"num_samples": 4, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0}.items():
        assert settings[name] == saved["settings"][name] == value
    assert settings["engine"] == {"engine": "countdown", "model": "countdown"}
    assert {"python", "torch", "transformers", "rlvr-trl"} <= set(settings["versions"])
    problems = [json.loads(line) for line in (tmp_path / "run/problems.jsonl").read_text().splitlines()]
    assert [problem["row"] for problem in problems] == ROWS
    scores = [json.loads(line) for line in (tmp_path / "run/scores.jsonl").read_text().splitlines()]
    assert scores[9] == {"problem": 2, "sample": 1, "reward": 1.0, "extracted_answer": "210"}

    loaded = load_results(tmp_path / "run")["numbers"]
    assert loaded.pass_at_k == result.pass_at_k and loaded.intervals() == result.intervals()
    assert compare(loaded, result, k=2).difference == 0.0


def test_pass_at_k_is_the_share_of_sets_with_a_correct_sample(tmp_path):
    # The second route: all sets of k of the samples in the file, judged by their texts
    result = run(tmp_path, num_samples=6)
    texts = {(line["problem"], line["sample"]): line["text"] for line in lines_of(tmp_path)}
    for k, value in result.pass_at_k.items():
        shares = [
            np.mean([any(int(texts[p, s]) < 220 for s in drawn) for drawn in combinations(range(6), k)])
            for p in range(5)
        ]
        assert value == pytest.approx(np.mean(shares))
    assert 0 < result.pass_at_k[1] < result.pass_at_k[6] < 1


def test_a_finished_run_is_only_read(tmp_path):
    first, engine = run(tmp_path), Countdown()
    before = (tmp_path / "samples-0.jsonl").read_bytes()
    again = run(tmp_path, engine)
    assert engine.requests == [] and (tmp_path / "samples-0.jsonl").read_bytes() == before
    assert again.to_dict()["pass_at_k_intervals"] == first.to_dict()["pass_at_k_intervals"]


def test_an_error_keeps_what_was_sampled(tmp_path):
    with pytest.raises(ValueError, match="has stopped"):
        run(tmp_path, Countdown(lifetime=3))
    assert requests_of(tmp_path) == EVERY_REQUEST[:6] and not (tmp_path / "results.json").exists()
    engine = Countdown()
    result = run(tmp_path, engine)
    assert engine.requests == EVERY_REQUEST[6:] and requests_of(tmp_path) == EVERY_REQUEST
    assert result.completions.texts == run(None).completions.texts


@pytest.mark.parametrize("torn", [1, 20, -1])
def test_a_torn_line_is_sampled_again(tmp_path, torn):
    run(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:torn])
    engine = Countdown()
    run(tmp_path, engine)
    assert engine.requests == [(4, 3)] and requests_of(tmp_path) == EVERY_REQUEST


def test_files_of_other_processes_are_read(tmp_path):
    run(tmp_path)
    lines = (tmp_path / "samples-0.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "samples-0.jsonl").write_bytes(b"".join(lines[:3]))
    (tmp_path / "samples-7.jsonl").write_bytes(b"".join(lines[8:]) + b'{"prob')
    engine = Countdown()
    run(tmp_path, engine)
    assert engine.requests == EVERY_REQUEST[3:8] and sorted(requests_of(tmp_path)) == EVERY_REQUEST


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 1}, "seed = 0, but now it is 1"),
        ({"temperature": 0.5}, "temperature = 1.0, but now it is 0.5"),
        ({"num_samples": 3}, "num_samples = 4, but now it is 3"),
        ({"num_samples": 8, "seed": 1}, "seed = 0, but now it is 1"),
        ({"engine": Countdown("other")}, "engine.model = 'countdown', but now it is 'other'"),
        ({"rows": ROWS[:4]}, "problems = "),
        ({"record": {"limit": 3}}, "limit = None, but now it is 3"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, **changes)
    assert str(tmp_path) in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_finished_run_is_extended(tmp_path):
    fresh = run(None, num_samples=7)
    run(tmp_path)
    before = (tmp_path / "samples-0.jsonl").read_bytes()
    with pytest.raises(ValueError, match="has stopped"):
        run(tmp_path, Countdown(lifetime=2), num_samples=7)
    assert load_results(tmp_path)["evaluation"].ks == [1, 2, 4]  # those of 4 samples, until there are 7 of all
    engine = Countdown()
    result = run(tmp_path, engine, num_samples=7)
    further = [(problem, sample) for problem in range(5) for sample in (4, 5, 6)]
    assert engine.requests == further[4:] and requests_of(tmp_path) == EVERY_REQUEST + further
    assert (tmp_path / "samples-0.jsonl").read_bytes().startswith(before)
    assert result.completions.texts == fresh.completions.texts and result.pass_at_k == fresh.pass_at_k
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["settings"]["num_samples"] == 7 and list(saved["pass_at_k"]) == ["1", "2", "4", "7"]
    with pytest.raises(ValueError, match="num_samples = 7, but now it is 4"):
        run(tmp_path)


def test_an_extended_run_of_a_model_is_a_fresh_run(tmp_path):
    tokenizer = build_tokenizer()
    mazes = make_maze_dataset(3, prompt_style="bare", seed=5)
    settings = {"max_new_tokens": 6, "progress": False, "token_budget": 400}

    def evaluated(num_samples, output_dir):
        model = build_model(tokenizer, seed=0)
        return evaluate(
            model, tokenizer, mazes, maze_reward, num_samples=num_samples, output_dir=output_dir, **settings
        )

    evaluated(8, tmp_path)
    extended, fresh = evaluated(16, tmp_path), evaluated(16, None)
    assert extended.completions.token_ids == fresh.completions.token_ids and extended.pass_at_k == fresh.pass_at_k


def test_greedy_samples_are_told_to_be_equal(tmp_path):
    with pytest.warns(UserWarning, match="temperature=0 is greedy: the 4 completions of a problem are the same one"):
        run(None, temperature=0)


@pytest.mark.parametrize(
    "reward, message",
    [
        (lambda completions, level, **kwargs: [], "needs the column 'level', found .'prompt', 'answer'."),
        (lambda prompts, completions: [], r"must take \*\*kwargs: .* also with completion_ids, .*, answer"),
    ],
)
def test_rewards_that_cannot_be_called_are_refused_before_sampling(reward, message):
    engine = Countdown()
    with pytest.raises(ValueError, match=message):
        run(None, engine, reward=reward)

    async def awaited(completions, **kwargs):
        return []

    with pytest.raises(ValueError, match="'awaited' is asynchronous"):
        run(None, engine, reward=awaited)
    assert engine.requests == []


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run' cannot be made"):
        run(tmp_path / "file/run")
    (tmp_path / "run/lock").mkdir(parents=True)
    with pytest.raises(ValueError, match="lock' cannot be written: Is a directory"):
        run(tmp_path / "run")


def test_scoring_may_change_and_versions_are_told(tmp_path):
    assert run(tmp_path).num_correct.tolist() == [4, 4, 2, 0, 0]
    settings = json.loads((tmp_path / "settings.json").read_text())
    settings["versions"]["torch"] = "1.0"
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    rows = [row | {"answer": "another"} for row in ROWS]
    with pytest.warns(UserWarning, match="begun with torch 1.0, and goes on with"):
        result = run(
            tmp_path, rows=rows, reward=lambda completions, answer, **kwargs: [a == "another" for a in answer]
        )
    assert result.num_correct.tolist() == [4] * 5
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["settings"]["versions"]["torch"] == "1.0" != saved["settings"]["scored_with"]["torch"]


def test_foreign_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds 'thesis.tex' and no evaluation"):
        run(tmp_path)
    with pytest.raises(ValueError, match="holds no evaluation: it has no settings.json"):
        rescore(tmp_path)
    with pytest.raises(ValueError, match="written when an evaluation is finished"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds no results of an evaluation"):
        load_results(tmp_path)


def test_damaged_samples_are_refused(tmp_path):
    run(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\0\0\n", *lines[2:]]))
    with pytest.raises(ValueError, match="Line 2 of .*samples-0.jsonl' is not JSON"):
        run(tmp_path)
    path.write_bytes(b"".join([*lines, lines[3]]))
    with pytest.raises(ValueError, match="Sample 3 of problem 0 appears twice"):
        run(tmp_path)


SAMPLE = {"problem": 0, "sample": 0, "text": "0", "token_ids": None, "length": 1, "truncated": True, "entropy": None}


def without(name):
    return {key: value for key, value in SAMPLE.items() if key != name}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "is not an object, but \\[1\\]"),
        (b'"text"', "is not an object"),
        (b"", "is not JSON"),
        (b"{}", "has no field 'problem'"),
        (b'{"text": "\xff"}', "is not JSON .*0xff"),
        (b"[" * 10**5, "is nested too deeply"),
        (without("text"), "has no field 'text'"),
        (SAMPLE | {"lenght": 3}, "has another field 'lenght'"),
        (SAMPLE | {"length": "lots"}, "`length` of a sample must be an integer of at least 0, got 'lots'"),
        (SAMPLE | {"length": float("inf")}, "`length` .* got inf"),
        (SAMPLE | {"length": -7}, "`length` .* got -7"),
        (SAMPLE | {"length": 2**64}, "`length` .* got 18446744073709551616"),
        (SAMPLE | {"length": 2.0}, "`length` .* got 2.0"),
        (SAMPLE | {"length": True}, "`length` .* got True"),
        (SAMPLE | {"text": 3}, "`text` of a sample must be a text, got 3"),
        (SAMPLE | {"truncated": "no"}, "`truncated` of a sample must be true or false, got 'no'"),
        (SAMPLE | {"refused": 0}, "`refused` of a sample must be true or false, got 0"),
        (SAMPLE | {"refused": True}, "`refused` has neither a text nor a length"),
        (SAMPLE | {"length": 7}, "its `length` of 7 is above `max_new_tokens`=6"),
        (SAMPLE | {"entropy": "low"}, "`entropy` of a sample must be a number of at least 0 or None, got 'low'"),
        (SAMPLE | {"entropy": float("nan")}, "`entropy` .* got nan"),
        (SAMPLE | {"entropy": float("inf")}, "`entropy` .* got inf"),
        (SAMPLE | {"entropy": -5.0}, "`entropy` .* got -5.0"),
        (SAMPLE | {"token_ids": "12"}, "`token_ids` of a sample must be integers or None, got '12'"),
        (SAMPLE | {"token_ids": [1, 2.5]}, "`token_ids` .* got \\[1, 2.5\\]"),
        (SAMPLE | {"problem": 5}, "is sample 0 of problem 5, but there are 4 samples of 5 problems"),
        (SAMPLE | {"sample": 4}, "is sample 4 of problem 0, but there are 4 samples of 5 problems"),
        (SAMPLE | {"problem": -1}, "`problem` .* got -1"),
    ],
)
def test_a_line_that_is_no_sample_is_named(tmp_path, line, message):
    run(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
    path.write_bytes(b"".join(lines))
    for read in (run, lambda folder: rescore(folder, below_220)):
        with pytest.raises(ValueError, match=f"Line 3 of '{path}' .*{message}") as told:
            read(tmp_path)
        assert len(str(told.value)) < 600
    path.write_bytes(b"".join(lines[:2] + lines[3:]))  # as the message says
    assert run(tmp_path).num_samples.tolist() == [4] * 5


def test_scoring_changes_no_samples(tmp_path):
    """A last line without its end may be whole: sampling draws it again, scoring takes or names it."""
    run(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    whole = path.read_bytes()
    assert rescore(tmp_path, below_220).num_samples.tolist() == [4] * 5 and path.read_bytes() == whole
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="Line 20 of .* is not JSON"):
        rescore(tmp_path, below_220)
    assert path.read_bytes() == whole[:-9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": {}}, "needs the name of a column for 'by', found {}"),
        ({"max_new_tokens": -1}, "needs at least 1 for 'max_new_tokens', found -1"),
        ({"correctness_threshold": float("nan")}, "needs a finite number for 'correctness_threshold', found nan"),
    ],
)
def test_settings_that_were_edited(tmp_path, change, message):
    run(tmp_path)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        rescore(tmp_path, below_220)


@pytest.mark.parametrize(
    ("counts", "message"), [((0, 0), "no problem is scorable"), ((10**12, 0), "of num_samples=10")]
)
def test_results_that_cannot_be_compared(tmp_path, counts, message):
    for name in ("a", "b"):
        run(tmp_path / name)
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    for problem in results["problems"]:
        problem["num_samples"], problem["num_correct"] = counts
    (tmp_path / "b" / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message):
        compare_runs(load_results(tmp_path / "a"), load_results(tmp_path / "b"))


def test_samples_of_earlier_versions_are_read(tmp_path):
    run(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    path.write_text("".join(json.dumps({k: line[k] for k in SAMPLE}) + "\n" for line in lines_of(tmp_path)))
    assert "refused" not in path.read_text() and rescore(tmp_path, below_220).num_samples.tolist() == [4] * 5


def edit_reversed(lines):
    return lines[::-1]


def edit_swapped(lines):
    return [lines[1], lines[0], *lines[2:]]


def edit_shorter(lines):
    return lines[:-1]


def edit_repeated(lines):
    return [*lines, lines[-1]]


def edit_reference(lines):
    return [lines[0].replace(b'"answer": "0"', b'"answer": "1"'), *lines[1:]]


def edit_prompt(lines):
    return [lines[0].replace(b"0?", b"9?"), *lines[1:]]


@pytest.mark.parametrize(
    "edit", [edit_reversed, edit_swapped, edit_shorter, edit_repeated, edit_reference, edit_prompt, lambda lines: []]
)
def test_problems_that_were_edited_are_not_scored(tmp_path, edit):
    first = run(tmp_path)
    path, results = tmp_path / "problems.jsonl", (tmp_path / "results.json").read_bytes()
    lines = path.read_bytes().splitlines(keepends=True)
    assert edit(lines) != lines
    path.write_bytes(b"".join(edit(lines)))
    with pytest.raises(
        ValueError, match=f"'{path}' is not as the run wrote it: '(problems|problem_rows)' in settings"
    ):
        rescore(tmp_path, below_220)
    assert (tmp_path / "results.json").read_bytes() == results
    run(tmp_path)  # as the message says
    assert rescore(tmp_path, below_220).pass_at_k == first.pass_at_k


def test_other_references_come_from_the_command_and_not_from_an_editor(tmp_path):
    run(tmp_path)
    rows = [row | {"answer": "7"} for row in ROWS]
    engine = Countdown()
    run(tmp_path, engine, rows=rows)
    assert engine.requests == [] and '"answer": "7"' in (tmp_path / "problems.jsonl").read_text()
    rescore(tmp_path, below_220)


def test_a_run_without_the_digest_of_rows_has_that_of_prompts(tmp_path):
    run(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["problem_rows"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    rescore(tmp_path, below_220)
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[::-1]))
    with pytest.raises(ValueError, match="is not as the run wrote it: 'problems' in settings.json"):
        rescore(tmp_path, below_220)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{]", "is not JSON"),
        (b"3", "is not an object, but 3"),
        (b'{"id": "a"}', "is not a problem, with an 'id' and a 'row'"),
        (b'{"id": 3, "row": {"prompt": "a"}}', "is not a problem"),
        (b'{"id": "a", "row": []}', "is not a problem"),
        (b'{"id": "a", "row": {}, "x": 1}', "is not a problem"),
        (b'{"id": "a", "row": {"answer": "1"}}', "is a problem without a 'prompt'"),
        (b'{"a":' * 10**5, "is nested too deeply"),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path, line, message):
    run(tmp_path)
    path = tmp_path / "problems.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line + b"\n", *lines[4:]]))
    with pytest.raises(ValueError, match=f"Line 4 of '{path}' {message}") as told:
        rescore(tmp_path, below_220)
    assert len(str(told.value)) < 400
    path.unlink()
    with pytest.raises(ValueError, match="has no problems.jsonl. The command that sampled the run writes it again"):
        rescore(tmp_path, below_220)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", "lots"),
        ("num_samples", 0),
        ("num_samples", True),
        ("problems", None),
        ("engine", []),
        ("by", "x"),
    ]
    + [("correctness_threshold", "high"), ("num_duplicates", 1.5), ("reward", 3), ("versions", "1.0")],
)
def test_settings_that_were_edited_are_named(tmp_path, name, value):
    run(tmp_path)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=f"'{path}' needs .*'{name}'|by='x' in the settings of '{tmp_path}'"):
        rescore(tmp_path, below_220)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{\n"num_samples": 3,\n}', b"\xff", b"[" * 10**5])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    run(tmp_path)
    for name, read in [("settings.json", run), ("settings.json", rescore), ("results.json", load_results)]:
        path = tmp_path / name
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"'{path}' is (not JSON|not an object|nested too deeply)"):
            read(tmp_path)
        path.write_bytes(before)


@pytest.mark.parametrize("counts", [("lots", 1), (1, 2), (4, -1), (2.5, 1), (10**400, 1), (None, 0), (True, False)])
def test_counts_that_were_edited_are_named(tmp_path, counts):
    run(tmp_path)
    path = tmp_path / "results.json"
    saved = json.loads(path.read_text())
    saved["problems"][2] |= dict(zip(("num_samples", "num_correct"), counts, strict=True))
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=f"'{path}' holds no results of an evaluation .*problem 2 has num_correct="):
        load_results(tmp_path)


def test_two_runs_at_once_are_refused(tmp_path):
    class Entering(Countdown):
        def sample(self, prompts, requests, settings):
            with pytest.raises(ValueError, match="Another process is at work.*holds lock"):
                run(tmp_path)
            with pytest.raises(ValueError, match="Another process is at work"):
                rescore(tmp_path, below_220)
            yield from super().sample(prompts, requests, settings)

    run(tmp_path, Entering())
    assert requests_of(tmp_path) == EVERY_REQUEST

    # A process that outlived the first one of its run still writes
    import fcntl

    with open(tmp_path / "samples-0.jsonl", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="holds samples-0.jsonl"):
            run(tmp_path)


def test_engines_must_return_what_they_are_asked_for(tmp_path):
    class Repeating(Countdown):
        def sample(self, prompts, requests, settings):
            yield [self.complete(0, *requests[0])] * 2

    class Forgetful(Countdown):
        def sample(self, prompts, requests, settings):
            yield [self.complete(0, *request) for request in requests[:-2]]

    with pytest.raises(ValueError, match="sample 0 of problem 0, which it was not asked for or has returned"):
        run(tmp_path / "a", Repeating())
    with pytest.raises(ValueError, match="left out 2 of 20 samples; the first is sample 2 of problem 4"):
        run(tmp_path / "b", Forgetful())
    with pytest.raises(ValueError, match="A prompt is empty"):
        run(tmp_path / "c", rows=[{"prompt": ""}])
    assert not (tmp_path / "c").exists()


def test_another_function_of_the_same_name_does_not_score_in_its_place(tmp_path):
    def math_reward(completions, **kwargs):
        return [1.0] * len(completions)

    run(tmp_path, reward=math_reward)
    with pytest.raises(ValueError, match=f"scored with '{__name__}.math_reward', which is not in rlvr_trl.rewards"):
        rescore(tmp_path)
    assert rescore(tmp_path, math_reward).num_correct.tolist() == [4] * 5


def test_scoring_again(tmp_path):
    run(tmp_path)

    def all_right(completions, prompts, answer, **kwargs):
        assert prompts[4] == "1?" and answer[4] == "1"
        return [1.0] * len(completions)

    assert rescore(tmp_path, all_right).num_correct.tolist() == [4] * 5
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["pass_at_k"]["1"] == 1.0 and saved["settings"]["reward"] == "all_right"
    assert "extracted_answer" not in (tmp_path / "scores.jsonl").read_text()
    assert rescore(tmp_path, all_right, correctness_threshold=1.0).num_correct.tolist() == [0] * 5
    with pytest.raises(ValueError, match="scored with 'below_220', which is not in rlvr_trl.rewards"):
        rescore(tmp_path)
    path = tmp_path / "samples-0.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(ValueError, match="3 of 20 samples are missing; the first is sample 1 of problem 4"):
        rescore(tmp_path, all_right)


def test_scoring_again_is_what_scoring_was(tmp_path):
    tokenizer = build_tokenizer()
    mazes = make_maze_dataset(3, prompt_style="bare", seed=5)
    settings = {"num_samples": 4, "max_new_tokens": 6, "output_dir": tmp_path, "progress": False}
    result = evaluate(build_model(tokenizer, seed=0), tokenizer, mazes, maze_reward, **settings)
    saved = (tmp_path / "results.json").read_text()
    again = rescore(tmp_path)
    assert np.array_equal(again.rewards, result.rewards) and (tmp_path / "results.json").read_text() == saved


def test_problems_with_images_are_told_apart_and_saved_without(tmp_path):
    seen = []

    class Looking(Countdown):
        def sample(self, prompts, requests, settings):
            seen.extend(prompts)
            return super().sample(prompts, requests, settings)

    question = [{"role": "system", "content": "Look."}, {"role": "user", "content": "How many?"}]
    pictures = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "red")]
    with pytest.warns(UserWarning, match="1 of 3 rows repeat the prompt"):
        result = run(
            tmp_path,
            Looking(),
            rows=[{"prompt": question, "image": picture} for picture in pictures],
            reward=lambda completions, **kwargs: [1.0] * len(completions),
        )
    assert len(set(result.problem_ids)) == 2
    text = {"type": "text", "text": "How many?"}
    for prompt, picture in zip(seen, pictures, strict=False):
        assert prompt[1] == {"role": "user", "content": [{"type": "image", "image": picture}, text]}
    saved = json.loads((tmp_path / "problems.jsonl").read_text().splitlines()[0])
    assert saved == {"id": result.problem_ids[0], "row": {"prompt": question}}


def test_columns_that_cannot_be_saved_are_named(tmp_path):
    rows = [{"prompt": "1", "made": {1, 2}}]
    with pytest.raises(ValueError, match="column 'made' cannot be saved as JSON"):
        run(tmp_path, rows=rows)
    engine = Countdown()
    evaluate_engine(engine, rows, below_220, num_samples=1, max_new_tokens=1, progress=False)
    assert engine.requests == [(0, 0)]


# Each process is forked from one that has these, so that ten starts cost one import. The folder of the tests is not on
# its path yet.
IMPORTED_ONCE = ["rlvr_trl.evaluation.runs", "rlvr_trl.evaluation.engines", "rlvr_trl.testbed.model", "datasets"]


def wait_for_lines(path, count, process):
    while process.is_alive() and (path.read_bytes().count(b"\n") if path.exists() else 0) < count:
        time.sleep(0.001)


def test_killed_ten_times_nothing_is_lost_or_twice(tmp_path):
    rng = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    path, whole = tmp_path / "run/samples-0.jsonl", b""
    for _ in range(10):
        process = context.Process(target=evaluate_to_be_killed, args=(tmp_path / "run", 20), daemon=True)
        process.start()
        wait_for_lines(path, whole.count(b"\n") + rng.randrange(16), process)
        time.sleep(rng.random() * 0.02)  # anywhere between two batches, or in the middle of a line
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        content = path.read_bytes() if path.exists() else b""
        assert content.startswith(whole)  # what was there stays as it was
        whole = content[: content.rfind(b"\n") + 1]
    assert 20 < whole.count(b"\n") < 300  # ten kills in the middle
    assert not (tmp_path / "run/results.json").exists()

    resumed, uninterrupted = evaluate_mazes(tmp_path / "run"), evaluate_mazes(tmp_path / "other")
    assert path.read_bytes().startswith(whole)
    assert sorted(requests_of(tmp_path / "run")) == [(p, s) for p in range(3) for s in range(100)]
    assert resumed.completions.token_ids == uninterrupted.completions.token_ids
    assert resumed.pass_at_k == uninterrupted.pass_at_k


def test_two_processes_give_the_same_as_one(tmp_path):
    launch("evaluate_mazes.py", str(tmp_path), processes=2)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["errors"] == ["Process 1 failed at sampling with ValueError: no more memory", "broken reward"]
    assert second["errors"] == ["no more memory", "Process 0 failed at scoring with RuntimeError: broken reward"]
    del first["errors"], second["errors"]
    assert first == second

    tokenizer = build_tokenizer()
    alone = evaluate(
        build_model(tokenizer, seed=0),
        tokenizer,
        make_maze_dataset(5, prompt_style="bare", seed=5),
        maze_reward,
        num_samples=3,
        max_new_tokens=6,
        progress=False,
    )
    assert first == {
        "texts": alone.completions.texts,
        "rewards": alone.rewards.tolist(),
        "ids": alone.problem_ids,
    }
    both = [requests_of_file(tmp_path / f"run/samples-{rank}.jsonl") for rank in range(2)]
    assert sorted(both[0] + both[1]) == [(p, s) for p in range(5) for s in range(3)] and all(both)
    assert not (tmp_path / "other").exists()


def requests_of_file(path):
    return [(line["problem"], line["sample"]) for line in map(json.loads, path.read_text().splitlines())]
