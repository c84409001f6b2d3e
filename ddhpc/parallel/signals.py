"""Signals that ask a job to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Literal

from ddhpc.errors import Stopped
from ddhpc.parallel import launcher


class StopRequest:
    """Signals that ask the job to stop: SIGTERM, SIGINT, and the one that the scheduler sends ahead of the time limit.

    In the start-up, where there is nothing to save, all ranks leave at once. After `defer` the handler only records
    the signal, and the training loop looks at it; a second Ctrl-C interrupts at once. Signals come to the main thread
    alone; in another one nothing is asked for.

    Args:
        advance: the signal that the scheduler sends.
        leave: ends this process, or raises, in the start-up.
    """

    def __init__(self, advance: Literal["USR1", "USR2"], leave: Callable[[Stopped], None] = launcher.leave) -> None:
        self.signal = ""
        self._leave = leave
        self._names: tuple[str, ...] = ("SIGTERM", "SIGINT", f"SIG{advance}")
        self._deferred = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            self._names = ()
        self._before = {name: signal.signal(getattr(signal, name), self._note) for name in self._names}
        return self

    def __exit__(self, *failure: object) -> None:
        for name, handler in self._before.items():
            signal.signal(getattr(signal, name), handler)

    def defer(self) -> None:
        """From here on only record signals."""
        self._deferred = True

    def obey(self) -> None:
        """Raise Stopped if a signal was recorded."""
        if self.signal:
            raise Stopped(f"stopped by {self.signal}")

    def _note(self, number: int, frame: object) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        if not self._deferred:
            for name in self._names:
                signal.signal(getattr(signal, name), signal.SIG_IGN)
            self._leave(Stopped(f"stopped by {self.signal} in the start-up; continue with the same command"))
