"""A language model of a few thousand parameters that reads any text and answers in a word, and problems for it."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AddedToken, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


# Tokens that are whole answers, to a problem of `save_problems` or to a maze of 2x2 cells: a model that was never
# trained is right now and then.
ANSWERS = [r"\boxed{1}", r"\boxed{2}", *(f"<answer>{a}{b}</answer>" for a, b in ("RD", "DR", "LU", "UL"))]
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}assistant:"


def build_text_tokenizer(answers: Sequence[str] = ANSWERS) -> PreTrainedTokenizerBase:
    """One token a byte, one an answer, and two special ones."""
    vocabulary = ["<pad>", "<eos>", *bytes_to_unicode().values()]
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<pad>",
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(answer, normalized=False, special=False) for answer in answers])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def only_answers(distractors: int = 0, answers: Sequence[str] = ANSWERS) -> str:
    """`generation_kwargs`, as JSON, with which nothing but answers, the end token and a few bytes are sampled."""
    tokenizer = build_text_tokenizer(answers)
    allowed = {*range(tokenizer.eos_token_id, 2 + distractors), *tokenizer.convert_tokens_to_ids([*answers])}
    return json.dumps({"suppress_tokens": [i for i in range(len(tokenizer)) if i not in allowed]})


def save_text_model(folder: str | Path, answers: Sequence[str] = ANSWERS) -> str:
    """Writes the model and its tokenizer into `folder`, as `from_pretrained` reads them."""
    tokenizer = build_text_tokenizer(answers)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_problems(path: str | Path, count: int = 16) -> str:
    """Writes problems whose answer is 1 or 2, with the columns of MATH, one JSON object a line."""
    rows = [{"problem": f"{i + 1 + i % 2} - {i}?", "solution": "", "answer": f"{1 + i % 2}"} for i in range(count)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
