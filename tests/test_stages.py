"""Sampling in stages: counts, alignment, metrics, budgets, faults, and what stays as in TRL."""

import math

import pytest
import torch
from tiny_training import build, flat_weights, planned_batch, right_moves, sample
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer

from rlvr_trl import DARSConfig, DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PassAtK, RolloutGroups
from rlvr_trl.rollouts import DARS, ReinforceAda, hardness_weighted
from rlvr_trl.testbed import build_model


def always(value):
    def reward(completions, **kwargs):
        return [value] * len(completions)

    return reward


@pytest.fixture
def numbered(mazes):
    return mazes.add_column("number", list(range(len(mazes))))


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16, "max_steps": 1, "max_completion_length": 4}


def logged_groups(trainer, first_stage):
    """Rewards of the first stage and of all stages, by prompt, from the trainer's log of completions."""
    logs = trainer.logged_completions
    prompts = logs["prompt"]
    rewards = next(iter(logs["rewards"].values()))
    groups = {}
    for index, (prompt, reward) in enumerate(zip(prompts, rewards, strict=True)):
        first, whole = groups.setdefault(prompt, ([], []))
        whole.append(reward)
        if index < first_stage:
            first.append(reward)
    return groups


def test_every_prompt_gets_what_the_schedule_says(settings, numbered, tokenizer):
    seen = []

    def checked(prompts, completions, number, **kwargs):
        seen.extend(number)
        assert [numbered["prompt"][i] for i in number] == prompts
        return right_moves(completions)

    trainer = build(DARSTrainer, settings | {"max_generations": 10}, numbered, tokenizer, checked)
    trainer.train()
    groups = logged_groups(trainer, first_stage=16)
    assert len(groups) == 4
    extra = {p: len(whole) - len(first) for p, (first, whole) in groups.items()}
    assert extra == {p: hardness_weighted(int(sum(first)), 4, 10) for p, (first, _) in groups.items()}
    assert len(set(extra.values())) > 1 and len(seen) == 16 + sum(extra.values())


def test_advantages_tokens_and_log_probs_stay_with_their_completion(settings, numbered, tokenizer, tmp_path):
    # num_iterations=2 makes TRL compute old log-probs, beta the reference's
    settings |= {"num_iterations": 2, "beta": 0.1, "max_generations": 12, "log_completions": True}
    settings |= {"num_completions_to_print": 1, "loss_type": "dapo"}
    build_model(tokenizer, seed=1).save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    trainer = build(DARSTrainer, settings, numbered, tokenizer, model=model)
    with torch.no_grad():  # away from the reference
        trainer.model.model.norm.weight.mul_(1.5)
    batch = sample(trainer, numbered, 4)
    logs = trainer.logged_completions

    assert not torch.allclose(batch["old_per_token_logps"], batch["ref_per_token_logps"], atol=0.01)
    texts = tokenizer.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    prompts = tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    assert texts == logs["completion"] and prompts == logs["prompt"]
    assert batch["advantages"].tolist() == logs["advantages"]
    rewards = torch.tensor(logs["rewards"]["right_moves"])
    ids = torch.tensor([prompts.index(prompt) for prompt in prompts])
    torch.testing.assert_close(batch["advantages"], GroupRelative("none")(RolloutGroups(rewards, ids)))
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()

    # each completion scored alone, without padding, gives the log-probs in the merged batch
    for model, name in ((trainer.model, "old_per_token_logps"), (trainer.ref_model, "ref_per_token_logps")):
        for row in range(len(texts)):
            prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
            with torch.no_grad():
                logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
            logps = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, completion[:, None])[:, 0]
            torch.testing.assert_close(batch[name][row, : len(completion)], logps, rtol=1e-4, atol=1e-5)


def test_metrics_describe_the_merged_batch(settings, mazes, tokenizer):
    settings |= {"max_generations": 10, "per_device_train_batch_size": 32}
    trainer = build(DARSTrainer, settings, mazes, tokenizer)
    trainer.train()
    logged = trainer.state.log_history[0]
    groups = logged_groups(trainer, first_stage=32)
    rewards = torch.tensor(trainer.logged_completions["rewards"]["right_moves"])
    mask = planned_batch(trainer)["completion_mask"]
    lengths = mask.sum(1).float()
    assert len(rewards) > 32 == 8 * 4
    assert logged["reward"] == pytest.approx(rewards.mean().item())
    assert logged["rewards/right_moves/std"] == pytest.approx(rewards.std().item())
    assert logged["completions/mean_length"] == pytest.approx(lengths.mean().item())
    assert logged["completions/max_length"] == lengths.max()
    last = planned_batch(trainer)["completion_ids"].gather(1, lengths.long()[:, None] - 1)[:, 0]
    ended = (last == tokenizer.eos_token_id) | (last == tokenizer.pad_token_id)
    assert logged["completions/clipped_ratio"] == pytest.approx((~ended).float().mean().item())
    sizes = [len(whole) for _, whole in groups.values()]
    assert logged["rollouts/per_prompt_mean"] == pytest.approx(sum(sizes) / 8)
    assert logged["rollouts/per_prompt_max"] == max(sizes)
    assert logged["rollouts/extra"] == sum(sizes) - 32
    mixed = [0 < sum(whole) < len(whole) for _, whole in groups.values()]
    all_wrong = [sum(first) == 0 for first, _ in groups.values()]
    assert logged["groups/frac_all_wrong"] == pytest.approx(sum(sum(w) == 0 for _, w in groups.values()) / 8)
    assert logged["frac_reward_zero_std"] == pytest.approx(1 - sum(mixed) / 8)
    rescued = sum(m for m, wrong in zip(mixed, all_wrong, strict=True) if wrong)
    assert any(all_wrong) and logged["rollouts/frac_rescued"] == pytest.approx(rescued / sum(all_wrong))
    per_million = sum(mixed) / lengths.sum().item() * 1e6
    assert logged["rollouts/mixed_groups_per_million_tokens"] == pytest.approx(per_million)
    hardest = [whole for (_, whole), wrong in zip(groups.values(), all_wrong, strict=True) if wrong]
    spread = [sum(abs(r - sum(w) / len(w)) for r in w) for w in hardest]
    assert logged["advantages/abs_sum_first_stage/accuracy_0"] == 0
    assert logged["advantages/abs_sum_all_stages/accuracy_0"] == pytest.approx(sum(spread) / len(spread))
    assert logged["rollouts/per_prompt/accuracy_0"] == 10
    assert logged["rollouts/seconds_stage_2"] > 0
    assert logged["num_tokens"] >= mask.sum() + 20 * len(mask)


@pytest.mark.parametrize(
    ("reward", "zero_accuracy", "per_prompt"),
    [(1.0, "half", 4), (0.0, "cap", 12), (None, "cap", 4)],
    ids=["all right: nothing extra", "all wrong: all at the cap", "nothing could be scored"],
)
def test_extreme_batches_train_and_change_nothing(settings, mazes, tokenizer, reward, zero_accuracy, per_prompt):
    settings |= {"max_generations": 12, "zero_accuracy": zero_accuracy, "max_steps": 2}
    trainer = build(DARSTrainer, settings, mazes, tokenizer, always(reward))
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    history = trainer.state.log_history
    assert [entry["rollouts/per_prompt_mean"] for entry in history[:2]] == [per_prompt, per_prompt]
    assert history[0]["advantages/frac_zero"] == 1.0
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert history[0]["entropy"] > 0  # still measured, over rows that have no gradient


def test_a_budget_serves_the_hardest_prompts(settings, mazes, tokenizer):
    settings |= {"max_generations": 12, "max_extra_rollouts": 9}
    trainer = build(DARSTrainer, settings, mazes, tokenizer, always(0.0))
    trainer.train()
    assert trainer.state.log_history[0]["rollouts/extra"] == 9
    sizes = sorted(len(whole) for _, whole in logged_groups(trainer, 16).values())
    assert sizes == [4, 4, 5, 12]  # the first prompt to the cap, the next one what is left


def test_an_allocator_may_take_many_rounds(settings, mazes, tokenizer):
    rounds = []

    class Counting(ReinforceAda):
        def __call__(self, stage, num_samples, num_correct, num_judged):
            rounds.append((stage, num_samples.tolist(), num_correct.tolist()))
            return super().__call__(stage, num_samples, num_correct, num_judged)

    allocator = Counting(max_generations=14, round_size=2, positives=2, negatives=1)
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, rollouts=allocator)
    trainer.train()
    assert [stage for stage, _, _ in rounds] == list(range(1, len(rounds) + 1)) and len(rounds) > 2
    for _, whole in logged_groups(trainer, 16).values():
        assert len(whole) == 14 or (sum(whole) >= 2 and len(whole) - sum(whole) >= 1)
    assert f"rollouts/seconds_stage_{len(rounds)}" in trainer.state.log_history[0]


def test_estimators_work_on_top(settings, mazes, tokenizer):
    settings |= {"num_generations": 8, "max_generations": 20}
    trainer = build(DARSTrainer, settings, mazes, tokenizer, advantages=PassAtK(8))
    trainer.train()
    prompts = trainer.logged_completions["prompt"]
    ids = torch.tensor([prompts.index(prompt) for prompt in prompts])
    rewards = torch.tensor(trainer.logged_completions["rewards"]["right_moves"])
    groups = RolloutGroups(rewards, ids)
    assert len(set(groups.sizes.tolist())) > 1
    torch.testing.assert_close(torch.tensor(trainer.logged_completions["advantages"]), PassAtK(8)(groups))


def test_a_reward_that_raises_in_the_second_stage_leaves_nothing_behind(settings, mazes, tokenizer):
    def breaks_on_extra(completions, log_extra, log_metric, **kwargs):
        log_extra("seen", list(completions))
        log_metric("calls", 1.0)
        if len(completions) != 16:
            raise KeyError("second stage")
        return right_moves(completions)

    trainer = build(DARSTrainer, settings | {"max_generations": 12}, mazes, tokenizer, breaks_on_extra)
    with pytest.raises(RuntimeError, match="'breaks_on_extra' raised KeyError"):
        sample(trainer, mazes, 4)
    assert trainer.num_generations == 4 and planned_batch(trainer) is None
    logs = trainer.logged_completions
    assert not trainer._metrics["train"] and not logs["prompt"] and not logs["rewards"]
    assert not trainer._pending_extra_logs and not trainer._pending_metrics
    # what was logged before the fault does not reach the next batch
    trainer.reward_funcs = [right_moves]
    batch = sample(trainer, mazes, 4)
    logs = trainer.logged_completions
    assert len(batch["advantages"]) == len(logs["prompt"]) and "seen" not in logs["extra"]


def test_extra_columns_and_metrics_of_rewards_are_joined(settings, mazes, tokenizer):
    def logs(completions, log_extra, log_metric, **kwargs):
        log_extra("text", list(completions))
        if len(completions) == 16:
            log_extra("first stage only", [1] * 16)
        log_metric("rows", float(len(completions)))
        return right_moves(completions)

    trainer = build(DARSTrainer, settings | {"max_generations": 12}, mazes, tokenizer, logs)
    trainer.train()
    logged = trainer.logged_completions
    total = len(logged["prompt"])
    assert logged["extra"]["text"] == logged["completion"]
    assert logged["extra"]["first stage only"] == [1] * 16 + [None] * (total - 16)
    extra = total - 16
    assert trainer.state.log_history[0]["rows"] == pytest.approx((16 * 16 + extra * extra) / total)


def test_evaluation_has_no_extra_stage(settings, mazes, tokenizer):
    settings |= {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4, "max_generations": 12}
    seen = []

    def reward(completions, **kwargs):
        seen.append(len(completions))
        return [0.0] * len(completions)

    trainer = build(DARSTrainer, settings, mazes, tokenizer, reward, eval_dataset=mazes.select(range(3)))
    trainer.train()
    assert seen == [16, 4 * 8, 4, 4, 4]


def widths_of_forward_passes(trainer):
    """Shapes of the model's inputs in passes with a gradient, as training goes on."""
    shapes = []

    def record(module, args, kwargs):
        if torch.is_grad_enabled():
            shapes.append(tuple(kwargs["input_ids"].shape))

    trainer.model.register_forward_pre_hook(record, with_kwargs=True)
    return shapes


def test_no_pass_is_larger_than_allowed(settings, mazes, tokenizer):
    settings |= {"prompts_per_batch": 4, "per_device_train_batch_size": 5, "num_iterations": 2, "max_steps": 4}
    rows = build(DARSTrainer, settings | {"max_generations": 12}, mazes, tokenizer)
    shapes = widths_of_forward_passes(rows)
    rows.train()
    assert shapes and max(rows for rows, _ in shapes) == 5
    tokens = build(DARSTrainer, settings | {"max_generations": 12, "max_tokens_per_micro_batch": 50}, mazes, tokenizer)
    shapes = widths_of_forward_passes(tokens)
    tokens.train()
    assert shapes and max(rows * width for rows, width in shapes) <= 50
    with pytest.raises(ValueError, match=r"have \d+ tokens, more than `max_tokens_per_micro_batch`=20"):
        short = settings | {"max_tokens_per_micro_batch": 20}
        build(RLVRTrainer, short, mazes, tokenizer).train()


def relative_difference(model, other):
    ours, theirs = flat_weights(model), flat_weights(other)
    return ((ours - theirs).norm() / theirs.norm()).item()


SPLITS = [
    {},
    {"gradient_accumulation_steps": 4},
    {"gradient_accumulation_steps": 2, "steps_per_generation": 4},
    {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "num_iterations": 2},
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"])
def test_with_equal_groups_trimming_trains_stock_grpo(cpu_settings, mazes, tokenizer, split, loss_type):
    # SGD: Adam turns rounding errors of gradients near 0 into whole steps
    settings = cpu_settings | split | {"loss_type": loss_type, "max_steps": 4, "optim": "sgd", "learning_rate": 0.05}
    stock = build(GRPOTrainer, settings, mazes, tokenizer)
    start = build_model(tokenizer, seed=0)
    stock.train()
    ours = build(RLVRTrainer, settings | {"trim_padding": True}, mazes, tokenizer)
    ours.train()
    assert relative_difference(start, stock.model) > 1e-4
    assert relative_difference(ours.model, stock.model) < 1e-5
    for name in ("loss", "reward", "completions/mean_length", "advantages/frac_zero"):
        for entry, other in zip(ours.state.log_history[:4], stock.state.log_history[:4], strict=True):
            if name in other and name in entry:
                assert entry[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6)


def test_breadth_is_one_setting(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_steps": 4, "optim": "sgd", "learning_rate": 0.05, "num_iterations": 2}
    whole = build(RLVRTrainer, settings | {"per_device_train_batch_size": 32}, mazes, tokenizer)
    whole.train()
    breadth = settings | {"prompts_per_batch": 8, "per_device_train_batch_size": 3}
    split = build(RLVRTrainer, breadth, mazes, tokenizer)
    shapes = widths_of_forward_passes(split)
    split.train()
    assert split.args.generation_batch_size == 32 and max(rows for rows, _ in shapes) == 3
    assert split.state.global_step == 4 == len([e for e in split.state.log_history if "loss" in e])
    assert relative_difference(split.model, whole.model) < 1e-5
    again = RLVRConfig(**breadth | {"steps_per_generation": 1, "generation_batch_size": 32})
    assert again.generation_batch_size == 32  # saved arguments can be loaded again


def test_transformers_generates_a_few_rows_at_a_time(settings, mazes, tokenizer):
    trainer = build(DARSTrainer, settings | {"max_generations": 12, "max_rows_per_generation": 6}, mazes, tokenizer)
    prefills = []

    def record(module, args, kwargs):
        if not torch.is_grad_enabled() and kwargs["input_ids"].shape[1] > 1:
            prefills.append(len(kwargs["input_ids"]))

    trainer.model.register_forward_pre_hook(record, with_kwargs=True)
    trainer.train()
    assert prefills[:3] == [6, 6, 4] and max(prefills) == 6
    assert len(trainer.logged_completions["prompt"]) > 16


def test_the_batch_is_described_once(cpu_settings, mazes, tokenizer, capsys):
    settings = cpu_settings | {"prompts_per_batch": 6, "num_iterations": 2}
    build(RLVRTrainer, settings, mazes, tokenizer)
    out = capsys.readouterr().out
    assert "6 prompts x 4 generations = 24 completions on 1 process, 24 each, at most 8 in one forward pass" in out
    assert "Optimizer steps: 2 per batch: 1 update of 6 prompts, num_iterations=2." in out


@pytest.mark.parametrize(
    ("config_class", "extra", "message"),
    [
        (DARSConfig, {"max_generations": 3}, "allows 3 completions.*`num_generations`=4"),
        (DARSConfig, {"schedule": "harder"}, "'harder'"),
        (DARSConfig, {"rollouts": "dars"}, "makes its rollouts from"),
        (DARSConfig, {"generation_kwargs": {"seed": 3}}, "seed=3.*identical"),
        (DARSConfig, {"use_adaptive_entropy": True}, "use_adaptive_entropy"),
        (DARSConfig, {"top_entropy_quantile": 0.2}, "`top_entropy_quantile`=0.2.*must be 1.0"),
        (DARSConfig, {"max_extra_rollouts": -1}, "-1"),
        (RLVRConfig, {"max_rows_per_generation": 0}, "at least 1, got 0"),
        (RLVRConfig, {"max_rows_per_generation": 8, "use_vllm": True}, "no effect with `use_vllm`"),
        (RLVRConfig, {"share_prompt_prefill": True, "use_vllm": True}, "`share_prompt_prefill`=True has no effect"),
        (
            RLVRConfig,
            {"share_prompt_prefill": True, "use_transformers_continuous_batching": True},
            "`share_prompt_prefill`=True has no effect with `use_transformers_continuous_batching`",
        ),
        (
            RLVRConfig,
            {"share_prompt_prefill": True, "cache_implementation": "static"},
            "needs `cache_implementation` to be None or 'dynamic', got 'static'",
        ),
        (
            RLVRConfig,
            {"share_prompt_prefill": True, "generation_kwargs": {"use_cache": False}},
            "needs `use_cache` to be True or None, got False",
        ),
        (
            RLVRConfig,
            {"share_prompt_prefill": True, "generation_kwargs": {"prefill_chunk_size": 4}},
            "needs `prefill_chunk_size` to be None, got 4",
        ),
        (DARSConfig, {"steps_per_generation": 3, "gradient_accumulation_steps": 2}, "=3 must divide"),
        (DARSConfig, {"max_tokens_per_micro_batch": 4}, "`max_tokens_per_micro_batch`=4 must be above"),
        (RLVRConfig, {"rollouts": "darts"}, "Valid names: dars, dynamic_sampling, "),
        (RLVRConfig, {"rollouts": {"name": "dars", "max_generation": 8}}, "max_generations"),
        (RLVRConfig, {"prompts_per_batch": 0}, "`prompts_per_batch` must be at least 1, got 0"),
        (RLVRConfig, {"prompts_per_update": 2}, "`prompts_per_update`=2.*needs `prompts_per_batch`, which is not set"),
        (RLVRConfig, {"prompts_per_batch": 4, "prompts_per_update": 5}, "=5 must be .* at most `prompts_per_batch`=4"),
        (RLVRConfig, {"prompts_per_batch": 4, "prompts_per_update": 0}, "`prompts_per_update`=0 must be at least 1"),
        (RLVRConfig, {"prompts_per_batch": 4, "steps_per_generation": 2}, "do not set `steps_per_generation`"),
        (RLVRConfig, {"prompts_per_batch": 4, "gradient_accumulation_steps": 2}, "do not set `gradient_acc"),
        (RLVRConfig, {"prompts_per_batch": 4, "generation_batch_size": 8}, "do not set `generation_batch_size`"),
    ],
)
def test_what_cannot_work_is_refused_by_name(cpu_settings, config_class, extra, message):
    with pytest.raises(ValueError, match=message):
        config_class(**cpu_settings | extra)


def test_rollouts_in_two_places_are_refused(cpu_settings, mazes):
    with pytest.raises(ValueError, match="`rollouts` is set both"):
        args = RLVRConfig(**cpu_settings, rollouts={"name": "dars", "max_generations": 8})
        RLVRTrainer("no-such/model", right_moves, args, mazes, rollouts=DARS(max_generations=8))
    with pytest.raises(ValueError, match="makes its rollouts from"):
        DARSTrainer("no-such/model", right_moves, DARSConfig(**cpu_settings), mazes, rollouts=DARS())
    with pytest.raises(ValueError, match="allows 2 completions"):
        RLVRTrainer("no-such/model", right_moves, RLVRConfig(**cpu_settings), mazes, rollouts=DARS(max_generations=2))


class Asks(DARS):
    """A user's allocator that asks for what it should not."""

    def __init__(self, answer):
        super().__init__(max_generations=8)
        self.answer = answer

    def __call__(self, stage, num_samples, num_correct, num_judged):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.tensor([1, 1]), r"one non-negative integer per prompt, shape \(4,\)"),
        (torch.tensor([1, 0, -1, 0]), "non-negative"),
        (torch.tensor([1.0, 0, 0, 0]), "integer"),
        (torch.tensor([5, 0, 0, 0]), "asks for 9 completions of one prompt, above its `max_generations` of 8"),
    ],
)
def test_a_users_allocator_is_checked(settings, mazes, tokenizer, answer, message):
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, rollouts=Asks(answer))
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_std_scaled_rewards_use_the_std_scaled_schedule(cpu_settings):
    assert DARSConfig(**cpu_settings).build_rollouts() == DARS("hardness_weighted", 32, scale="none")
    assert DARSConfig(**cpu_settings, scale_rewards="group").build_rollouts().scale == "std"
    assert not math.isnan(DARSConfig(**cpu_settings, schedule="equal_treatment").max_generations)
