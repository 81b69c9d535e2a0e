"""The reference answers that a reward function compares with."""


def reference_column(reward: str, completions: list, solution: list | None, answer: list | None) -> list:
    """
    The column `answer` if there is one, else `solution`.

    Raises:
        `ValueError`: There is neither column, or it does not have one entry for each completion; names the reward
        function or the column.
    """
    references = answer if answer is not None else solution
    if references is None:
        raise ValueError(f"{reward} needs a column `answer` or `solution` in the dataset, found neither.")
    if len(references) != len(completions):
        raise ValueError(
            f"`{'answer' if answer is not None else 'solution'}` must have one entry for each of the "
            f"{len(completions)} completions, found {len(references)}."
        )
    return references
