"""One process alone, as work that may be spread over ranks sees it. No MPI."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Process:
    """The simplest communicator; `parallel.communicator.Communicator` is that of several ranks."""

    rank = 0
    size = 1

    def together(
        self, action: Callable[[], T], tick: Callable[[], None] = lambda: None, patience: float = math.inf
    ) -> T:
        """Run `action` on every rank and give its value; if it raises InputError or Stopped on any rank, all ranks do.

        Stands before every collective, so that no rank waits for one that cannot take part. What is raised is that of
        the lowest failing rank.

        Args:
            action: of this rank.
            tick: called now and then while this rank waits for others.
            patience: seconds that a rank with an InputError waits for the others before it raises alone: where they
                are at work for hours, the job has to end before.
        """
        return action()

    def on_root(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0 while the others wait, as in `together`, and give its value there, None elsewhere."""
        return self.together(lambda: action() if self.rank == 0 else None)

    def broadcast(self, text: str, root: int = 0) -> str:
        """The root's text, on all ranks."""
        return text

    def split(self, color: int) -> Process:
        """Those of the ranks that give the same color, in the same order."""
        return self

    def free(self) -> None:
        """Give up what MPI holds for it."""

    def scatter(
        self, give: Callable[[int], np.ndarray], shares: Sequence[Sequence[int]], into: Mapping[int, np.ndarray]
    ) -> None:
        """Fill the arrays of the subdomains that each rank owns with what rank 0 gives for each.

        Args:
            give: of rank 0, the array of a subdomain.
            shares: the subdomains that each rank owns, by rank.
            into: by subdomain of this rank, contiguous, of the shape and dtype of what is given.
        """
        for subdomain, array in into.items():
            array[...] = give(subdomain)

    def gather(self, owned: np.ndarray, subdomains: int) -> np.ndarray:
        """The rows of all ranks, `subdomains` in all, on rank 0, in the order of the ranks; no rows elsewhere."""
        return owned

    def total(self, *values: int) -> list[int]:
        """The sum of each value over all ranks, on all of them."""
        return list(values)
