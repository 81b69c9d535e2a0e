"""The reward for the tasks of reasoning-gym: its own scorers, in processes that can be killed."""

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..answer_text import THINKING_TAGS, after_thinking, completion_text, extract_tagged_answer
from ..checks import check_installed
from ..gym_tasks import RUNS_ANSWER, RUNS_ITEM, check_task, has_form, make_task, right_answer, scorer_settings
from .sandbox import replace_eval
from .task_workers import (
    MAX_ANSWER_CHARS,
    TaskWorkers,
    check_lengths,
    check_threshold,
    judgement,
    log_ends,
    score_of,
)
from .workers import default_num_workers


class ReasoningGymReward:
    """
    Reward function that lets the scorer of a task of reasoning-gym judge the last complete `<answer>…</answer>`.

    A tag inside the thinking does not count. Without an answer the reward is 0.0, and an answer of more than 20,000
    characters scores 0 unread. By default a reward is 1.0 or 0.0: many scorers give .01 to .05 for any text, which a
    method that standardizes rewards within a group blows up to a full reward.

    Scorers run in worker processes. One that exceeds `time_limit` or `memory_limit_mb`, crashes or raises an error on
    an answer makes it wrong. If the cause lies outside, as when the system kills a worker, the reward is `None`.

    A dataset of [`~rlvr_trl.data.load_reasoning_gym`] has the columns. Before the answers to an item are scored, its
    right answer is, if it has one: if that does not score 1, the item is broken, which is an error and not a reward.

    Args:
        threshold (`float` or `None`, *optional*, defaults to `1.0`):
            Score from which an answer is right. With `None` the reward is the score itself, in [0, 1].
        run_text (`bool`, *optional*, defaults to `False`):
            Whether to take tasks whose scorers evaluate text as Python, such as `countdown`. Their workers evaluate
            nothing but arithmetic and literals; other text scores 0. docs/puzzles.md says what ensures that.
        time_limit (`float`, *optional*, defaults to `2.0`):
            Seconds of processor time for one answer.
        num_workers (`int`, *optional*):
            Worker processes, as in [`MathReward`].
        memory_limit_mb (`int` or `None`, *optional*, defaults to `1024`):
            Megabytes that a worker may use on top of what it starts with (Linux only).
        start_method (`str`, *optional*, defaults to `"spawn"`):
            How workers are started, see [`WorkerPool`].
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Only what follows the thought counts.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.

    Raises:
        `ValueError`: A setting is out of range.

    Example:
    ```python
    >>> from rlvr_trl.data import load_reasoning_gym
    >>> legs = load_reasoning_gym("leg_counting", 2, seed=1)
    >>> reasoning_gym_reward(["<answer>0</answer>", f"<answer>{legs[1]['solution']}</answer>"], **legs[:2])
    [0.0, 1.0]
    ```
    """

    packages = ("reasoning_gym",)  # a trainer looks for it before it loads a model

    def __init__(
        self,
        threshold: float | None = 1.0,
        run_text: bool = False,
        time_limit: float = 2.0,
        num_workers: int | None = None,
        memory_limit_mb: int | None = 1024,
        start_method: str = "spawn",
        thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
        starts_thinking: bool = False,
    ):
        self.__name__ = "reasoning_gym_reward"
        after_thinking("", thinking_tags, starts_thinking)  # raises if the tags are not pairs
        check_threshold(threshold)
        num_workers = default_num_workers() if num_workers is None else num_workers
        limits = (num_workers, time_limit, memory_limit_mb, start_method)
        self._settings = (threshold, run_text, time_limit, num_workers, *limits[2:], thinking_tags, starts_thinking)
        self.threshold, self.run_text = threshold, run_text
        self.thinking = (thinking_tags, starts_thinking)
        self.workers = TaskWorkers(score_item, load_scorers, *limits, arithmetic=False)
        # Workers that may evaluate arithmetic are lent to the tasks that need it, and to no other
        self.arithmetic_workers = TaskWorkers(score_item, load_scorers, *limits, arithmetic=True)

    def __call__(
        self,
        completions: list[str] | list[list[dict]],
        task: list[str],
        item: list[str],
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        thinking_tags: Sequence[Sequence[str]] | None = None,
        starts_thinking: bool | None = None,
        **kwargs,
    ) -> list[float | None]:
        """
        Args:
            completions (`list[str]` or `list[list[dict]]`):
                Plain or conversational completions. Of a conversational one the last message counts.
            task (`list[str]`):
                Name of the task of each completion.
            item (`list[str]`):
                Item of each completion, as in the column `item` of [`~rlvr_trl.data.load_reasoning_gym`].
            log_extra (`callable`, *optional*):
                Passed by the trainer. Receives the column `extracted_answer`: the text in the tags, or `None`.
            log_metric (`callable`, *optional*):
                Passed by the trainer. Receives counts of this call as `reasoning_gym_reward/…`: scorings that
                `timed_out`, `died`, were `lost` to an outside cause, or `failed`.
            thinking_tags, starts_thinking:
                For this call, set with `functools.partial`. Default to those of the instance.
            **kwargs:
                Other columns and arguments of the trainer, not used.

        Returns:
            `list[float | None]`: the reward of each completion, `None` if the scoring was lost or failed.

        Raises:
            `ImportError`: reasoning-gym is not installed.
            `ValueError`: There is not one task and item for each completion, a task is refused or needs `run_text`,
            or an item is broken.
            `RuntimeError`: The workers cannot load the scorers.
        """
        check_installed("reasoning_gym_reward", *self.packages)
        check_lengths(completions, task=task, item=item)
        tags, opened = self.thinking
        tags = tags if thinking_tags is None else thinking_tags
        opened = opened if starts_thinking is None else starts_thinking
        answers = [_answer(completion_text(completion), tags, opened) for completion in completions]
        if log_extra is not None:
            log_extra("extracted_answer", answers)

        for name in dict.fromkeys(task):
            check_task(name, self.run_text)
        jobs = []
        for row, (name, entry, answer) in enumerate(zip(task, item, answers, strict=True)):
            try:
                settings = _settings_of(name, entry)
            except ValueError as error:
                raise ValueError(f"Row {row} of the batch has a broken item of the task {name!r}: {error}") from error
            jobs.append((name, settings, entry, answer))
        outcomes = self._run(list(dict.fromkeys(jobs)))
        log_ends(self.__name__, list(outcomes.values()), log_metric)
        scores = [score_of(outcomes[job], row, f"item of the task {job[0]!r}") for row, job in enumerate(jobs)]
        return [judgement(score, self.threshold) for score in scores]

    def _run(self, jobs: list[tuple]) -> dict:
        """The outcome of each job, from the workers that it belongs to."""
        outcomes = {}
        for workers, evaluates in ((self.workers, False), (self.arithmetic_workers, True)):
            own = [job for job in jobs if (job[0] in RUNS_ANSWER + RUNS_ITEM) == evaluates]
            if own:
                outcomes |= zip(own, workers.run({job[:2] for job in own}, own), strict=True)
        return outcomes

    def close(self):
        """End the workers. The next call starts new ones."""
        self.workers.close()
        self.arithmetic_workers.close()

    # Trainers send reward functions to other processes.
    def __reduce__(self):
        return ReasoningGymReward, self._settings


def _answer(text: str, thinking_tags, starts_thinking: bool) -> str | None:
    answer = extract_tagged_answer(after_thinking(text, thinking_tags, starts_thinking) or "")
    return None if answer is None or len(answer) > MAX_ANSWER_CHARS else answer.strip()


@lru_cache(maxsize=20_000)
def _settings_of(task: str, item: str) -> str:
    """The settings of an item that its scorer reads, as JSON."""
    try:
        entry = json.loads(item)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    kinds = {"question": str, "metadata": dict, "config": dict}
    wrong = [
        name for name, kind in kinds.items() if not isinstance(entry, dict) or not isinstance(entry.get(name), kind)
    ]
    if wrong or "answer" not in entry:
        raise ValueError(f"it lacks {', '.join(wrong) or 'answer'}: {item!r:.100}")
    return json.dumps(scorer_settings(task, entry["config"]), sort_keys=True)


# --- in a worker ---

_SCORERS: dict[tuple[str, str], Callable] = {}
_METADATA: dict[str, set[str]] = {}  # names that the metadata of an item of a task always have
_SOUND: set[tuple[str, str, str]] = set()  # items, with their task and settings, whose right answer scored 1


def load_scorers(tasks: tuple[tuple[str, str], ...]):
    """Load the scorers of tasks with their settings, and score a few answers: that imports what they import late."""
    for task, settings in tasks:
        dataset = make_task(task, 0, 2, {})
        entries = [json.loads(json.dumps(dataset[i], default=str)) for i in range(2)]
        score = _SCORERS[task, settings] = dataset.score_answer
        vars(dataset.config).update(json.loads(settings))  # alone, they need not be settings to draw items with
        _METADATA[task] = set.intersection(*(set(entry["metadata"]) for entry in entries))
        for answer in (right_answer(task, entries[0]), right_answer(task, entries[1]), "0", "x", "[[1, 2]]"):
            if answer is not None:
                _score(score, answer, json.dumps(entries[0]))
    replace_eval("reasoning_gym")


def score_item(task: str, settings: str, item: str, answer: str | None) -> float | str:
    """The score of an answer, 0.0 if there is none, or what is wrong with the item."""
    score = _SCORERS[task, settings]
    if (task, settings, item) not in _SOUND:
        fault = _fault(task, score, item)
        if fault:
            return fault
        if len(_SOUND) > 10_000:
            _SOUND.clear()
        _SOUND.add((task, settings, item))
    return 0.0 if answer is None or not has_form(task, answer) else _score(score, answer, item)


def _score(score: Callable, answer: str, item: str) -> float:
    """The score, and 0.0 where the scorer raises an error or finds no number. It may change its copy of the item."""
    try:
        value = float(score(answer, json.loads(item)))
    except Exception:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _fault(task: str, score: Callable, item: str) -> str | None:
    """What is wrong with an item; `None` if it is sound."""
    entry = json.loads(item)
    try:
        answer = right_answer(task, entry)
    except (AttributeError, KeyError, TypeError) as error:
        return f"its metadata have no right answer ({error!r})."
    if answer is None:
        missing = sorted(_METADATA[task] - entry["metadata"].keys())
        return f"its metadata lack {', '.join(missing)}." if missing else None
    value = _score(score, answer, item)
    return None if value >= 1 else f"its own answer {answer!r:.100} scores {value:g}, and not 1."


reasoning_gym_reward = ReasoningGymReward()
