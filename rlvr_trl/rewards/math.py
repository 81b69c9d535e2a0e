"""The reward for a mathematical answer: 1 if it equals the reference, judged in processes that can be killed."""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..answer_text import MAX_TEXT_CHARS, THINKING_TAGS, boxes, completion_text, find_answer
from ..checks import check_installed
from .answers.commands import NAMES
from .answers.kinds import Text, Unread, show
from .answers.literals import settled
from .answers.reader import read
from .answers.units import lookup
from .choice import extract_choice
from .references import reference_column
from .workers import Outcome, WorkerPool, default_num_workers


MAX_ANSWER_CHARS = 1_000
CACHE_SIZE = 20_000
_OPTION = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?[({]*([A-J])[)}.]*\Z|(?:\\\w+\{)?\(?([A-J])(?:\)|\.\s)")
MAX_WORDS = 8  # a reference without a box that has more is an explanation rather than an answer


class MathReward:
    r"""
    Reward function that checks whether the answer of a completion equals the reference.

    The answer is read after the thinking, where [`~rlvr_trl.answer_text.find_answer`] finds it: in the last
    `\boxed{…}` (several with only separators between them are a list), else in the last `<answer>…</answer>`, after
    `####` or after the last "answer is", else in the last line if that is mathematics. The reference is the column
    `answer` if there is one, else `solution`. Of either, what counts is the part that would be read from a completion,
    or all of it if it is short. docs/verifier.md says what is equal.

    Equal forms and plain numbers are settled in this process, the rest in worker processes. A judgement that exceeds
    `time_limit` or `memory_limit_mb`, or that crashes, is ended with its worker and tried once more in another one. If
    that ends in the same way, the answer counts as wrong. If the cause lies outside, as when the system kills the
    worker, there is no judgement and the reward is `None`. Each pair of reference and answer is judged once: the last
    20,000 judgements are remembered.

    Limits against abuse: a completion of more than 1,000,000 characters or an answer of more than 1,000 scores 0
    unread. No text of a completion or of a dataset is ever executed: docs/verifier.md says what ensures that.

    Args:
        time_limit (`float`, *optional*, defaults to `5.0`):
            Seconds of processor time for one judgement.
        num_workers (`int`, *optional*):
            Worker processes. Defaults to the number of cores divided by the number of training processes on the
            machine (`LOCAL_WORLD_SIZE`), at most 4.
        memory_limit_mb (`int` or `None`, *optional*, defaults to `1024`):
            Megabytes that a worker may use on top of what it starts with (Linux only).
        start_method (`str`, *optional*, defaults to `"spawn"`):
            How workers are started, see [`WorkerPool`].
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Only what follows the thought counts.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.

    Raises:
        `ImportError`: math-verify or python-flint is not installed.
        `ValueError`: A setting is out of range.

    Example:
    ```python
    >>> math_reward([r"so it is $\boxed{\frac12}$", r"\boxed{2}", "I give up"], answer=["0.5"] * 3)
    [1.0, 0.0, 0.0]
    ```
    """

    packages = ("math_verify", "flint")  # a trainer looks for them before it loads a model

    def __init__(
        self,
        time_limit: float = 5.0,
        num_workers: int | None = None,
        memory_limit_mb: int | None = 1024,
        start_method: str = "spawn",
        thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
        starts_thinking: bool = False,
    ):
        self.__name__ = "math_reward"
        find_answer("", thinking_tags, starts_thinking)  # raises if the tags are not pairs
        if num_workers is None:
            num_workers = default_num_workers()
        self._settings = (time_limit, num_workers, memory_limit_mb, start_method, thinking_tags, starts_thinking)
        self.thinking_tags, self.starts_thinking = thinking_tags, starts_thinking  # of a resumed run they are compared
        limits = (time_limit, memory_limit_mb, start_method)
        self.pool = WorkerPool(judge_by_evaluation, num_workers, *limits, warm_up=warm_up_evaluation)
        # Workers that load SymPy take seconds to start and are seldom needed.
        self.algebra_pool = WorkerPool(judge_by_algebra, num_workers, *limits, warm_up=warm_up_algebra)
        self._cache: OrderedDict[tuple, bool] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        completions: list[str] | list[list[dict]],
        solution: list[str] | None = None,
        answer: list[str] | None = None,
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
            solution (`list[str]`, *optional*):
                Reference solution of each completion, used where there is no column `answer`.
            answer (`list[str]`, *optional*):
                Reference answer of each completion.
            log_extra (`callable`, *optional*):
                Passed by the trainer. Receives the column `extracted_answer`: answers in normal form, `None` without
                an answer.
            log_metric (`callable`, *optional*):
                Passed by the trainer. Receives counts of this call as `math_reward/…`: judgements that `timed_out`,
                that `died` (in a crash or for lack of memory), that were `lost` to an outside cause, that `failed` by
                an error in this package, that were `refused` something that no judgement needs, or `retried`.
            thinking_tags, starts_thinking:
                For this call, set with `functools.partial`. Default to those of the instance.
            **kwargs:
                Other columns and arguments of the trainer, not used.

        Returns:
            `list[float | None]`: 1.0 or 0.0 per completion, `None` if the reference cannot be read or the judgement
            was lost or failed.

        Raises:
            `ValueError`: There is neither column, or it does not have one entry for each completion, or an entry is
            neither text nor a number.
        """
        check_installed("math_reward", *self.packages)
        references = reference_column("math_reward", completions, solution, answer)
        golds = [None if reference is None else read_gold(reference) for reference in references]
        tags, opened = self._settings[4:]
        thinking = (
            tags if thinking_tags is None else thinking_tags,
            opened if starts_thinking is None else starts_thinking,
        )
        texts = [completion_text(completion) for completion in completions]
        answers = [read_answers(text, *thinking) for text in texts]
        pairs = [[] if g is None else [(g, a) for a in texts] for g, texts in zip(golds, answers, strict=True)]
        verdicts, ended = self._judge(dict.fromkeys(pair for several in pairs for pair in several))
        if log_extra is not None:
            log_extra("extracted_answer", [show(read(texts[0])[0]) if texts else None for texts in answers])
        if log_metric is not None:
            for name, count in ended.items():
                log_metric(f"math_reward/{name}", float(count))
        return [
            None if gold is None else 1.0 if _chosen(gold, text, thinking) else _reward([verdicts[p] for p in several])
            for gold, text, several in zip(golds, texts, pairs, strict=True)
        ]

    def _judge(self, pairs) -> tuple[dict[tuple[str, str], bool | None], dict[str, int]]:
        """The verdict on each pair of texts, `None` if there is none, and how many judgements ended in which way."""
        verdicts, open_pairs = {}, {}
        for pair in pairs:
            key = tuple(map(read, pair))
            with self._lock:
                known = self._cache.get(key)
                if known is not None:
                    self._cache.move_to_end(key)
            if known is None:
                known = settled(*key)
            if known is None:
                open_pairs.setdefault(key, []).append(pair)
            else:
                verdicts[pair] = known
        jobs = [same[0] for same in open_pairs.values()]
        outcomes, ended = self._run(jobs)
        with self._lock:
            for (key, same), outcome in zip(open_pairs.items(), outcomes, strict=True):
                verdict = _verdict(outcome)
                verdicts.update(dict.fromkeys(same, verdict))
                if verdict is not None:  # also if it was ended: it would hold up every step in which it comes back
                    self._cache[key] = verdict
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return verdicts, ended

    def _run(self, jobs: list[tuple[str, str]]) -> tuple[list[Outcome], dict[str, int]]:
        """Outcome of each job from the workers that evaluate, or from those with math-verify if these cannot tell."""
        pools = (self.pool, self.algebra_pool)
        before = [dict(pool.counts) for pool in pools]
        outcomes = self.pool.run(jobs) if jobs else []
        left = [i for i, outcome in enumerate(outcomes) if outcome == Outcome("done", None)]
        if left:
            for i, outcome in zip(left, self.algebra_pool.run([jobs[i] for i in left]), strict=True):
                outcomes[i] = outcome
        counted = {
            name: sum(pool.counts[name] - then[name] for pool, then in zip(pools, before, strict=True))
            for name in ("refused", "retried")
        }
        ended = {
            status: sum(o.status == status for o in outcomes) for status in ("timed_out", "died", "lost", "failed")
        }
        return outcomes, ended | counted

    def close(self):
        """End the workers. The next call starts new ones."""
        self.pool.close()
        self.algebra_pool.close()

    # Trainers send reward functions to other processes.
    def __reduce__(self):
        return MathReward, self._settings


# What workers call. Only they load the modules that judge.
def judge_by_evaluation(reference: str, answer: str) -> bool | None:
    from .answers.equality import judge_without_algebra

    return judge_without_algebra(reference, answer)


def judge_by_algebra(reference: str, answer: str) -> bool:
    from .answers.equality import judge

    return judge(reference, answer)


def warm_up_evaluation():
    """Import everything that a judgement may need: a locked worker can import nothing more."""
    for reference, answer in ((r"\sqrt{8}x", r"2x\sqrt{2}"), ("(1,2]", "1<x\\le2"), ("2 m", "200 cm")):
        judge_by_evaluation(reference, answer)


def warm_up_algebra():
    """The same for judgements with SymPy and math-verify."""
    from .answers.sympy_judge import WARM_UP

    for reference, answer in WARM_UP:
        judge_by_algebra(reference, answer)


def _verdict(outcome: Outcome) -> bool | None:
    """
    Whether the answer is right. `None` if the outcome says nothing about the answer: an outside cause, or an error in
    this package. A judgement that was ended for its time, its memory or what it tried to do counts as wrong.
    """
    failed = outcome.status == "failed" and not str(outcome.value).startswith("refused")
    return None if failed or outcome.status == "lost" else outcome.status == "done" and bool(outcome.value)


def _reward(verdicts: list[bool | None]) -> float | None:
    """1.0 if any reading is right; `None` if none is and one was not judged; else 0.0."""
    return 1.0 if True in verdicts else None if None in verdicts else 0.0


def read_answers(
    text: str, thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS, starts_thinking: bool = False
) -> tuple[str, ...]:
    r"""
    The text of a completion's answer; empty if there is no answer that can be read.

    Two boxes joined by "and" have two readings, both boxes as a list and the last box alone, because solutions of MATH
    are marked in this way.
    """
    found = find_answer(text, thinking_tags, starts_thinking)
    if found is None or sum(map(len, found.texts)) > MAX_ANSWER_CHARS:
        return ()
    answer = ", ".join(found.texts)
    if not read(answer) or (found.how == "line" and not _is_mathematics(answer)):
        return ()
    if len(found.texts) == 2:
        (start, _, _), (_, end, _) = boxes(text)[:2]
        if "and" in text[end:start].split():
            return answer, found.texts[-1]
    return (answer,)


def _is_mathematics(line: str) -> bool:
    """Whether a line is a formula and nothing else: no words other than functions and units, and no question."""
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[a-zA-Z]+", " ", line))
    plain = all(word in NAMES or lookup(word) is not None for word in words)
    return plain and not line.rstrip().endswith("?") and not isinstance(read(line)[0], Text | Unread)


@lru_cache(maxsize=20_000)
def read_gold(text: str) -> str | None:
    """The text of a reference answer: the part that is marked as the answer, or all of it if it has few words."""
    if len(text) > MAX_TEXT_CHARS:
        return None
    found = find_answer(text, thinking_tags=())
    if found is not None and found.how != "line":
        answer = ", ".join(found.texts)
    else:
        words = re.findall(r"[a-zA-Z]{2,}", re.sub(r"\\[a-zA-Z]+", " ", text[: MAX_ANSWER_CHARS + 1]))
        answer = text if len(words) <= MAX_WORDS else ""
    if len(answer) > MAX_ANSWER_CHARS or not any(character.isalnum() for character in answer):
        return None
    return answer if read(answer) else None


def _chosen(reference: str, text: str, thinking: tuple) -> bool:
    """Whether a completion chooses the option of a reference such as `C` or `(C) 12`, as in `C. 12`."""
    letter = _OPTION.match(reference)
    return letter is not None and extract_choice(text, *thinking) == {letter[1] or letter[2]}


math_reward = MathReward()
