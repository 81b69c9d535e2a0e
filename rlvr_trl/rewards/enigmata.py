"""The reward for the puzzles of Enigmata (arXiv 2505.19914): the verifiers of a checkout that the user names."""

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..answer_text import THINKING_TAGS, after_thinking, completion_text
from ..registry import did_you_mean
from .sandbox import replace_eval
from .task_workers import TaskWorkers, check_lengths, check_threshold, judgement, log_ends, score_of
from .workers import default_num_workers


_MODULES = "_enigmata_verifiers"  # name of the package that verifiers are loaded into, in a worker


class EnigmataReward:
    """
    Reward function that lets the verifier of an Enigmata task judge what follows the thinking.

    Nothing of Enigmata is part of this package: its repository (github.com/BytedTsinghua-SIA/Enigmata, Apache-2.0)
    has a verifier for each task, `verifiable_tasks/tasks/<task>/verifier.py`, and the checkout is named by you. The
    code in it is loaded in worker processes only, as it is. A verifier looks for the last code block by itself. Nine
    of them call `eval` on it: in a worker this evaluates arithmetic and literals, and everything else scores 0.

    A verifier that exceeds `time_limit` or `memory_limit_mb`, crashes or raises an error on a completion makes it
    wrong. If it also raises one on an empty completion and on an empty answer, the row is broken, which is an error
    and not a reward. If the cause lies outside, as when the system kills a worker, the reward is `None`.

    Args:
        checkout (`str` or `Path`):
            Folder of your clone of the repository.
        threshold, time_limit, num_workers, memory_limit_mb, start_method, thinking_tags, starts_thinking:
            As in [`ReasoningGymReward`].

    Raises:
        `ValueError`: There are no verifiers in `checkout`, or a setting is out of range.

    Example:
    ```python
    trainer = RLVRTrainer(..., reward_funcs=EnigmataReward("Enigmata"), train_dataset=load_enigmata())
    ```
    """

    def __init__(
        self,
        checkout: str | Path,
        threshold: float | None = 1.0,
        time_limit: float = 2.0,
        num_workers: int | None = None,
        memory_limit_mb: int | None = 1024,
        start_method: str = "spawn",
        thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
        starts_thinking: bool = False,
    ):
        self.__name__ = "enigmata_reward"
        after_thinking("", thinking_tags, starts_thinking)  # raises if the tags are not pairs
        check_threshold(threshold)
        self.verifiers = find_verifiers(checkout)
        num_workers = default_num_workers() if num_workers is None else num_workers
        limits = (num_workers, time_limit, memory_limit_mb, start_method)
        self._settings = (checkout, threshold, time_limit, num_workers, *limits[2:], thinking_tags, starts_thinking)
        self.threshold, self.thinking = threshold, (thinking_tags, starts_thinking)
        load = partial(load_verifiers, self.verifiers)
        self.workers = TaskWorkers(verify_text, load, *limits, arithmetic=True)

    def __call__(
        self,
        completions: list[str] | list[list[dict]],
        task_name: list[str],
        answer: list[str | None],
        meta: list[str | None],
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs,
    ) -> list[float | None]:
        """
        Args:
            completions (`list[str]` or `list[list[dict]]`):
                Plain or conversational completions. Of a conversational one the last message counts.
            task_name (`list[str]`):
                Task of each completion: a folder of `verifiable_tasks/tasks` of the checkout that has a verifier.
            answer, meta (`list[str | None]`):
                What the verifier is given, as in the columns of [`~rlvr_trl.data.load_enigmata`].
            log_metric (`callable`, *optional*):
                Passed by the trainer. Receives counts of this call as `enigmata_reward/…`: verifications that
                `timed_out`, `died`, were `lost` to an outside cause, or `failed`.
            **kwargs:
                Other columns and arguments of the trainer, not used.

        Returns:
            `list[float | None]`: the reward of each completion, `None` if the verification was lost or failed.

        Raises:
            `ValueError`: There is not one entry of a column for each completion, the checkout has no verifier of a
            task, or a row is broken.
            `RuntimeError`: The workers cannot load a verifier, for instance because it needs a package.
        """
        check_lengths(completions, task_name=task_name, answer=answer, meta=meta)
        for name in set(task_name):
            if name not in self.verifiers:
                hint = did_you_mean(str(name), self.verifiers)
                raise ValueError(
                    f"`task_name` {name!r:.100} has no verifier in the checkout.{hint} It has "
                    f"{', '.join(self.verifiers)}."
                )
        texts = [after_thinking(completion_text(one), *self.thinking) or "" for one in completions]
        jobs = list(zip(task_name, texts, answer, meta, strict=True))
        different = list(dict.fromkeys(jobs))
        outcomes = dict(zip(different, self.workers.run(set(task_name), different), strict=True))
        log_ends(self.__name__, list(outcomes.values()), log_metric)
        scores = [score_of(outcomes[job], row, f"row of the task {job[0]!r}") for row, job in enumerate(jobs)]
        return [judgement(score, self.threshold) for score in scores]

    def close(self):
        """End the workers. The next call starts new ones."""
        self.workers.close()

    # Trainers send reward functions to other processes.
    def __reduce__(self):
        return EnigmataReward, self._settings


def find_verifiers(checkout: str | Path) -> dict[str, str]:
    """
    The file of each verifier in a checkout of Enigmata, by the name of its task.

    Raises:
        `ValueError`: There is none.
    """
    folder = Path(checkout).absolute() / "verifiable_tasks" / "tasks"
    files = sorted(folder.glob("*/verifier.py"))
    verifiers = {file.parent.name: str(file) for file in files if file.parent.name.isidentifier()}
    if not verifiers:
        raise ValueError(
            f"`checkout` must be a clone of github.com/BytedTsinghua-SIA/Enigmata, got {str(checkout)!r}, which has "
            f"no verifiable_tasks/tasks/<task>/verifier.py."
        )
    return verifiers


# --- in a worker ---

_SHORTEST = "```\n0\n```"  # where a verifier needs a code block
_VERIFY: dict[str, Callable] = {}
_SOUND: set[tuple[str, str | None, str | None]] = set()  # rows on which the verifier raises no error by itself


def load_verifiers(files: dict[str, str], tasks: tuple[str, ...]):
    """Load the verifiers of tasks, whose names are keys of `files`."""
    sys.dont_write_bytecode = True  # the checkout is left as it is
    for task in tasks:
        spec = importlib.util.spec_from_file_location(f"{_MODULES}.{task}", files[task])
        assert spec is not None and spec.loader is not None  # a .py file has both
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _VERIFY[task] = module.verify
    replace_eval(_MODULES)


def verify_text(task: str, text: str, answer: str | None, meta: str | None) -> float | str:
    """What the verifier gives for a completion, or what is wrong with the row."""
    verify = _VERIFY[task]
    if (task, answer, meta) not in _SOUND:
        try:
            verify("", answer, meta)
        except Exception:
            try:
                verify(_SHORTEST, answer, meta)
            except Exception as error:
                return f"the verifier raises {error!r:.200} on any completion."
        if len(_SOUND) > 10_000:
            _SOUND.clear()
        _SOUND.add((task, answer, meta))
    try:
        value = float(verify(text, answer, meta))
    except Exception:
        return 0.0
    return value if math.isfinite(value) else 0.0
