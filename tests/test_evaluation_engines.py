"""The engine of a model in this process: streams of its own for every request, exact distributions, images."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_lm import tiny_model, tiny_tokenizer
from tiny_vlm import build_processor, build_vision_model, image_prompt

from rlvr_trl.evaluation import SamplingSettings, TransformersEngine
from rlvr_trl.evaluation.engines.prompts import request_seed, stream_key
from rlvr_trl.evaluation.engines.transformers import GumbelNoise, pack


PROMPTS = ["1+1=", "22+22=", "3+3=", "444+444=", "5+"]
REQUESTS = [(problem, sample) for problem in range(len(PROMPTS)) for sample in range(6)]
SETTINGS = SamplingSettings(max_new_tokens=8, temperature=0.9, top_k=20, top_p=0.95, seed=3)
IMAGE_PROMPTS = [
    image_prompt("what?", "red"),
    image_prompt("what?", "blue"),
    image_prompt("how many?", "red", "blue", size=(24, 16)),
    [{"role": "user", "content": "no picture"}],
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def vision_model():
    return build_vision_model(sharpness=24.0)


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def drawn(engine, prompts=PROMPTS, requests=REQUESTS, settings=SETTINGS):
    """The tokens of every request, by prompt and sample."""
    samples = [sample for batch in engine.sample(prompts, requests, settings) for sample in batch]
    assert sorted((sample.problem, sample.sample) for sample in samples) == sorted(requests)
    return {(str(prompts[sample.problem]), sample.sample): sample.token_ids for sample in samples}


# --- every request has a stream of its own


@pytest.mark.parametrize("token_budget", [1, 40, 100])
def test_samples_do_not_depend_on_the_token_budget(model, tokenizer, token_budget):
    expected = drawn(TransformersEngine(model, tokenizer))
    assert drawn(TransformersEngine(model, tokenizer, token_budget)) == expected
    assert len({tuple(ids) for ids in expected.values()}) > 25  # and are not all the same


def test_samples_do_not_depend_on_the_other_requests(model, tokenizer):
    engine = TransformersEngine(model, tokenizer, token_budget=60)
    expected = drawn(engine)
    halves = drawn(engine, requests=REQUESTS[::2]) | drawn(
        TransformersEngine(model, tokenizer), requests=REQUESTS[1::2]
    )
    assert halves == expected
    [(key, ids)] = drawn(engine, requests=[(3, 4)]).items()
    assert ids == expected[key]


def test_samples_depend_on_the_prompt_and_not_on_its_place(model, tokenizer):
    engine = TransformersEngine(model, tokenizer)
    expected = drawn(engine)
    assert drawn(engine, prompts=PROMPTS[::-1]) == expected
    assert drawn(engine, prompts=[*PROMPTS, "7"], requests=REQUESTS[::-1]) == expected
    other_seed = drawn(engine, settings=SamplingSettings(max_new_tokens=8, seed=4))
    assert other_seed != drawn(engine, settings=SamplingSettings(max_new_tokens=8, seed=3))


def test_a_longer_limit_continues_the_same_completions(model, tokenizer):
    # The noise of a step is a function of the step: how many follow does not matter
    engine = TransformersEngine(model, tokenizer)
    short, long = (drawn(engine, settings=SamplingSettings(max_new_tokens=length)) for length in (3, 9))
    assert any(len(ids) > 3 for ids in long.values())
    assert {key: ids[:3] for key, ids in long.items()} == short


def test_seeds_differ_by_seed_prompt_and_sample():
    arguments = [
        (seed, prompt, sample) for seed in range(5) for prompt in (b"a", b"b", b"1/a") for sample in range(40)
    ]
    for function, low, high in ((stream_key, -(2**63), 2**63), (request_seed, 0, 2**31)):
        values = {function(*some) for some in arguments}
        assert len(values) == len(arguments) and all(low <= value < high for value in values)


# --- the noise, and what is sampled with it


def test_the_first_outputs_are_those_of_splitmix64():
    # Known answers of the published generator for the seed 1234567, through one step of the stream
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state, outputs = 1234567, []
    for _ in first:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = state
        for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> shift)) * multiplier % 2**64
        outputs.append(mixed ^ (mixed >> 31))
    assert outputs == first  # the reference above, in integers of any size, is right

    def reference(key, step, token):
        def output(seed, index):
            state = (seed + index * 0x9E3779B97F4A7C15) % 2**64
            for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                state = (state ^ (state >> shift)) * multiplier % 2**64
            return state ^ (state >> 31)

        uniform = ((output(output(key, step + 1), token + 1) >> 11) + 0.5) / 2**53
        return -math.log(-math.log1p(-uniform))

    keys = [0, -5, 2**63 - 1]
    noise = GumbelNoise(torch.tensor(keys), 7)
    for step in (0, 1, 1000):
        expected = [[reference(key, step, token) for token in range(7)] for key in keys]
        np.testing.assert_allclose(noise(step).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_noise_is_gumbel_and_independent():
    keys = torch.tensor([stream_key(0, b"prompt", sample) for sample in range(64)])
    noise = GumbelNoise(keys, 5000)
    values = torch.stack([noise(step) for step in range(4)]).double()  # (steps, B, V)
    assert values.isfinite().all()
    uniform = torch.exp(-torch.exp(-values)).flatten().sort().values
    grid = (torch.arange(len(uniform)) + 0.5) / len(uniform)
    assert (uniform - grid).abs().max() < 1.95 / math.sqrt(len(uniform))  # Kolmogorov-Smirnov, level 0.001
    standard = (values - values.mean()) / values.std()
    shifted = [standard.roll(1, dims=dim) for dim in range(3)]
    for other in shifted:  # the step before, the row before, the token before
        assert abs((standard * other).mean()) < 4 / math.sqrt(standard.numel())
    # Rows are computed in blocks; each is what it is alone
    assert torch.equal(GumbelNoise(keys[5:6], 5000)(2), noise(2)[5:6])
    assert torch.equal(GumbelNoise(keys[:3], 200_000)(0)[2], GumbelNoise(keys[2:3], 200_000)(0)[0])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 4}, {"temperature": 1.5, "top_p": 0.8}]
)
@pytest.mark.parametrize("position", [0, 1])
def test_sampled_tokens_follow_the_distribution_asked_for(model, tokenizer, settings, position):
    engine, number = TransformersEngine(model, tokenizer, token_budget=2**16), 20_000
    requests = [(0, sample) for sample in range(number)]
    settings = SamplingSettings(max_new_tokens=position + 1, **settings)
    completions = [ids for ids in drawn(engine, ["1+1="], requests, settings).values() if len(ids) > position]
    if position:  # the second token of those that share the commonest first one
        first = max({ids[0] for ids in completions}, key=[ids[0] for ids in completions].count)
        completions = [ids for ids in completions if ids[0] == first]
    counts = np.bincount([ids[position] for ids in completions], minlength=model.config.vocab_size)
    with torch.no_grad():
        prefix = tokenizer("1+1=")["input_ids"] + completions[0][:position]
        logits = model(torch.tensor([prefix])).logits[0, -1].double().numpy() / settings.temperature
    expected = len(completions) * restricted(np.exp(logits - logits.max()), settings)
    assert counts[expected == 0].sum() == 0
    common = expected > 5  # chi-square; the others are one class of their own
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    assert freedom >= 3
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 6


def restricted(weights, settings):
    """Top-k, then nucleus: the likeliest tokens up to the one with which their share reaches top_p."""
    order = np.argsort(-weights)
    kept = order[: settings.top_k or len(order)]
    shares = weights[kept] / weights[kept].sum()
    kept = kept[: int((np.cumsum(shares) < settings.top_p).sum()) + 1]
    probabilities = np.zeros_like(weights)
    probabilities[kept] = weights[kept] / weights[kept].sum()
    return probabilities


def test_batches_are_full_and_within_the_budget():
    lengths = [9, 3, 30, 5, 5, 8, 1, 10]
    batches = pack(lengths, token_budget=20)
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    assert [[lengths[row] for row in batch] for batch in batches] == [[30], [10, 9], [8, 5], [5, 3, 1]]
    assert pack([], 20) == []


def test_describe_tells_models_apart(tokenizer):
    first, again, other = (TransformersEngine(tiny_model(seed), tokenizer).describe() for seed in (0, 0, 1))
    assert first == again != other
    assert first["model"] == "Qwen2ForCausalLM" and first["dtype"] == "float32"
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.add_(1e-4)  # a training step
    assert TransformersEngine(model, tokenizer).describe() != first


# --- images


def test_images_are_seen_and_batches_do_not_matter(vision_model, processor):
    requests = [(problem, sample) for problem in range(4) for sample in range(5)]
    settings = SamplingSettings(max_new_tokens=6, seed=1)
    engine = TransformersEngine(vision_model, processor)
    engine.check(IMAGE_PROMPTS)
    expected = drawn(engine, IMAGE_PROMPTS, requests, settings)
    small = TransformersEngine(vision_model, processor, token_budget=1)
    assert drawn(small, IMAGE_PROMPTS, requests, settings) == expected
    assert drawn(engine, IMAGE_PROMPTS[::-1], requests, settings) == expected


def test_entropy_with_images_is_that_of_a_forward_pass(vision_model, processor):
    engine, settings = TransformersEngine(vision_model, processor), SamplingSettings(max_new_tokens=6, seed=1)
    samples = [
        sample for batch in engine.sample(IMAGE_PROMPTS, [(i, 0) for i in range(4)], settings) for sample in batch
    ]
    for sample in samples:
        inputs = processor.apply_chat_template(
            IMAGE_PROMPTS[sample.problem],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        width = inputs["input_ids"].shape[1]
        completion = torch.tensor([sample.token_ids])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], completion], dim=1)
        for name in ("attention_mask", "mm_token_type_ids"):
            filler = torch.full_like(completion, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], filler], dim=1)
        with torch.no_grad():
            logits = vision_model(**inputs).logits[0, width - 1 : -1]
        expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
        assert sample.entropy == pytest.approx(expected, abs=1e-4)


def test_prompts_that_differ_in_an_image_only_have_streams_of_their_own(vision_model, processor):
    blind = build_vision_model(sharpness=0.0)  # uniform: the tokens are the noise's alone
    engine, settings = TransformersEngine(blind, processor), SamplingSettings(max_new_tokens=8)
    prompts = IMAGE_PROMPTS[:2]
    completions = {
        sample.problem: sample.token_ids
        for batch in engine.sample(prompts, [(0, 0), (1, 0)], settings)
        for sample in batch
    }
    assert completions[0] != completions[1]


def test_images_are_refused_where_they_cannot_be_seen(model, tokenizer, processor, vision_model):
    with pytest.raises(ValueError, match="Prompt 0 has an image, but .* pass the model's processor"):
        TransformersEngine(model, tokenizer).check(IMAGE_PROMPTS)
    engine = TransformersEngine(vision_model, processor)
    for part, found in (({"type": "image"}, "NoneType"), ({"type": "image", "image": "red.png"}, "str")):
        with pytest.raises(ValueError, match=f"Prompt 1 has an image part whose 'image' is {found}"):
            engine.check([IMAGE_PROMPTS[0], [{"role": "user", "content": [part]}]])
    engine.check([[{"role": "user", "content": [{"type": "image", "image": Image.new("L", (16, 16))}]}]])
