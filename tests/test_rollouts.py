"""Rollout schedules in exact arithmetic, the published tables, budgets, and allocators run to their end."""

from fractions import Fraction
from math import ceil

import pytest
import torch

from rlvr_trl.rollouts import DARS, ReinforceAda, build_allocator, equal_treatment, hardness_weighted, within_budget


SCHEDULES = [equal_treatment, hardness_weighted]
NO_CAP = 10**9


def counts(*values):
    return torch.tensor(values, dtype=torch.long)


@pytest.mark.parametrize(
    ("schedule", "n", "scale", "extra"),
    [
        (equal_treatment, 8, "none", [27, 11, 3, 1, 0]),
        (hardness_weighted, 8, "none", [56, 24, 8, 3, 0]),
        (equal_treatment, 8, "std", [9, 5, 2, 1, 0]),
        (hardness_weighted, 8, "std", [23, 14, 6, 3, 0]),
        (equal_treatment, 16, "none", [117, 53, 21, 11, 6, 3, 2, 1, 0]),
        (hardness_weighted, 16, "none", [240, 112, 48, 27, 16, 10, 6, 3, 0]),
    ],
)
def test_tables(schedule, n, scale, extra):
    assert [schedule(c, n, NO_CAP, scale) for c in range(len(extra))] == extra
    assert [schedule(c, n, NO_CAP, scale) for c in range(n // 2, n + 1)] == [0] * (n // 2 + 1)


def smallest_extra(schedule, c, n, scale):
    """The smallest Δ >= 0 with (N + Δ)·S(a) >= target, from the definitions in fractions. Std: both sides squared."""
    a = Fraction(c, n) or Fraction(1, 2 * n)
    if c and a >= Fraction(1, 2):
        return 0
    weight = 1 if schedule is equal_treatment else 2 * (1 - a)
    if scale == "none":
        size = weight * Fraction(n, 2) / (2 * a * (1 - a))
        return max(ceil(size) - n, 0)
    enough = (weight * n) ** 2 / (4 * a * (1 - a))
    t = n
    while t * t < enough:
        t += 1
    return t - n


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_exact_for_every_count_up_to_64(schedule, scale):
    pairs = [(c, n) for n in range(1, 65) for c in range(n + 1)]
    expected = [smallest_extra(schedule, c, n, scale) for c, n in pairs]
    c, n = torch.tensor(pairs).unbind(1)
    extra = schedule(c, n, NO_CAP, scale)
    assert extra.dtype == torch.int64
    assert extra.tolist() == expected


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_exact_at_large_counts(schedule, scale):
    for n in (1000, 4095, 32768):
        for c in (1, 2, 3, n // 3, n // 2 - 1):
            size = n + schedule(c, n, NO_CAP, scale)
            a = Fraction(c, n)
            weight = 1 if schedule is equal_treatment else 2 * (1 - a)
            reach = (
                (lambda t, a=a: t * 2 * a * (1 - a)) if scale == "none" else (lambda t, a=a: t * t * 4 * a * (1 - a))
            )
            target = weight * Fraction(n, 2) if scale == "none" else (weight * n) ** 2
            assert reach(size) >= target > reach(size - 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_integers_and_tensors_agree(schedule):
    for scale in ("none", "std"):
        for zero_accuracy in ("half", "cap"):
            for n in (0, 1, 6, 8, 13):
                single = [schedule(c, n, 20, scale, zero_accuracy) for c in range(n + 1)]
                assert all(type(extra) is int for extra in single)
                c = torch.arange(n + 1, dtype=torch.int32)
                assert schedule(c, n, 20, scale, zero_accuracy).tolist() == single
                assert schedule(c, torch.full_like(c, n), 20, scale, zero_accuracy).tolist() == single
    assert schedule(0, counts(4, 8), 32).shape == (2,)
    assert schedule(counts(0, 1), counts(4, 8, 16)[:, None], 32).shape == (3, 2)
    assert schedule(counts(), counts(), 32).shape == (0,)


def test_six_samples_without_a_correct_one_get_exactly_30():
    assert hardness_weighted(0, 6, NO_CAP) == 30  # float32 says 31


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zero_accuracy", ["half", "cap"])
def test_cap(schedule, zero_accuracy):
    for n in range(0, 20):
        for cap in range(1, 24):
            for c in range(n + 1):
                extra = schedule(c, n, cap, zero_accuracy=zero_accuracy)
                room = max(cap - n, 0)
                wanted = schedule(c, n, NO_CAP)
                to_cap = zero_accuracy == "cap" and c == 0 and n > 0
                # one sample, c = 0: half of a correct one is an accuracy of 1/2, and only "cap" asks for more
                assert extra == (room if to_cap else min(wanted, room))


def test_budget_against_a_loop():
    generator = torch.Generator().manual_seed(0)

    def draw(high, size):
        return torch.randint(0, high, (size,), generator=generator)

    for trial in range(300):
        size = trial % 13
        extra, judged = draw(9, size), draw(6, size)
        correct = torch.minimum(draw(6, size), judged)
        budget = int(draw(40, 1))
        given = within_budget(extra, correct, judged, budget)

        def hardness(i, correct=correct, judged=judged):
            n = int(judged[i])
            return (Fraction(int(correct[i]), n) if n else 2, i)

        left, expected = budget, [0] * size
        for i in sorted(range(size), key=hardness):
            expected[i] = min(int(extra[i]), left)
            left -= expected[i]
        assert given.tolist() == expected
        assert given.sum() == min(extra.sum(), budget)
        assert torch.equal(within_budget(extra, correct, judged, None), extra)


def test_budget_tells_close_accuracies_apart():
    n = 2**20
    higher, lower = (n // 2 - 1, n - 3), (n // 2, n - 1)
    assert Fraction(*higher) - Fraction(*lower) == Fraction(1, (n - 3) * (n - 1))
    assert within_budget(counts(1, 1), *torch.tensor([higher, lower]).unbind(1), 1).tolist() == [0, 1]
    assert within_budget(counts(1, 1), counts(1, n // 2), counts(2, n), 1).tolist() == [1, 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dars_adds_one_stage(schedule):
    dars = DARS(schedule.__name__, max_generations=32)
    samples, correct = counts(8, 8, 8, 8, 8), counts(0, 1, 3, 4, 8)
    dars.start_batch(0.5)
    extra = dars(1, samples, correct, samples)
    assert torch.equal(extra, schedule(correct, 8, 32))
    merged = dars(2, samples + extra, correct, samples + extra)
    assert merged.dtype == torch.int64 and merged.tolist() == [0] * 5


def test_dars_takes_accuracy_from_the_judged_and_counts_all_to_the_cap():
    samples, judged, correct = counts(8, 8, 8, 8), counts(8, 4, 0, 1), counts(0, 0, 0, 0)
    assert DARS(max_generations=32)(1, samples, correct, judged).tolist() == [24, 6, 0, 0]
    assert DARS(max_generations=12)(1, samples, correct, judged).tolist() == [4, 4, 0, 0]
    assert DARS(max_generations=8)(1, samples, correct, judged).tolist() == [0, 0, 0, 0]  # plain GRPO
    assert DARS(max_generations=4)(1, samples, correct, judged).tolist() == [0, 0, 0, 0]
    to_the_cap = DARS(max_generations=32, zero_accuracy="cap")
    assert to_the_cap(1, samples, correct, judged).tolist() == [24, 24, 0, 24]
    with_std = DARS("hardness_weighted", scale="std")
    assert with_std(1, counts(8, 8), counts(0, 1), counts(8, 8)).tolist() == [23, 14]


def test_dars_anneals_the_cap():
    for anneal, quarter in (("linear", 26), ("cosine", 29)):
        dars = DARS(max_generations=32, max_generations_end=9, anneal=anneal)
        caps = []
        for progress in (0, 0.25, 0.5, 1):
            dars.start_batch(progress)
            caps.append(dars.current_max_generations)
            extra = dars(1, counts(8), counts(0), counts(8))
            assert extra.tolist() == [min(equal_treatment(0, 8, NO_CAP), caps[-1] - 8)]
        assert caps == [32, quarter, 21, 9]  # 20.5 is rounded up
        assert all(type(cap) is int for cap in caps)
    fixed = DARS(max_generations=32)
    fixed.start_batch(1.0)
    assert fixed.current_max_generations == 32


def test_dars_state_comes_back():
    dars = DARS(max_generations=64, max_generations_end=8, anneal="cosine")
    dars.start_batch(0.37)
    resumed = DARS(max_generations=64, max_generations_end=8, anneal="cosine")
    resumed.load_state_dict(dars.state_dict())
    assert resumed.progress == 0.37
    assert resumed.current_max_generations == dars.current_max_generations
    assert repr(dars) == repr(resumed) and "max_generations_end=8" in repr(dars)


@pytest.mark.parametrize(("positives", "negatives"), [(1, 0), (4, 4), (0, 1), (2, 1)])
def test_reinforce_ada_stops_when_resolved_or_at_the_cap(positives, negatives):
    generator = torch.Generator().manual_seed(positives)
    allocator = ReinforceAda(max_generations=37, round_size=8, positives=positives, negatives=negatives)
    chance = torch.rand(200, generator=generator).double() ** 3
    chance[:5], chance[5:10] = 0.0, 1.0

    def draw(extra):
        each = torch.rand(200, 8, generator=generator) < chance[:, None]
        return (each & (torch.arange(8) < extra[:, None])).sum(1)

    samples = torch.full((200,), 8)
    correct = draw(samples)
    for stage in range(1, 9):
        resolved = (correct >= positives) & (samples - correct >= negatives)
        extra = allocator(stage, samples, correct, samples)
        assert ((extra == 0) == (resolved | (samples == 37))).all()  # never a round too many, never one too few
        if not extra.any():
            break
        assert (extra[extra > 0] == (37 - samples[extra > 0]).clamp(max=8)).all()
        samples, correct = samples + extra, correct + draw(extra)
        assert (samples <= 37).all()
    assert not extra.any() and stage == 5  # 8, 16, 24, 32, 37
    assert (samples == 37).any() and (samples < 37).any()


def test_reinforce_ada_leaves_the_unjudged_alone():
    allocator = ReinforceAda(32, 8, positives=1, negatives=1)
    extra = allocator(1, counts(8, 8, 8, 40), counts(0, 0, 3, 0), counts(0, 2, 3, 40))
    assert extra.dtype == torch.int64 and extra.tolist() == [0, 8, 8, 0]
    allocator.start_batch(0.5)
    allocator.load_state_dict(allocator.state_dict())


def test_allocators_by_name():
    assert build_allocator("dars") == DARS()
    spec = {"name": "dars", "schedule": "hardness_weighted", "max_generations": 64}
    assert build_allocator(spec) == DARS("hardness_weighted", 64)
    assert build_allocator({"name": "reinforce_ada", "max_generations": 32, "round_size": 8}) == ReinforceAda(32, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equal_treatment(5, 4, 8), "`num_correct` must be at most `num_samples`, got 5 of 4"),
        (lambda: hardness_weighted(counts(1, 3), counts(4, 2), 8), "got 3 of 2"),
        (lambda: equal_treatment(-1, 4, 8), "`num_correct`.*-1"),
        (lambda: equal_treatment(counts(0), counts(-4), 8), "`num_samples`.*-4"),
        (lambda: equal_treatment(1.0, 4, 8), "`num_correct`.*1.0"),
        (lambda: equal_treatment(True, 4, 8), "`num_correct`.*True"),
        (lambda: equal_treatment(torch.ones(2), 4, 8), "`num_correct`.*float32"),
        (lambda: equal_treatment(1, torch.ones(2) > 0, 8), "`num_samples`.*bool"),
        (lambda: equal_treatment(1, 2**15 + 1, 8), "at most 32768, got 32769"),
        (lambda: equal_treatment(1, 4, 0), "`max_generations`.*at least 1, got 0"),
        (lambda: equal_treatment(1, 4, 8, scale="group"), "`scale`.*'none', 'std'.*'group'"),
        (lambda: equal_treatment(1, 4, 8, zero_accuracy="zero"), "`zero_accuracy`.*'half', 'cap'.*'zero'"),
        (lambda: within_budget(counts(1), counts(0), counts(1), -1), "`budget`.*at least 0, got -1"),
        (lambda: within_budget(counts(1), counts(0), counts(1), 1.5), "`budget`.*1.5"),
        (lambda: within_budget(counts(-1), counts(0), counts(1), 1), "`extra`.*-1"),
        (lambda: within_budget(counts(1, 2), counts(0), counts(1), 1), r"`extra`.*\(1,\), got \(2,\)"),
        (lambda: within_budget(counts(1), counts(2), counts(1), 1), "2 of 1"),
        (lambda: DARS("easy"), "`schedule`.*'equal_treatment', 'hardness_weighted'.*'easy'"),
        (lambda: DARS(max_generations=0), "`max_generations`.*0"),
        (lambda: DARS(max_generations=8.0), "`max_generations`.*8.0"),
        (lambda: DARS(zero_accuracy="none"), "`zero_accuracy`.*'none'"),
        (lambda: DARS(scale="batch"), "`scale`.*'batch'"),
        (lambda: DARS(anneal="step"), "`anneal`.*'linear', 'cosine'.*'step'"),
        (lambda: DARS(max_generations=16, max_generations_end=32), "at most `max_generations`=16, got 32"),
        (lambda: DARS(max_generations_end=0), "`max_generations_end`.*0"),
        (lambda: DARS().start_batch(1.5), "`progress` must be a number from 0 to 1, got 1.5"),
        (lambda: DARS().start_batch(float("nan")), "nan"),
        (lambda: DARS().load_state_dict({"step": 3}), "'progress'.*'step'"),
        (lambda: DARS()(0, counts(8), counts(1), counts(8)), "`stage`.*0"),
        (lambda: DARS()(1, counts(8), counts(1), counts(9)), "`num_judged` must be at most `num_samples`, got 9 of 8"),
        (lambda: DARS()(1, counts(8), counts(1, 1), counts(8)), r"`num_correct`.*\(1,\), got \(2,\)"),
        (lambda: DARS()(1, torch.ones(1), counts(1), counts(1)), "`num_samples`.*float32"),
        (lambda: ReinforceAda(0, 8), "`max_generations`.*0"),
        (lambda: ReinforceAda(32, 0), "`round_size`.*0"),
        (lambda: ReinforceAda(32, 8, positives=-1), "`positives`.*-1"),
        (lambda: ReinforceAda(32, 8, negatives=-1), "`negatives`.*-1"),
        (lambda: ReinforceAda(32, 8, positives=0), r"at least 1.*0 \+ 0"),
        (lambda: ReinforceAda(8, 8, positives=5, negatives=5), r"`max_generations`=8, got 5 \+ 5"),
        (lambda: ReinforceAda(32, 8)(1, counts(8), counts(3), counts(2)), "3 of 2"),
        (
            lambda: build_allocator("dar"),
            "rollout allocator 'dar'.*Valid names: dars, dynamic_sampling, ",
        ),
        (lambda: build_allocator("reinforce_ada"), "needs the field 'max_generations'.*round_size"),
        (lambda: build_allocator({"name": "dars", "progress": 0.5}), "no field 'progress'"),
        (lambda: build_allocator({"name": ["dars"]}), "Unknown rollout allocator"),
        (lambda: build_allocator(None), "key 'name'.*None"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
