"""The asynchronous trainer, whose loop runs in a thread with made-up turns: its gradient and its training."""

import functools
import math
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import on_processes
from packed_steps import gradient_row_by_row, put_into, random_groups
from scripted_sampler import (
    TEMPLATE,
    HalfWay,
    ThreadTrainer,
    build_async,
    graded,
    is_right,
    right_by_chance,
    right_in_time,
    settings_of_async,
)
from tiny_training import flat_gradient, flat_weights
from transformers import AutoModelForCausalLM

from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer, RLVRConfig
from rlvr_trl.advantages import AGRAE, GroupRelative, PassAtK, PositiveNegativeReinforce, RolloutGroups
from rlvr_trl.async_trainer.packed_step import pack_passes, plan_packed_passes, samples_of
from rlvr_trl.rollouts import (
    DARS,
    DynamicSampling,
    KnapsackAllocator,
    PredictedDARS,
    PromptSource,
    ReinforceAda,
    SkipSolved,
    hardness_weighted,
)
from rlvr_trl.testbed import build_tokenizer
from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint


# --- from groups to gradient ---

STEPS = {
    "equal": ([4, 4, 4], GroupRelative("none")),
    "as DARS makes them": ([4, 9, 6, 4], GroupRelative("none")),
    "pass@k": ([4, 9, 6, 4], PassAtK(2)),
    "some left out": ([4, 9, 6, 4], PositiveNegativeReinforce(0.1, 1.0)),
    "one prompt": ([5], GroupRelative("none")),
    "single completions": ([1, 2, 1], GroupRelative("none")),
}


def prepared(trainer):
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # transformers sets this in its training loop
    trainer.get_train_dataloader()
    return trainer


def gradient_of_step(trainer, groups) -> torch.Tensor:
    put_into(trainer, groups)
    batch = trainer._next_step()
    trainer._feed.close()
    trainer.model.zero_grad()
    trainer.training_step(trainer.model, batch)
    return flat_gradient(trainer.model)


@pytest.mark.parametrize(("sizes", "estimator"), STEPS.values(), ids=STEPS)
def test_the_gradient_of_a_step_is_that_of_its_rows(cpu, tmp_path, saved_model, mazes, sizes, estimator):
    groups = random_groups(len(sizes), sizes)
    plain = AutoModelForCausalLM.from_pretrained(saved_model, dtype=torch.float32)
    expected = gradient_row_by_row(plain, groups, estimator, low=0.2, high=0.28, temperature=0.8)
    settings = {"prompts_per_update": len(sizes), "temperature": 0.8, "epsilon_high": 0.28}
    settings |= {"max_completion_length": 1}  # of what is not sampled here
    by_budget = [({"token_budget": 30}, groups), ({"token_budget": 512}, groups[::-1])]  # the order must not matter
    for passes, some in [*by_budget, ({"token_budget": 0, "per_device_train_batch_size": 3}, groups)]:
        arguments = {"advantages": estimator}
        trainer = build_async(saved_model, graded, mazes, tmp_path, arguments=arguments, **settings | passes)
        found = gradient_of_step(prepared(trainer), some)
        print(f"{passes}: {(found - expected).norm() / expected.norm():.1e}")
        assert (found - expected).norm() <= 1e-5 * expected.norm() > 0, passes


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_passes_hold_every_sample_once_and_no_row_is_empty(seed, rows):
    rng = random.Random(seed)
    groups = random_groups(seed, [rng.randint(1, 9) for _ in range(rng.randint(1, 6))])
    samples = samples_of(groups, list(range(100)), [True] * 100)
    for max_tokens, max_samples in ((0, 1), (0, 4), (30, 0), (200, 0)):
        passes = plan_packed_passes(samples, rows, max_tokens=max_tokens, max_samples=max_samples)
        planned = [sample for each in passes for row in each for sample in row.samples]
        real = [id(sample) for sample in planned if any(sample is one for one in samples)]
        assert sorted(real) == sorted(map(id, samples))
        filler = [sample for sample in planned if id(sample) not in real]
        assert all(sample["advantage"] == 0 for sample in filler) and len(filler) < rows
        assert all(len(each) == rows and all(row.samples for row in each) for each in passes)
        if max_tokens:
            assert all(len(row.tokens) <= max_tokens for each in passes for row in each)
        else:
            assert all(len(row.samples) <= max_samples for each in passes for row in each)
        packed = pack_passes(passes, 77, pad_token_id=0, max_tokens=max_tokens, metrics=defaultdict(list))
        assert [batch["global_n_tokens"].tolist() for batch in packed] == [[77.0] * rows] * len(passes)
    with pytest.raises(ValueError, match=r"`token_budget`=3\. Raise it"):
        plan_packed_passes(samples, rows, max_tokens=3, max_samples=0)


def test_a_step_without_a_completion_in_the_loss_has_no_gradient(cpu, tmp_path, saved_model, mazes):
    trainer = build_async(saved_model, graded, mazes, tmp_path, arguments={"advantages": NoneInLoss()})
    assert gradient_of_step(prepared(trainer), random_groups(0, [3, 3, 3])).norm() == 0
    assert trainer._feed.num_trained == 3


class NoneInLoss:
    def __call__(self, groups):
        return groups.rewards

    def rows_in_loss(self, groups):
        return torch.zeros_like(groups.scored)


# --- training ---


def test_a_training_takes_whole_groups_of_so_many_prompts(cpu, tmp_path, saved_model, mazes):
    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            result = super()._estimate_step(groups)
            self.steps.append((groups, *result))
            return result

    seen = []

    def batch_level(groups: RolloutGroups):
        seen.append((groups.seed, groups.progress, groups.num_groups))
        return groups.rewards - groups.rewards.mean()

    trainer = build_async(
        *(saved_model, right_by_chance, mazes, tmp_path, Recording),
        arguments={"advantages": batch_level, "rollouts": DARS("hardness_weighted", 10)},
        max_steps=5,
        seed=3,
    )
    trainer.steps, before = [], flat_weights(trainer.model).clone()
    trainer.train()
    tickets = [group.order.ticket for groups, *_ in trainer.steps for group in groups]
    assert [len(groups) for groups, *_ in trainer.steps] == [3] * 5 and len(set(tickets)) == 15
    assert trainer._trained_groups == set(tickets) == trainer._feed.trained_tickets()
    # the estimator is asked for the first stage and for all of it, with the seed and progress of the step
    assert seen == [(3 * 2**32 + step, step / 5, 3) for step in range(5) for _ in range(2)]
    for groups, advantages, in_loss in trainer.steps:
        rewards = torch.tensor([float(is_right(each)) for group in groups for each in group.completions])
        torch.testing.assert_close(advantages, rewards - rewards.mean())
        assert in_loss.all()
        for group in groups:
            right = [is_right(each) for each in group.completions]
            first = torch.tensor([sum(right[:4])])
            assert len(group) == 4 + int(hardness_weighted(first, torch.tensor([4]), 10))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry, (groups, advantages, _) in zip(logged, trainer.steps, strict=True):
        count = sum(map(len, groups))
        assert entry["batch/groups_per_step"] == 3 and round(entry["batch/samples_per_step"]) == count
        rewards = np.concatenate([group.rewards_per_func for group in groups])
        assert entry["rewards/right_by_chance/mean"] == pytest.approx(rewards.mean())
        assert entry["rollouts/per_prompt_mean"] == pytest.approx(count / 3)
        assert entry["advantages/frac_zero"] == pytest.approx((advantages == 0).float().mean().item())
        tokens = sum(int(group.lengths.sum()) for group in groups)
        assert entry["batch/trained_tokens_per_step"] == tokens
        assert not any(value != value for value in entry.values())
    assert [entry["epoch"] for entry in logged] == [pytest.approx(step * 3 / 24) for step in range(1, 6)]
    assert (flat_weights(trainer.model) != before).any()


def test_epochs_are_visits_that_were_trained_on(cpu, tmp_path, saved_model, mazes):
    few = mazes.select(range(5))
    rows = Counter()

    class Counting(ThreadTrainer):
        def _estimate_step(self, groups):
            rows.update(group.order.row for group in groups)
            return super()._estimate_step(groups)

    trainer = build_async(
        *(saved_model, right_by_chance, few, tmp_path, Counting),
        max_steps=-1,
        num_train_epochs=2,
        prompts_per_update=3,
    )
    trainer.train()
    assert rows == Counter(dict.fromkeys(range(5), 2))
    assert trainer.state.global_step == 4 and trainer.state.epoch == 2 and trainer._feed.num_left == 0
    assert trainer.state.log_history[-2]["batch/groups_per_step"] == 1


@pytest.mark.parametrize("save_steps", [1, 100])
def test_a_run_that_gives_prompts_up_saves_its_last_step(cpu, tmp_path, saved_model, mazes, save_steps):
    class Ahead(ThreadTrainer):
        """All that waits is stale after the first steps, and given up, so that there are fewer steps than planned."""

        def _sync_weight(self):
            super()._sync_weight()
            if self.state.global_step in (1, 2):
                self.model_version += 9
                self.rollout_worker.update_model_version(self.model_version)

    trainer = build_async(
        *(saved_model, right_by_chance, mazes, tmp_path, Ahead),
        **{"max_steps": -1, "num_train_epochs": 1, "max_staleness": 3, "max_attempts": 1},
        **{"save_strategy": "steps", "save_steps": save_steps},
    )
    trainer.train()
    steps = trainer.state.global_step
    assert 0 < steps < trainer.state.max_steps == 8 and trainer._feed.num_left == 0
    assert Path(last_complete_checkpoint(tmp_path)).name == f"checkpoint-{steps}"


def test_a_resumed_run_trains_on_what_is_left(cpu, tmp_path, saved_model, mazes):
    trained = []

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            trained.append([(group.order.ticket, group.order.row) for group in groups])
            return super()._estimate_step(groups)

    def build(steps):
        return build_async(
            *(saved_model, right_by_chance, mazes, tmp_path, Recording),
            **{"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "max_staleness": 2},
            **{"prompt_history": {}, "rollouts": {"name": "dars", "max_generations": 8}},
            resume_with_changes=["max_steps"],
        )

    first = build(4)
    first.train()
    assert is_complete(tmp_path / "checkpoint-2") and is_complete(tmp_path / "checkpoint-4")
    later = build(8)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    steps = trained[:2] + trained[4:]
    assert len(trained) == 4 + 6
    tickets = dict(visit for step in steps for visit in step)
    assert len(tickets) == 3 * 8 == len(later._trained_groups)
    order = PromptSource(24, shuffle=True, seed=42).take(24).tolist()
    assert all(row == order[ticket] for ticket, row in tickets.items() if ticket < 24)
    assert sorted(tickets)[:10] == list(range(10))  # none is left out
    assert later.model_version == 3 + 1 + 6  # of the checkpoint, of the start, and one for each step
    assert later.history.seen.sum() == 24 and later.rollouts.progress > 0.4
    with pytest.raises(RuntimeError, match="has trained before"):
        later.train()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"num_train_epochs": 2}, 16),  # 48 visits, of which 9 are done in 3 steps
        ({"num_train_epochs": 0.5}, 4),
        ({"num_train_epochs": 0.25}, 3),
        ({"prompts_per_update": 5}, 6),
        ({"prompts_per_update": 2}, 3 + 8),
        ({"num_train_epochs": 1.5, "prompts_per_update": 9}, 6),
    ],
)
def test_a_run_is_resumed_with_other_epochs_or_steps(cpu, tmp_path, saved_model, mazes, changes, steps):
    trained, total = [], math.ceil(24 * changes.get("num_train_epochs", 1))

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            trained.extend(group.order.ticket for group in groups)
            return super()._estimate_step(groups)

    def build(**changes):
        epochs = {"max_steps": -1, "num_train_epochs": 1, "save_strategy": "steps", "save_steps": 3}
        names = [*changes] or None
        return build_async(
            saved_model, right_by_chance, mazes, tmp_path, Recording, **epochs | changes, resume_with_changes=names
        )

    build().train()
    del trained[9:]
    again = build(**changes)
    checkpoint = str(tmp_path / "checkpoint-3")
    with pytest.raises(ValueError, match=rf"(?s)other settings.*{next(iter(changes))}") as error:
        again.args.resume_with_changes = None
        again.train(checkpoint)
    assert "max_steps" not in str(error.value)
    later = build(**changes)
    later.train(checkpoint)
    assert later.state.global_step == later.state.max_steps == steps and later._feed.num_left == 0
    assert sorted(trained) == sorted({*trained}) and {*range(total)} <= {*trained}
    assert len(trained) == max(9, total)


@pytest.mark.parametrize("changes", [{"prompts_per_update": 2}, {"num_train_epochs": 2}])
def test_more_steps_change_the_schedule_from_the_next_one_on(cpu, tmp_path, saved_model, mazes, changes):
    def build(**changes):
        epochs = {"max_steps": -1, "num_train_epochs": 1, "save_strategy": "steps", "save_steps": 3}
        settings = epochs | {"lr_scheduler_type": "linear"} | changes
        return build_async(
            saved_model, right_by_chance, mazes, tmp_path, **settings, resume_with_changes=[*changes] or None
        )

    build().train()
    later = build(**changes)
    later.train(str(tmp_path / "checkpoint-3"))
    rates = {entry["step"]: entry["learning_rate"] for entry in later.state.log_history if "loss" in entry}
    steps = later.state.max_steps
    assert steps > 8 and all(rates[step] == pytest.approx(1e-3 * (1 - (step - 1) / steps)) for step in range(4, steps))


def test_a_checkpoint_of_another_trainer_is_refused(cpu, tmp_path, saved_model, mazes):
    class WithoutAccounts(ThreadTrainer):
        def _save_rng_state(self, output_dir):
            super(AsyncRLVRTrainer, self)._save_rng_state(output_dir)

    trainer = build_async(
        saved_model, right_by_chance, mazes, tmp_path, WithoutAccounts, save_strategy="steps", save_steps=3
    )
    trainer.train()
    again = build_async(saved_model, right_by_chance, mazes, tmp_path, max_steps=5, resume_with_changes=["max_steps"])
    with pytest.raises(ValueError, match="was not saved by an AsyncRLVRTrainer"):
        again.train(resume_from_checkpoint=True)


def test_a_run_is_resumed_with_other_settings_only_where_it_says_so(cpu, tmp_path, saved_model, mazes):
    def build(reward=right_by_chance, **settings):
        saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "lr_scheduler_type": "constant"}
        return build_async(saved_model, reward, mazes, tmp_path, **saving | settings)

    build(learning_rate=1e-3).train()
    wider = {"prompts_per_update": 4, "rollouts": {"name": "dars", "max_generations": 8}, "max_inflight_tasks": 2}
    changed = build(right_in_time, learning_rate=1e-4, max_staleness=7, **wider)
    names = r"learning_rate.*max_staleness.*rollouts.*reward_funcs.*prompts_per_update"
    with pytest.raises(ValueError, match=rf"(?s)other settings than this one.*{names}") as error:
        changed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "max_inflight_tasks" not in str(error.value)
    with pytest.raises(ValueError, match="names 'max_inflight_tasks', which is not compared.*prompts_per_update"):
        build(resume_with_changes=["max_inflight_tasks"])
    admitted = build(learning_rate=1e-4, resume_with_changes=["learning_rate"])
    admitted.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    rates = {row["step"]: row["learning_rate"] for row in admitted.state.log_history if "learning_rate" in row}
    assert rates == {1: 1e-3, 2: 1e-3, 3: 1e-4, 4: 1e-4}


def test_completions_are_printed_as_often_as_metrics(cpu, tmp_path, saved_model, mazes, monkeypatch):
    printed, place = [], "rlvr_trl.async_trainer.async_rlvr_trainer.print_prompt_completions_sample"
    monkeypatch.setattr(place, lambda prompts, completions, rewards, advantages, step, count: printed.append(step))
    settings = {"log_completions": True, "logging_steps": 3, "max_steps": 7}
    build_async(saved_model, right_by_chance, mazes, tmp_path, **settings).train()
    assert printed == [3, 6, 7]  # and after the training


def test_stale_groups_are_sampled_again_while_training(cpu, tmp_path, saved_model, mazes):
    """The weights are far ahead of what was sampled, whatever the machine."""

    class Ahead(ThreadTrainer):
        def _sync_weight(self):
            super()._sync_weight()
            self.model_version += 3
            self.rollout_worker.update_model_version(self.model_version)

    trainer = build_async(
        *(saved_model, right_by_chance, mazes, tmp_path, Ahead), max_steps=4, max_staleness=1, max_inflight_tasks=40
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 4 and all(entry["sample/staleness_max"] <= 1 for entry in logged)
    assert sum(entry["stale/groups_total"] for entry in logged) > 0
    assert sum(entry["stale/completions_total"] for entry in logged) % 4 == 0


def test_nothing_is_stale_by_default_where_sampling_outruns_training(cpu, tmp_path, saved_model, mazes):
    class Slow(ThreadTrainer):
        def _sync_weight(self):
            time.sleep(0.3)
            super()._sync_weight()

    trainer = build_async(
        *(saved_model, right_by_chance, mazes, tmp_path, Slow),
        **{"max_steps": 8, "max_staleness": 2, "max_inflight_tasks": -1, "max_attempts": 1},
    )
    assert trainer.args.max_inflight_tasks == 2 * 3 * 4
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert 0 < max(entry["sample/staleness_max"] for entry in logged) <= 2
    assert all(entry["stale/groups_total"] == 0 for entry in logged) and trainer._feed._dropped == []


@pytest.mark.parametrize(
    "selection", [SkipSolved(0.5, 1.0), {"name": "skip_solved", "threshold": 0.5, "skip_rate": 1}]
)
def test_prompts_are_chosen_by_what_is_known_of_them(cpu, tmp_path, saved_model, mazes, selection):
    chosen = []

    class Recording(ThreadTrainer):
        def _estimate_step(self, groups):
            chosen.append([group.order.row for group in groups])
            return super()._estimate_step(groups)

    by_name = {"selection": selection} if isinstance(selection, dict) else {}
    arguments = {} if by_name else {"selection": selection}
    trainer = build_async(
        *(saved_model, solved_by_size, mazes.select(range(12)), tmp_path, Recording),
        arguments=arguments,
        **by_name,
        # no prompt is chosen before the step before it is remembered, however fast the sampler is
        **{"max_steps": 12, "max_inflight_tasks": 4, "shuffle_dataset": False, "max_staleness": 0},
    )
    trainer.train()
    solved = {row for row in range(12) if mazes[row]["path_length"] % 2}
    late = Counter(row for step in chosen[8:] for row in step)
    assert 0 < len(solved) < 12 and sum(late[row] for row in solved) < late.total() / 4
    assert trainer.history.seen.sum() == 36


def solved_by_size(completions, path_length, **kwargs):
    return [float(length % 2) for length in path_length]


def test_weights_of_rewards_and_the_reward_that_says_what_is_correct(cpu, tmp_path, saved_model, mazes):
    seen = []

    def estimator(groups):
        seen.append(groups)
        return groups.rewards - 1

    trainer = build_async(
        *(saved_model, [graded, right_by_chance], mazes, tmp_path),
        **{"max_steps": 1, "reward_weights": [0.25, 2.0], "correctness_reward": "right_by_chance"},
        **{"estimate_entropies": True},
        arguments={"advantages": estimator, "rollouts": ReinforceAda(12, 4)},
    )
    kept = []
    usual = trainer._estimate_step
    trainer._estimate_step = lambda groups: kept.extend(groups) or usual(groups)
    trainer.train()
    merged = seen[0]
    texts = [completion for group in kept for completion in group.completions]
    expected = [0.25 * len(text) / 10 + 2 * is_right(text) for text in texts]
    torch.testing.assert_close(merged.rewards, torch.tensor(expected))
    assert merged.correct.tolist() == [is_right(text) for text in texts]
    assert merged.lengths.tolist() == [len(text) + 1 for text in texts]
    means = [-sum(row.old_log_probs) / sum(row.completion_mask) for group in kept for (row,) in group.sequences]
    torch.testing.assert_close(merged.entropies, torch.tensor(means), rtol=1e-5, atol=1e-6)
    sizes = [len(group) for group in kept]
    assert sizes == [4 if any(map(is_right, group.completions[:4])) else len(group) for group in kept]


# --- several processes ---


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(cpu, tmp_path, saved_model, mazes):
    alone = on_processes("async_gradients.py", str(tmp_path), saved_model, processes=1)
    both = on_processes("async_gradients.py", str(tmp_path), saved_model, processes=2)
    for ran in alone + both:
        assert ran.returncode == 0, ran.stderr
    expected = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for index in range(2):
        found = torch.load(tmp_path / f"2-{index}.pt", weights_only=True)
        for gradient, other in zip(found["gradients"], expected["gradients"], strict=True):
            assert (gradient - other).norm() <= 1e-5 * other.norm()
        assert found["steps"] == 3  # of a training with made-up turns
    weights = [torch.load(tmp_path / f"2-{index}.pt", weights_only=True)["weights"] for index in range(2)]
    assert torch.equal(*weights)


# --- what is refused ---


def refuse(folder, saved_model, mazes, match, rewards=right_by_chance, error=ValueError, arguments=None, **changes):
    with pytest.raises(error, match=match):
        build_async(saved_model, rewards, mazes, folder, arguments=arguments, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps`=2 must be 1"),
        ({"prompts_per_update": 0}, "`prompts_per_update` must be an integer of at least 1, got 0"),
        ({"num_generations": 0}, "`num_generations`"),
        ({"max_attempts": 0}, "`max_attempts`"),
        ({"max_staleness": -1}, "`max_staleness`"),
        ({"queue_maxsize": 2}, "`queue_maxsize`=2 has no effect here.*Remove it"),
        ({"vllm_server_base_url": "http://me:secret@host:8000"}, "`vllm_server_base_url` must be an address without"),
        ({"reward_timeout": 0}, "`reward_timeout` must be a positive number, got 0"),
        ({"max_inflight_tasks": 0}, "`max_inflight_tasks` must be an integer of at least 1"),
        ({"max_inflight_tasks": 2.5}, "`max_inflight_tasks` must be an integer of at least 1, got 2.5"),
        ({"weight_sync_steps": 0}, "`weight_sync_steps` must be an integer of at least 1"),
        ({"max_completion_length": -4}, "`max_completion_length` must be an integer of at least 1"),
        ({"temperature": 0}, "`temperature` must be a positive number, got 0"),
        ({"token_budget": math.nan}, "`token_budget` must be an integer of at least -1, got nan"),
        ({"heartbeat_stale_after_s": -1}, "`heartbeat_stale_after_s` must be a positive number, got -1"),
        ({"request_timeout": 0}, "`request_timeout` must be a positive number, got 0"),
        ({"top_p": 3}, "`top_p` must be a number above 0 and at most 1, got 3"),
        ({"epsilon": -1}, "`epsilon` must be a number of at least 0, got -1"),
        ({"reward_weights": [math.nan, 1]}, "`reward_weights` must be finite numbers.*got nan"),
        ({"max_steps": -1, "num_train_epochs": 0}, "`num_train_epochs` must be a positive number, got 0"),
        ({"save_strategy": "epoch"}, "`save_strategy` is 'epoch'.* how many to `save_steps`"),
        ({"logging_strategy": "epoch"}, "`logging_strategy` is 'epoch'.* how many to `logging_steps`"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size` begins a training again"),
        ({"token_budget": 16}, "`token_budget`=16 must be above `max_completion_length`=16"),
        ({"advantages": {"name": "pass_at_k", "k": 8}}, "needs groups of at least 8 completions"),
        ({"rollouts": {"name": "dars", "max_generations": 3}}, "`num_generations`=4"),
        ({"rollouts": "dynamic_sampling"}, "decides from a whole batch.*DARS or ReinforceAda"),
        ({"prompt_history": {"idss": "x"}}, "`prompt_history` has no 'idss'"),
        ({"selection": "skip_solve"}, "Did you mean 'skip_solved'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        AsyncRLVRConfig(**settings_of_async(tmp_path, **changes))


def test_a_budget_that_a_prompt_exceeds_is_refused(cpu, tmp_path, saved_model, mazes):
    longest = max(range(len(mazes)), key=lambda row: len(mazes[row]["prompt"]))
    tokens = len(build_tokenizer()(mazes[longest]["prompt"])["input_ids"])
    build_async(saved_model, graded, mazes, tmp_path, token_budget=tokens + 16)
    build_async(saved_model, graded, mazes, tmp_path, token_budget=-1)  # none, as in TRL
    match = rf"has a prompt of {tokens} tokens.*`token_budget`={tokens + 15}\. Raise it to {tokens + 16} or more"
    refuse(tmp_path, saved_model, mazes, match, token_budget=tokens + 15)
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    given = {"processing_class": tokenizer}
    build_async(saved_model, graded, chats, tmp_path, arguments=given, token_budget=tokens + 2 + 16)
    refuse(
        tmp_path, saved_model, chats, f"has a prompt of {tokens + 2} tokens", arguments=given, token_budget=tokens + 17
    )


class Entropic:
    needs_entropies = True

    def __call__(self, groups):
        return groups.entropies


class Said:
    def __init__(self, **says):
        vars(self).update(says)

    def __call__(self, groups):
        return groups.rewards


def local_allocator():
    class Local(HalfWay):
        pass

    return Local()


def test_what_cannot_work_is_refused_before_a_model_is_loaded(tmp_path, mazes):
    no = functools.partial(refuse, tmp_path, "no-such-model", mazes)
    batch = [DynamicSampling(), KnapsackAllocator(8), PredictedDARS(max_generations=8)]
    for allocator in batch:
        no("decides from a whole batch", arguments={"rollouts": allocator})
    no("reads entropies, which a vLLM server does not report", arguments={"advantages": Entropic()})
    no(
        "needs `temperature`=1.0, got 0.7",
        arguments={"advantages": Entropic()},
        estimate_entropies=True,
        temperature=0.7,
    )
    no("needs `top_k`=0, got 5", arguments={"advantages": Entropic()}, estimate_entropies=True, top_k=5)
    no("reads answers", arguments={"advantages": Said(needs_answers=True)})
    no("gives each token an advantage", arguments={"advantages": Said(shapes_tokens=True)})
    no("must be a callable", error=TypeError, arguments={"advantages": "grpo"})
    no("set both as a trainer argument", arguments={"rollouts": DARS()}, rollouts="dars")
    no("cannot be sent to the process that samples: <lambda> cannot", rewards=lambda completions, **kwargs: [0.0])
    no("`rollouts` cannot be sent to the process that samples: Local", arguments={"rollouts": local_allocator()})
    no("Two of `reward_funcs` have the name 'graded'", rewards=[graded, graded])
    no("`reward_weights` has 2 weights for 1", reward_weights=[1.0, 2.0])
    no("takes functions alone", rewards="a-reward-model")
    no("`reward_funcs` is empty", rewards=[])
    no("`correctness_reward` is 'other', but the reward functions are: right_by_chance", correctness_reward="other")
    two = [graded, right_by_chance]
    no("weighs by the mean reward", arguments={"advantages": AGRAE(omega="reward")}, rewards=two)
    with pytest.raises(ValueError, match="is a IterableDataset, but prompts whose groups were stale"):
        build_async("no-such-model", graded, mazes.to_iterable_dataset(), tmp_path)
    with pytest.raises(ValueError, match="it has 0 rows"):
        build_async("no-such-model", graded, mazes.select([]), tmp_path)
    with pytest.raises(ValueError, match="`train_dataset` has no column `prompt`"):
        build_async("no-such-model", graded, mazes.remove_columns("prompt"), tmp_path)
    with pytest.raises(TypeError, match="must be a AsyncRLVRConfig, got RLVRConfig"):
        config = RLVRConfig(str(tmp_path), use_cpu=True, bf16=False)
        ThreadTrainer("no-such-model", graded, config, mazes)
    with pytest.raises(ImportError, match="AsyncRLVRTrainer needs"):
        AsyncRLVRTrainer("no-such-model", graded, AsyncRLVRConfig(**settings_of_async(tmp_path)), mazes)


def test_by_name_and_by_object_are_the_same(tmp_path):
    config = AsyncRLVRConfig(
        **settings_of_async(
            tmp_path,
            advantages="{name: a_grae, base: {name: pass_at_k, k: 4}}",
            rollouts="{name: dars, schedule: hardness_weighted, max_generations: 8}",
        )
    )
    assert config.build_advantages() == AGRAE(PassAtK(k=4))
    assert config.build_rollouts() == DARS("hardness_weighted", max_generations=8)
    assert AsyncRLVRConfig(**settings_of_async(tmp_path)).build_advantages() == GroupRelative()
