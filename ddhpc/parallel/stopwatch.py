"""Seconds of the phases of a training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Phase = Literal["read", "local", "all_local", "write", "gather", "coarse", "coherent"]


@dataclass(kw_only=True)
class PhaseSeconds:
    """Seconds that a rank spends in the phases of a training."""

    startup: float = 0.0
    """Before the training, from the start of the process."""
    read: float = 0.0
    """Reading of windows for the local problems."""
    local: float = 0.0
    """Its own local problems, reading included."""
    all_local: float = 0.0
    """Until the local problems of all ranks are solved."""
    write: float = 0.0
    gather: float = 0.0
    coarse: float = 0.0
    coherent: float = 0.0

    @property
    def train(self) -> float:
        """Its own local problems without reading."""
        return self.local - self.read

    @property
    def wait(self) -> float:
        """For the local problems of other ranks."""
        return self.all_local - self.local


class Stopwatch:
    """Measures the phases of this rank, and the time since it was made."""

    def __init__(self, startup: float = 0.0) -> None:
        self.started = time.perf_counter()
        self.seconds = PhaseSeconds(startup=startup)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Add the seconds of the `with` block to a phase."""
        started = time.perf_counter()
        yield
        setattr(self.seconds, phase, getattr(self.seconds, phase) + time.perf_counter() - started)

    def elapsed(self) -> float:
        """Seconds since the start of the process."""
        return self.seconds.startup + time.perf_counter() - self.started
