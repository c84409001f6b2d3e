"""Progress of all subdomains on rank 0: live on a terminal, plain lines in a log. Nobody waits for it."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ddhpc.parallel.communicator import Communicator
from ddhpc.visible import visible

if TYPE_CHECKING:
    from mpi4py import MPI

NEWS, STOP = 0, 1
SEND_SECONDS = 0.5
LINE_SECONDS = 10.0
SURE_SECONDS = 10.0
"""Training from which on a rank estimates what is left: the first steps are slow."""


def is_terminal() -> bool:
    """Whether a person watches standard output.

    Open MPI gives every rank a pseudo-terminal, even into a file, but only a real one has a width.
    """
    return sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0


class PlainConsole(Console):
    """Shows text as it is: no markup, no emoji codes, and no hidden characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich; called for each text that is printed, also in tables."""
        return super().render_str(visible(text), **options)


def console() -> Console:
    """Where tables go: in colour on a terminal, plain text of 120 columns elsewhere."""
    return PlainConsole() if is_terminal() else PlainConsole(width=120, color_system=None)


def as_clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Pace:
    """How fast a rank has been in this job, and how long it will take for the rest of its subdomains.

    What an earlier job did counts as done and not as fast.
    """

    def __init__(self, subdomains: int) -> None:
        self._subdomains, self._began = subdomains, math.nan
        self._fraction: dict[int, float] = {}
        self._gained = 0.0

    def step(self, subdomain: int, fraction: float) -> None:
        """Note how far a subdomain is; the first note of one says what was there."""
        if math.isnan(self._began) and fraction < 1:
            self._began = time.monotonic()
        self._gained += fraction - self._fraction.get(subdomain, fraction)
        self._fraction[subdomain] = fraction

    def left(self) -> float:
        """Seconds, NaN where that is too early to say."""
        rest = self._subdomains - sum(self._fraction.values())
        if rest <= 0:
            return 0.0
        seconds = time.monotonic() - self._began
        return seconds * rest / self._gained if seconds >= SURE_SECONDS and self._gained > 0 else math.nan


class Progress:
    """Collects how far each subdomain is, and shows on rank 0 how many are done, and slowest and fastest of the others.

    Other ranks send four numbers every half second at most and do not wait for them to arrive; rank 0 looks for them
    between its own training steps.

    Args:
        comm: all ranks; only messages of this class may travel on it.
        shares: the subdomains that each rank owns, by rank.
        epochs: passes over the images in all trainings of a local CNN.
    """

    def __init__(self, comm: Communicator, shares: Sequence[range], epochs: int) -> None:
        self._comm, self._epochs = comm.mpi, epochs
        self._first = shares[0].start
        self._pace = Pace(len(shares[comm.rank]))
        self._left = np.array([np.nan if share else 0.0 for share in shares])
        self._fraction = np.zeros(shares[-1].stop - self._first)
        self._accuracy = np.full(shares[-1].stop - self._first, np.nan)
        self._started = self._next_send = time.monotonic()
        self._next_line = self._started + LINE_SECONDS
        self._sending: list[MPI.Request] = []
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._comm.rank == 0 and is_terminal():
            self._live = Live(console=console(), auto_refresh=False, transient=True).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def step(self, subdomain: int, fraction: float, accuracy: float) -> None:
        """Note that `fraction` of the steps of `subdomain` are done, at this accuracy on the training images.

        Cheap: called after every step, it does something every half second.
        """
        self._pace.step(subdomain, fraction)
        if time.monotonic() < self._next_send and fraction < 1:
            return
        self._next_send = time.monotonic() + SEND_SECONDS
        news = np.array([subdomain, fraction, accuracy, self._pace.left()])
        if self._comm.rank == 0:
            self._note(0, news)
            self.show()
        else:
            self._sending = [request for request in self._sending if not request.Test()]
            self._sending.append(self._comm.Isend(news, dest=0, tag=NEWS))

    def show(self) -> None:
        """Take in what other ranks sent and refresh the display; does nothing on other ranks than 0."""
        if self._comm.rank != 0:
            return
        from mpi4py import MPI

        news, status = np.empty(4), MPI.Status()
        while self._comm.Iprobe(tag=NEWS, status=status):
            self._comm.Recv(news, source=status.source, tag=NEWS)
            self._note(status.source, news)
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(self._line(), flush=True)

    def stop(self) -> None:
        """Tell all other ranks that this one stops, so that they do not train on alone."""
        for rank in set(range(self._comm.size)) - {self._comm.rank}:
            self._sending.append(self._comm.Isend(np.empty(0), dest=rank, tag=STOP))

    def stopped(self) -> bool:
        """Whether another rank has said that it stops."""
        return self._comm.Iprobe(tag=STOP)

    def finish(self) -> None:
        """After all ranks are done: take in the last messages, so that none is left under way."""
        while self._comm.rank == 0 and self._fraction.min() < 1:
            self.show()
        for request in self._sending:
            request.Wait()

    def _note(self, rank: int, news: np.ndarray) -> None:
        subdomain = int(news[0]) - self._first
        self._fraction[subdomain], self._accuracy[subdomain], self._left[rank] = news[1:]

    def _time_left(self) -> str:
        return "estimating the time" if np.isnan(self._left).any() else as_clock(self._left.max())

    def _training(self) -> np.ndarray:
        """Subdomains that are in training, the slowest first, counted from the first of this job."""
        order = np.argsort(self._fraction, kind="stable")
        return order[(self._fraction[order] > 0) & (self._fraction[order] < 1)]

    def _counts(self) -> str:
        done, training = int((self._fraction == 1).sum()), len(self._training())
        counts = {"done": done, "in training": training, "waiting": len(self._fraction) - done - training}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    def _extremes(self) -> list[tuple[str, int]]:
        training = self._training().tolist()
        return list(zip(("slowest", "fastest"), [*training[:1], *training[1:][-1:]], strict=False))

    def _epoch(self, n: int) -> str:
        return f"{self._fraction[n] * self._epochs:.1f} of {self._epochs}"

    def _line(self) -> str:
        shown = ", ".join(f"{name} subdomain {self._first + n}: epoch {self._epoch(n)}" for name, n in self._extremes())
        details = f" ({shown})" if shown else ""
        seen = self._accuracy[np.isfinite(self._accuracy)]
        accuracy = f", training accuracy {seen.min():.1%} to {seen.max():.1%}" if len(seen) else ""
        elapsed = as_clock(time.monotonic() - self._started)
        return (
            f"  {elapsed}  local CNNs {self._fraction.mean():.0%}: {self._counts()}{details}{accuracy}, "
            f"{self._time_left()} left"
        )

    def _table(self) -> Table:
        elapsed = as_clock(time.monotonic() - self._started)
        title = f"local CNNs  {elapsed} elapsed, {self._time_left()} left"
        table = Table(title=title, title_justify="left", min_width=60)
        for column in ("", "subdomain", "epoch", "training accuracy", ""):
            table.add_column(column, justify="right")
        for name, n in self._extremes():
            accuracy = f"{self._accuracy[n]:.1%}" if np.isfinite(self._accuracy[n]) else "-"
            table.add_row(name, str(self._first + n), self._epoch(n), accuracy, bar(self._fraction[n]))
        table.add_row("all", self._counts(), "", "", bar(self._fraction.mean()))
        return table


def bar(fraction: float) -> str:
    """A fraction as a bar of 20 characters."""
    return "━" * round(20 * fraction) + "╌" * (20 - round(20 * fraction))
