"""Prompts that are read once for many completions: the same tokens as without, from fewer rows of the first pass."""

import re

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from tiny_lm import tiny_model, tiny_tokenizer
from tiny_training import build, flat_weights, short
from tiny_vlm import build_vision_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GenerationConfig,
    Lfm2Config,
    MistralConfig,
    Qwen2Config,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from trl.trainer.utils import add_fused_lm_head

from rlvr_trl import DARSTrainer, RLVRTrainer
from rlvr_trl.evaluation import SamplingSettings, TransformersEngine
from rlvr_trl.shared_prefill import (
    shared_prefill,
    shared_scoring,
    why_prefill_is_not_shared,
    why_scoring_is_not_shared,
)
from rlvr_trl.testbed import build_model


SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "full attention": Qwen2Config(**SIZES),
    "a window shorter than the prompt": MistralConfig(**SIZES, sliding_window=6),
    "no cache at all": BertConfig(**SIZES),
    "convolutions and attention": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
}


@pytest.fixture
def settings(cpu_settings):
    """4 prompts of 4 completions a step."""
    return cpu_settings | {"per_device_train_batch_size": 16}


# Prompts of 12, 5 and 9 tokens: ragged groups, and rows of a prompt that are not neighbours
PROMPT_OF_ROW = (0, 0, 1, 2, 1, 2, 2, 0, 2)


def build_random(name: str):
    """A model in float64, in which no rounding decides between two tokens."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float64).eval()


def padded_rows(prompt_of_row=PROMPT_OF_ROW) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 50, (length,), generator=generator) for length in (12, 5, 9)]
    ids = torch.zeros(len(prompt_of_row), 12, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompt_of_row):
        ids[row, 12 - len(prompts[prompt]) :], mask[row, 12 - len(prompts[prompt]) :] = prompts[prompt], 1
    return {"input_ids": ids, "attention_mask": mask}


def rows_of_passes(model) -> list[int]:
    """Rows of every forward pass without a gradient, as the model makes it; filled as passes are made."""
    rows = []

    def record(module, args, kwargs, output):
        if not torch.is_grad_enabled():
            rows.append(len(output.logits))

    model.register_forward_hook(record, with_kwargs=True)
    return rows


def generate(model, inputs, **options):
    torch.manual_seed(3)
    return model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=8, pad_token_id=0, **options))


@pytest.mark.parametrize("sampling", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 2}], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_tokens_are_those_of_a_pass_over_every_row(name, sampling):
    model = build_random(name)
    assert why_prefill_is_not_shared(model) is None
    expected = generate(model, padded_rows(), **sampling)
    rows = rows_of_passes(model)
    with shared_prefill(model):
        found = generate(model, padded_rows(), **sampling)
    assert torch.equal(found, expected) and len({tuple(row[12:].tolist()) for row in found}) > 2
    beams = sampling.get("num_beams", 1)
    assert rows[:2] == [3, 9 * beams]
    generate(model, padded_rows(), **sampling)  # the context has ended
    assert rows.count(3) == 1


def test_distinct_prompts_are_left_alone():
    model = build_random("full attention")
    expected = generate(model, padded_rows((2, 0, 1)), do_sample=True)
    with shared_prefill(model):
        assert torch.equal(generate(model, padded_rows((2, 0, 1)), do_sample=True), expected)


def test_what_cannot_be_shared_is_an_error_and_leaves_no_hook():
    model = build_random("full attention")
    ids = padded_rows()["input_ids"]
    for inputs, options, message in (
        ({}, {"cache_implementation": "static"}, "with StaticCache as its cache, which must be DynamicCache"),
        ({}, {"use_cache": False}, "with NoneType as its cache"),
        ({"position_ids": torch.zeros(1, 12, dtype=torch.long)}, {}, r"has the shapes .*\(1, 12\)"),
    ):
        with pytest.raises(ValueError, match=message), shared_prefill(model):
            generate(model, padded_rows() | inputs, disable_compile=True, **options)
    with pytest.raises(ValueError, match="also reads .'inputs_embeds'"), shared_prefill(model):
        model(inputs_embeds=model.get_input_embeddings()(ids))
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_models_that_cannot_share_say_why():
    small = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    prefixed = get_peft_model(tiny_model(), PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    rwkv = RwkvForCausalLM(RwkvConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
    for model, reason in (
        (T5ForConditionalGeneration(T5Config(**small)), "T5ForConditionalGeneration is an encoder-decoder model"),
        (build_vision_model(), "Qwen2_5_VLForConditionalGeneration takes more than text"),
        (prefixed, "its adapter puts virtual tokens before each prompt"),
        (rwkv, "RwkvForCausalLM keeps what it has read in something else than a DynamicCache"),
    ):
        assert why_prefill_is_not_shared(model) == reason


# --- scoring ---


def rows_to_score(width=7) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged completions on the right of `padded_rows`."""
    generator = torch.Generator().manual_seed(2)
    rows = padded_rows()
    ids, mask = rows["input_ids"], rows["attention_mask"]
    lengths = torch.randint(1, width + 1, (len(ids), 1), generator=generator)
    real = (torch.arange(width) < lengths).long()
    tokens = torch.randint(3, 50, (len(ids), width), generator=generator) * real
    return torch.cat([ids, tokens], dim=1), torch.cat([mask, real], dim=1)


def score(model, ids, mask, width=7, weights=None):
    """Log-probabilities and entropies as TRL computes them; and the gradient of a sum with random weights."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-width] = -100
    output = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    model.zero_grad()
    random = torch.randn(output.log_probs.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (output.log_probs * random).sum().backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    return output.log_probs.detach(), output.entropy, gradient


@pytest.mark.parametrize("name", ["full attention", "a window shorter than the prompt"])
def test_scores_and_their_gradient_are_those_of_a_pass_over_every_row(name):
    model = build_random(name).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    assert why_scoring_is_not_shared(model) is None
    ids, mask = rows_to_score()
    expected = score(model, ids, mask)
    read = []
    hook = model.base_model.register_forward_hook(lambda module, args, output: read.append(output))
    layers = [layer.register_forward_hook(lambda module, args, output: read.append(args[0].shape[:2]))
              for layer in model.base_model.layers[:1]]  # fmt: skip
    with shared_scoring(model, 7):
        found = score(model, ids, mask)
    for handle in (hook, *layers):
        handle.remove()
    assert read[:2] == [(3, 12), (9, 7)]  # three prompts, then nine completions
    for one, other in zip(found, expected, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-6 * torch.linalg.vector_norm(other)
    assert "forward" not in vars(model.base_model)
    again = score(model, ids, mask)
    assert all(torch.equal(one, other) for one, other in zip(again, expected, strict=True))


def test_rows_of_distinct_prompts_or_of_none_are_scored_as_without():
    model = build_random("full attention").train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids, mask = rows_to_score()
    for rows, begin in ((slice(1, 4), 0), (slice(None), 12)):  # one row a prompt; no column of prompts
        part, of_part = ids[rows, begin:], mask[rows, begin:]
        expected = score(model, part, of_part, 6)
        with shared_scoring(model, part.shape[1] if begin else 7):
            found = score(model, part, of_part, 6)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_models_whose_completions_cannot_share_say_why():
    causal = tiny_model()
    causal.config.output_router_logits = True
    for model, reason in (
        (build_random("convolutions and attention"), r"Lfm2ForCausalLM has other layers than attention \(Linear\w+\)"),
        (build_random("no cache at all"), "BertLMHeadModel attends to later tokens"),
        (build_vision_model(), "Qwen2_5_VLForConditionalGeneration takes more than text"),
        (causal, "balances its experts by the tokens of every row"),
    ):
        assert re.search(reason, why_scoring_is_not_shared(model))


# --- in training ---


@pytest.mark.parametrize("kind", ["equal groups", "lora with checkpointing", "stages, few rows at a time"])
def test_training_is_the_same(settings, mazes, tokenizer, kind):
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer_class, extra, more = {
        "equal groups": (RLVRTrainer, {}, {}),
        "lora with checkpointing": (RLVRTrainer, {"gradient_checkpointing": True}, {"peft_config": lora}),
        "stages, few rows at a time": (DARSTrainer, {"max_generations": 12, "max_rows_per_generation": 7}, {}),
    }[kind]
    weights, completions, rows = [], [], []
    for share in (False, True):
        torch.manual_seed(0)
        chosen = settings | extra | {"share_prompt_prefill": share}
        trainer = build(trainer_class, chosen, mazes, tokenizer, short, model=build_model(tokenizer), **more)
        module = trainer.accelerator.unwrap_model(trainer.model)
        rows.append(rows_of_passes(module.get_base_model() if more else module))
        trainer.train()
        weights.append(flat_weights(trainer.model))
        completions.append(trainer.logged_completions["completion"])
    assert completions[0] == completions[1]
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-5)
    first = {"equal groups": (16, 4), "stages, few rows at a time": (7, 2)}.get(kind, (16, 4))
    assert (rows[0][0], rows[1][0]) == first and rows[0][1] == rows[1][1] == first[0]


LORA = {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")}
SCORED = {
    "one pass": (RLVRTrainer, {}, {}),
    "an entropy bonus": (RLVRTrainer, {"entropy_coef": 0.01}, {}),
    "few rows a pass": (
        DARSTrainer,
        {"max_generations": 12, "per_device_train_batch_size": 6, "prompts_per_batch": 4, "prompts_per_update": 2},
        {},
    ),
    "lora and a reference": (RLVRTrainer, {"beta": 0.1}, LORA),
}


@pytest.mark.parametrize("kind", SCORED)
def test_shared_scoring_trains_the_same(settings, mazes, tokenizer, kind):
    trainer_class, extra, more = SCORED[kind]
    weights, logs = [], []
    for share in (False, True):
        torch.manual_seed(0)
        chosen = settings | extra | {"share_prompt_scoring": share}
        trainer = build(trainer_class, chosen, mazes, tokenizer, short, model=build_model(tokenizer), **more)
        before = flat_weights(trainer.model)
        trainer.train()
        weights.append(flat_weights(trainer.model) - before)
        logs.append([entry["entropy"] for entry in trainer.state.log_history if "entropy" in entry])
    assert weights[0].norm() > 0
    assert torch.linalg.vector_norm(weights[1] - weights[0]) < 1e-3 * weights[0].norm()
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)


def test_what_shared_scoring_cannot_do_is_refused_by_name(settings, mazes, tokenizer):
    shared = settings | {"share_prompt_scoring": True}
    with pytest.raises(ValueError, match="cannot be used with `gradient_checkpointing`=True"):
        build(RLVRTrainer, shared | {"gradient_checkpointing": True}, mazes, tokenizer, model=build_model(tokenizer))
    with pytest.raises(
        ValueError, match="`share_prompt_scoring`=True cannot be used, because Lfm2ForCausalLM has other"
    ):
        build(RLVRTrainer, shared, mazes, tokenizer, model=build_random("convolutions and attention").float())


def test_a_model_that_cannot_share_is_refused_by_name(settings, mazes, tokenizer):
    model = build_model(tokenizer)
    model.generation_config.cache_implementation = "static"
    with pytest.raises(ValueError, match="generation config sets cache_implementation='static'. Remove it"):
        build(RLVRTrainer, settings | {"share_prompt_prefill": True}, mazes, tokenizer, model=model)


# --- in evaluation; test_evaluation_engines.py compares batches of one row with others ---


def test_evaluation_reads_each_prompt_of_a_batch_once():
    model = tiny_model()
    rows = rows_of_passes(model)
    requests = [(problem, sample) for problem in range(3) for sample in range(5)]
    for _ in TransformersEngine(model, tiny_tokenizer()).sample(
        ["1+1=", "22+22=", "3+3="], requests, SamplingSettings(max_new_tokens=4, seed=3)
    ):
        pass
    assert rows[:2] == [3, 15]
