"""The processes that share the work of `prepare`, as the sources of packed files see them. No MPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Crew:
    """One process alone; the ranks of an MPI job derive from it.

    Args:
        say: takes lines for a person.
    """

    rank = 0
    size = 1

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.say = say
        self._done = 0

    def together(self, action: Callable[[], T], tick: Callable[[], None] = lambda: None) -> T:
        """What `action` gives on this rank, after it has ended on all; InputError on all where any rank raises it.

        `tick` is called now and then while this rank waits for others.
        """
        return action()

    def on_first(self, action: Callable[[], T]) -> T | None:
        """What `action` gives on rank 0, which alone runs it while the others wait; None on those."""
        return self.together(lambda: action() if self.rank == 0 else None)

    def share(self, text: str) -> str:
        """The text of rank 0, on all ranks."""
        return text

    def done(self, steps: int) -> int:
        """Note `steps` done by this rank; on rank 0 all that are known to be done by all ranks so far."""
        self._done += steps
        return self._done
