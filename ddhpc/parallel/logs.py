"""What a rank says: its log file, and warnings on standard error."""

from __future__ import annotations

import logging
from pathlib import Path

from ddhpc.errors import InputError
from ddhpc.visible import complain

log = logging.getLogger("ddhpc")
"""What this rank does; goes nowhere unless `log_to` says where."""
log.addHandler(logging.NullHandler())
log.propagate = False


def log_to(directory: Path, rank: int) -> None:
    """Write what this rank does to `rank-NNNNN.log` in a directory, which is made; InputError if that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(directory / f"rank-{rank:05}.log")
    except OSError as error:
        raise InputError(
            f"--log-dir {directory}: {error.strerror}; expected a directory that can be written"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def warn(message: str) -> None:
    """One line on standard error, for what the job survives; called on the one rank that it concerns."""
    log.warning(message)
    complain(f"ddhpc: warning: {message}")
