"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable


def by(sizes: Iterable[int]) -> str:
    """Sizes as 4x4x2."""
    return "x".join(str(int(size)) for size in sizes)


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 rank, 16 ranks."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def percent(share: float) -> str:
    """A share as 89.4 %."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds with as many digits as tell something."""
    return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.1f} s"


def mebibytes(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:,.1f} MiB"
