"""LoRA, QLoRA and reference models with ragged batches."""

import importlib.util

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from row_by_row import ROLLOUTS, UNEVEN, assert_same_gradient
from tiny_training import build, flat_weights, sample, short
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer, ModelConfig, get_peft_config, get_quantization_config

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import AdaptivePassAtK
from rlvr_trl.testbed import build_model


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16}


@pytest.fixture
def lora():
    return LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A saved model, from where TRL loads the reference model."""
    build_model(tokenizer, seed=0).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def away_from_start(trainer, std=0.05):
    """Gives an adapter random weights: a new one changes nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(std=std)


# --- LoRA ---


@ROLLOUTS
def test_lora_has_the_gradient_of_its_rows(settings, mazes, tokenizer, lora, rollouts):
    settings |= {"num_iterations": 2, "trim_padding": True, "beta": 0.1}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, short, peft_config=lora, rollouts=rollouts)
    away_from_start(trainer)
    batch = sample(trainer, mazes, 4)
    trainer.args.per_device_train_batch_size = 5
    assert_same_gradient(trainer, batch)
    # no second model: the reference is this one without its adapter
    assert trainer.ref_model is None
    base = build_model(tokenizer, seed=0)
    for row in (0, 9, 15, len(batch["prompt_ids"]) - 1):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = base(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, completion[:, None])[:, 0]
        found = batch["ref_per_token_logps"][row, : len(completion)]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(batch["old_per_token_logps"][row, : len(completion)], expected, atol=1e-3)


def test_lora_with_equal_groups_trains_stock_grpo_to_the_last_bit(settings, mazes, tokenizer, lora):
    weights = []
    for trainer_class in (GRPOTrainer, RLVRTrainer):
        torch.manual_seed(0)  # adapters begin at random
        trainer = build(trainer_class, settings | {"beta": 0.1}, mazes, tokenizer, short, peft_config=lora)
        trainer.train()
        weights.append([parameter.detach() for parameter in trainer.model.parameters() if parameter.requires_grad])
    for ours, stock in zip(*weights, strict=True):
        assert torch.equal(ours, stock)


def logits_of(model, mazes, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(mazes["prompt"][0], return_tensors="pt")).logits


def test_a_ragged_adapter_is_saved_loaded_merged_and_resumed(settings, mazes, tokenizer, lora, tmp_path):
    settings |= {"max_steps": 4, "num_iterations": 2, "save_strategy": "steps", "save_steps": 1}

    def make(**more):
        torch.manual_seed(0)
        return build(RLVRTrainer, settings | more, mazes, tokenizer, short, peft_config=lora, rollouts=UNEVEN)

    whole = make()
    whole.train()
    base = build_model(tokenizer, seed=0)
    untouched = dict(base.named_parameters())
    for name, weight in whole.model.get_base_model().named_parameters():
        if "lora" not in name:
            assert torch.equal(weight, untouched[name.replace("base_layer.", "")]), name
    expected = logits_of(whole.model.eval(), mazes, tokenizer)
    assert not torch.allclose(expected, logits_of(base, mazes, tokenizer), atol=1e-4)

    whole.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(build_model(tokenizer, seed=0), str(tmp_path / "adapter")).eval()
    assert torch.equal(logits_of(loaded, mazes, tokenizer), expected)
    merged = loaded.merge_and_unload()
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits_of(merged, mazes, tokenizer), expected, rtol=1e-4, atol=1e-5)

    for step in (1, 2):  # in the middle of a batch, and between two
        resumed = make(output_dir=str(tmp_path / f"resumed-{step}"))
        resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-{step}")
        for (name, weight), other in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(weight, other), name


@ROLLOUTS
def test_a_trained_adapter_is_its_own_reference(settings, mazes, tokenizer, lora, rollouts):
    """TRL copies the adapter of a model that already has one, and uses the copy as the reference."""
    model = get_peft_model(build_model(tokenizer, seed=0), lora)
    trainer = build(
        RLVRTrainer, settings | {"beta": 0.1, "num_iterations": 2}, mazes, tokenizer, short, model, rollouts=rollouts
    )
    before = sample(trainer, mazes, 4)
    torch.testing.assert_close(before["ref_per_token_logps"], before["old_per_token_logps"], rtol=1e-4, atol=1e-5)
    away_from_start(trainer)
    after = sample(trainer, mazes, 4)
    assert not torch.allclose(after["ref_per_token_logps"], after["old_per_token_logps"], atol=1e-3)
    trainer.train()
    assert trainer.state.log_history[-2]["kl"] > 0


@ROLLOUTS
def test_entropies_with_an_adapter_are_those_of_the_policy(settings, mazes, tokenizer, lora, rollouts):
    """They are not those of the reference, which is the same model without its adapter."""
    seen = []

    class Recording(AdaptivePassAtK):
        def __call__(self, groups):
            seen.append(groups.entropies)
            return super().__call__(groups)

    settings |= {"beta": 0.1}
    trainer = build(
        RLVRTrainer, settings, mazes, tokenizer, short, peft_config=lora, rollouts=rollouts, advantages=Recording(2)
    )
    away_from_start(trainer, std=0.5)
    batch = sample(trainer, mazes, 4)
    for row, entropy in enumerate(seen[-1]):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        expected = torch.distributions.Categorical(logits=logits).entropy().mean()
        torch.testing.assert_close(entropy, expected, rtol=1e-4, atol=1e-5)


def test_what_trl_refuses_with_an_adapter(settings, mazes, tokenizer, lora):
    with pytest.raises(NotImplementedError, match="sync_ref_model"):
        build(RLVRTrainer, settings | {"beta": 0.1, "sync_ref_model": True}, mazes, tokenizer, short, peft_config=lora)
    on_head = LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="lm_head"):
        build(RLVRTrainer, settings, mazes, tokenizer, short, peft_config=on_head)


# --- QLoRA ---


def test_qlora_is_configured_by_trl():
    """Covers what needs no kernel: the settings of a command line, up to loading the model."""
    if importlib.util.find_spec("bitsandbytes") is None:
        arguments = ModelConfig(load_in_4bit=True, use_peft=True)
        assert arguments.load_in_4bit and get_peft_config(arguments).r == arguments.lora_r
        return
    arguments = ModelConfig(load_in_4bit=True, use_peft=True, bnb_4bit_quant_type="nf4")
    assert get_quantization_config(arguments).load_in_4bit


@ROLLOUTS
def test_qlora_trains_and_its_adapter_is_saved_and_resumed(
    settings, mazes, tokenizer, lora, folder, tmp_path, rollouts
):
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes, which is not installed")
    quantization = get_quantization_config(ModelConfig(load_in_4bit=True))
    settings |= {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}

    def load():
        return AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization)

    def make(**more):
        torch.manual_seed(0)
        return build(
            RLVRTrainer, settings | more, mazes, tokenizer, short, load(), peft_config=lora, rollouts=rollouts
        )

    whole = make()
    whole.train()
    adapters = {name: weight for name, weight in whole.model.named_parameters() if "lora" in name}
    assert adapters and all(weight.isfinite().all() and weight.abs().max() > 0 for weight in adapters.values())
    quantized = dict(load().named_parameters())
    for name, weight in whole.model.get_base_model().named_parameters():
        if "lora" not in name:
            assert torch.equal(weight, quantized[name.replace("base_layer.", "")]), name

    whole.save_model(str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(load(), str(tmp_path / "adapter")).eval()
    for name, weight in loaded.named_parameters():
        if "lora" in name:  # trained in bfloat16, as QLoRA's paper does
            assert torch.equal(weight.float(), adapters[name].float()), name
    resumed = make(output_dir=str(tmp_path / "resumed"))
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-1")
    for name, weight in resumed.model.named_parameters():
        if "lora" in name:
            assert torch.equal(weight, adapters[name]), name


# --- gradient checkpointing ---


@ROLLOUTS
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_gradient_checkpointing_trains_the_same(settings, mazes, tokenizer, lora, adapter, rollouts):
    settings |= {"num_iterations": 2, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
    trained = []
    for extra in ({}, {"gradient_checkpointing": True}):
        torch.manual_seed(0)
        more = {"peft_config": lora} if adapter else {}
        trainer = build(RLVRTrainer, settings | extra, mazes, tokenizer, short, rollouts=rollouts, **more)
        if adapter:
            away_from_start(trainer)
        start = flat_weights(trainer.model)
        trainer.train()
        assert trainer.model.is_gradient_checkpointing == bool(extra)
        trained.append(flat_weights(trainer.model) - start)
    without, checkpointed = trained
    assert without.norm() > 1e-3
    assert (checkpointed - without).norm() / without.norm() < 1e-4  # differences of float32 weights


# --- a reference model ---


@ROLLOUTS
@pytest.mark.parametrize("use_bias_correction_kl", [True, False])
def test_a_reference_model_has_the_gradient_of_the_rows(
    settings, mazes, tokenizer, folder, rollouts, use_bias_correction_kl
):
    settings |= {"beta": 0.2, "num_iterations": 2, "use_bias_correction_kl": use_bias_correction_kl}
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = build(RLVRTrainer, settings | {"trim_padding": True}, mazes, tokenizer, short, model, rollouts=rollouts)
    with torch.no_grad():
        trainer.model.model.norm.weight.mul_(1.5)  # away from the reference
    batch = sample(trainer, mazes, 4)
    assert not torch.allclose(batch["old_per_token_logps"], batch["ref_per_token_logps"], atol=0.01)
    trainer.args.per_device_train_batch_size = 5
    assert_same_gradient(trainer, batch)


@ROLLOUTS
def test_the_reference_model_follows_as_trl_says(settings, mazes, tokenizer, folder, rollouts):
    settings |= {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.7}
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = build(RLVRTrainer, settings | {"max_steps": 3}, mazes, tokenizer, short, model, rollouts=rollouts)
    start = flat_weights(trainer.ref_model)
    weights = []

    log = trainer.log

    def keep(logs, *args):  # after every step
        weights.append((flat_weights(trainer.model), flat_weights(trainer.ref_model)))
        log(logs, *args)

    trainer.log = keep
    trainer.train()
    (first, after_first), (second, after_second), (_, after_third) = weights[:3]
    assert not torch.equal(first, start) and torch.equal(after_first, start)
    torch.testing.assert_close(after_second, 0.7 * second + 0.3 * start, rtol=1e-5, atol=1e-7)
    assert torch.equal(after_third, after_second)


def test_trl_refuses_to_follow_without_a_reference(settings, mazes, tokenizer):
    with pytest.raises(ValueError, match="sync_ref_model"):
        build(RLVRTrainer, settings | {"beta": 0.0, "sync_ref_model": True}, mazes, tokenizer, short)
