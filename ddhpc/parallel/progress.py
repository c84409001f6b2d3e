"""Progress of all subdomains on rank 0: live on a terminal, plain lines in a log. Nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ddhpc.parallel.communicator import Communicator
from ddhpc.parallel.standing import Accuracy, Pace, Standing

if TYPE_CHECKING:
    from mpi4py import MPI
    from rich.live import Live

NEWS, STOP = 0, 1
SEND_SECONDS = 0.5
LINE_SECONDS = 10.0


class Progress:
    """Collects how far each subdomain is, and shows it on rank 0.

    Other ranks send five numbers every half second at most and do not wait for them to arrive; rank 0 looks for them
    between its own training steps.

    Args:
        comm: all ranks; only messages of this class may travel on it.
        shares: the subdomains that each rank owns, by rank.
        epochs: passes over the images in all trainings of a local CNN.
    """

    def __init__(self, comm: Communicator, shares: Sequence[range], epochs: int) -> None:
        self._comm = comm.mpi
        self._pace = Pace(len(shares[comm.rank]))
        self.standing = Standing(shares, epochs)
        """Of all subdomains, on rank 0."""
        self._next_send = time.monotonic()
        self._next_line = self._next_send + LINE_SECONDS
        self._sending: list[MPI.Request] = []
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._comm.rank != 0:
            return self  # the others need not import what shows tables
        from rich.live import Live

        from ddhpc.terminal import console, is_terminal

        if is_terminal():
            self._live = Live(console=console(), auto_refresh=False, transient=True).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def step(self, subdomain: int, fraction: float, accuracy: Accuracy) -> None:
        """Note that `fraction` of the steps of `subdomain` are done, at this accuracy.

        Cheap: called after every step, it does something every half second.
        """
        self._pace.step(subdomain, fraction)
        if time.monotonic() < self._next_send and fraction < 1:
            return
        self._next_send = time.monotonic() + SEND_SECONDS
        if self._comm.rank == 0:
            self.standing.note(0, subdomain, fraction, accuracy, self._pace.left())
            self.show()
        else:
            self._sending = [request for request in self._sending if not request.Test()]
            news = np.array([subdomain, fraction, *accuracy, self._pace.left()])
            self._sending.append(self._comm.Isend(news, dest=0, tag=NEWS))

    def show(self) -> None:
        """Take in what other ranks sent and refresh the display; does nothing on other ranks than 0."""
        if self._comm.rank != 0:
            return
        from mpi4py import MPI

        news, status = np.empty(5), MPI.Status()
        while self._comm.Iprobe(tag=NEWS, status=status):
            self._comm.Recv(news, source=status.source, tag=NEWS)
            subdomain, fraction, train, val, left = news.tolist()
            self.standing.note(status.source, int(subdomain), fraction, Accuracy(train, val), left)
        if self._live:
            self._live.update(self.standing.table(), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(self.standing.line(), flush=True)

    def stop(self) -> None:
        """Tell all other ranks that this one stops, so that they do not train on alone."""
        for rank in set(range(self._comm.size)) - {self._comm.rank}:
            self._sending.append(self._comm.Isend(np.empty(0), dest=rank, tag=STOP))

    def stopped(self) -> bool:
        """Whether another rank has said that it stops."""
        return self._comm.Iprobe(tag=STOP)

    def finish(self) -> None:
        """After all ranks are done: take in the last messages, so that none is left under way."""
        while self._comm.rank == 0 and not self.standing.done:
            self.show()
        for request in self._sending:
            request.Wait()
