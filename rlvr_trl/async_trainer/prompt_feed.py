"""The accounts of the prompts: which were ordered, which wait as whole groups, which were trained on, which are stale.

Each visit of a prompt has a ticket, 0, 1, 2, …, and is at any time in one place:

    ordered -> in the process that samples -> waiting, as a whole group -> in a step -> trained
       ^                                        |
       +---------- sampled again <--- stale ----+--> dropped, and counted

What is neither trained nor dropped is *open*. A checkpoint holds the open tickets, and a run that is resumed orders
them first: no prompt is lost and none is trained on twice. So many are in work or wait at once as can be trained on in
their turn before they are stale, and no more: where sampling outruns the training, it waits.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ..rollouts import PromptHistory, PromptSelection, PromptSource
from ..rollouts.source import restore_selection, state_of_selection
from .exchange import POLL, Exchange, PromptGroup, PromptOrder


class PromptFeed:
    """
    Orders prompts from a source and collects their groups, each in a thread of its own.

    Args:
        exchange ([`Exchange`]): orders go there, and groups come from there.
        source ([`~rlvr_trl.rollouts.PromptSource`]): which rows come next.
        num_prompts (`int`): prompts of a step, which are also chosen at once.
        seed (`int`): of the training.
        max_open (`int`): visits that are in work or wait at once, at most.
        max_attempts (`int`): how often a prompt is sampled before a group of it that is stale is given up.
        num_visits (`int`, *optional*): visits of the whole training; without it there is no end.
        selection, history, places (*optional*): as in [`~rlvr_trl.rollouts.PromptSource.take`].

    Attributes:
        progress (`float`): share of the training done, which new orders are given.
        lock (`threading.Condition`): held while anything here or in the history changes.
    """

    def __init__(
        self,
        exchange: Exchange,
        source: PromptSource,
        *,
        num_prompts: int,
        seed: int,
        max_open: int,
        max_attempts: int,
        num_visits: int | None = None,
        selection: PromptSelection | None = None,
        history: PromptHistory | None = None,
        places: np.ndarray | None = None,
    ):
        self.exchange, self.source, self.num_prompts, self.seed = exchange, source, num_prompts, seed
        self.max_open, self.max_attempts, self.num_visits = max_open, max_attempts, num_visits
        self._choose = {"selection": selection, "history": history, "places": places}
        self.progress, self.lock = 0.0, threading.Condition()
        self.allocator_state: dict[str, Any] | None = None  # after the group that came last
        self._next_ticket = 0
        self._allowance = 0  # orders that may be given with the present weights
        self._chosen: deque[int] = deque()  # rows that are to be ordered
        self._again: deque[PromptOrder] = deque()
        self._open: dict[int, PromptOrder] = {}
        self._beyond: dict[int, PromptOrder] = {}  # was open in a saved run that had more visits than this one
        self._dropped: list[int] = []  # tickets
        self._waiting: list[PromptGroup] = []
        self._stale = {"prompts": 0, "completions": 0, "dropped": 0}  # since `count_stale`
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._error: Exception | None = None

    # --- the two threads ---

    def start(self) -> None:
        """Begins to order and to collect. Does nothing if it has begun."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
                for name, loop in (("prompt-orders", self._send_orders), ("prompt-groups", self._collect_groups))
            ]
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Ends both. One that hangs in a message that a dead process has not sent to its end is left behind."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=4 * POLL)

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:
            with self.lock:
                self._error = error
                self.lock.notify_all()

    def _send_orders(self) -> None:
        order = None
        while not self._closed.is_set():
            if order is None:
                with self.lock:
                    order = self._next_order()
                    if order is None:
                        self.lock.wait(POLL)
                        continue
            try:
                self.exchange.orders.put(order, timeout=POLL)
                order = None
            except queue.Full:
                continue

    def _next_order(self) -> PromptOrder | None:
        """The next order, if one may be given now."""
        if self._allowance <= 0:
            return None
        if self._again:
            order = self._again.popleft()
        elif self.num_visits is not None and self._next_ticket >= self.num_visits:
            return None
        else:
            if not self._chosen:
                # not beyond the end of an epoch: a row that is in both would be passed over in the next one
                count = min(self.num_prompts, self.source.num_rows - self.source.position)
                self._chosen.extend(self.source.take(count, progress=self.progress, **self._choose).tolist())
            order = PromptOrder(self._next_ticket, self._chosen.popleft())
            self._next_ticket += 1
        self._allowance -= 1
        seed = self.seed * 2**32 + order.ticket * 16 + order.attempt % 16
        order = self._open[order.ticket] = replace(order, seed=seed, progress=self.progress)
        return order

    def _collect_groups(self) -> None:
        while not self._closed.is_set():
            try:
                group = self.exchange.groups.get(timeout=POLL)
            except queue.Empty:
                continue
            with self.lock:
                self.allocator_state = group.allocator_state
                self._waiting.append(group)
                self.lock.notify_all()

    # --- what the training asks for ---

    @property
    def num_left(self) -> int | None:
        """Visits that are neither trained on nor dropped; None without an end."""
        return None if self.num_visits is None else len(self._open) + max(0, self.num_visits - self._next_ticket)

    def take(self, version: int, max_staleness: int, check: Callable[[], None]) -> list[PromptGroup]:
        """
        The groups of the next step: the oldest that are not stale, ties by ticket. Waits until there are enough.

        Args:
            version (`int`): of the weights.
            max_staleness (`int`): a group that was begun more versions ago is sampled again, or dropped.
            check (`Callable`): called twice a second while there are not enough; raises if there never will be.

        Returns:
            `list[PromptGroup]`: `num_prompts` of them, fewer at the end of the training, none after it.
        """
        while True:
            with self.lock:
                if self._error is not None:
                    raise self._error
                self._return_stale(version - max_staleness)
                # not when a step is settled, since the next weights are not there yet
                self._allowance = self.max_open - (len(self._open) - len(self._again))
                self.lock.notify_all()
                count = self.num_prompts if self.num_left is None else min(self.num_prompts, self.num_left)
                if len(self._waiting) >= count:
                    self._waiting.sort(key=lambda group: (group.model_version, group.order.ticket))
                    taken, self._waiting = self._waiting[:count], self._waiting[count:]
                    return taken
                self.lock.wait(POLL)
            check()

    def _return_stale(self, oldest: int) -> None:
        """Takes out groups that were begun with weights before version `oldest`."""
        stale = [group for group in self._waiting if group.model_version < oldest]
        if stale:
            self._waiting = [group for group in self._waiting if group.model_version >= oldest]
        for group in stale:
            order = replace(group.order, attempt=group.order.attempt + 1)
            self._stale["prompts"] += 1
            self._stale["completions"] += len(group)
            if order.attempt < self.max_attempts:
                self._open[order.ticket] = order
                self._again.append(order)
            else:
                self._stale["dropped"] += 1
                self._drop(order.ticket)

    def _drop(self, ticket: int) -> None:
        del self._open[ticket]
        self._dropped.append(ticket)

    def settle(self, tickets: Iterable[int]) -> None:
        """These were trained on."""
        with self.lock:
            for ticket in tickets:
                del self._open[ticket]

    def count_stale(self) -> dict[str, float]:
        """Metrics of the groups that were found to be stale since the last call."""
        with self.lock:
            counts, self._stale = self._stale, dict.fromkeys(self._stale, 0)
        names = {"prompts": "groups", "completions": "completions", "dropped": "groups_dropped"}
        return {f"stale/{names[key]}_total": float(value) for key, value in counts.items()}

    # --- checkpoints ---

    @property
    def num_trained(self) -> int:
        with self.lock:
            return self._next_ticket - len(self._open) - len(self._beyond) - len(self._dropped)

    def trained_tickets(self) -> set[int]:
        """The visits that were trained on."""
        return set(range(self._next_ticket)).difference(self._open, self._beyond, self._dropped)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run must know. What is being sampled or waits is not saved, but sampled again."""
        with self.lock:
            return {
                "source": self.source.state_dict(),
                "next_ticket": self._next_ticket,
                "chosen": list(self._chosen),
                "open": [[one.ticket, one.row, one.attempt] for one in (self._open | self._beyond).values()],
                "dropped": list(self._dropped),
                "allocator": self.allocator_state,
                "selection": state_of_selection(self._choose["selection"]),
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, before [`~PromptFeed.start`]."""
        self.source.load_state_dict(state["source"])
        self._next_ticket, self._chosen = state["next_ticket"], deque(state["chosen"])
        self._open, self._beyond, self._dropped = {}, {}, list(state["dropped"])
        for ticket, row, attempt in sorted(state["open"]):
            is_beyond = self.num_visits is not None and ticket >= self.num_visits
            (self._beyond if is_beyond else self._open)[ticket] = PromptOrder(ticket, row, attempt)
        self._again = deque(self._open.values())
        self.allocator_state = state["allocator"]
        restore_selection(self._choose["selection"], state.get("selection"))
