"""What goes into ragged groups: TRL's kinds of rewards, datasets, models and engines."""

import pytest
import torch
from row_by_row import ROLLOUTS, UNEVEN, prompts_of
from tiny_training import build, flat_weights, right_moves, sample, short
from transformers import (
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    TrainerCallback,
)

from rlvr_trl import RLVRTrainer
from rlvr_trl.testbed import build_model


def all_the_same(completions, **kwargs):
    return [0.5] * len(completions)


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16}


# --- rewards ---


@pytest.mark.parametrize("extra", [{"scale_rewards": "group"}, {"scale_rewards": "none"}, {"scale_rewards": "batch"}])
def test_ragged_rewards_are_scaled_as_trl_says(settings, mazes, tokenizer, extra):
    trainer = build(RLVRTrainer, settings | extra, mazes, tokenizer, short, rollouts=UNEVEN)
    batch = sample(trainer, mazes, 4)
    rewards = torch.tensor(trainer.logged_completions["rewards"]["short"])
    prompts = torch.tensor(prompts_of(UNEVEN.extra))
    expected = torch.zeros(len(rewards))
    for prompt in range(4):
        group = rewards[prompts == prompt]
        expected[prompts == prompt] = group - group.mean()
        if extra["scale_rewards"] == "group":
            expected[prompts == prompt] /= group.std() + 1e-4
    if extra["scale_rewards"] == "batch":
        expected /= rewards.std() + 1e-4
    torch.testing.assert_close(batch["advantages"], expected, rtol=1e-4, atol=1e-5)


@ROLLOUTS
def test_each_reward_is_normalized_in_its_group_and_then_summed(settings, mazes, tokenizer, rollouts):
    settings |= {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1.0, 0.3]}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, [short, right_moves], rollouts=rollouts)
    batch = sample(trainer, mazes, 4)
    logged = trainer.logged_completions["rewards"]
    rewards = torch.tensor([logged[name] for name in ("short", "right_moves")])
    extra = UNEVEN.extra if rollouts else (0,) * 4
    prompts = torch.tensor(
        [p for p in range(4) for _ in range(4)] + [p for p, n in enumerate(extra) for _ in range(n)]
    )
    total = torch.zeros(len(prompts))
    for column, weight in zip(rewards, (1.0, 0.3), strict=True):
        for prompt in range(4):
            group = column[prompts == prompt]
            total[prompts == prompt] += weight * (group - group.mean()) / (group.std() + 1e-4)
    expected = (total - total.mean()) / (total.std() + 1e-4)
    torch.testing.assert_close(batch["advantages"], expected, rtol=1e-3, atol=1e-4)


@ROLLOUTS
def test_a_reward_model_scores_every_completion(settings, mazes, tokenizer, rollouts):
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._name_or_path = "tiny/judge"
    judge = Qwen2ForSequenceClassification(config).eval()
    torch.nn.init.normal_(judge.score.weight)
    trainer = build(
        RLVRTrainer,
        settings,
        mazes,
        tokenizer,
        [judge],
        rollouts=rollouts,
        reward_processing_classes=[tokenizer],
    )
    batch = sample(trainer, mazes, 4)
    logged = trainer.logged_completions["rewards"]["judge"]
    assert len(logged) == len(batch["prompt_ids"]) == (29 if rollouts else 16)
    for row, reward in enumerate(logged):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        special = torch.tensor(tokenizer.all_special_ids)
        completion = completion[~torch.isin(completion, special)]  # TRL decodes without them
        with torch.no_grad():
            expected = judge(input_ids=torch.cat([prompt, completion])[None]).logits.item()
        assert reward == pytest.approx(expected, rel=1e-4, abs=1e-5)


# --- datasets ---


def test_ragged_groups_from_an_iterable_dataset_are_those_of_the_dataset(settings, mazes, tokenizer):
    settings |= {"shuffle_dataset": False, "max_steps": 3}
    prompts = []
    for dataset in (mazes, mazes.to_iterable_dataset()):
        trainer = build(RLVRTrainer, settings, dataset, tokenizer, rollouts=UNEVEN)
        trainer.train()
        prompts.append(trainer.logged_completions["prompt"])
        weights = flat_weights(trainer.model)
        prompts[-1].append(weights)
    assert prompts[0][:-1] == prompts[1][:-1] and len(prompts[0]) == 30
    assert prompts[0][:-1] == [mazes["prompt"][8 + p] for p in prompts_of(UNEVEN.extra)]  # the third batch
    assert torch.equal(prompts[0][-1], prompts[1][-1])


def test_an_iterable_dataset_is_resumed_exactly_in_its_first_pass(settings, mazes, tokenizer, tmp_path):
    settings |= {"num_iterations": 2, "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
    weights = []
    for step, folder in ((None, settings["output_dir"]), (2, str(tmp_path / "2")), (3, str(tmp_path / "3"))):
        stream = mazes.to_iterable_dataset()
        trainer = build(RLVRTrainer, settings | {"output_dir": folder}, stream, tokenizer, rollouts=UNEVEN)
        trainer.train(resume_from_checkpoint=step and f"{settings['output_dir']}/checkpoint-{step}")
        weights.append(flat_weights(trainer.model))
    whole, between_batches, inside_a_batch = weights
    assert torch.equal(between_batches, whole) and torch.equal(inside_a_batch, whole)


def test_an_iterable_dataset_resumed_after_its_first_pass_warns(settings, mazes, tokenizer):
    settings |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    few = mazes.select(range(4))  # one step a pass
    build(RLVRTrainer, settings, few.to_iterable_dataset(), tokenizer, rollouts=UNEVEN).train()
    trainer = build(RLVRTrainer, settings, few.to_iterable_dataset(), tokenizer, rollouts=UNEVEN)
    with pytest.warns(UserWarning, match="a stream, resumed after 2 of its passes"):
        trainer.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-3")


def test_breadth_from_an_iterable_dataset(settings, mazes, tokenizer):
    settings |= {"prompts_per_batch": 4, "per_device_train_batch_size": 3, "shuffle_dataset": False}
    trainer = build(RLVRTrainer, settings, mazes.to_iterable_dataset(), tokenizer, rollouts=UNEVEN)
    trainer.train()
    assert set(trainer.logged_completions["prompt"]) == set(mazes["prompt"][4:8])


@ROLLOUTS
def test_conversational_prompts_are_templated_in_every_stage(settings, mazes, tokenizer, rollouts):
    tokenizer.chat_template = (
        "{% if first is defined %}{{ first }}{% endif %}"
        "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}*{% endif %}"
    )
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})

    def spoken(prompts, completions, **kwargs):
        assert all(prompt[0]["role"] == "user" for prompt in prompts)
        return right_moves([completion[0]["content"] for completion in completions])

    settings |= {"chat_template_kwargs": {"first": "."}}
    trainer = build(RLVRTrainer, settings, chats, tokenizer, spoken, rollouts=rollouts)
    batch = sample(trainer, chats, 4)
    extra = UNEVEN.extra if rollouts else (0,) * 4
    order, prompts = prompts_of(extra), trainer.logged_completions["prompt"]
    assert len(batch["prompt_ids"]) == len(order)
    for row, prompt in enumerate(order):
        ids = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        assert tokenizer.decode(ids) == f".{mazes['prompt'][prompt]}*"
        assert prompts[row] == chats["prompt"][prompt]


# --- models ---


@ROLLOUTS
def test_experts_are_balanced_by_the_auxiliary_loss(settings, mazes, tokenizer, rollouts):
    config = Qwen2MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    settings |= {"router_aux_loss_coef": 0.1, "max_steps": 1}
    model = Qwen2MoeForCausalLM(config)
    gates = [gate.clone() for name, gate in model.named_parameters() if name.endswith("mlp.gate.weight")]
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, all_the_same, model, rollouts=rollouts)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["aux_loss"] >= 2.0  # its value at perfect balance of 2 of 4 experts
    assert logged["loss"] == pytest.approx(0.1 * logged["aux_loss"], rel=1e-4)  # no advantage, no policy loss
    assert logged.get("rollouts/extra", 0) == (13 if rollouts else 0)
    after = [gate for name, gate in trainer.model.named_parameters() if name.endswith("mlp.gate.weight")]
    assert gates and all(not torch.equal(gate, other) for gate, other in zip(gates, after, strict=True))


@ROLLOUTS
def test_a_model_is_loaded_from_its_path(settings, mazes, tokenizer, tmp_path, rollouts):
    build_model(tokenizer, seed=0).save_pretrained(tmp_path / "model")
    settings |= {"model_init_kwargs": {"attn_implementation": "eager"}, "trust_remote_code": True, "max_steps": 1}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, model=str(tmp_path / "model"), rollouts=rollouts)
    assert trainer.model.config._attn_implementation == "eager"
    trainer.train()
    assert trainer.state.global_step == 1


# --- other ways to generate ---


@ROLLOUTS
def test_continuous_batching_gives_every_prompt_its_own_completions(settings, mazes, tokenizer, rollouts):
    # the default takes half of the memory for its cache
    settings |= {"transformers_continuous_batching_config": {"num_blocks": 64, "max_batch_tokens": 256}}
    settings |= {"use_transformers_continuous_batching": True, "top_k": 1}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, rollouts=rollouts)
    with torch.no_grad():
        trainer.model.model.norm.weight.mul_(4.0)  # away from ties
    batch = sample(trainer, mazes, 4)
    for row, prompt in enumerate(prompts_of(UNEVEN.extra if rollouts else (0,) * 4)):
        ids = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        assert tokenizer.decode(ids) == mazes["prompt"][prompt]
        with torch.no_grad():
            alone = trainer.model.generate(ids[None], max_new_tokens=6, do_sample=False)[0, len(ids) :]
        assert batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist() == alone.tolist()


# --- what else the constructor takes ---


@ROLLOUTS
def test_callbacks_and_optimizers_are_used(settings, mazes, tokenizer, rollouts):
    class Counts(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    counts, model = Counts(), build_model(tokenizer, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    settings |= {"max_steps": 1, "max_grad_norm": 0.0}
    more = {"callbacks": [counts], "optimizers": (optimizer, schedule), "rollouts": rollouts}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, model=model, **more)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer.train()
    assert counts.steps == 1
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    # a step of plain SGD is as long as the gradient times the learning rate
    assert moved.norm().item() == pytest.approx(0.5 * trainer.state.log_history[0]["grad_norm"], rel=1e-3)
