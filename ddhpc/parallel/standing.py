"""How far the local CNNs are, and when they will be done."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

SURE_SECONDS = 10.0
"""Training from which on a rank estimates what is left: the first steps are slow."""


class Accuracy(NamedTuple):
    """Of a CNN in training; NaN where it is not known yet."""

    train: float = math.nan
    """In its last epoch."""
    val: float = math.nan
    """In its last validation."""


def as_clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss.

    Example:
        >>> as_clock(65), as_clock(3725)
        ('1:05', '1:02:05')
    """
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


class Standing:
    """How far each subdomain is, as rank 0 knows it: how many are done, and slowest and fastest of the others.

    Args:
        shares: the subdomains that each rank owns, by rank.
        epochs: passes over the images in all trainings of a local CNN.
    """

    def __init__(self, shares: Sequence[range], epochs: int) -> None:
        self.epochs = epochs
        self.first = shares[0].start
        """Number of the first subdomain."""
        self.fraction = np.zeros(shares[-1].stop - self.first)
        """[n] float64, of the steps of each subdomain."""
        self.accuracy = np.full((len(self.fraction), 2), np.nan)
        """[n, 2] float64, `Accuracy` of each subdomain."""
        self.left = np.array([np.nan if share else 0.0 for share in shares])
        """[R] float64, seconds that each rank still needs; NaN where it cannot tell yet."""
        self.started = time.monotonic()

    def note(self, rank: int, subdomain: int, fraction: float, accuracy: Accuracy, left: float) -> None:
        """Take in how far a subdomain of a rank is, and the seconds that the rank still needs."""
        n = subdomain - self.first
        self.fraction[n], self.accuracy[n], self.left[rank] = fraction, accuracy, left

    @property
    def done(self) -> bool:
        """Whether all subdomains are."""
        return bool(self.fraction.min() == 1)

    def time_left(self) -> str:
        """Of the slowest rank."""
        return "estimating the time" if np.isnan(self.left).any() else as_clock(self.left.max())

    def _training(self) -> np.ndarray:
        """Subdomains that are in training, the slowest first, counted from the first of this job."""
        order = np.argsort(self.fraction, kind="stable")
        return order[(self.fraction[order] > 0) & (self.fraction[order] < 1)]

    def _counts(self) -> str:
        done, training = int((self.fraction == 1).sum()), len(self._training())
        counts = {"done": done, "in training": training, "waiting": len(self.fraction) - done - training}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    def _extremes(self) -> list[tuple[str, int]]:
        training = self._training().tolist()
        return list(zip(("slowest", "fastest"), [*training[:1], *training[1:][-1:]], strict=False))

    def _epoch(self, n: int) -> str:
        return f"{self.fraction[n] * self.epochs:.1f} of {self.epochs}"

    def line(self) -> str:
        """One line for a log."""
        shown = ", ".join(f"{name} subdomain {self.first + n}: epoch {self._epoch(n)}" for name, n in self._extremes())
        details = f" ({shown})" if shown else ""
        accuracy = ""
        for name, shares in zip(("training accuracy", "on val"), self.accuracy.T, strict=True):
            if len(seen := shares[np.isfinite(shares)]):
                accuracy += f", {name} {seen.min():.1%} to {seen.max():.1%}"
        elapsed = as_clock(time.monotonic() - self.started)
        return (
            f"  {elapsed}  local CNNs {self.fraction.mean():.0%}: {self._counts()}{details}{accuracy}, "
            f"{self.time_left()} left"
        )

    def table(self) -> Table:
        """What a person watches."""
        from rich.table import Table

        elapsed = as_clock(time.monotonic() - self.started)
        title = f"local CNNs  {elapsed} elapsed, {self.time_left()} left"
        table = Table(title=title, title_justify="left", min_width=60)
        for column in ("", "subdomain", "epoch", "training accuracy", "on val", ""):
            table.add_column(column, justify="right")
        for name, n in self._extremes():
            shares = (f"{share:.1%}" if np.isfinite(share) else "-" for share in self.accuracy[n])
            table.add_row(name, str(self.first + n), self._epoch(n), *shares, bar(self.fraction[n]))
        table.add_row("all", self._counts(), "", "", "", bar(self.fraction.mean()))
        return table


def bar(fraction: float) -> str:
    """A fraction as a bar of 20 characters."""
    return "━" * round(20 * fraction) + "╌" * (20 - round(20 * fraction))
