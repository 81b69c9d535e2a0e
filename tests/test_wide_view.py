"""What an estimator sees beyond rewards, and advantages of tokens, in the trainer: against plain loops and one row."""

import math

import pytest
import torch
from launching import launch
from row_by_row import gradient_in_passes
from scripts.wide_view import OF_COMPLETIONS, OF_PROMPTS, ROLLOUTS, moves_right, train_on_everything
from tiny_training import build, flat_gradient, flat_weights, planned_batch, right_moves, sample, trained

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import (
    REPO,
    AdaptivePassAtK,
    EntropyShaped,
    GroupRelative,
    PassAtK,
    RolloutGroups,
    Scheduled,
    UniquenessAware,
    Unlikeliness,
)
from rlvr_trl.digests import NO_ANSWER, answer_id
from rlvr_trl.rollouts import DARS
from rlvr_trl.testbed import build_model


pytestmark = pytest.mark.slow


TOLERANCE = 1e-5  # of the norm of the whole gradient


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16, "max_completion_length": 5, "max_steps": 1}


def sharpened(trainer):
    """Its model, away from a uniform distribution, where all tokens would have the same entropy."""
    with torch.no_grad():
        trainer.model.model.norm.weight.mul_(4.0)
    return trainer


# --- the view, on one process and on two


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide_view")
    launch("wide_view.py", str(folder), processes=2)
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(2)] for name in ROLLOUTS
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_process")
    return {name: train_on_everything(str(folder / name), 5, rollouts=rollouts) for name, rollouts in ROLLOUTS.items()}


@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_two_processes_see_what_one_sees(one, two, rollouts):
    alone = one[rollouts]
    assert len(alone["groups"]) >= 4
    for rank in two[rollouts]:
        assert len(rank["groups"]) == len(alone["groups"])
        for found, expected in zip(rank["groups"], alone["groups"], strict=True):
            assert found["names"] == expected["names"] == ("moves_right", "has_no_wall")
            for name in [*OF_COMPLETIONS, "same_answer", *(f"history of {name}" for name in OF_PROMPTS)]:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)


@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_two_processes_train_on_the_gradient_of_one(one, two, rollouts):
    expected = one[rollouts]["gradients"].double()
    assert len(expected) == 4 and (expected.norm(dim=1) > 1e-3).all()
    for rank in two[rollouts]:
        error = (rank["gradients"].double() - expected).norm(dim=1) / expected.norm(dim=1)
        assert error.max() <= TOLERANCE, error


@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_the_view_is_that_of_the_logged_completions(one, rollouts):
    """Of the last batch, against the texts and rewards that TRL has logged."""
    seen, logged = one[rollouts]["groups"][-1], one[rollouts]["logged"]
    if rollouts == "dars":  # it is called for the first stage after the whole batch, or before: take the whole one
        seen = max(one[rollouts]["groups"][-2:], key=lambda groups: len(groups["rewards"]))
    texts, rewards = logged["completion"], logged["rewards"]
    assert len(texts) == len(seen["rewards"])
    columns = torch.tensor([rewards["moves_right"], rewards["has_no_wall"]], dtype=torch.float32).T
    torch.testing.assert_close(seen["rewards_per_func"], columns, equal_nan=True)
    torch.testing.assert_close(seen["rewards"], columns.nansum(1))
    answers = logged["extra"]["extracted_answer"]
    assert None in answers and len(set(answers)) > 3
    for i, one_answer in enumerate(answers):
        assert (seen["answer_ids"][i] == NO_ANSWER) == (one_answer is None)
        for j, other in enumerate(answers):
            assert (seen["answer_ids"][i] == seen["answer_ids"][j]) == (one_answer == other)
        same = [j for j, other in enumerate(answers) if other == one_answer]
        group = seen["group_ids"]
        assert seen["same_answer"][i] == sum(group[j] == group[i] for j in same)
    # no end of sequence is logged, so a completion of the greatest length was cut off
    assert seen["truncated"].tolist() == [len(text) == 6 for text in texts] and seen["truncated"].sum() > 0
    assert seen["lengths"].tolist() == [min(len(text) + 1, 6) for text in texts]


@pytest.mark.parametrize("rollouts", ROLLOUTS)
def test_the_history_is_that_of_the_batches_before(one, rollouts):
    """Batches of 3 of 6 prompts: each comes again after a batch of the others."""
    known, before = {}, None
    for groups in one[rollouts]["groups"]:
        places = tuple(groups["history of prompt_ids"].tolist())
        if before is not None and before["places"] != places:  # the last batch is over: its largest groups count
            for place, samples, correct in zip(before["places"], before["samples"], before["correct"], strict=True):
                seen = known.get(place, (0, 0, 0))
                known[place] = (seen[0] + 1, seen[1] + samples, seen[2] + correct)
            before = None
        expected = [known.get(place, (0, 0, 0)) for place in places]
        columns = (groups[f"history of {name}"].tolist() for name in ("seen", "samples", "correct"))
        assert list(zip(*columns, strict=True)) == expected
        judged, right = (
            torch.zeros(3, dtype=torch.long).index_add_(0, groups["group_ids"], values.long()).tolist()
            for values in (groups["judged"], groups["judged"] & groups["correct"])
        )
        if before is None or sum(judged) >= sum(before["samples"]):
            before = {"places": places, "samples": judged, "correct": right}
        alpha, beta = groups["history of alpha"], groups["history of beta"]
        assert (alpha > 0).all() and (beta > 0).all() and (known or torch.equal(alpha, beta))
    assert len(known) == 6 and max(seen for seen, *_ in known.values()) >= 1


@pytest.mark.parametrize(
    "extra", [{}, {"num_iterations": 2, "trim_padding": True}, {"mask_truncated_completions": True}]
)
def test_log_probs_are_those_of_the_completions(settings, mazes, tokenizer, extra):
    class Recording(Unlikeliness):
        def __call__(self, groups):
            object.__setattr__(self, "seen", groups)
            return super().__call__(groups)

    estimator = Recording()
    trainer = sharpened(build(RLVRTrainer, settings | extra, mazes, tokenizer, advantages=estimator))
    batch = sample(trainer, mazes, 4)
    assert estimator.seen.entropies is None and estimator.seen.answer_ids is None and estimator.seen.history is None
    for row, log_prob in enumerate(estimator.seen.log_probs):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        if not len(completion):
            assert log_prob.isnan() and "mask_truncated_completions" in extra
            continue
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        of_tokens = logits.log_softmax(1).gather(1, completion.unsqueeze(1))
        torch.testing.assert_close(log_prob, of_tokens.mean(), rtol=1e-4, atol=1e-5)


def test_what_is_not_read_costs_no_forward_pass(settings, mazes, tokenizer):
    def passes(estimator, **extra):
        trainer = build(RLVRTrainer, settings | extra, mazes, tokenizer, [moves_right], advantages=estimator)
        counted = []
        trainer.model.register_forward_pre_hook(lambda *args: counted.append(1))
        sample(trainer, mazes, 4)
        return len(counted)

    none = passes(PassAtK(2))
    assert passes(UniquenessAware()) == none
    assert passes(Unlikeliness()) == passes(EntropyShaped()) == passes(AdaptivePassAtK(2)) == none + 1
    assert passes(EntropyShaped(base=Unlikeliness(base=AdaptivePassAtK(2)))) == none + 1
    # TRL scores the completions itself where a batch serves several optimizer steps
    assert passes(EntropyShaped(base=Unlikeliness()), num_iterations=2) == passes(PassAtK(2), num_iterations=2)


def test_answers_are_read_from_the_reward_of_correctness_and_must_be_there(settings, mazes, tokenizer):
    def other(completions, log_extra, **kwargs):
        log_extra("extracted_answer", ["other"] * len(completions))
        return [0.0] * len(completions)

    class Recording(UniquenessAware):
        def __call__(self, groups):
            object.__setattr__(self, "seen", groups)
            return super().__call__(groups)

    estimator = Recording()
    both = settings | {"correctness_reward": "moves_right"}
    trainer = build(RLVRTrainer, both, mazes, tokenizer, [other, moves_right], advantages=estimator)
    sample(trainer, mazes, 4)
    sample(trainer, mazes, 4)  # those of one batch are not left over for the next
    answers = trainer.logged_completions["extra"]["extracted_answer (moves_right)"]
    assert estimator.seen.answer_ids.tolist() == [answer_id(answer) for answer in answers[-16:]]
    silent = build(RLVRTrainer, settings, mazes, tokenizer, advantages=UniquenessAware())
    with pytest.raises(ValueError, match=r"'right_moves' logged 0 of them .*, and 16 are needed, one per completion"):
        sample(silent, mazes, 4)

    def strange(completions, log_extra, **kwargs):
        log_extra("extracted_answer", [object()] * len(completions))
        return [0.0] * len(completions)

    with pytest.raises(ValueError, match="An `extracted_answer` has no id: .* object"):
        sample(build(RLVRTrainer, settings, mazes, tokenizer, strange, advantages=UniquenessAware()), mazes, 4)


def test_ids_of_answers():
    assert answer_id(None) == NO_ANSWER == -1
    ids = [answer_id(answer) for answer in ("", "1", 1, "None", "\ud800", "é", "__import__('os').system('true')")]
    assert len(set(ids)) == len(ids) and all(0 <= one < 2**63 for one in ids)
    assert answer_id("1/2") == answer_id("1/2")
    assert isinstance(answer_id("9" * 10**7), int)  # a hostile answer takes a moment, and no more


# --- advantages of tokens


def in_float64(trainer, batch, shape):
    """
    From the definitions, one row at a time in float64: the advantage of each token, `(B, C)`, and the gradient of
    dapo's loss, which at a ratio of 1 is that of A log π over the tokens of the batch.
    """
    exact = build_model(trainer.processing_class)  # TRL has replaced the `forward` of the trainer's
    exact.load_state_dict(trainer.model.state_dict())
    exact.double()
    rewards = torch.tensor(trainer.logged_completions["rewards"]["moves_right"][-len(batch["prompt_ids"]) :])
    groups = rewards.double().view(-1, trainer.num_generations)
    base = groups - groups.nanmean(1, keepdim=True)
    base = base.flatten().nan_to_num(nan=0.0)
    mask, total = batch["completion_mask"].bool(), 0.0
    advantages = torch.zeros(mask.shape, dtype=torch.float64)
    for row in range(len(rewards)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][mask[row]]
        logits = exact(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        log_probs = logits.log_softmax(1)  # (T, V)
        entropies = -(log_probs.exp() * log_probs).sum(1).detach()
        chosen = log_probs.gather(1, completion.unsqueeze(1)).squeeze(1)
        worth = torch.zeros(len(completion), dtype=torch.float64)
        if not math.isnan(rewards[row]):
            said = zip(entropies.tolist(), chosen.tolist(), strict=True)
            worth = torch.tensor([shape(base[row].item(), *of_token) for of_token in said], dtype=torch.float64)
        advantages[row, : len(completion)] = worth
        total = total - (worth * chosen).sum()
    (total / mask.sum()).backward()
    return advantages, flat_gradient(exact)


SHAPES = {
    EntropyShaped(0.5, 1.5, GroupRelative("none")): lambda a, h, p: a + min(0.5 * h, abs(a) / 1.5),
    REPO(0.3, GroupRelative("none")): lambda a, h, p: a - 0.3 * (p + h),
    REPO(0.3, GroupRelative("none"), rescale=True): lambda a, h, p: (
        max(a * (1 - 0.3 * p), 0.0) if a > 0 else min(a * (1 + 0.3 * p), 0.0)
    ),
}


@pytest.mark.parametrize("estimator", SHAPES, ids=repr)
def test_tokens_get_what_the_definitions_say_and_train_by_it(settings, mazes, tokenizer, estimator):
    settings |= {"loss_type": "dapo", "trim_padding": True, "prompts_per_batch": 4}
    trainer = sharpened(build(RLVRTrainer, settings, mazes, tokenizer, moves_right, advantages=estimator))
    batch = sample(trainer, mazes, 4)
    advantages, reference = in_float64(trainer, batch, SHAPES[estimator])
    assert "token_log_probs" not in batch and "token_entropies" not in batch
    torch.testing.assert_close(batch["advantages"].double(), advantages, rtol=1e-4, atol=1e-5)
    assert (batch["advantages"].std(dim=1) > 1e-3).any() and reference.norm() > 1e-3
    assert torch.isnan(torch.tensor(trainer.logged_completions["rewards"]["moves_right"])).any()
    for rows_per_pass in (1, 3, 16):
        trainer.args.per_device_train_batch_size = rows_per_pass
        found = gradient_in_passes(trainer, dict(batch))
        assert (found - reference).norm() / reference.norm() <= TOLERANCE
    # what is logged is the advantage of each completion
    assert trainer.logged_completions["advantages"][-16:] == GroupRelative("none")(view_of(trainer)).tolist()


def view_of(trainer):
    rewards = torch.tensor(trainer.logged_completions["rewards"]["moves_right"][-16:])
    return RolloutGroups(rewards, torch.arange(16) // 4)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo"])
def test_without_passes_tokens_train_as_in_passes(settings, mazes, tokenizer, loss_type):
    """TRL's own micro-batches, of equal size, padded and as many rows as it likes."""
    settings |= {"loss_type": loss_type, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    settings |= {"max_steps": 1, "learning_rate": 1.0, "optim": "sgd", "max_grad_norm": 0.0, "num_iterations": 1}
    settings |= {"epsilon_high": 1.1} if loss_type == "cispo" else {}
    weights = []
    for extra in ({}, {"trim_padding": True, "max_tokens_per_micro_batch": 60}):
        if loss_type == "bnpo" and extra:
            continue  # it divides by the tokens of an optimizer step, and TRL by those of a micro-batch
        trainer = build(
            RLVRTrainer, settings | extra, mazes, tokenizer, moves_right, advantages=EntropyShaped(base=REPO(0.3))
        )
        before = flat_weights(trainer.model).clone()
        trainer.train()
        after = flat_weights(trainer.model)
        weights.append((after - before).double())
    assert weights[0].norm() > 1e-4
    assert (weights[0] - weights[-1]).norm() / weights[0].norm() < 1e-4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"importance_sampling_level": "sequence"}, "`importance_sampling_level`='sequence' has one ratio"),
        ({"loss_type": "vespo"}, "`loss_type`='vespo' weighs a whole completion"),
        ({"off_policy_mask_threshold": 0.1}, "`off_policy_mask_threshold`=0.1 drops a whole completion"),
    ],
)
def test_losses_of_whole_completions_are_refused_by_name(settings, mazes, tokenizer, extra, message):
    for estimator in (EntropyShaped(), Scheduled([(0, GroupRelative()), (0.5, REPO(0.1))])):
        with pytest.raises(ValueError, match=message):
            build(RLVRTrainer, settings | extra, mazes, tokenizer, advantages=estimator)
    build(RLVRTrainer, settings | extra, mazes, tokenizer, advantages=GroupRelative())


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda a, t: a.sum(1), r"must return a tensor of shape \(16, 5\), one advantage per token, got \(16,\)"),
        (lambda a, t: "much", "one advantage per token, got str"),
        (lambda a, t: a / 0, r"advantages\s+that are NaN or infinite, for tokens in the loss"),
    ],
)
def test_what_shapes_tokens_is_checked(settings, mazes, tokenizer, returned, message):
    class Own:
        def __call__(self, groups):
            return GroupRelative()(groups)

        def shape_tokens(self, advantages, tokens):
            return returned(advantages, tokens)

    trainer = build(RLVRTrainer, settings, mazes, tokenizer, right_moves, advantages=Own())
    with pytest.raises(ValueError, match=message):
        sample(trainer, mazes, 4)


def test_padding_and_tokens_out_of_the_loss_may_get_anything(settings, mazes, tokenizer):
    class Own:
        def __call__(self, groups):
            return GroupRelative()(groups)

        def shape_tokens(self, advantages, tokens):
            return torch.where(tokens.mask, advantages + 1, torch.nan)

    trainer = build(RLVRTrainer, settings, mazes, tokenizer, advantages=Own(), rollouts=DARS("hardness_weighted", 8))
    batch = sample(trainer, mazes, 4)
    assert batch["advantages"].shape == batch["completion_ids"].shape
    assert ((batch["advantages"] == 0) == (batch["completion_mask"] == 0)).all()


@pytest.mark.parametrize("rollouts", [None, DARS("hardness_weighted", 8)], ids=["fixed", "dars"])
@pytest.mark.parametrize("estimator", [Unlikeliness(), UniquenessAware(), EntropyShaped(), REPO(0.1)], ids=repr)
def test_each_trains_alone_and_with_extra_rollouts(settings, mazes, tokenizer, estimator, rollouts):
    settings |= {"max_steps": 3}
    trainer = trained(RLVRTrainer, settings, mazes, tokenizer, moves_right, advantages=estimator, rollouts=rollouts)
    logged = [entry["advantages/abs_sum_max"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3 and max(logged) > 0
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_run_goes_on_in_the_middle_of_a_batch_with_advantages_of_tokens(settings, mazes, tokenizer):
    settings |= {"num_iterations": 2, "trim_padding": True, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    estimator = EntropyShaped(base=REPO(0.3))
    whole = trained(RLVRTrainer, settings, mazes, tokenizer, moves_right, advantages=estimator)
    resumed = build(RLVRTrainer, settings, mazes, tokenizer, moves_right, advantages=estimator)
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-1")
    assert planned_batch(resumed)["advantages"].dim() == 2
    assert torch.equal(planned_batch(resumed)["advantages"], planned_batch(whole)["advantages"])
    assert torch.equal(flat_weights(resumed.model), flat_weights(whole.model))
