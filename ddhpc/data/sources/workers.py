"""The processes that share the work of `prepare`, as the sources of packed files see them. No MPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ddhpc.process import Process

T = TypeVar("T")


class Workers:
    """One process alone, or with `parallel.work_sharing` the ranks of an MPI job.

    Args:
        process: this one among those that share the work.
        say: takes lines for a person.
    """

    def __init__(self, process: Process | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.process, self.say = process or Process(), say
        self.rank, self.size = self.process.rank, self.process.size
        self._done = 0

    def together(self, action: Callable[[], T], tick: Callable[[], None] = lambda: None) -> T:
        """See `Process.together`."""
        return self.process.together(action, tick)

    def on_root(self, action: Callable[[], T]) -> T | None:
        """See `Process.on_root`."""
        return self.together(lambda: action() if self.rank == 0 else None)

    def broadcast(self, text: str) -> str:
        """The text of rank 0, on all ranks."""
        return self.process.broadcast(text)

    def done(self, steps: int) -> int:
        """Note `steps` done by this rank; on rank 0 all that are known to be done by all ranks so far."""
        self._done += steps
        return self._done
