"""The reward of a mathematical answer: 1 if it equals the reference, by math-verify in killable processes."""

import importlib.util
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from .boxed import BOX, last_boxed
from .math_answers import equal_by_form, judge, normalize
from .maze import completion_text, extract_tagged_answer
from .references import reference_column
from .workers import WorkerPool


MAX_COMPLETION_CHARS = 1_000_000
MAX_ANSWER_CHARS = 1_000
CACHE_SIZE = 20_000
MAX_WORDS = 8  # of a reference without a box that is taken for an answer rather than for an explanation

_ANSWER_IS = re.compile(r"\banswer\s*(?:is|:|=)\s*:?", re.IGNORECASE)
_END_OF_ANSWER = re.compile(r"\n|\.(?=\s|$)")


class MathReward:
    r"""
    Reward function that checks whether the answer of a completion equals the reference.

    The answer is what is in the last `\boxed{…}` (where only separators are between several, all of them as a list
    will do too), else in the last `<answer>…</answer>`, else what follows the last "answer is" or "answer:". The
    reference is the `answer` of the row if there is one, else its `solution`; of either the part that would be read
    from a completion, or all of it where it is short.

    Equal normal forms, numbers and words are compared here; the rest by math-verify in worker processes. A judgement
    that takes longer than `time_limit` or more memory than `memory_limit_mb` is ended with its worker and counts as
    wrong, as does one that crashes. Pairs of reference and answer are judged once and remembered, the last 20,000.

    Limits against abuse: a completion of more than 1,000,000 characters, and an answer of more than 1,000, scores 0
    unread.

    Args:
        time_limit (`float`, *optional*, defaults to `5.0`):
            Seconds for one judgement.
        num_workers (`int`, *optional*):
            Worker processes. Defaults to as many as there are cores for each process on the machine
            (`LOCAL_WORLD_SIZE`), at most 4.
        memory_limit_mb (`int` or `None`, *optional*, defaults to `1024`):
            Megabytes that a worker may use on top of what it starts with (Linux only).
        start_method (`str`, *optional*, defaults to `"spawn"`):
            How workers are started, see [`WorkerPool`].

    Raises:
        `ImportError`: math-verify is not installed.
        `ValueError`: A setting is out of range.

    Example:
    ```python
    >>> math_reward([r"so it is $\boxed{\frac12}$", r"\boxed{2}", "I give up"], answer=["0.5"] * 3)
    [1.0, 0.0, 0.0]
    ```
    """

    def __init__(
        self,
        time_limit: float = 5.0,
        num_workers: int | None = None,
        memory_limit_mb: int | None = 1024,
        start_method: str = "spawn",
    ):
        self.__name__ = "math_reward"
        if num_workers is None:
            num_workers = max(1, min(4, _cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        self._settings = (num_workers, time_limit, memory_limit_mb, start_method)
        self.pool = WorkerPool(judge, *self._settings)
        self._cache: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        completions: list[str] | list[list[dict]],
        solution: list[str] | None = None,
        answer: list[str] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs,
    ) -> list[float | None]:
        """
        Args:
            completions (`list[str]` or `list[list[dict]]`):
                Plain or conversational completions. Of a conversational one the last message counts.
            solution (`list[str]`, *optional*):
                Reference solution of each completion, used where there is no column `answer`.
            answer (`list[str]`, *optional*):
                Reference answer of each completion.
            log_extra (`callable`, *optional*):
                Given by the trainer. Receives the column `extracted_answer`: normal forms, `None` without an answer.
            log_metric (`callable`, *optional*):
                Given by the trainer. Receives `math_reward/timed_out` and `math_reward/died`: judgements of this call
                that were ended for their time, and those whose worker crashed or ran out of memory.
            **kwargs:
                Other columns and trainer arguments, not used.

        Returns:
            `list[float | None]`: 1.0 or 0.0 per completion, `None` where the reference cannot be read.

        Raises:
            `ValueError`: There is neither column, or it does not have one entry for each completion.
        """
        _need_math_verify()
        references = reference_column("math_reward", completions, solution, answer)
        golds = [read_gold(reference) if isinstance(reference, str) else None for reference in references]
        answers = [read_answers(completion_text(completion)) for completion in completions]
        pairs = [(g, a) for g, readings in zip(golds, answers, strict=True) if g is not None for a in readings]
        verdicts, ended = self._judge(dict.fromkeys(pairs))
        if log_extra is not None:
            log_extra("extracted_answer", [readings[0] if readings else None for readings in answers])
        if log_metric is not None:
            for name, count in ended.items():
                log_metric(f"math_reward/{name}", float(count))
        return [
            None if g is None else float(any(verdicts[g, a] for a in readings))
            for g, readings in zip(golds, answers, strict=True)
        ]

    def _judge(self, pairs) -> tuple[dict[tuple[str, str], bool], dict[str, int]]:
        """Verdict of each pair of normal forms, and how many judgements were ended."""
        verdicts, open_pairs = {}, []
        for pair in pairs:
            with self._lock:
                known = self._cache.get(pair)
                if known is not None:
                    self._cache.move_to_end(pair)
            known = equal_by_form(*pair) if known is None else known
            if known is None:
                open_pairs.append(pair)
            else:
                verdicts[pair] = known
        outcomes = self.pool.run(open_pairs) if open_pairs else []
        for pair, outcome in zip(open_pairs, outcomes, strict=True):
            verdicts[pair] = outcome.status == "done" and bool(outcome.value)
        with self._lock:
            # What was ended is remembered too: it would hold up every step in which it comes back.
            self._cache.update((pair, verdicts[pair]) for pair in open_pairs)
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return verdicts, {s: sum(o.status == s for o in outcomes) for s in ("timed_out", "died")}

    # Trainers send reward functions to other processes
    def __reduce__(self):
        num_workers, time_limit, memory_limit_mb, start_method = self._settings
        return MathReward, (time_limit, num_workers, memory_limit_mb, start_method)


def read_answers(text: str) -> tuple[str, ...]:
    """The answer of a completion in normal form; two readings for several boxes, none where there is no answer."""
    if len(text) > MAX_COMPLETION_CHARS:
        return ()
    return _normal_forms(_marked_answer(text))


@lru_cache(maxsize=20_000)
def read_gold(text: str) -> str | None:
    """The reference answer in normal form: what is marked as the answer, or all of a text of a few words."""
    if len(text) > MAX_COMPLETION_CHARS:
        return None
    answers = _marked_answer(text)
    if not answers and "####" in text:  # GSM8K
        answers = (text.rpartition("####")[2],)
    if not answers and len(text) <= MAX_ANSWER_CHARS:
        words = re.findall(r"[a-zA-Z]{2,}", re.sub(r"\\[a-zA-Z]+", " ", text))
        answers = (text,) if len(words) <= MAX_WORDS else ()
    return next((a for a in _normal_forms(answers) if any(character.isalnum() for character in a)), None)


def _marked_answer(text: str) -> tuple[str, ...]:
    boxed = last_boxed(text)
    if boxed:
        return boxed
    tagged = extract_tagged_answer(text)
    if tagged is not None:
        return (tagged,)
    tail = text[-MAX_ANSWER_CHARS:]
    matches = list(_ANSWER_IS.finditer(tail))
    if not matches:
        return ()
    answer = tail[matches[-1].end() :].strip()
    end = _END_OF_ANSWER.search(answer)
    return ((answer[: end.start()] if end else answer).strip().strip("*"),)


def _normal_forms(answers: tuple[str, ...]) -> tuple[str, ...]:
    forms = (normalize(answer) for answer in answers if len(answer) <= MAX_ANSWER_CHARS and BOX not in answer)
    return tuple(form for form in forms if form)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _need_math_verify():
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("math_reward needs math-verify: pip install 'rlvr-trl[eval]'")


math_reward = MathReward()
