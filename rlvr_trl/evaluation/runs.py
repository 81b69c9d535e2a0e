"""One evaluation from model to numbers: sample, score, report; and the same again from what a run saved."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState

from .collection import sample_missing
from .problems import Problem, digest_of, distinct_problems
from .processes import Processes
from .report import EvaluationResult
from .rescoring import make_result, versions, write_result
from .samples import Completions, Engine, Sample, SamplingSettings
from .scoring import name_of, score
from .store import RunFolder


if TYPE_CHECKING:
    from datasets import Dataset


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
    Samples `num_samples` completions for every problem of a dataset with a model in this process, and scores them.

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
    output_dir: str | Path | None = None,
    state: PartialState | None = None,
    progress: bool = True,
    record: dict | None = None,
) -> EvaluationResult:
    """
    Samples `num_samples` completions for every problem of a dataset with any engine, and scores them.

    The reward function is called as TRL calls it, once, with all completions: those of one prompt are neighbours.

    Args:
        engine ([`Engine`]): what samples.
        dataset ([`~datasets.Dataset`] or iterable of rows): a `prompt` column and whatever the reward function reads.
            Images are in the column `images` or `image`. A prompt that comes up again with the same images is left out
            with a warning: problems must not count twice.
        reward_func (`Callable`): one reward per completion, `None` for one that cannot be scored. Extracted answers
            reported by `log_extra("extracted_answer", values)` are what the answer entropy is computed from.
        num_samples (`int`): completions per problem.
        max_new_tokens, temperature, top_p, top_k, seed: as in [`SamplingSettings`].
        correctness_threshold (`float`): a completion is correct if its reward is above.
        output_dir (`str` or `Path`, *optional*): folder of the run. Completions are written as they finish, and the
            same call after a kill samples what is missing. Scores are computed anew each time.
        state ([`~accelerate.PartialState`], *optional*): the processes to spread the sampling over, each with an
            engine of its own. The first one scores, and all return the same. `None` is this process alone.
        progress (`bool`): whether to show a progress bar.
        record (`dict`, *optional*): what else to keep among the settings, such as `{"benchmark": "amc23"}`.

    Raises:
        ValueError: a setting out of range; a dataset that is empty, has no `prompt` column, or has prompts that the
            engine cannot complete; an `output_dir` that is in use, or of a run with other settings; rewards or
            extracted answers of the wrong number, or no rewards at all.
        RuntimeError: another process failed; names it and its error.
    """
    processes = Processes(state)
    with processes.agreed("preparing"):
        sampling = SamplingSettings(max_new_tokens, temperature, top_p, top_k, seed)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        problems, num_duplicates = distinct_problems(dataset)
        engine.check([problem.prompt_with_images for problem in problems])
        settings = {
            **(record or {}),
            "num_samples": num_samples,
            **asdict(sampling),
            "engine": engine.describe(),
            "problems": digest_of(problems),
            "num_duplicates": num_duplicates,
            "reward": name_of(reward_func),
            "correctness_threshold": correctness_threshold,
            "versions": versions(),
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
            settings |= {"versions": folder.read_settings()["versions"]}  # those of the first samples
        result = make_result(problems, completions, processes.broadcast(scores), settings)
        with processes.agreed("writing the results"):
            if processes.is_main:
                write_result(result, folder)
    return result


def _check_same_on_all(processes: Processes, settings: dict) -> None:
    for name in ("problems", "engine"):
        held = processes.gather([settings[name]])
        if any(value != held[0] for value in held):
            raise ValueError(f"The processes must have the same {name}, but have {held}.")


def _open(
    folder: RunFolder | None, settings: dict, problems: list[Problem], processes: Processes, held: ExitStack
) -> list[Sample]:
    """The samples of earlier runs, on every process, with the folder locked until `held` is closed."""
    if folder is None:
        return []
    earlier = None
    with processes.agreed("opening the folder of the run"):
        if processes.is_main:
            held.enter_context(folder.locked())
            folder.claim(settings, problems)
            earlier = folder.read_samples()
    with processes.agreed("opening the folder of the run"):
        folder.check_visible(settings)
    return processes.broadcast(earlier)
