"""
What goes between the process that samples and the trainer's: orders of prompts one way, finished groups the other.
"""

import contextlib
import queue
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..rollouts import BatchAllocator, RolloutAllocator
from ..trl_compat import TrainingSequence


POLL = 0.5  # seconds between two looks at whether the other process is still there


@dataclass(frozen=True)
class PromptOrder:
    """
    One visit of a prompt.

    Args:
        ticket (`int`): number of the visit, in the order in which prompts come; a prompt that is sampled again because
            its group was stale keeps it.
        row (`int`): of the training set.
        attempt (`int`): how often it was sampled before.
        seed (`int`): for random choices, another one for every ticket and attempt.
        progress (`float`): share of the training done when it was ordered, in [0, 1].
    """

    ticket: int
    row: int
    attempt: int = 0
    seed: int = 0
    progress: float = 0.0


@dataclass
class PromptGroup:
    """
    All completions of one visit of a prompt, scored: n completions and F reward functions.

    Args:
        order ([`PromptOrder`]): the visit.
        prompt: the prompt of the training set, text or messages.
        completions (`list`): of length n, as reward functions see them.
        rewards_per_func (`np.ndarray` of shape `(n, F)`): rewards by function; NaN where a function gave none.
        stages (`np.ndarray` of shape `(n,)`): the stage in which each was sampled, 1 for the first.
        lengths (`np.ndarray` of shape `(n,)`): in tokens, without the output of tools.
        truncated (`np.ndarray` of shape `(n,)`): whether a completion was cut off.
        sequences (`list[list]`): rows that each is trained on, TRL's `TrainingSequence`: one, or several if the chat
            template has rewritten a conversation.
        metrics (`list[dict]`): TRL's other metrics of each, those of tools.
        model_version (`int`): of the weights with which the oldest of them was begun.
        allocator_state (`dict`, *optional*): of the allocator after it.
        enqueued_at (`float`): when it was put into the queue, set by TRL.
    """

    order: PromptOrder
    prompt: Any
    completions: list
    rewards_per_func: np.ndarray
    stages: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    sequences: list[list[TrainingSequence]]
    metrics: list[dict[str, float]]
    model_version: int
    allocator_state: dict[str, Any] | None = None
    enqueued_at: float = 0.0

    def __len__(self) -> int:
        return len(self.completions)


@dataclass(frozen=True)
class Sampling:
    """
    What the loop needs to know beside TRL's settings.

    Args:
        num_generations (`int`): completions of a prompt in its first stage.
        rollouts ([`~rlvr_trl.rollouts.RolloutAllocator`], *optional*): what asks for more.
        correctness_column (`int`): index of the reward function that says what is correct.
        correctness_threshold (`float`): a completion is correct above it.
        reward_timeout (`float`): seconds after which a reward function that has not returned ends the process.
        orders_ahead (`int`): prompts that are ordered before a slot is free for them.
    """

    num_generations: int
    rollouts: RolloutAllocator | BatchAllocator | None
    correctness_column: int
    correctness_threshold: float
    reward_timeout: float
    orders_ahead: int


def leave_what_is_unsent(line: Any) -> None:
    """A process that ends would otherwise wait until another one, which may not read any more, has read everything."""
    if hasattr(line, "cancel_join_thread"):
        line.cancel_join_thread()


class Exchange:
    """
    Orders one way, finished groups the other. In TRL's eyes it is the queue of the worker.

    Args:
        context: of `multiprocessing`, or None for a loop in a thread of this process.
        sampling ([`Sampling`]): how many orders it holds. Groups are as few as those that give orders see to.
    """

    def __init__(self, context: Any, sampling: Sampling):
        make = queue.Queue if context is None else context.Queue
        self.groups, self.orders = make(), make(sampling.orders_ahead)
        leave_what_is_unsent(self.orders)

    def __setstate__(self, state: dict) -> None:  # in the process that samples
        self.__dict__.update(state)
        leave_what_is_unsent(self.groups)

    def put_nowait(self, group: PromptGroup) -> None:
        self.groups.put_nowait(group)

    def qsize(self) -> int:
        return self.groups.qsize()

    def next_order(self) -> PromptOrder | None:
        """The next order, None if there is none now."""
        try:
            return self.orders.get_nowait()
        except queue.Empty:
            return None


class StopSignal:
    """
    An event between processes that can be set when nobody is left to wait for it, and is set when its owner dies.

    The event of `multiprocessing` waits until those who wait for it have woken up, which a dead process never does.

    Args:
        context: of `multiprocessing`.
    """

    def __init__(self, context: Any):
        self._reader, self._writer = context.Pipe(duplex=False)

    def __getstate__(self) -> dict:
        return {"_reader": self._reader, "_writer": None}

    def set(self) -> None:
        self._writer.send_bytes(b"stop")

    def wait(self) -> None:
        with contextlib.suppress(EOFError):  # its owner has died
            self._reader.recv_bytes()
