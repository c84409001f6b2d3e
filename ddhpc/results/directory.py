"""The run directory: what one training leaves behind."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from ddhpc.data.hdf5 import reason
from ddhpc.errors import InputError

FILE = "results.h5"
PART = "results.h5.part"
IDENTITY = "run.yaml"
RUNS = Path("runs")


@contextmanager
def file_system(path: Path) -> Iterator[None]:
    """Turn failures to write a path, which h5py raises as OSError or RuntimeError, into one clear line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}; expected a writable directory with space") from error


def run_directory(name: str, output: str | None, overwrite: bool, identity: Mapping[str, Any]) -> Path:
    """Make the run directory, or take the one of an unfinished run of the same identity.

    Args:
        name: of the recipe.
        output: what the user named, or None for a new directory `runs/NAME-DATE-TIME`, to which `runs/latest` points.
        overwrite: whether what `output` holds may be replaced: a finished run once the new one is finished,
            checkpoints at once.
        identity: all that the results depend on, nested dictionaries of plain values; kept in the directory.

    Raises:
        InputError: `output` holds a finished run or an unfinished one of another identity, or cannot be made.
    """
    if output is None:
        directory = _new_directory(name)
    else:
        directory = Path(output)
        with file_system(directory):
            directory.mkdir(parents=True, exist_ok=True)
    with file_system(directory):
        if overwrite:
            shutil.rmtree(directory / "checkpoints", ignore_errors=True)
            (directory / IDENTITY).unlink(missing_ok=True)
        elif is_finished(directory):
            raise InputError(f"--output {output}: holds a finished run; expected another directory, or --overwrite")
        elif (directory / IDENTITY).exists():
            _check_identity(directory, identity)
            return directory
        # Renamed into place, since the tasks of a job array may all start with this at once.
        part = directory / f".{IDENTITY}-{socket.gethostname()}-{os.getpid()}"
        part.write_text(yaml.safe_dump(dict(identity), sort_keys=False))
        part.replace(directory / IDENTITY)
    return directory


def _check_identity(directory: Path, identity: Mapping[str, Any]) -> None:
    """InputError that names what differs from the run that the directory holds."""
    found, wanted = (_flat(each) for each in (yaml.safe_load((directory / IDENTITY).read_text()), identity))
    changed = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if changed:
        shown = ", ".join(f"{key} was {found.get(key)} and is now {wanted.get(key)}" for key in changed)
        raise InputError(
            f"--output {directory}: holds an unfinished run that is not this one: {shown}; expected the same, "
            "another directory, or --overwrite to start anew"
        )


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _new_directory(name: str) -> Path:
    with file_system(RUNS):
        RUNS.mkdir(exist_ok=True)
        stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        for number in count():
            directory = RUNS / (f"{stem}-{number}" if number else stem)
            try:
                directory.mkdir()
                break
            except FileExistsError:
                continue
        # Made beside and renamed, so that `latest` is never absent while another run starts.
        link = RUNS / f".latest-{os.getpid()}"
        link.symlink_to(directory.name)
        link.replace(RUNS / "latest")
    return directory


def is_finished(directory: Path) -> bool:
    """Whether the directory holds the results of a finished run."""
    return (directory / FILE).exists()
