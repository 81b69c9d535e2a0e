"""From completions and rewards to a result and its files; and the same again for a run that is finished."""

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .problems import Problem
from .report import EvaluationResult
from .samples import Completions
from .scoring import Scores, name_of, score
from .store import RESULTS, RunFolder, write_json


PACKAGES = ("rlvr-trl", "torch", "transformers", "trl", "accelerate", "vllm", "peft", "numpy", "math-verify")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on, where they are installed."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def make_result(problems: list[Problem], completions: Completions, scores: Scores, settings: dict) -> EvaluationResult:
    return EvaluationResult(
        problems=problems,
        completions=completions,
        rewards=scores.rewards,
        extra_columns=scores.extra_columns,
        reward_metrics=scores.metrics,
        num_duplicates=settings["num_duplicates"],
        settings=settings | {"scored_with": versions()},
    )


def write_result(result: EvaluationResult, folder: RunFolder | None) -> None:
    """Warns of problems that could not be scored, and writes scores and results if there is a folder."""
    if result.num_unscorable_problems:
        warnings.warn(
            f"{result.num_unscorable_problems} of {len(result.problems)} problems have no scorable completion and are "
            f"left out: '{result.settings['reward']}' returned None or NaN for all of theirs.",
            stacklevel=2,
        )
    if folder is not None:
        folder.write_scores(_score_lines(result))
        write_json(folder.path / RESULTS, result.to_dict())


def _score_lines(result: EvaluationResult) -> list[dict]:
    width = result.rewards.shape[1]
    lines = [
        {"problem": i // width, "sample": i % width, "reward": None if reward != reward else reward}
        for i, reward in enumerate(result.rewards.ravel().tolist())
    ]
    for line, answer in zip(lines, result.extra_columns.get("extracted_answer", []), strict=False):
        line["extracted_answer"] = None if answer is None else str(answer)
    return lines


def rescore(
    run_dir: str | Path, reward_func: Callable | None = None, correctness_threshold: float | None = None
) -> EvaluationResult:
    """
    Scores the completions of a finished run again, without a model, and writes its scores and results anew.

    The columns `image` and `images` are not in the folder, so the reward function does not get them.

    Args:
        run_dir (`str` or `Path`): the `output_dir` of the evaluation.
        reward_func (`Callable`, *optional*): as in [`evaluate_engine`]; by default the one of `rlvr_trl.rewards` that
            the run was scored with.
        correctness_threshold (`float`, *optional*): by default that of the run.

    Raises:
        ValueError: the folder holds no evaluation, is in use, or lacks samples; the run was scored with a function
            that is not in `rlvr_trl.rewards`; or as in [`evaluate_engine`].
    """
    folder = RunFolder(run_dir)
    settings = folder.read_settings()
    with folder.locked():
        problems = folder.read_problems()
        completions = Completions.from_samples(folder.read_samples(), len(problems), settings["num_samples"])
        reward_func = reward_func or _reward_named(settings["reward"])
        settings["reward"] = name_of(reward_func)
        if correctness_threshold is not None:
            settings["correctness_threshold"] = correctness_threshold
        scores = score(reward_func, problems, completions, settings["num_samples"])
        result = make_result(problems, completions, scores, settings)
        write_result(result, folder)
    return result


def _reward_named(name: str) -> Callable:
    from .. import rewards

    if name not in rewards.__all__:
        raise ValueError(f"The run was scored with '{name}', which is not in rlvr_trl.rewards: pass `reward_func`.")
    return getattr(rewards, name)
