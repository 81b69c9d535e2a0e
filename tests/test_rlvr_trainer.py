"""RLVRTrainer against stock GRPOTrainer, and everything that GRPOTrainer does with another advantage."""

import json
import math
from dataclasses import dataclass

import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny_training import build, logged_by_trl, share_of_right_moves, trained
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer, TrlParser

from rlvr_trl import PassAtKConfig, PassAtKTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PassAtK, RolloutGroups
from rlvr_trl.rollouts import DARS
from rlvr_trl.testbed import build_model


def ends_early(completions, **kwargs):
    """1 for short completions, which varies over the samples of an untrained model."""
    return [float(len(completion) < 5) for completion in completions]


def none_for_some(completions, **kwargs):
    return [None if "U" in completion else float("R" in completion) for completion in completions]


def assert_same_training(ours, stock):
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (ours, stock)]
    assert losses[0] == losses[1] and len(losses[0]) == stock.state.global_step
    assert any(loss != 0 for loss in losses[0])
    for name, weight in stock.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], weight), name


@pytest.mark.parametrize("scale_rewards", ["group", "none", "batch"])
@pytest.mark.parametrize("steps_per_generation", [1, 4])
def test_group_relative_trains_stock_grpo_to_the_last_bit(
    cpu_settings, mazes, tokenizer, scale_rewards, steps_per_generation
):
    settings = cpu_settings | {
        "max_steps": 5,
        "num_iterations": 2,
        "steps_per_generation": steps_per_generation,
        "scale_rewards": scale_rewards,
        "beta": 0.0,
    }
    stock = trained(GRPOTrainer, settings, mazes, tokenizer, ends_early)
    explicit = trained(RLVRTrainer, settings, mazes, tokenizer, ends_early, advantages=GroupRelative(scale_rewards))
    default = trained(RLVRTrainer, settings, mazes, tokenizer, ends_early)
    assert_same_training(explicit, stock)
    assert_same_training(default, stock)


def test_none_rewards_and_weights_train_stock_grpo_to_the_last_bit(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_steps": 3, "reward_weights": [1.0, 0.3]}
    rewards = [none_for_some, share_of_right_moves]
    stock = trained(GRPOTrainer, settings, mazes, tokenizer, list(rewards))
    ours = trained(RLVRTrainer, settings, mazes, tokenizer, list(rewards))
    assert_same_training(ours, stock)


def test_normalize_then_sum_keeps_its_meaning(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_steps": 3, "multi_objective_aggregation": "normalize_then_sum"}
    rewards = [ends_early, share_of_right_moves]
    stock = trained(GRPOTrainer, settings, mazes, tokenizer, list(rewards))
    ours = trained(RLVRTrainer, settings, mazes, tokenizer, list(rewards))
    for name, weight in stock.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    advantages = [logged_by_trl(trainer)["advantages"] for trainer in (ours, stock)]
    torch.testing.assert_close(*advantages, rtol=1e-4, atol=1e-5)


def test_logged_advantages_are_the_ones_that_train(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"log_completions": True, "num_completions_to_print": 1, "steps_per_generation": 2}
    trainer = trained(RLVRTrainer, settings, mazes, tokenizer, share_of_right_moves, advantages=PassAtK(3))
    table = pd.read_parquet(f"{trainer.args.output_dir}/completions/completions_00001.parquet")
    assert len(table) == 16
    groups = RolloutGroups(torch.tensor(table["share_of_right_moves"].to_numpy()).float(), torch.arange(16) // 4)
    expected = PassAtK(3)(groups)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(torch.tensor(table["advantage"].to_numpy()).float(), expected)
    # and the buffered micro-batches hold the same advantages for the same completions, shuffled
    used = {}
    for batch in trainer._buffered_inputs:
        texts = tokenizer.batch_decode(batch["completion_ids"], skip_special_tokens=True)
        prompts = tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
        used.update(zip(zip(prompts, texts, strict=True), batch["advantages"].tolist(), strict=True))
    for prompt, completion, advantage in zip(table["prompt"], table["completion"], table["advantage"], strict=True):
        assert used[prompt, completion] == pytest.approx(advantage)


def test_metrics_describe_the_groups(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_steps": 1, "per_device_train_batch_size": 32, "log_completions": True}
    trainer = trained(RLVRTrainer, settings, mazes, tokenizer, ends_early, advantages=PassAtK(2))
    logged = trainer.state.log_history[0]
    rewards = torch.tensor(trainer.logged_completions["rewards"]["ends_early"]).view(8, 4)
    advantages = torch.tensor(trainer.logged_completions["advantages"]).view(8, 4)
    assert logged["groups/frac_all_wrong"] == (rewards.sum(1) == 0).float().mean()
    assert logged["groups/frac_all_right"] == (rewards.sum(1) == 4).float().mean()
    assert logged["advantages/abs_sum_mean"] == pytest.approx(advantages.abs().sum(1).mean().item())
    assert logged["advantages/abs_sum_max"] == pytest.approx(advantages.abs().sum(1).max().item())
    assert logged["advantages/frac_zero"] == (advantages == 0).float().mean()
    assert 0 < logged["groups/frac_all_wrong"] + logged["groups/frac_all_right"] < 1


def test_correctness_reward_and_threshold_are_used(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {
        "max_steps": 1,
        "correctness_reward": "share_of_right_moves",
        "correctness_threshold": -1.0,
    }
    trainer = trained(RLVRTrainer, settings, mazes, tokenizer, [ends_early, share_of_right_moves])
    assert trainer.state.log_history[0]["groups/frac_all_right"] == 1.0


def test_a_users_function_is_an_estimator(cpu_settings, mazes, tokenizer):
    seen = []

    def reward_minus_half(groups):
        seen.append(groups)
        return groups.rewards - 0.5

    trainer = trained(RLVRTrainer, cpu_settings, mazes, tokenizer, ends_early, advantages=reward_minus_half)
    assert len(seen) == 2 and seen[-1].sizes.tolist() == [4, 4]
    assert set(trainer.logged_completions["advantages"]) <= {-0.5, 0.5}
    assert seen[-1].lengths.min() >= 1 and seen[-1].lengths.max() <= 6


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (lambda groups: groups.rewards[:3], r"must return a tensor of shape \(8,\).*got \(3,\)"),
        (lambda groups: [0.0] * 8, r"got list"),
        (lambda groups: groups.rewards / 0, "NaN or infinite"),
    ],
)
def test_a_users_function_that_returns_nonsense_is_named(cpu_settings, mazes, tokenizer, estimator, message):
    with pytest.raises(ValueError, match=message):
        trained(RLVRTrainer, cpu_settings, mazes, tokenizer, ends_early, advantages=estimator)


def test_evaluation_may_use_smaller_groups_than_the_estimator(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": 4,
        "k": 2,
    }
    trainer = trained(PassAtKTrainer, settings, mazes, tokenizer, ends_early, eval_dataset=mazes.select(range(8)))
    evaluations = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert len(evaluations) == 2
    assert evaluations[0]["eval_groups/frac_all_wrong"] == pytest.approx(1 - evaluations[0]["eval_reward"])
    assert "eval_advantages/frac_zero" not in evaluations[0]


def test_pass_at_k_trainer_is_rlvr_trainer_with_the_estimator(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"max_steps": 3}
    named = trained(PassAtKTrainer, settings | {"k": 2}, mazes, tokenizer, ends_early)
    general = trained(RLVRTrainer, settings, mazes, tokenizer, ends_early, advantages=PassAtK(2))
    by_name = trained(
        RLVRTrainer, settings | {"advantages": {"name": "pass_at_k", "k": 2}}, mazes, tokenizer, ends_early
    )
    grpo = trained(RLVRTrainer, settings, mazes, tokenizer, ends_early)
    assert_same_training(named, general)
    assert_same_training(by_name, general)
    assert any(not torch.equal(a, b) for a, b in zip(grpo.model.parameters(), named.model.parameters(), strict=True))


def test_resume_trains_on_from_the_checkpoint(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"k": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trained(PassAtKTrainer, settings, mazes, tokenizer, ends_early)
    other = build_model(tokenizer, seed=1)  # overwritten by the checkpoint
    resumed = build(PassAtKTrainer, settings, mazes, tokenizer, ends_early, other)
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-2")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_lora_trains_the_adapter_alone(cpu_settings, mazes, tokenizer):
    from peft import LoraConfig

    before = build_model(tokenizer, seed=0).state_dict()
    trainer = trained(
        PassAtKTrainer,
        cpu_settings | {"k": 2},
        mazes,
        tokenizer,
        ends_early,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    after = trainer.model.state_dict()
    adapters = [name for name in after if "lora_B" in name]
    assert adapters and any(after[name].abs().max() > 0 for name in adapters)
    for name, weight in before.items():
        key = next(k for k in after if k.replace("base_model.model.", "").replace(".base_layer", "") == name)
        assert torch.equal(after[key], weight), name


def test_iterable_and_conversational_datasets(cpu_settings, mazes, tokenizer):
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    chats = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})

    def reward(completions, **kwargs):
        return [float(len(completion[0]["content"]) < 5) for completion in completions]

    trainer = trained(PassAtKTrainer, cpu_settings | {"k": 2}, chats.to_iterable_dataset(), tokenizer, reward)
    assert trainer.state.global_step == 2


async def later(completions, **kwargs):
    return [float("R" in completion) for completion in completions]


def test_async_rewards_work(cpu_settings, mazes, tokenizer):
    trainer = trained(PassAtKTrainer, cpu_settings | {"k": 2}, mazes, tokenizer, [later, ends_early])
    assert trainer.state.log_history[0]["rewards/later/mean"] > 0


def breaks(completions, **kwargs):
    raise KeyError("no such column")


async def breaks_later(completions, **kwargs):
    raise KeyError("no such column")


def returns_nothing(completions, **kwargs):
    return None


def too_few(completions, **kwargs):
    return [1.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (breaks, "'breaks' raised KeyError.*no such column"),
        (breaks_later, "'breaks_later' raised KeyError.*no such column"),
        (too_few, "'too_few' returned 1 rewards, but 8"),
        (returns_nothing, "'returns_nothing' returned NoneType"),
    ],
)
def test_errors_of_reward_functions_name_the_function(cpu_settings, mazes, tokenizer, reward, message):
    with pytest.raises((RuntimeError, ValueError), match=message):
        trained(RLVRTrainer, cpu_settings, mazes, tokenizer, [ends_early, reward])


@pytest.mark.parametrize("trainer_class", [RLVRTrainer, PassAtKTrainer])
def test_configuration_errors_come_before_the_model_loads(cpu_settings, mazes, tokenizer, trainer_class):
    config_class = trainer_class._config_class

    def build(settings=None, dataset=mazes, **kwargs):
        return trainer_class(
            model="no-such/model",  # loading it would raise something else
            reward_funcs=ends_early,
            args=config_class(**cpu_settings | (settings or {})),
            train_dataset=dataset,
            **kwargs,
        )

    with pytest.raises(ValueError, match="is empty"):
        build(dataset=mazes.select([]))
    with pytest.raises(ValueError, match="`eval_dataset` is empty"):
        build(eval_dataset=mazes.select([]))
    with pytest.raises(ValueError, match="`hard` is empty"):
        build(eval_dataset={"easy": mazes, "hard": mazes.select([])})
    with pytest.raises(ValueError, match=r"needs 32 prompts, but `train_dataset` has 24"):
        build({"per_device_train_batch_size": 128})
    with pytest.raises(ValueError, match=r"(?s)at least 5 completions.*`num_generations` is 4|makes its advantages"):
        build(advantages=PassAtK(5))
    with pytest.raises((TypeError, ValueError), match="must be a callable|makes its advantages"):
        build(advantages="pass_at_k")
    with pytest.raises(TypeError, match=f"must be a {config_class.__name__}, got GRPOConfig"):
        trainer_class("no-such/model", ends_early, GRPOConfig(**cpu_settings), mazes)


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        (RLVRConfig, {"advantages": "pass_at_q"}, "Valid names: group_relative, pass_at_k"),
        (RLVRConfig, {"advantages": {"name": "pass_at_k", "k": 5}}, "at least 5 completions.*is 4"),
        (RLVRConfig, {"advantages": {"name": "pass_at_k"}}, "needs the field 'k'"),
        (PassAtKConfig, {"k": 5}, "at least 5 completions.*is 4"),
        (PassAtKConfig, {"k": 0}, "at least 1, got 0"),
        (PassAtKConfig, {"advantages": "group_relative"}, "makes its advantages from `k`"),
        (RLVRConfig, {"temperature": 0.0}, "`temperature` must be a positive number, got 0.0"),
        (RLVRConfig, {"learning_rate": math.nan}, "`learning_rate` must be a number of at least 0, got nan"),
        (RLVRConfig, {"vllm_server_timeout": 0.0}, "`vllm_server_timeout` must be a positive number, got 0.0"),
        (RLVRConfig, {"top_k": 1.5}, "`top_k` must be an integer of at least -1, got 1.5"),
        (RLVRConfig, {"top_p": 3}, "`top_p` must be a number above 0 and at most 1, got 3"),
        (RLVRConfig, {"min_p": -0.1}, "`min_p` must be a number from 0 to 1, got -0.1"),
        (RLVRConfig, {"repetition_penalty": math.inf}, "`repetition_penalty` must be a positive number, got inf"),
        (RLVRConfig, {"epsilon": -1}, "`epsilon` must be a number of at least 0, got -1"),
        (RLVRConfig, {"epsilon_high": math.nan}, "`epsilon_high` must be a number of at least 0, got nan"),
        (RLVRConfig, {"reward_weights": 1.0}, "`reward_weights` must be finite numbers.*got 1.0"),
        (RLVRConfig, {"reward_weights": ["a", 1]}, "`reward_weights` must be finite numbers.*got 'a'"),
    ],
)
def test_configs_refuse_what_cannot_work(cpu_settings, config_class, settings, message):
    with pytest.raises(ValueError, match=message):
        config_class(**cpu_settings | settings)


def test_advantages_in_two_places_are_refused(cpu_settings, mazes):
    args = RLVRConfig(**cpu_settings, advantages="group_relative")
    with pytest.raises(ValueError, match="Set it in one place"):
        RLVRTrainer("no-such/model", ends_early, args, mazes, advantages=PassAtK(2))


def test_fields_of_a_users_own_configuration_are_their_own(cpu_settings):
    @dataclass
    class Mine(RLVRConfig):
        group_size: int = 64
        rows_per_batch: int = 7
        calls_per_batch: int = 9

    usual = RLVRConfig(**cpu_settings | {"prompts_per_batch": 2})
    mine = Mine(**cpu_settings | {"prompts_per_batch": 2})
    assert (mine.generation_batch_size, mine.group_size) == (usual.generation_batch_size, 64) == (8, 64)


def test_a_pass_goes_through_the_training_step_of_a_users_mixin(cpu_settings, mazes, tokenizer):
    calls = []

    class Mixin(Trainer):
        def training_step(self, *args, **kwargs):
            calls.append(1)
            return super().training_step(*args, **kwargs)

    class Mine(RLVRTrainer, Mixin):
        pass

    build(Mine, cpu_settings | {"trim_padding": True, "max_steps": 1}, mazes, tokenizer, ends_early).train()
    assert calls


def test_unknown_correctness_reward_lists_the_functions(cpu_settings, mazes, tokenizer):
    with pytest.raises(ValueError, match="'acc'.*ends_early, share_of_right_moves"):
        settings = cpu_settings | {"correctness_reward": "acc"}
        trained(RLVRTrainer, settings, mazes, tokenizer, [ends_early, share_of_right_moves])


def test_yaml_and_command_line_name_the_estimator(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("output_dir: out\nbf16: false\nadvantages:\n  name: pass_at_k\n  k: 4\n")
    (args,) = TrlParser(RLVRConfig).parse_args_and_config(["--config", str(recipe)])
    assert args.build_advantages() == PassAtK(4)
    spec = json.dumps({"name": "group_relative", "scale": "none"})
    (args,) = TrlParser(RLVRConfig).parse_args_and_config(
        ["--output_dir", "out", "--bf16", "no", "--advantages", spec]
    )
    assert args.build_advantages() == GroupRelative("none")
    (args,) = TrlParser(PassAtKConfig).parse_args_and_config(["--output_dir", "out", "--bf16", "no", "--k", "8"])
    assert args.build_advantages() == PassAtK(8)


def test_model_card_names_the_method(cpu_settings, mazes, tokenizer):
    trainer = trained(PassAtKTrainer, cpu_settings | {"k": 2}, mazes, tokenizer, ends_early)
    trainer.create_model_card(model_name="maze")
    with open(f"{trainer.args.output_dir}/README.md") as file:
        card = file.read()
    assert "2508.10751" in card and "pass-at-k" in card


def test_a_training_set_is_still_optional_where_trl_says_so(cpu_settings, tokenizer, model):
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        RLVRTrainer(model, ends_early, RLVRConfig(**cpu_settings), processing_class=tokenizer)


def test_columns_of_two_functions_do_not_collide(cpu_settings, tokenizer, mazes):
    def moves(completions, log_extra, **kwargs):
        log_extra("answer", [f"first {completion}" for completion in completions])
        return ends_early(completions)

    def again(completions, log_extra, **kwargs):
        log_extra("answer", completions[:3])
        log_extra("answer", completions[3:])  # in pieces, as TRL allows
        return ends_early(completions)

    for rollouts in (None, DARS("equal_treatment", max_generations=6)):
        trainer = trained(RLVRTrainer, cpu_settings, mazes, tokenizer, [moves, again], rollouts=rollouts)
        logged = trainer.logged_completions
        completions, extra = logged["completion"], logged["extra"]
        assert extra["answer"] == [f"first {completion}" for completion in completions]
        assert extra["answer (again)"] == completions and len(extra) == 2


@pytest.mark.parametrize("rollouts", [None, DARS("equal_treatment", max_generations=6)], ids=["equal", "ragged"])
def test_logged_completions_are_plain_lists_of_the_last_batch(cpu_settings, tokenizer, mazes, rollouts):
    batches = []

    def moves(prompts, completions, log_extra, **kwargs):
        log_extra("answer", completions)
        batches.append((prompts, completions))
        return share_of_right_moves(completions)

    trainer = trained(RLVRTrainer, cpu_settings, mazes, tokenizer, [moves, ends_early], rollouts=rollouts)
    logged = trainer.logged_completions
    assert json.loads(json.dumps(logged)) == logged == logged_by_trl(trainer)
    assert list(logged) == ["prompt", "completion", "rewards", "advantages", "extra", "images"]
    last = batches[len(batches) // 2 :]  # the two batches have the same number of stages
    assert len(last) == (1 if rollouts is None else 2)
    assert logged["prompt"] == [prompt for prompts, _ in last for prompt in prompts]
    assert logged["completion"] == [completion for _, completions in last for completion in completions]
    assert logged["rewards"]["moves"] == share_of_right_moves(logged["completion"])
    assert list(logged["rewards"]) == ["moves", "ends_early"] and logged["extra"] == {"answer": logged["completion"]}
    assert len(logged["advantages"]) == len(logged["completion"]) and logged["images"] == []


def test_dataset_columns_reach_the_reward_function(cpu_settings, tokenizer, mazes):
    numbered = Dataset.from_dict({"prompt": mazes["prompt"], "number": list(range(len(mazes)))})
    seen = set()

    def reward(prompts, completions, number, **kwargs):
        seen.update(number)
        assert [mazes["prompt"][i] for i in number] == prompts
        return [float(len(c) < 5) for c in completions]

    trained(PassAtKTrainer, cpu_settings | {"k": 2}, numbered, tokenizer, reward)
    assert len(seen) == 4
