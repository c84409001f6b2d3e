"""The ranks that train one CNN together, as its training sees them; here a rank alone. No MPI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddhpc.method.decomposition import block


@dataclass(frozen=True, kw_only=True)
class Team:
    """One rank; `parallel.data_parallel` derives the team of several."""

    subdomain: int = 0
    """That the team trains; of no meaning where a rank trains alone."""
    rank: int = 0
    size: int = 1

    def rows(self, count: int) -> slice:
        """The rows of a batch, or of a split, of `count` images that this rank takes."""
        return slice(*block(count, self.size, self.rank))

    def parallel(self, cnn: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network as all ranks train it; its weights are those of `cnn`, and the same on all ranks.

        The losses of the ranks have to add up to `size` times that of the whole batch.
        """
        return cnn

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, on all of them; collective."""
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set on any rank; collective."""
        return list(flags)

    @contextmanager
    def own_random(self, device: torch.device, step: int) -> Iterator[None]:
        """Draw random numbers of this rank and step within, and leave those that the ranks share as they are."""
        yield

    def gathered(self, value: Tensor) -> Tensor:
        """The scalar of each rank, [size], on all of them; collective."""
        every = value.new_zeros(self.size)
        every[self.rank] = value
        return self.total(every)

    def own(self, every: Tensor) -> Tensor:
        """This rank's scalar of what `gathered` gave; if the team's size has changed, rank 0 takes the sum."""
        if len(every) == self.size:
            return every[self.rank].clone()
        return every.sum() if self.rank == 0 else torch.zeros_like(every[0])


ALONE = Team()
"""A rank that trains its subdomains by itself."""
