"""A subdomain's state on disk: replaced atomically, checked by a checksum, the last two kept, nothing executable.

Each holds the fingerprint of the run that made it (`results.identity`), and no other run takes it for its own. It is
what `torch.save` writes, a ZIP archive, with the checksum as its comment: `torch.load` opens it.

torch is imported by saving and loading, not by `import ddhpc.results.checkpoint`: `verify` does without.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddhpc.data.hdf5 import replace
from ddhpc.errors import InputError

DIGEST_DIGITS = 64
RUN = "run"
FOLDER = "checkpoints"
PHASES = ("", "coherent")
"""Of a training that keep checkpoints, "" that of the local CNNs."""
NAME = re.compile(r"\d{5,}\.(pt|previous|part)")


def path(directory: Path, subdomain: int, phase: str = "") -> Path:
    """Where a run directory keeps the checkpoint of a subdomain, of a later phase than its own training if named."""
    return directory / FOLDER / phase / f"{subdomain:05}.pt"


def save(file: Path, state: dict[str, Any], run: str) -> None:
    """Replace a checkpoint and keep the one before it, ending in `.previous`; OSError leaves both as they are.

    Args:
        file: of the checkpoint; its directory is made.
        state: tensors, numbers, strings, and lists and dictionaries of them.
        run: fingerprint of the run.
    """
    import torch

    payload = io.BytesIO()
    torch.save({**state, RUN: run}, payload)
    data = payload.getbuffer()
    data[-2:] = DIGEST_DIGITS.to_bytes(2, "little")  # the length of the comment, which ends the archive
    part = file.with_suffix(".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.write(_digest(data))
            stream.flush()
            os.fsync(stream.fileno())  # where quotas and network file systems refuse
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if file.exists():
        file.replace(_previous(file))
    replace(part, file)


def load(file: Path, run: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, None without one; and a line for each that is damaged.

    Raises InputError for a whole one of another run than that with the fingerprint `run`.
    """
    import torch

    damaged: list[str] = []
    for candidate in (file, _previous(file)):
        if not candidate.exists():
            continue
        data = candidate.read_bytes()
        if _is_whole(data):
            try:
                state = torch.load(io.BytesIO(data), weights_only=True)
            except Exception:  # content of others may fail in any way
                state = None
            if not isinstance(state, dict) or state.pop(RUN, None) != run:
                raise InputError(
                    f"{candidate}: is of another run than this one; expected another --output, or --overwrite to start "
                    "anew"
                )
            return state, damaged
        damaged.append(_complaint(candidate))
    return None, damaged


def verify(directory: Path) -> list[str]:
    """A line for each checkpoint of a run directory that is damaged."""
    damaged = []
    for file in _all(directory):
        with suppress(FileNotFoundError):  # a running job has just replaced it
            if not _is_whole(file.read_bytes()):
                damaged.append(_complaint(file))
    return damaged


def check(directory: Path, run: str) -> None:
    """InputError where the checkpoints of a directory are of another run than that with the fingerprint `run`."""
    for file in _all(directory):
        if file.suffix == ".pt":
            load(file, run)


def foreign(directory: Path) -> str:
    """The first entry among the checkpoints of a directory that is none; empty if there is no such entry."""
    for phase in PHASES:
        folder = directory / FOLDER / phase
        if os.path.lexists(folder) and not folder.is_dir():
            return str(folder.relative_to(directory))
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not NAME.fullmatch(entry.name) and not (phase == "" and entry.name in PHASES):
                return str(entry.relative_to(directory))
    strange = (file for file in _all(directory) if file.is_dir() or not _is_whole(file.read_bytes()))
    return next((str(file.relative_to(directory)) for file in strange), "")


def remove_all(directory: Path) -> None:
    """Remove the checkpoints of a directory, and nothing else; OSError where that cannot be."""
    for phase in reversed(PHASES):
        folder = directory / FOLDER / phase
        for entry in folder.glob("*") if folder.is_dir() else ():
            if NAME.fullmatch(entry.name):
                entry.unlink()
        if phase and folder.is_dir() and not folder.is_symlink():
            with suppress(OSError):  # somebody keeps files there too
                folder.rmdir()


def step_back(file: Path) -> None:
    """Give the newest checkpoint up for the one before it, if any."""
    before = _previous(file)
    if before.exists():
        before.replace(file)
    else:
        file.unlink()


def _all(directory: Path) -> list[Path]:
    """The checkpoints of all phases, each with the one before it."""
    folders = [directory / FOLDER / phase for phase in PHASES]
    return sorted(file for folder in folders for kind in ("*.pt", "*.previous") for file in folder.glob(kind))


def _is_whole(data: bytes) -> bool:
    return _digest(memoryview(data)[:-DIGEST_DIGITS]) == data[-DIGEST_DIGITS:]


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _complaint(file: Path) -> str:
    return f"{file}: damaged, its checksum differs"


def _previous(file: Path) -> Path:
    return file.with_suffix(".previous")
