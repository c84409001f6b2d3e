"""The ranks of an MPI job that share the work of `prepare`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ddhpc.data.sources.workers import Workers
from ddhpc.parallel.communicator import Communicator, wait

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")
SEND_SECONDS = 0.5
PATIENCE_SECONDS = 5.0


class WorkingRanks(Workers):
    """All ranks of a communicator, on which nothing else may travel."""

    def __init__(self, comm: Communicator, say: Callable[[str], None]) -> None:
        super().__init__(comm, say)
        self._counts = comm.duplicate().mpi
        self._known = self._unsent = 0
        self._next_send = 0.0
        self._sending: list[MPI.Request] = []

    def together(self, action: Callable[[], T], tick: Callable[[], None] = lambda: None) -> T:
        """See `Workers`; a rank with bad input does not wait for others that are at work for hours."""

        def whole() -> T:
            value = action()
            self._next_send = 0
            self.done(0)
            for request in self._sending:  # synchronous: rank 0 has got them all when the ranks meet
                wait(request)
            return value

        return self.process.together(whole, tick, PATIENCE_SECONDS)

    def done(self, steps: int) -> int:
        """See `Workers`; other ranks send what they did every half second at most, and do not wait until it arrives."""
        if self.rank == 0:
            self._known += steps
            count = np.empty(1, np.int64)
            while self._counts.Iprobe():
                self._counts.Recv(count)
                self._known += int(count[0])
            return self._known
        self._unsent += steps
        if self._unsent and time.monotonic() >= self._next_send:
            self._next_send = time.monotonic() + SEND_SECONDS
            self._sending = [request for request in self._sending if not request.Test()]
            self._sending.append(self._counts.Issend(np.array([self._unsent]), dest=0))
            self._unsent = 0
        return 0
