"""The simulation of asynchronous training, where its result can be computed by hand."""

import numpy as np
import pytest
from async_simulation import Engine, Prompt, asynchronous, parse_args, run, simulate, synchronous


def args_of(*given: str):
    return parse_args(["--steps", "4", *given])


@pytest.mark.parametrize("slots", [4, 8, 100])
def test_equal_lengths_take_so_many_rounds(slots):
    args = args_of("--sigma", "0", "--mean-length", "500", "--slots", str(slots), "--gpus", "2")
    engine, prompt = Engine(args, 2, np.random.default_rng(0)), Prompt(0, open=16)
    engine.further.extend([prompt] * 16)
    run(engine, second_stage_at_once=False)
    rounds = {4: [4, 4], 8: [8], 100: [8]}[slots]  # of each GPU, which has half of the sequences
    assert engine.time == pytest.approx(sum(500 * (0.008 + 60e-6 * active) for active in rounds))
    assert prompt.tokens == 16 * 500 and prompt.count == 16 and prompt.open == 0


def test_a_shorter_sequence_makes_the_others_faster():
    engine = Engine(args_of("--gpus", "1"), 1, np.random.default_rng(0))
    lengths = iter([100, 300])
    engine.length = lambda: next(lengths)
    engine.further.extend([Prompt(0, open=2)] * 2)
    run(engine, second_stage_at_once=False)
    assert engine.time == pytest.approx(100 * (0.008 + 120e-6) + 200 * (0.008 + 60e-6))
    assert engine.use == pytest.approx((200 * 0.00812 + 200 * 0.00806) / 128 / engine.time)


def test_without_spread_and_extras_all_synchronous_ways_are_one():
    args = args_of("--sigma", "0", "--cap", "8", "--prompts", "32")
    seconds = {kind: synchronous(args, kind, 0)[0] for kind in ("synchronous", "per prompt", "one round")}
    assert len(set(seconds.values())) == 1


def test_an_asynchronous_step_is_as_long_as_the_slower_half():
    args = args_of("--sigma", "0", "--cap", "8", "--prompts", "64", "--sync-s", "0", "--train-tokens", "1000")
    seconds, _, _ = asynchronous(args, generating=7, seed=0)
    assert seconds == pytest.approx(64 * 8 * 900 / 1000, rel=0.02)  # one GPU trains
    args.train_tokens = 1e9
    seconds, use, _ = asynchronous(args, generating=1, seed=0)
    rate = 128 / (0.008 + 128 * 60e-6)  # tokens a second of one full GPU
    assert seconds == pytest.approx(64 * 8 * 900 / rate, rel=0.05) and use > 0.95


def test_asynchronous_pays_with_small_steps_more_than_with_large_ones():
    best = []
    for prompts in ("32", "256"):
        results = simulate(args_of("--prompts", prompts, "--gpus", "4"))
        assert results["synchronous"]["ratio"] == 1 and results["one round"]["ratio"] > 1
        best.append(max(row["ratio"] for name, row in results.items() if name.startswith("asynchronous")))
    assert best[0] > best[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpus", "0"), ("slots", "0"), ("steps", "0"), ("prompts", "0"), ("staleness", "-1"), ("train-tokens", "-9000")]
    + [("step-ms", "0"), ("step-us", "-8"), ("sync-s", "inf"), ("sigma", "nan")],
)
def test_assumptions_that_cannot_be_are_refused(capsys, name, value):
    with pytest.raises(SystemExit):
        parse_args([f"--{name}", value])
    assert f"argument --{name}: must be " in capsys.readouterr().err


def test_one_gpu_cannot_be_split():
    with pytest.raises(SystemExit, match="--gpus must be at least 2"):
        simulate(args_of("--gpus", "1"))
