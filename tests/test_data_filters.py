"""Filters of datasets against brute force, and what they say about the rows that they leave out."""

import itertools
import warnings

import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PIL
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rlvr_trl.advantages import GroupRelative, RolloutGroups
from rlvr_trl.data import deduplicate, filter_by_length, filter_by_pass_rate, filter_by_verifier


@pytest.fixture(scope="module")
def words():
    """A token for each word and one before every text; the chat template adds three to a prompt of one message."""
    tokenizer = Tokenizer(WordLevel({"[B]": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="[B] $A", special_tokens=[("[B]", 0)])
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)


def numbered(count):
    return Dataset.from_dict({"prompt": [f"p{i}" for i in range(count)]})


def test_deduplicate_keeps_the_first_and_counts_other_answers():
    prompts, answers = ["a", "b", "a", "c", "b", "a"], ["1", "2", "1", "3", "9", "8"]
    for shape in (lambda text: text, lambda text: [{"role": "user", "content": text}]):
        dataset = Dataset.from_dict({"prompt": [shape(p) for p in prompts], "answer": answers, "id": range(6)})
        with pytest.warns(UserWarning, match="3 of 6 rows are left out: .* 2 of them with a different answer"):
            assert deduplicate(dataset)["id"][:] == [0, 1, 3]


def test_deduplicate_says_nothing_where_all_are_different():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert deduplicate(numbered(5))["prompt"][:] == numbered(5)["prompt"][:]


def test_deduplicate_tells_images_apart():
    figures = [PIL.new("RGB", (3, 3), color) for color in ("red", "blue", "red")]
    features = Features({"prompt": Value("string"), "image": Image(), "id": Value("int64")})
    dataset = Dataset.from_dict({"prompt": ["p"] * 3, "image": figures, "id": [0, 1, 2]}, features=features)
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        assert deduplicate(dataset)["id"][:] == [0, 1]


@pytest.mark.parametrize("limit", [4, 7, 30])
def test_length_of_strings_and_messages(words, limit):
    texts = ["w " * n for n in range(1, 20)]
    plain = Dataset.from_dict({"prompt": texts})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = filter_by_length(plain, words, limit)["prompt"][:]
        assert kept == [text for text in texts if 1 + len(text.split()) <= limit]  # 1 for the token before a text
        if limit > 5:
            chat = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})
            kept = filter_by_length(chat, words, limit)["prompt"][:]
            assert [m[0]["content"] for m in kept] == [t for t in texts if len(t.split()) + 3 <= limit]


def test_length_says_what_it_leaves_out(words):
    with pytest.warns(UserWarning, match="1 of 2 rows are left out: .* max_tokens=3 tokens, the longest 9"):
        filter_by_length(Dataset.from_dict({"prompt": ["a b", "a b c d e f g h"]}), words, 3)
    with (
        pytest.raises(ValueError, match="None of the 2 rows has a prompt of at most 1 tokens"),
        pytest.warns(UserWarning),
    ):
        filter_by_length(numbered(2), words, 1)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        filter_by_length(numbered(2), words, 0)


def test_pass_rate_keeps_the_prompts_that_have_advantages():
    counts = [(c, n) for n in range(1, 6) for c in range(n + 1)]
    correct, samples = zip(*counts, strict=True)
    with pytest.warns(UserWarning, match="10 of 20 rows are left out: 5 are never solved and 5 always"):
        kept = filter_by_pass_rate(numbered(len(counts)), correct, samples)["prompt"][:]
    expected = []
    for i, (c, n) in enumerate(counts):
        groups = RolloutGroups(torch.tensor([1.0] * c + [0.0] * (n - c)), torch.zeros(n, dtype=torch.long))
        if GroupRelative(scale="none")(groups).abs().sum() > 0:
            expected.append(f"p{i}")
    assert kept == expected


def test_pass_rate_with_one_number_of_samples():
    with pytest.warns(UserWarning, match="2 of 4"):
        assert filter_by_pass_rate(numbered(4), [0, 1, 8, 7], 8)["prompt"][:] == ["p1", "p3"]


@pytest.mark.parametrize(
    ("correct", "samples", "message"),
    [
        ([1], 4, "num_correct must have one count for each of the 2 rows, got 1"),
        ([1, 1], [4], "num_samples must have one count for each of the 2 rows, got 1"),
        ([1, None], 4, "Row 1 needs .*, got None of 4"),
        ([1, 0], [4, 0], "Row 1 needs .*, got 0 of 0"),
        ([5, 1], 4, "Row 0 needs .*, got 5 of 4"),
        ([-1, 1], 4, "Row 0 needs .*, got -1 of 4"),
    ],
)
def test_pass_rate_needs_counts_of_every_row(correct, samples, message):
    with pytest.raises(ValueError, match=message):
        filter_by_pass_rate(numbered(2), correct, samples)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_verifier_against_every_case(words):
    right, wrong, long = r"so \boxed{\frac{1}{2}}", r"so \boxed{3}", "w " * 9 + r"\boxed{0.5}"
    cases = [list(case) for n in range(3) for case in itertools.product([right, wrong, long], repeat=n)]
    dataset = Dataset.from_dict({"generations": cases, "answer": ["0.5"] * len(cases), "prompt": ["p"] * len(cases)})
    for batch_size in (1, 5, 100):
        kept = filter_by_verifier(dataset, batch_size=batch_size)["generations"][:]
        assert kept == [case for case in cases if right in case or long in case]
    kept = filter_by_verifier(dataset, tokenizer=words, max_tokens=9)["generations"][:]
    assert kept == [case for case in cases if right in case]
    never_sure = filter_by_verifier(
        dataset, lambda completions, answer: [None if c == long else 1.0 for c in completions]
    )
    assert never_sure["generations"][:] == [case for case in cases if right in case or wrong in case]


def test_verifier_says_what_it_leaves_out_and_needs(words):
    dataset = Dataset.from_dict({"generations": [[r"\boxed{1}"], [r"\boxed{2}"]], "answer": ["1", "1"]})
    with pytest.warns(UserWarning, match="1 of 2 rows are left out: no generation is right"):
        assert filter_by_verifier(dataset)["generations"][:] == [[r"\boxed{1}"]]
    with pytest.raises(ValueError, match=r"needs the columns \['generations'\], found \['answer'\]"):
        filter_by_verifier(dataset.remove_columns("generations"))
    with pytest.raises(ValueError, match="must be given together, got None and 8"):
        filter_by_verifier(dataset, max_tokens=8)
