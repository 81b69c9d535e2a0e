"""PromptHistory against a dictionary of plain objects, and what it keeps and reads."""

import json
import random
from collections import defaultdict

import numpy as np
import pytest

from rlvr_trl.evaluation.problems import Problem
from rlvr_trl.rollouts import PromptHistory


COLUMNS = ("seen", "samples", "correct", "mean_reward", "mean_length", "max_length", "last_step")


class Plain:
    """What is known of one prompt, as it is said in words."""

    def __init__(self):
        self.completions, self.batches, self.last_step, self.evidence = [], 0, -1, [0.0, 0.0]


def random_batches(draw: random.Random, ids: list[str], batches: int):
    """Batches of prompts with 0 to 5 completions each: (right, reward, length); some prompts are twice in one."""
    for step in range(batches):
        chosen = draw.choices(ids, k=draw.randint(1, 8))
        yield (
            step,
            [
                (
                    one,
                    [
                        (draw.random() < 0.4, draw.random(), draw.randint(1, 90))
                        for _ in range(draw.choice((0, 1, 2, 5)))
                    ],
                )
                for one in chosen
            ],
        )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("pooled", [False, True])
def test_against_plain_objects(seed, pooled):
    draw = random.Random(seed)
    ids = [f"prompt {i}" for i in range(draw.randint(1, 12))]
    settings = {"discount": draw.choice((0, 0.5, 1)), "pool_discount": draw.choice((0.5, 1.0)), "prior_strength": 3}
    pools = [i % 3 for i in range(len(ids))] if pooled else None
    history = PromptHistory(ids + ids[:1], None if pools is None else pools + pools[:1], **settings)
    plain, pool_counts = defaultdict(Plain), defaultdict(lambda: [0.0, 0.0])
    for step, batch in random_batches(draw, ids, 15):
        stats = [(len(c), sum(r for r, *_ in c), c) for _, c in batch]
        history.update(
            history.find([one for one, _ in batch]),
            step=step,
            samples=np.array([n for n, *_ in stats]),
            correct=np.array([c for _, c, _ in stats]),
            rewards=np.array([np.mean([r for _, r, _ in c]) if c else 0 for *_, c in stats]),
            lengths=np.array([np.mean([n for *_, n in c]) if c else 0 for *_, c in stats]),
            max_lengths=np.array([max((n for *_, n in c), default=0) for *_, c in stats]),
        )
        together = defaultdict(list)
        for one, completions in batch:
            together[one] += completions
        new = defaultdict(lambda: [0, 0])
        for one, completions in together.items():
            known = plain[one]
            known.completions += completions
            known.batches, known.last_step = known.batches + 1, step
            right = sum(r for r, *_ in completions)
            if completions:
                known.evidence = [settings["discount"] * e + n for e, n in
                                  zip(known.evidence, (right, len(completions) - right), strict=True)]  # fmt: skip
            pool = ids.index(one) % 3 if pooled else 0
            new[pool][0] += right
            new[pool][1] += len(completions) - right
        for pool in range(3):
            pool_counts[pool] = [settings["pool_discount"] * old + n for old, n in
                                 zip(pool_counts[pool], new[pool], strict=True)]  # fmt: skip
    for index, one in enumerate(ids):
        (place,), known = history.find([one]), plain[one]
        lengths = [n for *_, n in known.completions]
        expected = (
            known.batches, len(known.completions), sum(r for r, *_ in known.completions),
            np.mean([r for _, r, _ in known.completions]) if known.completions else 0,
            np.mean(lengths) if lengths else 0, max(lengths, default=0), known.last_step,
        )  # fmt: skip
        assert [getattr(history, name)[place] for name in COLUMNS] == pytest.approx(expected, rel=1e-5)
        right, wrong = pool_counts[index % 3 if pooled else 0]
        mean = (right + 0.5) / (right + wrong + 1)
        alpha, beta = history.posterior(np.array([place]))
        assert alpha == pytest.approx(3 * mean + known.evidence[0], rel=1e-5)
        assert beta == pytest.approx(3 * (1 - mean) + known.evidence[1], rel=1e-5)
        assert history.accuracy(np.array([place])) == pytest.approx(alpha / (alpha + beta))


def test_what_was_never_seen_is_like_its_pool():
    history = PromptHistory([f"p{i}" for i in range(6)], ["easy"] * 3 + ["hard"] * 3)
    everywhere = history.find([f"p{i}" for i in range(6)])
    assert history.accuracy(everywhere) == pytest.approx([0.5] * 6)
    history.update(history.find(["p0", "p3"]), step=1, samples=np.array([8, 8]), correct=np.array([7, 1]))
    accuracy = dict(zip([f"p{i}" for i in range(6)], history.accuracy(everywhere), strict=True))
    assert accuracy["p1"] == accuracy["p2"] == pytest.approx(7.5 / 9)
    assert accuracy["p4"] == accuracy["p5"] == pytest.approx(1.5 / 9)
    assert accuracy["p0"] > accuracy["p1"] and accuracy["p3"] < accuracy["p4"]


def test_kept_and_restored(tmp_path):
    ids = [f"p{i}" for i in range(5)]
    history, draw = PromptHistory(ids), random.Random(0)
    for step, batch in random_batches(draw, ids, 9):
        samples = np.array([len(c) for _, c in batch])
        right = np.array([sum(r for r, *_ in c) for _, c in batch])
        history.update(history.find([one for one, _ in batch]), step=step, samples=samples, correct=right)
    again = PromptHistory(ids)
    again.load_state_dict(history.state_dict())
    everywhere = history.find(ids)
    assert (again.accuracy(everywhere) == history.accuracy(everywhere)).all()
    history.update(everywhere, step=9, samples=np.ones(5), correct=np.ones(5))
    assert again.samples.sum() == history.samples.sum() - 5  # a copy

    history.to_parquet(tmp_path / "history.parquet")
    larger = PromptHistory([*ids, "new"])
    assert larger.read(tmp_path / "history.parquet") == 5
    for name in COLUMNS:
        assert (getattr(larger, name)[larger.find(ids)] == getattr(history, name)[everywhere]).all()
    assert larger.seen[larger.find(["new"])] == 0
    with pytest.raises(ValueError, match="The state is of 5 prompts in 1 pools, and this history has 6"):
        larger.load_state_dict(history.state_dict())
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="holds no history of prompts"):
        larger.read(tmp_path / "other.parquet")


def test_an_evaluation_is_a_beginning(tmp_path):
    rows = [{"prompt": f"What is {i}?"} for i in range(4)]
    ids = [Problem.from_row(row).id for row in rows]
    problems = [
        {"id": one, "num_samples": 8, "num_correct": right} for one, right in zip(ids, (0, 8, 4), strict=False)
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"problems": problems}), encoding="utf-8")
    history = PromptHistory(ids[1:])  # one of the evaluation's problems is no training prompt
    assert history.read(path) == 2
    places = history.find(ids[1:])
    assert history.samples[places].tolist() == [8, 8, 0] and history.correct[places].tolist() == [8, 4, 0]
    assert history.last_step.tolist() == [-1] * 3
    solved, half, unseen = history.accuracy(places)
    assert solved > unseen > half
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no results of a benchmark"):
        history.read(path)


def test_a_million_prompts_are_small():
    history = PromptHistory([f"{i:016x}" for i in range(1_000_000)])
    assert history.nbytes == 48_000_000 and len(history) == 1_000_000
    places = history.find(["00000000000f423f", "0000000000000000"])
    assert places.tolist() == [999_999, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": []}, "`ids` is empty"),
        ({"ids": ["a", 3]}, "ids must be texts, found 3"),
        ({"ids": ["a", "b"], "pools": [1]}, "`pools` must have one entry for each of 2 ids, got 1"),
        ({"ids": ["a", "b", "a"], "pools": [1, 1, 2]}, "`pools` has several pools for the prompt 'a'"),
        ({"ids": ["a"], "discount": 1.5}, "`discount` must be a number from 0 to 1, got 1.5"),
        ({"ids": ["a"], "pool_discount": True}, "`pool_discount` must be a number from 0 to 1, got True"),
        ({"ids": ["a"], "prior_strength": 0}, "`prior_strength` must be a positive number, got 0"),
    ],
)
def test_what_cannot_be_a_history(arguments, message):
    with pytest.raises(ValueError, match=message):
        PromptHistory(**arguments)


def test_what_cannot_be_added():
    history = PromptHistory(["a", "b"])
    with pytest.raises(ValueError, match="The prompt 'c' is not of this history of 2 prompts"):
        history.find(["a", "c"])
    for samples, correct, message in (([1], [2], "from 0 to `samples`"), ([1, 2], [1], "equally long lists")):
        with pytest.raises(ValueError, match=message):
            history.update(history.find(["a"]), step=0, samples=np.array(samples), correct=np.array(correct))
    with pytest.raises(ValueError, match="`step` must be an integer of at least 0"):
        history.update(history.find(["a"]), step=-1, samples=np.array([1]), correct=np.array([1]))
    assert history.samples.sum() == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("recent_correct", [np.nan, 1.0]),
        ("recent_wrong", [-5.0, 1.0]),
        ("samples", [None, 8]),
        ("samples", [2**40, 8]),
        ("correct", [9, 9]),
        ("id", [None, None]),
    ],
)
def test_a_file_whose_numbers_cannot_be_is_refused(tmp_path, name, values):
    import pyarrow
    import pyarrow.parquet

    history = PromptHistory(["a", "b"])
    history.update(history.find(["a", "b"]), step=0, samples=np.array([8, 8]), correct=np.array([1, 2]))
    history.to_parquet(path := tmp_path / "history.parquet")
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(
        table.set_column(table.schema.get_field_index(name), name, pyarrow.array(values)), path
    )
    with pytest.raises(ValueError, match="holds no history of prompts: "):
        PromptHistory(["a", "b"]).read(path)


def test_a_prior_of_infinite_strength_is_refused():
    with pytest.raises(ValueError, match="`prior_strength` must be a positive number, got inf"):
        PromptHistory(["a"], prior_strength=np.inf)
