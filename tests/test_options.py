"""Every option of TRL's GRPOConfig: with equal groups to the last bit of stock TRL, with ragged groups row by row."""

import importlib.util

import pytest
import torch
from row_by_row import UNEVEN, assert_same_gradient
from tiny_training import build, sample, short
from trl import GRPOTrainer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import GroupRelative, RolloutGroups
from rlvr_trl.testbed import build_model


# Options of the loss and the sampling with a visible effect on a few prompts of a random model
OPTIONS = {
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "cast_lm_head_to_fp32": {"cast_lm_head_to_fp32": True, "bf16": True},
    "disable_dropout": {"disable_dropout": True},
    "pad_to_multiple_of": {"pad_to_multiple_of": 8},
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.8},
    "top_k": {"top_k": 3},
    "min_p": {"min_p": 0.05},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "generation_kwargs": {"generation_kwargs": {"suppress_tokens": [4]}},
    "cache_implementation": {"cache_implementation": "static"},
    "shuffle_dataset": {"shuffle_dataset": False},
    "num_generations": {"num_generations": 2, "per_device_train_batch_size": 8},
    "generation_batch_size": {"generation_batch_size": 16, "per_device_train_batch_size": 8},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dapo": {"loss_type": "dapo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "sapo": {"loss_type": "sapo", "sapo_temperature_pos": 1.2, "sapo_temperature_neg": 1.5},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo", "vespo_k_pos": 1.5, "vespo_k_neg": 2.5, "vespo_lambda_pos": 2.0},
    "vespo_lambda_neg": {"loss_type": "vespo", "vespo_lambda_neg": 1.5},
    "token level": {"importance_sampling_level": "token", "loss_type": "grpo"},
    "sequence level": {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "epsilon": {"epsilon": 0.1},
    "epsilon_high": {"epsilon": 0.1, "epsilon_high": 0.3},
    "delta": {"delta": 1.35, "epsilon": 0.1},
    "off_policy_mask_threshold": {"off_policy_mask_threshold": 0.05},
    "num_iterations": {"num_iterations": 2},
    "steps_per_generation": {"steps_per_generation": 2, "per_device_train_batch_size": 8},
    "reward_weights": {"reward_weights": [0.5]},
    "scale_rewards none": {"scale_rewards": "none"},
    "scale_rewards batch": {"scale_rewards": "batch"},
    "mask_truncated_completions": {"mask_truncated_completions": True},
    "max_completion_length": {"max_completion_length": 3},
    "log_completions": {"log_completions": True, "num_completions_to_print": 1, "log_multimodal": False},
    "log_unique_prompts": {"log_completions": True, "num_completions_to_print": 1, "log_unique_prompts": True},
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
}
# These do not concern the loss, or have more than the one optimizer step that the second route sums up
NOT_BY_ROW = {"gradient_checkpointing", "steps_per_generation", "generation_batch_size", "shuffle_dataset"}
NOT_BY_ROW |= {"log_completions", "log_unique_prompts", "chat_template_kwargs"}


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16, "epsilon": 0.2}


def assert_same_weights(ours, stock):
    before = dict(build_model(stock.processing_class, seed=0).named_parameters())
    named = dict(stock.model.named_parameters())
    assert any(not torch.equal(weight, before[name]) for name, weight in named.items())
    for name, weight in ours.model.named_parameters():
        assert torch.equal(weight, named[name]), name


@pytest.mark.parametrize("option", OPTIONS)
def test_equal_groups_train_stock_grpo_to_the_last_bit(settings, mazes, tokenizer, option):
    settings |= OPTIONS[option]
    stock = build(GRPOTrainer, settings, mazes, tokenizer)
    stock.train()
    ours = build(RLVRTrainer, settings, mazes, tokenizer)
    ours.train()
    assert_same_weights(ours, stock)


def off_policy(batch: dict) -> dict:
    """The batch as if another policy had sampled it, so that ratios differ from 1 and some are clipped."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.randn(batch["completion_ids"].shape, generator=generator)
    return batch | {"old_per_token_logps": batch["old_per_token_logps"] + noise * batch["completion_mask"]}


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in NOT_BY_ROW])
def test_ragged_groups_have_the_gradient_of_their_rows(settings, mazes, tokenizer, option):
    # two iterations: TRL then computes the old log-probabilities, which the loss compares with
    settings |= {"num_iterations": 2} | OPTIONS[option]
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, short, rollouts=UNEVEN)
    batch = off_policy(sample(trainer, mazes, 4))
    assert len(batch["prompt_ids"]) == 4 * trainer.num_generations + sum(UNEVEN.extra)
    trainer.args.per_device_train_batch_size = 5
    # in half precision, sums of a batch and of a row alone are rounded differently
    half = settings["bf16"] or settings.get("fp16")
    assert_same_gradient(trainer, batch, tolerance=0.03 if half else 1e-5)


@pytest.mark.parametrize("option", sorted(NOT_BY_ROW))
def test_ragged_groups_train_with_the_rest(settings, mazes, tokenizer, option):
    trainer = build(RLVRTrainer, settings | OPTIONS[option], mazes, tokenizer, short, rollouts=UNEVEN)
    trainer.train()
    assert trainer.state.global_step == 2
    batches = [entry for entry in trainer.state.log_history if "rollouts/extra" in entry]
    assert {entry["rollouts/extra"] for entry in batches} == {13.0}


# --- completions that were cut off ---


@pytest.mark.parametrize("rollouts", [None, UNEVEN], ids=["equal", "ragged"])
def test_nothing_is_trained_when_every_completion_is_truncated(settings, mazes, tokenizer, rollouts):
    settings |= {"mask_truncated_completions": True, "max_completion_length": 2, "beta": 0.0}
    settings |= {"generation_kwargs": {"suppress_tokens": [tokenizer.eos_token_id, tokenizer.pad_token_id]}}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, short, rollouts=rollouts)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.log_history[0]["completions/clipped_ratio"] == 1.0
    assert trainer.state.log_history[0]["loss"] == 0.0
    for parameter, weight in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter, weight)


def test_truncated_completions_of_every_stage_are_out_of_the_loss(settings, mazes, tokenizer):
    settings |= {"mask_truncated_completions": True, "max_completion_length": 4}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, short, rollouts=UNEVEN)
    batch = sample(trainer, mazes, 4)
    ids = batch["completion_ids"]
    truncated = (ids != tokenizer.eos_token_id).all(dim=1) & (ids[:, 3] != tokenizer.pad_token_id)
    assert truncated[:16].any() and truncated[16:].any() and not truncated.all()
    assert torch.equal(batch["completion_mask"].sum(dim=1) == 0, truncated)
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()


# --- tokens of high entropy, and a target for the entropy ---


@pytest.mark.parametrize(
    "extra",
    [
        {"top_entropy_quantile": 0.3},
        {"entropy_coef": 0.1},
        {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_target": 9.0, "entropy_coef_delta": 0.05},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_entropy_options_with_equal_groups_train_stock_grpo(settings, mazes, tokenizer, extra):
    settings |= extra | {"gradient_accumulation_steps": 2}
    stock = build(GRPOTrainer, settings, mazes, tokenizer)
    stock.train()
    ours = build(RLVRTrainer, settings, mazes, tokenizer)
    ours.train()
    assert_same_weights(ours, stock)
    assert ours.entropy_coef == stock.entropy_coef


# --- what TRL and transformers refuse ---


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size is not supported"),
        ({"log_completions_hub_repo": "a/b"}, "log_completions is False"),
        ({"num_generations": 1}, "at least 2 generations"),
        ({"vllm_importance_sampling_clip_min": 5.0}, "must be less than"),
        ({"router_aux_loss_coef": 0.1}, "not a Mixture-of-Experts"),
        ({"liger_kernel_config": {"fused_linear_cross_entropy": True}, "use_liger_kernel": True}, "not supported"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_trl_refuses_is_refused_here(settings, mazes, tokenizer, extra, message):
    with pytest.raises(ValueError, match=message):
        build(RLVRTrainer, settings | extra, mazes, tokenizer)


def test_liger_kernels_are_refused_where_they_are_not_installed(settings, mazes, tokenizer):
    if importlib.util.find_spec("liger_kernel"):
        pytest.skip("liger-kernel is installed; its kernels need a GPU")
    trainer = build(RLVRTrainer, settings | {"use_liger_kernel": True}, mazes, tokenizer, rollouts=UNEVEN)
    with pytest.raises(ImportError, match="liger-kernel"):
        trainer.train()


def test_the_old_name_of_continuous_batching_still_means_it(settings):
    with pytest.warns(FutureWarning, match="use_transformers_paged"):
        assert RLVRConfig(**settings, use_transformers_paged=True).use_transformers_continuous_batching
    with pytest.raises(ValueError, match="no effect with `use_transformers_continuous_batching`"):
        RLVRConfig(**settings, use_transformers_continuous_batching=True, max_rows_per_generation=4)


# --- the estimator of these groups, for the tests above ---


def test_uneven_counts_are_what_the_trainer_merges(settings, mazes, tokenizer):
    trainer = build(RLVRTrainer, settings | {"scale_rewards": "none"}, mazes, tokenizer, rollouts=UNEVEN)
    batch = sample(trainer, mazes, 4)
    prompts = trainer.logged_completions["prompt"]
    assert [prompts.count(prompt) for prompt in mazes["prompt"][:4]] == [4, 12, 7, 6]
    rewards = torch.tensor(trainer.logged_completions["rewards"]["right_moves"])
    ids = torch.tensor([prompts.index(prompt) for prompt in prompts])
    torch.testing.assert_close(batch["advantages"], GroupRelative("none")(RolloutGroups(rewards, ids)))
