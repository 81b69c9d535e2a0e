"""The processes that share one evaluation, and how they agree."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


class Processes:
    """
    The processes of a state, or this one alone.

    Everything they tell each other goes through here: in a phase that one process fails, all raise, so that none waits
    for another that is gone.

    Args:
        state ([`~accelerate.PartialState`], *optional*): the processes; `None` is this process alone, also where
            others run.
    """

    def __init__(self, state: PartialState | None):
        self.count = 1 if state is None else state.num_processes
        self.index = 0 if state is None else state.process_index
        self.is_main = self.index == 0

    def share_of(self, items: list) -> list:
        """This process's share: every `count`-th item, so that a problem's samples spread over the processes."""
        return items[self.index :: self.count]

    def gather(self, values: list) -> list:
        """The values of all processes in one list, on each of them."""
        return gather_object(values) if self.count > 1 else values

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on each of them."""
        if self.count == 1:
            return value
        # Pickled before anyone waits for it: what cannot be pickled is an error everywhere
        with self.agreed("sending a result"):
            payload = pickle.dumps(value) if self.is_main else None
        return pickle.loads(broadcast_object_list([payload])[0])

    @contextmanager
    def agreed(self, what: str) -> Iterator[None]:
        """
        A phase of the work. Ends when all processes have ended it.

        Raises:
            ValueError or RuntimeError: another process failed; names it and its error. A process that failed itself
                raises its own.
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
