import json
import math
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from tiny_lm import tiny_model, tiny_tokenizer
from tiny_vlm import build_processor, build_vision_model, image_prompt

from rlvr_trl.evaluation import bootstrap_interval, compare, evaluate, pass_at_k, pooled, sample_completions


PROMPTS = ["1+1=", "22+22=", "3+3=", "444+444=", "5+"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model():
    return tiny_model()


def run(model, tokenizer, rows, reward_func, **settings):
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    settings = {"num_samples": 4, "max_new_tokens": 6, "progress": False} | settings
    return evaluate(model, tokenizer, dataset, reward_func, **settings)


def has_even_length(completions, **kwargs):
    return [float(len(text) % 2 == 0) for text in completions]


def alternating(completions, **kwargs):
    """Of every 4 completions, 1 and 0 in turn: 2 are correct."""
    return [float(i % 2 == 0) for i in range(len(completions))]


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
        alone = sample_completions(model, tokenizer, [prompt], 1, max_new_tokens=6, temperature=0, progress=False)
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
    first = {"id": result.problem_ids[0], "prompt": "1+1=", "num_samples": 4, "num_correct": 1}
    assert saved["problems"][0] == first and len(set(result.problem_ids)) == 3


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
    assert result.to_dict()["answer_entropy_bits"] == pytest.approx((1 + 2) / 2)
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
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="images needs a conversation as its prompt"):
        run(model, tokenizer, [{"prompt": "1", "image": image}], alternating)
    with pytest.raises(ValueError, match="2 places for images, but the row holds 1"):
        prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]
        run(model, tokenizer, [{"prompt": prompt, "images": [image]}], alternating)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        run(model, tokenizer, rows, alternating, num_samples=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        run(model, tokenizer, rows, alternating, max_new_tokens=0)
    with pytest.raises(ValueError, match=r"splits \['test'\]"):
        evaluate(model, tokenizer, {"test": rows}, alternating, num_samples=1, max_new_tokens=1)


def test_compare_is_paired(model, tokenizer):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    a, b = (run(model, tokenizer, rows, has_even_length, seed=seed) for seed in (0, 1))
    difference, low, high = compare(a, a, k=2)
    assert difference == 0 and low == pytest.approx(-high) and low < 0  # other problems might tell them apart
    difference = compare(a, b, k=1)
    assert difference.difference == pytest.approx(a.pass_at_k[1] - b.pass_at_k[1])
    assert difference.low <= difference.difference <= difference.high
    with pytest.raises(ValueError, match="k is 8 and a problem has 4 samples"):
        compare(a, b, k=8)
    with pytest.raises(ValueError, match="have 5 and 4, of which 4 agree"):
        compare(a, run(model, tokenizer, rows[:4], has_even_length), k=1)

    with pytest.warns(UserWarning, match="no scorable"):
        first_lost = run(model, tokenizer, rows, lambda completions, **kwargs: [None] * 4 + [1.0] * 16)
    with pytest.warns(UserWarning, match="1 of 5 problems are scorable in only one"):
        difference = compare(first_lost, a, k=1)
    assert difference.difference == pytest.approx(1 - a.problem_pass_at_k(1)[1:].mean())


def test_pooled_problems_weigh_the_same(model, tokenizer):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    small = run(model, tokenizer, rows[:1], lambda completions, **kwargs: [1.0] * 8, num_samples=8)
    large = run(model, tokenizer, rows[1:], lambda completions, **kwargs: [1.0, 0.0, 0.0, 0.0] + [0.0] * 12)
    overall = pooled([small, large])
    assert overall.ks == [1, 2, 4]  # 8 samples are too few in one of them
    assert overall.pass_at_k == pytest.approx({1: (1 + 1 / 4) / 5, 2: (1 + 1 / 2) / 5, 4: 2 / 5})
    assert overall.problem_ids == small.problem_ids + large.problem_ids


def test_images_reach_the_model_from_their_column():
    vision_model, processor = build_vision_model(sharpness=8.0), build_processor()
    question = [{"role": "user", "content": "what color?"}]
    rows = [{"prompt": question, "image": Image.new("RGB", (16, 16), color)} for color in ("red", "blue")]

    def reward(prompts, completions, image, **kwargs):
        assert prompts == [question] * 8
        assert [picture.getpixel((0, 0)) for picture in image] == [(255, 0, 0)] * 4 + [(0, 0, 255)] * 4
        return alternating(completions)

    result = run(vision_model, processor, rows, reward)
    inserted = [image_prompt("what color?", color) for color in ("red", "blue")]
    expected = sample_completions(vision_model, processor, inserted, 4, max_new_tokens=6, progress=False)
    assert result.completions.token_ids == expected.token_ids
    assert result.completions.token_ids[:4] != result.completions.token_ids[4:]
    lists = [{"prompt": row["prompt"], "images": [row["image"]]} for row in rows]
    assert run(vision_model, processor, lists, alternating).completions.token_ids == expected.token_ids


# Coverage of 0.95 over so many experiments is within ±0.02 by chance alone: three standard errors of 1000 are 0.021
@pytest.mark.parametrize("k", [1, 8])
def test_interval_covers_the_true_pass_at_k(k):
    num_benchmarks, num_problems, n = 1000, 200, 16
    rng = np.random.default_rng(3)
    success = rng.beta(0.4, 0.8, size=(num_problems, num_benchmarks))  # each column a benchmark of new problems
    # A Beta's moments: E[(1 - p)^k] is the product of (b + i) / (a + b + i)
    truth = 1 - math.prod((0.8 + i) / (1.2 + i) for i in range(k))
    values = pass_at_k(n, rng.binomial(n, success), k)  # (problems, benchmarks)
    low, high = bootstrap_interval(values, num_resamples=1000)
    coverage = np.mean((low <= truth) & (truth <= high))
    assert 0.93 <= coverage <= 0.97
    # The truth is that of the population: for these very problems alone the interval is too wide by far
    these = np.mean(1 - (1 - success) ** k, axis=0)
    assert np.mean((low <= these) & (these <= high)) > 0.99


def test_evaluation_imports_no_trainer():
    code = (
        "import sys, rlvr_trl.evaluation as e; [getattr(e, name) for name in e.__all__];"
        "print([m for m in sys.modules if m.split('.')[0] == 'trl'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
