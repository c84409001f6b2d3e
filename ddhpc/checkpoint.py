"""A subdomain's state on disk: replaced atomically, checked by a checksum, the last two kept, nothing executable.

torch is imported by saving and loading, not by `import ddhpc.checkpoint`: `verify` does without.
"""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddhpc.data.hdf5 import replace

DIGEST_BYTES = 32


def path(directory: Path, subdomain: int, phase: str = "") -> Path:
    """Where a run directory keeps the checkpoint of a subdomain, of a later phase than its own training if named."""
    return directory / "checkpoints" / phase / f"{subdomain:05}.pt"


def save(file: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint and keep the one before it, ending in `.previous`; OSError leaves both as they are.

    Args:
        file: of the checkpoint; its directory is made.
        state: tensors, numbers, strings, and lists and dictionaries of them.
    """
    import torch

    payload = io.BytesIO()
    torch.save(state, payload)
    data = payload.getbuffer()
    part = file.with_suffix(".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as stream:
            stream.write(hashlib.sha256(data).digest())
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())  # where quotas and network file systems refuse
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if file.exists():
        file.replace(_previous(file))
    replace(part, file)


def load(file: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, None without one; and a line for each that is damaged."""
    import torch

    damaged: list[str] = []
    for candidate in (file, _previous(file)):
        if not candidate.exists():
            continue
        data = candidate.read_bytes()
        if _is_whole(data):
            state: dict[str, Any] = torch.load(io.BytesIO(data[DIGEST_BYTES:]), weights_only=True)
            return state, damaged
        damaged.append(_complaint(candidate))
    return None, damaged


def verify(directory: Path) -> list[str]:
    """A line for each checkpoint of a run directory that is damaged."""
    files = sorted(file for kind in ("*.pt", "*.previous") for file in directory.glob(f"checkpoints/{kind}"))
    damaged = []
    for file in files:
        with suppress(FileNotFoundError):  # a running job has just replaced it
            if not _is_whole(file.read_bytes()):
                damaged.append(_complaint(file))
    return damaged


def step_back(file: Path) -> None:
    """Give the newest checkpoint up for the one before it, if any."""
    before = _previous(file)
    if before.exists():
        before.replace(file)
    else:
        file.unlink()


def _is_whole(data: bytes) -> bool:
    return hashlib.sha256(data[DIGEST_BYTES:]).digest() == data[:DIGEST_BYTES]


def _complaint(file: Path) -> str:
    return f"{file}: damaged, its checksum differs"


def _previous(file: Path) -> Path:
    return file.with_suffix(".previous")
