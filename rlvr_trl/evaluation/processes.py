"""The processes that share one evaluation, and how they exchange results and errors."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


class Processes:
    """
    The processes of a state, or this one alone.

    All their communication goes through this class. If one process fails in a phase, all of them raise, so that none
    waits for a process that has gone.

    Args:
        state ([`~accelerate.PartialState`], *optional*): the processes; `None` means this process alone, even if
            others are running.
    """

    def __init__(self, state: PartialState | None):
        self.count = 1 if state is None else state.num_processes
        self.index = 0 if state is None else state.process_index
        self.is_main = self.index == 0

    def share_of(self, items: list) -> list:
        """This process's share: every `count`-th item, which spreads the samples of a problem over the processes."""
        return items[self.index :: self.count]

    def gather(self, values: list) -> list:
        """The values of all processes in one list, on each of them."""
        return gather_object(values) if self.count > 1 else values

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on each of them."""
        if self.count == 1:
            return value
        # Pickled before the others wait for it, so that a value that cannot be pickled is an error on all of them
        with self.agreed("sending a result"):
            payload = pickle.dumps(value) if self.is_main else None
        return pickle.loads(broadcast_object_list([payload])[0])

    @contextmanager
    def agreed(self, what: str) -> Iterator[None]:
        """
        A phase of the work, which ends when all processes have finished it.

        Raises:
            ValueError or RuntimeError: another process failed; the message names the process and its error. A process
                that failed itself raises its own error.
        """
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        told = None if error is None else (isinstance(error, ValueError), type(error).__name__, str(error))
        failures = self.gather([told])
        if error is not None:
            raise error
        for index, failure in enumerate(failures):
            if failure is not None:
                is_value_error, name, message = failure
                error_class = ValueError if is_value_error else RuntimeError
                raise error_class(f"Process {index} failed at {what} with {name}: {message}")
