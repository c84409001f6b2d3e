"""Numbers and names as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

__all__ = ["by", "duration", "listed", "mebibytes", "percent", "plural", "shortened"]

LABEL_LENGTH = 20
"""Letters of a name that fits beside a figure."""


def by(sizes: Iterable[int]) -> str:
    """Sizes as 4x4x2."""
    return "x".join(str(int(size)) for size in sizes)


def percent(share: float) -> str:
    """A share as 89.4 %."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds with as many digits as tell something."""
    if isnan(seconds):
        return "not timed"
    return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.1f} s"


def mebibytes(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:,.1f} MiB"


def listed(names: Sequence[str], most: int = 3) -> str:
    """A few names, and how many more there are: "cat, dog, frog and 5 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """A number and its noun: "1 file", "2,062 files"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def shortened(name: str) -> str:
    """A name that fits beside a figure."""
    return name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…"
