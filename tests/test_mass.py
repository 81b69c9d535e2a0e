"""Where the probability goes: Proposition 1 against real steps, and the callback against the model itself."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from launching import launch
from scripts.mass_dynamics import follow, make_trainer

from rlvr_trl import MassDynamicsCallback
from rlvr_trl.analysis import plot_mass, predicted_mass_change
from rlvr_trl.testbed import build_model, build_tokenizer


# --- Proposition 1 ---


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_proposition_1_is_the_first_order_of_a_step(attention):
    """Against real steps of gradient ascent: the error falls by four when the step is halved."""
    model = build_model(build_tokenizer(), seed=3).double()
    model.set_attn_implementation(attention)
    ids, reward = torch.tensor([2, 5, 3, 3, 7]), torch.linspace(-1, 1, model.config.vocab_size).double()
    logits = model(input_ids=ids[None]).logits[0, -1]
    before = logits.log_softmax(-1).detach()
    (gradient,) = torch.autograd.grad(logits.softmax(-1) @ reward, logits, retain_graph=True)  # of the mean reward
    along = torch.autograd.grad(logits, list(model.parameters()), gradient)
    errors = []
    for rate in (2e-3, 1e-3):
        predicted = predicted_mass_change(model, ids, rate * gradient)
        moved = build_model(build_tokenizer(), seed=3).double()
        moved.set_attn_implementation(attention)
        with torch.no_grad():
            for weight, step in zip(moved.parameters(), along, strict=True):
                weight += rate * step
            after = moved(input_ids=ids[None]).logits[0, -1].log_softmax(-1)
        errors.append(float((after - before - predicted).norm() / predicted.norm()))
    assert errors[0] < 0.1 and errors[1] < 0.6 * errors[0]  # relative: of order η
    assert float((predicted * before.exp()).sum()) == pytest.approx(0, abs=1e-12)  # probabilities still add up to 1


def test_proposition_1_of_a_bandit_is_theorem_1():
    """With the logits as weights the kernel is the identity: Δ log π = Δz − πᵀΔz."""

    class Bandit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.z = torch.nn.Parameter(torch.tensor([0.0, -3.0, 1.0]))

        def forward(self, input_ids):
            class Output:
                logits = self.z.expand(1, input_ids.shape[1], 3)

            return Output

    step = torch.tensor([0.1, 0.2, -0.3])
    policy = torch.tensor([0.0, -3.0, 1.0]).softmax(-1)
    predicted = predicted_mass_change(Bandit(), torch.tensor([0]), step)
    torch.testing.assert_close(predicted, step - policy @ step)


# --- the callback ---


def mass_by_hand(model, answers) -> dict[str, float]:
    """Each answer alone, without padding."""
    mass = dict.fromkeys(("correct", "wrong", "known", "greedy"), 0.0)
    for one in answers:
        for kind, ids in [*one["kinds"], ("greedy", one["greedy"])]:
            with torch.no_grad():
                logits = model.eval()(torch.tensor([one["prompt"] + ids])).logits[0].double().log_softmax(-1)
            places = range(len(one["prompt"]) - 1, len(one["prompt"]) + len(ids) - 1)
            mass[kind] += sum(logits[p, i] for p, i in zip(places, ids, strict=True)).exp().item() / len(answers)
    return mass | {"rest": 1 - mass["correct"] - mass["wrong"] - mass["known"]}


@pytest.mark.slow
def test_mass_is_that_of_the_answers_of_the_start(tmp_path):
    trainer, callback = follow(str(tmp_path / "run"))
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]
    for entry, model in (
        (callback.history[0], build_model(build_tokenizer(), seed=0)),
        (callback.history[-1], trainer.model),
    ):
        for kind, mass in mass_by_hand(model, callback.answers).items():
            assert entry[f"mass_{kind}"] == pytest.approx(mass, rel=1e-4, abs=1e-7)
    tokenizer = build_tokenizer()
    for row, one in zip(callback.sampled.problems, callback.answers, strict=True):
        texts = [tokenizer.decode(ids) for _, ids in one["kinds"]]
        assert len(set(texts)) == len(texts) and one["prompt"] == tokenizer(row.row["prompt"])["input_ids"]
        for kind, ids in one["kinds"]:
            # answers that were cut are not followed; TRL takes a sampled pad token for an end
            assert ids[-1] in (tokenizer.eos_token_id, tokenizer.pad_token_id)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert kind == "known" or kind == ("correct" if text[:1] in ("U", "D") else "wrong")
            assert kind != "known" or text in row.row["paths"]
    assert any(kind == "known" for one in callback.answers for kind, _ in one["kinds"])
    assert callback.history[-1]["mass_correct"] != callback.history[0]["mass_correct"]


@pytest.mark.slow
def test_a_resumed_run_follows_the_same_answers_and_trains_the_same(tmp_path):
    trainer, callback = follow(str(tmp_path / "run"))
    unwatched, _ = make_trainer(str(tmp_path / "unwatched"))
    unwatched.train()
    for weight, expected in zip(trainer.model.parameters(), unwatched.model.parameters(), strict=True):
        assert torch.equal(weight, expected)
    resumed, again = follow(str(tmp_path / "run"), resume=str(tmp_path / "run" / "checkpoint-2"))
    path = tmp_path / "run" / "mass_answers.json"
    assert again.answers == callback.answers == json.loads(path.read_text())["answers"]
    assert again.history == callback.history
    saved = json.loads(path.read_text())
    for text, message in (("{", "holds no answers of MassDynamicsCallback"), ("[]", "holds no answers"),
                          (json.dumps(saved | {"asked": "0"}), "holds answers to other prompts")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            follow(str(tmp_path / "run"), resume=str(tmp_path / "run" / "checkpoint-2"))
    path.unlink()
    shutil.copytree(tmp_path / "run" / "checkpoint-2", tmp_path / "other" / "checkpoint-2")
    with pytest.raises(ValueError, match="there is no .*mass_answers.json' with the answers"):
        follow(str(tmp_path / "other"), resume=str(tmp_path / "other" / "checkpoint-2"))


@pytest.mark.slow
def test_two_processes_follow_and_measure_as_one(tmp_path):
    """Each draws its own answers; the mass is that of all of them, by hand."""
    launch("mass_dynamics.py", str(tmp_path), "2", processes=2)
    found = torch.load(tmp_path / "2.pt", weights_only=False)
    assert [entry["step"] for entry in found["history"]] == [0, 2, 4] and len(found["answers"]) == 5
    for kind, mass in mass_by_hand(build_model(build_tokenizer(), seed=0), found["answers"]).items():
        assert found["history"][0][f"mass_{kind}"] == pytest.approx(mass, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_what_cannot_be_followed_is_refused(tmp_path):
    trainer, mazes = make_trainer(str(tmp_path))
    for settings, message in (
        ({"every": 0}, "`every` must be an integer of at least 1"),
        ({"known": "shortest_path"}, "`known`='shortest_path' must be a column of lists of texts, got '"),
        ({"known": "none"}, "`known`='none' must be a column of lists of texts, got None in it"),
    ):
        with pytest.raises(ValueError, match=message):
            MassDynamicsCallback(trainer, mazes, **settings)


def test_a_picture_of_nothing_is_refused(tmp_path):
    for histories, message in (
        ({}, "there is none"),
        ({"GRPO": []}, "GRPO"),
        ({"A": [{"step": 0, "x_rest": 1}]}, "A"),
    ):
        with pytest.raises(ValueError, match=f"No history has entries with the prefix 'mass': {message}"):
            plot_mass(histories, tmp_path / "mass.png", "title")


def test_the_picture_has_its_numbers(tmp_path):
    history = [{"step": 0, "mass_correct": 0.1, "mass_rest": 0.9}, {"step": 5, "mass_correct": 0.4, "mass_rest": 0.6}]
    plot_mass({"GRPO": history}, tmp_path / "mass.png", "title")
    with open(tmp_path / "mass.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["answers"], row["step"], float(row["probability"])) for row in rows] == [
        *(("correct", "0", 0.1), ("correct", "5", 0.4), ("rest", "0", 0.9), ("rest", "5", 0.6)),
    ]
    assert np.isclose(sum(float(row["probability"]) for row in rows if row["step"] == "5"), 1)
