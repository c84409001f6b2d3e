"""Progress of all subdomains on rank 0: live on a terminal, plain lines in a log. Nobody waits for it."""

from __future__ import annotations

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

from ddhpc.visible import visible

if TYPE_CHECKING:
    from mpi4py import MPI

NEWS, STOP = 0, 1
SEND_SECONDS = 0.5
LINE_SECONDS = 10.0


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


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """Collects how far each subdomain is, and shows slowest, mean and fastest on rank 0.

    Other ranks send three numbers every half second at most and do not wait for them to arrive; rank 0 looks for them
    between its own training steps.

    Args:
        comm: all ranks; only messages of this class may travel on it.
        shares: the subdomains that each rank owns, by rank.
        epochs: passes over the images in all trainings of a local CNN.
    """

    def __init__(self, comm: MPI.Comm, shares: Sequence[range], epochs: int) -> None:
        self._comm, self._shares, self._epochs = comm, shares, epochs
        self._first = shares[0].start
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
        if time.monotonic() < self._next_send and fraction < 1:
            return
        self._next_send = time.monotonic() + SEND_SECONDS
        if self._comm.rank == 0:
            self._note(subdomain, fraction, accuracy)
            self.show()
        else:
            self._sending = [request for request in self._sending if not request.Test()]
            self._sending.append(self._comm.Isend(np.array([subdomain, fraction, accuracy]), dest=0, tag=NEWS))

    def show(self) -> None:
        """Take in what other ranks sent and refresh the display; does nothing on other ranks than 0."""
        if self._comm.rank != 0:
            return
        message = np.empty(3)
        while self._comm.Iprobe(tag=NEWS):
            self._comm.Recv(message, tag=NEWS)
            self._note(int(message[0]), *message[1:])
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

    def _note(self, subdomain: int, fraction: float, accuracy: float) -> None:
        self._fraction[subdomain - self._first], self._accuracy[subdomain - self._first] = fraction, accuracy

    def _left(self) -> str:
        elapsed = time.monotonic() - self._started
        fractions = np.split(self._fraction, [share.stop - self._first for share in self._shares[:-1]])
        done = min(fraction.mean() for fraction in fractions if len(fraction))
        return clock(elapsed * (1 - done) / done) if done > 0 else "?"

    def _line(self) -> str:
        slowest, fastest = int(self._fraction.argmin()), int(self._fraction.argmax())
        seen = self._accuracy[np.isfinite(self._accuracy)]
        accuracy = f", training accuracy {seen.min():.1%} to {seen.max():.1%}" if len(seen) else ""
        epochs = self._fraction * self._epochs
        elapsed = clock(time.monotonic() - self._started)
        return (
            f"  {elapsed}  local CNNs {self._fraction.mean():.0%}: epoch {epochs.mean():.1f} of {self._epochs} "
            f"(slowest, subdomain {self._first + slowest}: {epochs[slowest]:.1f}; "
            f"fastest, subdomain {self._first + fastest}: {epochs[fastest]:.1f}){accuracy}, {self._left()} left"
        )

    def _table(self) -> Table:
        elapsed = clock(time.monotonic() - self._started)
        table = Table(title=f"local CNNs  {elapsed} elapsed, {self._left()} left", title_justify="left", min_width=60)
        for column in ("", "subdomain", "epoch", "training accuracy", ""):
            table.add_column(column, justify="right")
        order = np.argsort(self._fraction, kind="stable")
        seen = self._accuracy[np.isfinite(self._accuracy)]
        rows = [
            ("slowest", str(self._first + order[0]), self._fraction[order[0]], self._accuracy[order[0]]),
            ("mean", "", self._fraction.mean(), seen.mean() if len(seen) else np.nan),
            ("fastest", str(self._first + order[-1]), self._fraction[order[-1]], self._accuracy[order[-1]]),
        ]
        for name, subdomain, fraction, accuracy in rows:
            shown = f"{accuracy:.1%}" if np.isfinite(accuracy) else "-"
            bar = "━" * round(20 * fraction) + "╌" * (20 - round(20 * fraction))
            table.add_row(name, subdomain, f"{fraction * self._epochs:.1f} / {self._epochs}", shown, bar)
        return table
