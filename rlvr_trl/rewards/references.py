"""The reference answers that a reward function compares with."""

from numbers import Real


def reference_column(reward: str, completions: list, solution: list | None, answer: list | None) -> list[str | None]:
    """
    The column `answer` if there is one, else `solution`. Numbers become text as Python writes them. A missing value or
    NaN is `None`.

    Raises:
        `ValueError`: There is neither column, or it is not a list with one entry for each completion, or an entry is
        neither text nor a number. The message names the reward function or the column.
    """
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError(f"{reward} needs a column `answer` or `solution` in the dataset, found neither.")
    column = "answer" if answer is not None else "solution"
    if isinstance(references, str) or len(references) != len(completions):
        found = repr(references) if isinstance(references, str) else len(references)
        raise ValueError(
            f"`{column}` must have one entry for each of the {len(completions)} completions, found {found}."
        )
    return [_reference_text(reward, column, reference) for reference in references]


def _reference_text(reward: str, column: str, reference) -> str | None:
    if reference is None or isinstance(reference, str):
        return reference
    if isinstance(reference, Real) and not isinstance(reference, bool):
        return None if reference != reference else str(reference)
    raise ValueError(
        f"{reward} compares with text or numbers, but the column `{column}` holds {type(reference).__name__}: "
        f"{reference!r:.100}. Turn it into text before training, for instance with `dataset.map`."
    )
