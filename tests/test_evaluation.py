import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_trl.evaluation import compare, evaluate, pass_at_k, sample_completions


CHARACTERS = "0123456789+= abcdefghijklmnopqrstuvwxyz"
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"
    "{% if shout is defined %}x{% endif %}{% if add_generation_prompt %}<s>assistant {% endif %}"
)
PROMPTS = ["1+1=", "22+22=", "3+3=", "444+444=", "5+"]


def tiny_tokenizer():
    """One token per character, and a beginning-of-turn and an end-of-turn token."""
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_model(seed=0, sharpness=24.0):
    config = Qwen2Config(
        vocab_size=3 + len(CHARACTERS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    random_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).eval()
    torch.set_rng_state(random_state)
    with torch.no_grad():  # a random model is nearly uniform: spread its logits
        model.lm_head.weight.mul_(sharpness)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model():
    return tiny_model()


def sample(model, tokenizer, prompts=PROMPTS, num_samples=3, **settings):
    settings = {"max_new_tokens": 6, "progress": False} | settings
    return sample_completions(model, tokenizer, prompts, num_samples, **settings)


def run(model, tokenizer, rows, reward_func, **settings):
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    settings = {"num_samples": 4, "max_new_tokens": 6, "progress": False} | settings
    return evaluate(model, tokenizer, dataset, reward_func, **settings)


def has_even_length(completions, **kwargs):
    return [float(len(text) % 2 == 0) for text in completions]


def alternating(completions, **kwargs):
    """Of every 4 completions, 1 and 0 in turn: 2 are correct."""
    return [float(i % 2 == 0) for i in range(len(completions))]


# --- sampling


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
    larger = tiny_tokenizer()
    larger.add_tokens(["£"])  # an id that the model does not have
    with pytest.raises(IndexError):
        sample(model, larger, ["1£"])
    assert [module.training for module in model.modules()] == modes


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
        ({"prompts": [[{"role": "user", "content": [{"type": "image"}]}]]}, r"content of type \['image'\]"),
        ({"prompts": ["1", [{"role": "user", "content": "1"}]]}, "1 of 2 are conversations"),
    ],
)
def test_sampling_refuses(model, tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(model, tokenizer, **changes)


# --- scoring and reporting


def test_reward_function_is_called_as_by_trl(model, tokenizer):
    calls = []

    def reward(prompts, completions, completion_ids, answer, log_extra, log_metric, trainer_state, **kwargs):
        calls.append((prompts, completions, completion_ids, answer, kwargs))
        log_extra("extracted_answer", [text[:1] for text in completions])
        log_metric("short", 1.0)
        assert trainer_state is None
        return [1.0] * len(prompts)

    rows = [{"prompt": prompt, "answer": f"a{prompt}", "completion": "x", "level": 1} for prompt in PROMPTS]
    result = run(model, tokenizer, rows, reward, temperature=0, token_budget=50)
    [(prompts, completions, completion_ids, answer, kwargs)] = calls  # one call
    assert prompts == [prompt for prompt in PROMPTS for _ in range(4)]
    assert answer == [f"a{prompt}" for prompt in prompts]
    assert kwargs == {"level": [1] * 20}  # `completion` is a name that TRL keeps to itself
    # Each completion belongs to the prompt beside it: greedy, that is the completion of the prompt alone
    for prompt, text, ids in zip(prompts, completions, completion_ids, strict=True):
        alone = sample(model, tokenizer, [prompt], 1, temperature=0)
        assert (text, ids) == (alone.texts[0], alone.token_ids[0])
    assert result.answers == [[text[:1] for text in completions[i : i + 4]] for i in range(0, 20, 4)]
    assert result.answer_entropy == 0.0 and result.reward_metrics == {"short": 1.0}
    assert result.share_all_right == 1.0 and math.isnan(result.wrong_answer_diversity)


def test_conversational_completions_are_messages(model, tokenizer):
    def reward(prompts, completions, **kwargs):
        assert prompts[0] == [{"role": "user", "content": "1+1="}]
        assert all(set(message) == {"role", "content"} for [message] in completions)
        assert all(message["role"] == "assistant" for [message] in completions)
        return has_even_length([message["content"] for [message] in completions])

    rows = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS]
    result = run(model, tokenizer, rows, reward)
    assert result.num_correct.tolist() == [
        sum(len(text) % 2 == 0 for text in result.completions.texts[i : i + 4]) for i in range(0, 20, 4)
    ]


def test_report_of_known_rewards(model, tokenizer):
    given = [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    answers = ["1", "2", None, "2", *"1111", *"abcd"]

    def reward(completions, log_extra, **kwargs):
        log_extra("extracted_answer", answers)
        return given

    result = run(model, tokenizer, [{"prompt": prompt} for prompt in PROMPTS[:3]], reward)
    assert result.num_samples.tolist() == [4, 4, 4] and result.num_correct.tolist() == [1, 4, 0]
    assert result.pass_at_k == pytest.approx({1: 5 / 12, 2: 1.5 / 3, 4: 2 / 3})
    assert result.problem_pass_at_k(2).tolist() == [0.5, 1.0, 0.0]
    assert result.answer_entropy == pytest.approx((1.5 * math.log(2) + 0 + math.log(4)) / 3)
    assert result.wrong_answer_diversity == pytest.approx((2 / 3 + 1) / 2)
    assert result.share_all_right == result.share_all_wrong == pytest.approx(1 / 3)
    assert result.token_entropy == pytest.approx(result.completions.entropies.mean())
    assert result.mean_length == pytest.approx(np.mean([len(ids) for ids in result.completions.token_ids]))
    assert result.truncated_share == pytest.approx(result.completions.truncated.mean())
    for k, (low, high) in result.intervals().items():
        assert 0 <= low < result.pass_at_k[k] < high <= 1
    saved = result.to_dict()
    assert json.loads(json.dumps(saved, allow_nan=False)) == saved
    assert saved["problems"][0] == {"prompt": "1+1=", "num_samples": 4, "num_correct": 1}


def test_n_itself_is_reported_unless_ragged(model, tokenizer):
    rows = [{"prompt": prompt} for prompt in PROMPTS[:2]]
    result = run(model, tokenizer, rows, has_even_length, num_samples=6)
    assert result.ks == [1, 2, 4, 6]
    assert result.answers is None and result.answer_entropy is None and result.wrong_answer_diversity is None
    assert result.to_dict()["wrong_answer_diversity"] is None

    ragged = run(model, tokenizer, rows, lambda completions, **kwargs: [None] + [1.0] * 11, num_samples=6)
    assert ragged.num_samples.tolist() == [5, 6] and ragged.ks == [1, 2, 4]


def test_missing_rewards_are_no_samples(model, tokenizer):
    def reward(completions, log_extra, **kwargs):
        log_extra("extracted_answer", list("abcdefghijkl"))
        return [1.0, None, 0.0, math.nan, None, None, None, None, 0.0, 0.0, 0.0, 1.0]

    with pytest.warns(UserWarning, match="1 of 3 problems have no scorable completion.*'reward'"):
        result = run(model, tokenizer, [{"prompt": prompt} for prompt in PROMPTS[:3]], reward)
    assert result.num_samples.tolist() == [2, 0, 4] and result.num_correct.tolist() == [1, 0, 1]
    assert result.num_unscorable_problems == 1 and result.num_unscorable_completions == 6
    assert result.answers == [["a", "c"], [], ["i", "j", "k", "l"]]
    assert result.pass_at_k == pytest.approx({1: (1 / 2 + 1 / 4) / 2, 2: (1 + 1 / 2) / 2})
    assert result.pass_at_k[1] == pass_at_k([2, 4], [1, 1], 1).mean()
    assert result.answer_entropy == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert result.share_all_wrong == 0.0
    json.dumps(result.to_dict(), allow_nan=False)

    def nothing(completions, **kwargs):
        return [None] * len(completions)

    with pytest.raises(ValueError, match="'nothing' gave no reward"):
        run(model, tokenizer, [{"prompt": "1"}], nothing)


def test_duplicates_count_once(model, tokenizer):
    rows = [{"prompt": prompt, "row": i} for i, prompt in enumerate(["1+", "2+", "1+", "3+", "1+"])]

    def reward(completions, row, **kwargs):
        assert row == [0] * 4 + [1] * 4 + [3] * 4  # the first row of each prompt
        return alternating(completions)

    with pytest.warns(UserWarning, match="2 of 5 rows repeat the prompt"):
        result = run(model, tokenizer, rows, reward)
    assert result.num_duplicates == 2 and result.prompts == ["1+", "2+", "3+"]
    assert result.num_samples.tolist() == [4, 4, 4] and len(result.completions.texts) == 12
    distinct = run(model, tokenizer, [rows[0], rows[1], rows[3]], alternating)
    assert distinct.pass_at_k == result.pass_at_k and distinct.num_duplicates == 0

    conversation = {"prompt": [{"role": "user", "content": "1+"}]}
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        assert run(model, tokenizer, [conversation, conversation], alternating).num_duplicates == 1


def test_correct_means_above_the_threshold(model, tokenizer):
    def reward(completions, **kwargs):
        return [0.5, 0.6, 1.0, -1.0]

    assert run(model, tokenizer, [{"prompt": "1"}], reward).num_correct.tolist() == [2]
    assert run(model, tokenizer, [{"prompt": "1"}], reward, correctness_threshold=0.0).num_correct.tolist() == [3]


def test_evaluate_refuses(model, tokenizer):
    def short(completions, **kwargs):
        return [1.0] * (len(completions) - 1)

    def short_answers(completions, log_extra, **kwargs):
        log_extra("extracted_answer", ["1"])
        return [1.0] * len(completions)

    rows = [{"prompt": "1"}, {"prompt": "2"}]
    with pytest.raises(ValueError, match="'short' returned 7 rewards, but 8"):
        run(model, tokenizer, rows, short)
    with pytest.raises(ValueError, match="'short_answers' returned 1 extracted answers, but 8"):
        run(model, tokenizer, rows, short_answers)
    with pytest.raises(ValueError, match="dataset is empty"):
        run(model, tokenizer, Dataset.from_dict({"prompt": []}), alternating)
    with pytest.raises(ValueError, match=r"its columns are \['question', 'answer'\]"):
        run(model, tokenizer, [{"question": "1", "answer": "2"}], alternating)
    with pytest.raises(ValueError, match=r"columns \['image'\]"):
        run(model, tokenizer, [{"prompt": "1", "image": "2"}], alternating)
    with pytest.raises(ValueError, match=r"splits \['test'\]"):
        evaluate(model, tokenizer, {"test": rows}, alternating, num_samples=1, max_new_tokens=1)


def test_compare_is_paired(model, tokenizer):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    a, b = (run(model, tokenizer, rows, has_even_length, seed=seed) for seed in (0, 1))
    assert compare(a, a, k=2) == (0.0, 0.0, 0.0)
    difference = compare(a, b, k=1)
    assert difference.difference == pytest.approx(a.pass_at_k[1] - b.pass_at_k[1])
    assert difference.low <= difference.difference <= difference.high
    with pytest.raises(ValueError, match="k is 8 and a problem has 4 samples"):
        compare(a, b, k=8)
    with pytest.raises(ValueError, match="have 5 and 4, of which 4 agree"):
        compare(a, run(model, tokenizer, rows[:4], has_even_length), k=1)

    with pytest.warns(UserWarning, match="no scorable"):
        first_lost = run(model, tokenizer, rows, lambda completions, **kwargs: [None] * 4 + [1.0] * 16)
    with pytest.warns(UserWarning, match="1 of 5 problems are scorable in one"):
        difference = compare(first_lost, a, k=1)
    assert difference.difference == pytest.approx(1 - a.problem_pass_at_k(1)[1:].mean())


def test_evaluation_imports_no_trainer():
    code = "import sys, rlvr_trl.evaluation; print([m for m in sys.modules if m.split('.')[0] == 'trl'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
