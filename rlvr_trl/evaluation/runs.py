"""One evaluation from model to numbers: sample, score, report; or score and report again what a run has saved."""

import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState

from ..distributed import Processes
from ..rewards.wrappers import check_reward_packages
from .problems import Problem, digest_of, distinct_problems
from .results import EvaluationResult, check_by
from .samples import Completions, Engine, Sample, SamplingSettings
from .sampling import sample_missing
from .scoring import Scores, check_reward, name_of, score
from .store import RESULTS, RunFolder, write_json


if TYPE_CHECKING:
    from datasets import Dataset


PACKAGES = ("rlvr-trl", "torch", "transformers", "trl", "accelerate", "vllm", "peft", "numpy", "math-verify")


def evaluate(
    model,
    tokenizer,
    dataset: "Dataset | Iterable[dict]",
    reward_func: Callable,
    *,
    num_samples: int,
    token_budget: int = 16384,
    chat_template_kwargs: dict | None = None,
    **options,
) -> EvaluationResult:
    """
    Samples `num_samples` completions for every problem of a dataset from a model in this process, and scores them.

    Args:
        model, tokenizer, token_budget, chat_template_kwargs: as in [`TransformersEngine`].
        dataset, reward_func, num_samples, **options: as in [`evaluate_engine`].

    Raises:
        ValueError: as in [`TransformersEngine`] and [`evaluate_engine`].
    """
    from .engines import TransformersEngine

    engine = TransformersEngine(model, tokenizer, token_budget=token_budget, chat_template_kwargs=chat_template_kwargs)
    return evaluate_engine(engine, dataset, reward_func, num_samples=num_samples, **options)


def evaluate_engine(
    engine: Engine,
    dataset: "Dataset | Iterable[dict]",
    reward_func: Callable,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    correctness_threshold: float = 0.5,
    by: str | None = None,
    output_dir: str | Path | None = None,
    state: PartialState | None = None,
    progress: bool = True,
    record: dict | None = None,
) -> EvaluationResult:
    """
    Samples `num_samples` completions for every problem of a dataset with any engine, and scores them.

    The reward function is called as TRL calls it, once with all completions, those of one prompt next to each other.

    Args:
        engine ([`Engine`]): the engine that samples.
        dataset ([`~datasets.Dataset`] or iterable of rows): a `prompt` column and whatever the reward function reads.
            Images are in the column `images` or `image`. A row with the prompt and images of an earlier row is left
            out with a warning, so that no problem counts twice.
        reward_func (`Callable`): returns one reward per completion, `None` for one that cannot be scored. The answer
            entropy is computed from the answers that it reports by `log_extra("extracted_answer", values)`.
        num_samples (`int`): completions per problem. It may be larger than in an earlier run in `output_dir`: only the
            further samples are drawn, with the seeds that they have in a run of this number.
        max_new_tokens, temperature, top_p, top_k, seed: as in [`SamplingSettings`].
        correctness_threshold (`float`): a completion is correct if its reward is above this.
        by (`str`, *optional*): a column, such as `"level"`. The problems with each of its values are reported apart as
            well, as [`EvaluationResult.subsets`].
        output_dir (`str` or `Path`, *optional*): folder of the run. Completions are written as they finish; after a
            kill, the same call samples what is missing. Scores are always computed anew.
        state ([`~accelerate.PartialState`], *optional*): the processes to spread the sampling over, each with its own
            engine. The first one scores, and all return the same result. `None` means this process alone.
        progress (`bool`): whether to show a progress bar.
        record (`dict`, *optional*): further entries to keep among the settings, such as `{"benchmark": "amc23"}`.

    Raises:
        ValueError: a setting is out of range; the dataset is empty, has no `prompt` column, or has prompts that the
            engine cannot complete; the reward function needs a column that is not there, or does not take all columns;
            `output_dir` is in use, or holds a run with other settings; the number of rewards or extracted answers is
            wrong, or there are no rewards at all.
        ImportError: a package that the reward function needs is not installed.
        RuntimeError: another process failed; the message names the process and its error.
    """
    processes = Processes(state)
    with processes.agreed("preparing"):
        sampling = SamplingSettings(max_new_tokens, temperature, top_p, top_k, seed)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        if num_samples > 1 and temperature == 0 and processes.is_main:
            warnings.warn(
                f"temperature=0 is greedy: the {num_samples} completions of a problem are the same one, and pass@k is "
                "the same for every k. num_samples=1 measures as much.",
                stacklevel=2,
            )
        check_reward_packages(reward_func)
        problems, num_duplicates = distinct_problems(dataset)
        check_reward(reward_func, problems[0].row)
        if by is not None and by not in problems[0].row:
            raise ValueError(f"by={by!r} is no column of the dataset, which has {', '.join(problems[0].row)}.")
        if by is not None:
            check_by(by, [problem.row.get(by) for problem in problems])
        prompts = [problem.prompt_with_images for problem in problems]
        engine.check(prompts)
        survey = engine.survey(prompts, max_new_tokens) if hasattr(engine, "survey") else None
        for message in survey.messages(max_new_tokens) if survey is not None and processes.is_main else ():
            warnings.warn(message, stacklevel=2)
        settings = {
            **(record or {}),
            "num_samples": num_samples,
            **asdict(sampling),
            "engine": engine.describe(),
            "problems": digest_of(problems),
            "num_duplicates": num_duplicates,
            "num_beyond_context": None if survey is None else survey.num_beyond_context,
            "reward": _recorded_name(reward_func),
            "correctness_threshold": correctness_threshold,
            "by": by,
            "versions": _versions(),
        }
    _check_same_on_all(processes, settings)
    folder = None if output_dir is None else RunFolder(output_dir)
    with ExitStack() as held:
        earlier = _open(folder, settings, problems, processes, held)
        new = sample_missing(
            engine,
            problems,
            num_samples,
            sampling,
            earlier=earlier,
            folder=folder,
            processes=processes,
            progress=progress,
        )
        completions = Completions.from_samples(earlier + new, len(problems), num_samples)
        with processes.agreed("scoring"):
            scores = score(reward_func, problems, completions, num_samples) if processes.is_main else None
        if folder is not None:
            written = folder.read_settings()  # with the versions of the first samples
            settings |= {name: written[name] for name in ("versions", "problem_rows")}
        result = _make_result(problems, completions, processes.broadcast(scores), settings)
        with processes.agreed("writing the results"):
            if processes.is_main:
                _write_result(result, folder)
    return result


def _check_same_on_all(processes: Processes, settings: dict) -> None:
    for name in ("problems", "engine"):
        values = processes.gather([settings[name]])
        if any(value != values[0] for value in values):
            raise ValueError(f"The processes must have the same {name}, but have {values}.")


def _open(
    folder: RunFolder | None, settings: dict, problems: list[Problem], processes: Processes, held: ExitStack
) -> list[Sample]:
    """Locks the folder until `held` is closed. Returns the samples of earlier runs, on every process."""
    if folder is None:
        return []
    earlier = None
    with processes.agreed("opening the folder of the run"):
        if processes.is_main:
            held.enter_context(folder.locked())
            folder.claim(settings, problems)
            earlier = folder.read_samples(len(problems), settings, repair=True)
    with processes.agreed("opening the folder of the run"):
        folder.check_visible(settings)
    return processes.broadcast(earlier)


def rescore(
    run_dir: str | Path, reward_func: Callable | None = None, correctness_threshold: float | None = None
) -> EvaluationResult:
    """
    Scores the completions of a finished run again, without the model, and replaces its scores and results.

    The folder does not hold the columns `image` and `images`, so the reward function does not get them.

    Args:
        run_dir (`str` or `Path`): the `output_dir` of the evaluation.
        reward_func (`Callable`, *optional*): as in [`evaluate_engine`]; by default the function of `rlvr_trl.rewards`
            that the run was scored with.
        correctness_threshold (`float`, *optional*): by default that of the run.

    Raises:
        ValueError: the folder holds no evaluation, is in use, lacks samples, or holds a line that is not what the run
            wrote; the run was scored with a function that is not in `rlvr_trl.rewards`; or an error of
            [`evaluate_engine`] occurs.
    """
    folder = RunFolder(run_dir)
    settings = folder.read_settings()
    with folder.locked():
        problems, num_samples = folder.read_problems(settings), settings["num_samples"]
        completions = Completions.from_samples(
            folder.read_samples(len(problems), settings), len(problems), num_samples
        )
        by = settings.get("by")
        if by is not None and by not in problems[0].row:
            raise ValueError(f"by={by!r} in the settings of '{run_dir}' is no column of its problems.")
        reward_func = reward_func or _reward_named(settings["reward"])
        settings["reward"] = _recorded_name(reward_func)
        if correctness_threshold is not None:
            settings["correctness_threshold"] = correctness_threshold
        scores = score(reward_func, problems, completions, num_samples)
        result = _make_result(problems, completions, scores, settings)
        _write_result(result, folder)
    return result


def _recorded_name(reward_func: Callable) -> str:
    """The name of a reward function, with its module if a function of `rlvr_trl.rewards` has the same name."""
    from .. import rewards

    name = name_of(reward_func)
    is_other = name in rewards.__all__ and getattr(rewards, name) is not reward_func
    return f"{getattr(reward_func, '__module__', None)}.{name}" if is_other else name


def _reward_named(name: str) -> Callable:
    from .. import rewards

    if name not in rewards.__all__:
        raise ValueError(f"The run was scored with '{name}', which is not in rlvr_trl.rewards: pass `reward_func`.")
    return getattr(rewards, name)


def _make_result(
    problems: list[Problem], completions: Completions, scores: Scores, settings: dict
) -> EvaluationResult:
    return EvaluationResult(
        problems=problems,
        completions=completions,
        rewards=scores.rewards,
        extra_columns=scores.extra_columns,
        reward_metrics=scores.metrics,
        num_duplicates=settings["num_duplicates"],
        settings=settings | {"scored_with": _versions()},
    )


def _write_result(result: EvaluationResult, folder: RunFolder | None) -> None:
    """
    Warns about problems without a scorable completion and of completions that an engine has refused or cut, and writes
    scores and results if there is a folder.
    """
    if result.num_unscorable_problems:
        warnings.warn(
            f"{result.num_unscorable_problems} of {len(result.problems)} problems have no scorable completion and are "
            f"left out: '{result.settings['reward']}' returned None or NaN for all their completions"
            + (", or they were refused." if result.num_refused_completions else "."),
            stacklevel=2,
        )
    if result.num_refused_completions:
        warnings.warn(
            f"{result.num_refused_completions} of {len(result.completions.texts)} completions were refused (by a "
            f"filter of the server). They have no reward, and do not count as samples of their problem.",
            stacklevel=2,
        )
    if result.num_cut_early:
        warnings.warn(
            f"{result.num_cut_early} of {len(result.problems)} problems have completions that were cut off before "
            f"max_new_tokens={result.settings['max_new_tokens']}, by a limit of the server such as the context of its "
            f"model. Raise that limit, or lower max_new_tokens.",
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


def _versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on, where they are installed."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
