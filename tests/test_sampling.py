import math
import random

import numpy as np
import pytest
import torch
from tiny_lm import tiny_model, tiny_tokenizer

from rlvr_trl.evaluation import sample_completions


PROMPTS = ["1+1=", "22+22=", "3+3=", "444+444=", "5+"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model():
    return tiny_model()


def sample(model, tokenizer, prompts=PROMPTS, num_samples=3, **settings):
    settings = {"max_new_tokens": 6, "progress": False} | settings
    return sample_completions(model, tokenizer, prompts, num_samples, **settings)


@pytest.mark.parametrize("token_budget", [1, 14, 50, 16384])
def test_every_prompt_gets_every_completion(model, tokenizer, token_budget):
    # 50 tokens hold 3, 4 or 5 rows, so batches end inside a prompt and the last one is partial; 1 holds none
    samples = sample(model, tokenizer, num_samples=7, token_budget=token_budget)
    for values in (samples.texts, samples.token_ids, samples.lengths, samples.truncated, samples.entropies):
        assert len(values) == 7 * len(PROMPTS)
    assert samples.lengths.tolist() == [len(ids) for ids in samples.token_ids]
    assert samples.lengths.min() >= 1 and samples.lengths.max() <= 6


def test_same_seed_same_samples(model, tokenizer):
    first, again, other = (sample(model, tokenizer, seed=seed, token_budget=50) for seed in (1, 1, 2))
    assert first.token_ids == again.token_ids and np.array_equal(first.entropies, again.entropies)
    assert first.token_ids != other.token_ids
    # The samples of a prompt differ, also when each is a batch of its own
    for samples in (first, sample(model, tokenizer, token_budget=1)):
        assert len({tuple(ids) for ids in samples.token_ids}) > 2 * len(PROMPTS)


def test_greedy_does_not_depend_on_the_budget_and_keeps_the_order(model, tokenizer):
    # A plain generate call per prompt is the second route: no padding, no batch, no reordering
    expected = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        expected += [output[0, ids.shape[1] :].tolist()] * 3
    for token_budget in (1, 40, 16384):
        samples = sample(model, tokenizer, temperature=0, token_budget=token_budget)
        assert samples.token_ids == expected
        assert samples.texts == tokenizer.batch_decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0, "top_k": 5, "top_p": 0.9}, {"temperature": 0}])
def test_entropy_is_that_of_the_full_distribution_at_temperature_one(model, tokenizer, settings):
    samples = sample(model, tokenizer, token_budget=60, **settings)
    prompt_ids = [ids for ids in tokenizer(PROMPTS).input_ids for _ in range(3)]
    for prompt, completion, entropy in zip(prompt_ids, samples.token_ids, samples.entropies, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]  # (T, vocabulary)
        expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
        assert entropy == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature, top_k", [(1.0, 0), (0.5, 0), (2.0, 3)])
def test_samples_follow_the_distribution_asked_for(model, tokenizer, temperature, top_k):
    samples = sample(model, tokenizer, ["1+1="], 4000, max_new_tokens=1, temperature=temperature, top_k=top_k)
    counts = np.bincount([ids[0] for ids in samples.token_ids], minlength=model.config.vocab_size)
    with torch.no_grad():
        logits = model(tokenizer("1+1=", return_tensors="pt").input_ids).logits[0, -1] / temperature
    if top_k:
        logits[logits < logits.topk(top_k).values[-1]] = -math.inf
    expected = logits.softmax(dim=-1).numpy()
    # Each share within five standard errors of its probability
    assert (np.abs(counts / 4000 - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000)).all()
    assert expected.max() > 0.1  # far from uniform, so that the temperature shows


def test_top_p_reaches_the_sampler(model, tokenizer):
    samples = sample(model, tokenizer, ["1+1="], 100, max_new_tokens=1, top_p=1e-6)
    assert samples.token_ids == sample(model, tokenizer, ["1+1="], 100, max_new_tokens=1, temperature=0).token_ids


@pytest.mark.parametrize("as_list", [True, False])
def test_every_eos_token_ends_a_completion(model, tokenizer, as_list):
    end = tokenizer.convert_tokens_to_ids("7")
    model.generation_config.eos_token_id = [end] if as_list else end
    samples = sample(model, tokenizer, num_samples=60, max_new_tokens=12)
    endings = {ids[-1] for ids, truncated in zip(samples.token_ids, samples.truncated, strict=True) if not truncated}
    assert endings == {end, tokenizer.eos_token_id}  # the tokenizer's own is never forgotten
    for ids, truncated in zip(samples.token_ids, samples.truncated, strict=True):
        assert not {end, tokenizer.eos_token_id} & set(ids[:-1])
        assert truncated == (ids[-1] not in endings) and (not truncated or len(ids) == 12)


def test_without_an_eos_token_every_completion_is_truncated(model, tokenizer):
    model.generation_config.eos_token_id = None
    bare = tiny_tokenizer()
    bare.eos_token = bare.pad_token = None
    samples = sample(model, bare)
    assert samples.truncated.all() and (samples.lengths == 6).all()


def test_the_models_own_generation_settings_are_not_used(model, tokenizer):
    expected = sample(model, tokenizer)
    model.generation_config.update(repetition_penalty=5.0, min_p=0.5, temperature=0.1, no_repeat_ngram_size=1)
    config = model.generation_config
    assert sample(model, tokenizer).token_ids == expected.token_ids
    assert model.generation_config is config and config.min_p == 0.5


def test_random_state_is_untouched(model, tokenizer):
    torch.manual_seed(99)  # a state that no sampling leaves behind
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    sample(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    before = sample(model, tokenizer, seed=3)
    torch.manual_seed(100)
    assert sample(model, tokenizer, seed=3).token_ids == before.token_ids


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_mode_and_gradient_checkpointing_are_restored(model, tokenizer):
    expected = sample(model, tokenizer)
    model.train()
    model.model.layers[0].eval()  # a frozen part
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]
    assert sample(model, tokenizer).token_ids == expected.token_ids
    assert [module.training for module in model.modules()] == modes and not all(modes)
    assert model.is_gradient_checkpointing and model.config.use_cache is False

    def breaks(module, inputs):
        raise RuntimeError("a broken layer")

    with model.model.layers[0].register_forward_pre_hook(breaks), pytest.raises(RuntimeError, match="a broken layer"):
        sample(model, tokenizer)
    assert [module.training for module in model.modules()] == modes


def test_tokens_that_the_model_does_not_have(model):
    larger = tiny_tokenizer()
    larger.add_tokens(["£"])
    with pytest.raises(ValueError, match="Prompt 0 has token 42, but the model has 42 rows of embeddings"):
        sample(model, larger, ["1£"])


def test_adapter_is_sampled_and_its_base_model_restored(model, tokenizer):
    peft = pytest.importorskip("peft")
    expected = sample(model, tokenizer)
    config = model.generation_config
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert sample(adapted, tokenizer).token_ids == expected.token_ids  # a fresh adapter changes nothing
    assert model.generation_config is config and adapted.training


def test_conversations_get_the_chat_template(model, tokenizer):
    texts = ["<s>user 1+1=</s><s>assistant ", "<s>user 22+2=</s><s>assistant "]
    conversations = [[{"role": "user", "content": "1+1="}], [{"role": "user", "content": "22+2="}]]
    expected = sample(model, tokenizer, texts)
    assert sample(model, tokenizer, conversations).token_ids == expected.token_ids
    shouted = sample(model, tokenizer, conversations, chat_template_kwargs={"shout": True}, temperature=0)
    texts = [text.replace("</s><s>a", "</s>x<s>a") for text in texts]
    assert shouted.token_ids == sample(model, tokenizer, texts, temperature=0).token_ids


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"token_budget": 0}, "token_budget must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"prompts": []}, "no prompts"),
        ({"prompts": ["1", ""]}, "Prompt 1 .* has 0 tokens"),
        (
            {"prompts": [[{"role": "user", "content": [{"type": "image"}]}]]},
            "takes only text; pass the model's processor",
        ),
        ({"prompts": [[{"role": "user", "content": [{"type": "video"}]}]]}, r"content of type \['video'\]"),
        ({"prompts": ["1", [{"role": "user", "content": "1"}]]}, "1 of 2 are conversations"),
    ],
)
def test_sampling_refuses(model, tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(model, tokenizer, **changes)
