"""Rows that cannot be trained on are refused with their number, before training; those of a stream as they come."""

from collections.abc import Iterable, Iterator
from typing import Any

from datasets import Dataset, DatasetDict


# What TRL gives to a reward function beside the columns of a row, which it would replace or collide with
TAKEN_COLUMNS = ("prompts", "completions", "trainer_state", "log_extra", "log_metric")
ROWS_READ_AT_ONCE = 1000
BEGINNING = 64  # characters of a prompt, in which there usually is a token


def named_datasets(train_dataset: Any, eval_dataset: Any) -> dict[str, Any]:
    """The datasets of a trainer, by names for messages."""
    splits = eval_dataset if isinstance(eval_dataset, (dict, DatasetDict)) else {"eval_dataset": eval_dataset}
    return {"train_dataset": train_dataset} | {str(name): dataset for name, dataset in splits.items()}


def check_rows(args, train_dataset, eval_dataset, has_environment: bool) -> None:
    """
    Refuses datasets without prompts, with columns that TRL takes for itself, and with prompts that are empty.

    Args:
        args ([`RLVRConfig`]): the settings.
        train_dataset, eval_dataset: as the trainer was given them.
        has_environment (`bool`): whether environments make or complete the prompts.

    Raises:
        `ValueError`: Names the dataset, and its column or its row.
    """
    for name, dataset in named_datasets(train_dataset, eval_dataset).items():
        columns = getattr(dataset, "column_names", None)  # a stream may not know its own
        if columns is None or isinstance(columns, dict):
            continue
        if "prompt" not in columns and not has_environment:
            raise ValueError(f"`{name}` has no column `prompt`; it has {', '.join(columns)}. Rename what is meant.")
        taken = [column for column in TAKEN_COLUMNS if column in columns and not args.remove_unused_columns]
        if taken:
            raise ValueError(
                f"`{name}` has a column `{taken[0]}`, but reward functions get something else from TRL under that "
                f"name. Rename or remove it."
            )
        if "prompt" in columns and not has_environment:
            for row, prompt in _numbered_prompts(dataset):
                if fault := fault_of_prompt(prompt):
                    raise ValueError(f"Row {row} of `{name}` cannot be trained on: its prompt {fault}.")


def check_tokens_of_prompts(train_dataset, eval_dataset, tokenizer) -> None:
    """
    Refuses texts of which the tokenizer makes no token. Conversations have those of the chat template.

    Raises:
        `ValueError`: Names the dataset and the row.
    """
    for name, dataset in named_datasets(train_dataset, eval_dataset).items():
        texts = ((row, prompt) for row, prompt in _numbered_prompts(dataset) if isinstance(prompt, str))
        for some in _chunks(texts):
            ids = tokenizer([prompt[:BEGINNING] for _, prompt in some])["input_ids"]
            for (row, prompt), beginning in zip(some, ids, strict=True):
                if not beginning and not tokenizer(prompt)["input_ids"]:
                    raise ValueError(
                        f"Row {row} of `{name}` cannot be trained on: the tokenizer makes no token of its prompt "
                        f"{prompt[:80]!r}."
                    )


def check_room_for_completions(args, train_dataset, tokenizer, tools: list[Any]) -> None:
    """
    Refuses prompts after which a completion of full length exceeds `token_budget`, if that is set and above 0.

    Raises:
        `ValueError`: Names the row, its tokens and the budget that it needs.
    """
    if args.token_budget is None or args.token_budget <= 0:  # which means none
        return
    template = {"add_generation_prompt": True, "return_dict": False, "tools": tools or None}
    template |= args.chat_template_kwargs or {}
    for some in _chunks(_numbered_prompts(train_dataset)):
        prompts = [prompt for _, prompt in some]
        is_text = isinstance(prompts[0], str)
        ids = tokenizer(prompts)["input_ids"] if is_text else tokenizer.apply_chat_template(prompts, **template)
        for (row, _), prompt in zip(some, ids, strict=True):
            if (needed := len(prompt) + args.max_completion_length) > args.token_budget:
                raise ValueError(
                    f"Row {row} of `train_dataset` has a prompt of {len(prompt)} tokens, which with a completion of "
                    f"`max_completion_length`={args.max_completion_length} exceeds `token_budget`="
                    f"{args.token_budget}. Raise it to {needed} or more, or leave the row out."
                )


def check_prompts_of_batch(inputs: Iterable[dict], has_environment: bool) -> None:
    """
    The same for rows that were not seen before training, such as those of a stream.

    Raises:
        `ValueError`: A prompt is missing or empty.
    """
    for row in inputs:
        if has_environment:
            return
        fault = fault_of_prompt(row["prompt"]) if "prompt" in row else f"is missing; it has {', '.join(row)}"
        if fault:
            raise ValueError(f"A row of this batch cannot be trained on: its prompt {fault}.")


def check_end_token(processing_class: Any) -> None:
    """
    Refuses a tokenizer without an end token, with which TRL cannot tell where a completion ends.

    Raises:
        `ValueError`: It has none.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if getattr(tokenizer, "eos_token_id", None) is None:
        raise ValueError(
            f"The tokenizer, {type(tokenizer).__name__}, has no end token. Set its `eos_token` to the token with "
            f"which the model ends an answer, and pass the tokenizer as `processing_class`."
        )


def fault_of_prompt(prompt: Any) -> str | None:
    """What is wrong with a prompt, as the rest of a sentence; None if nothing is."""
    if prompt is None:
        return "is None"
    if isinstance(prompt, str):
        return None if prompt else "is empty"
    if not isinstance(prompt, list):
        return f"is a {type(prompt).__name__}; a text or a list of messages is needed"
    if not prompt:
        return "is a conversation without messages"
    for message in prompt:
        if not isinstance(message, dict) or "role" not in message:
            return "is a list of something else than messages, which have a role and a content"
    if not any(_says_something(message.get("content")) or message.get("tool_calls") for message in prompt):
        return "is a conversation whose messages are all empty"
    return None


def _says_something(content: Any) -> bool:
    if not isinstance(content, list):
        return bool(content)
    return any(not isinstance(part, dict) or part.get("type") != "text" or part.get("text") for part in content)


def _numbered_prompts(dataset: Any) -> Iterator[tuple[int, Any]]:
    """Row numbers and prompts of a dataset whose rows can be read without running anything of the user."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] == "custom" or "prompt" not in dataset.column_names:
        return
    row = 0
    prompts: Any = dataset.select_columns("prompt").with_format(None)
    for rows in prompts.iter(ROWS_READ_AT_ONCE):
        for prompt in rows["prompt"]:
            yield row, prompt
            row += 1


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    some = []
    for item in items:
        some.append(item)
        if len(some) == ROWS_READ_AT_ONCE:
            yield some
            some = []
    if some:
        yield some
