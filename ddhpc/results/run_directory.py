"""The run directory: what one training leaves behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import yaml

from ddhpc import config
from ddhpc.data.hdf5 import reason, replace
from ddhpc.errors import InputError
from ddhpc.results import checkpoint, scalars
from ddhpc.results.identity import differences, fingerprint
from ddhpc.results.model_directory import foreign_model
from ddhpc.yaml_file import read_yaml

FILE = "results.h5"
PART = "results.h5.part"
IDENTITY = "run.yaml"
JOBS = "jobs.jsonl"
"""A line for each job that worked on the run."""
RUNS = Path("runs")
FOREIGN = "foreign"


@contextmanager
def file_system(path: Path) -> Iterator[None]:
    """Turn failures to write a path, which h5py raises as OSError or RuntimeError, into one clear line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}; expected a writable directory with space") from error


def run_directory(name: str, output: str | None) -> Path:
    """Make the run directory, or take the one that the user named.

    Args:
        name: of the recipe.
        output: what the user named, or None for a new directory `runs/NAME-DATE-TIME`, to which `runs/latest` points.

    Raises:
        InputError: it cannot be made, or holds what is not of a run.
    """
    if output is None:
        return _new_directory(name)
    directory = Path(output)
    with file_system(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _check_ours(directory)
    return directory


def begin(directory: Path, identity: Mapping[str, Any], overwrite: bool) -> None:
    """Keep the identity in a run directory that is new or to be overwritten, or find it there.

    Args:
        directory: of the run.
        identity: see `identity.identity`.
        overwrite: whether what the directory holds may be replaced: a finished run once the new one is finished,
            checkpoints at once.

    Raises:
        InputError: it holds a finished run or an unfinished one of another identity, or cannot be written.
    """
    with file_system(directory):
        if overwrite:
            checkpoint.remove_all(directory)
            scalars.remove_all(directory)
            for left in (IDENTITY, JOBS):
                (directory / left).unlink(missing_ok=True)
        elif is_finished(directory):
            raise InputError(f"--output {directory}: holds a finished run; expected another directory, or --overwrite")
        elif (directory / IDENTITY).exists():
            _check_identity(directory, identity)
            return
        else:  # where run.yaml was lost, the checkpoints still tell
            checkpoint.check(directory, fingerprint(identity))
        # Renamed into place, since the tasks of a job array may all start with this at once.
        part = directory / f".{IDENTITY}-{socket.gethostname()}-{os.getpid()}"
        part.write_text(yaml.safe_dump(dict(identity), sort_keys=False))
        replace(part, directory / IDENTITY)


def _check_ours(directory: Path) -> None:
    """InputError where something in a directory has a name of ours and another maker: it would be overwritten."""
    known = _identity(directory)
    finished = (directory / FILE).exists()
    found = ""
    if known == FOREIGN:
        found = f"{IDENTITY} is not of a run"
    elif finished and not _is_results(directory / FILE):
        found = f"{FILE} is no results file of a run"
    elif known is None and not finished:
        if foreign := checkpoint.foreign(directory):
            found = f"{foreign} is no checkpoint of a run"
        elif (directory / PART).exists() and not _is_results(directory / PART):
            found = f"{PART} is no results file of a run"
    if not found and (foreign := foreign_model(directory)):
        found = f"{foreign} is no part of a model"
    if found:
        raise InputError(f"--output {directory}: {found}; expected a new directory, or that of a run")


def _is_results(path: Path) -> bool:
    """Whether a file is one of ours."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return "ddhpc_version" in file.attrs
    except OSError:
        return False


def _identity(directory: Path) -> Any:
    """What `run.yaml` holds: the identity, None where it is absent, or empty after a crash, else FOREIGN."""
    file = directory / IDENTITY
    found = read_yaml(file) if file.exists() and file.stat().st_size else None
    return found if found is None or (isinstance(found, dict) and set(config.IDENTITY) <= set(found)) else FOREIGN


def _check_identity(directory: Path, identity: Mapping[str, Any]) -> None:
    """InputError that names what differs from the run that the directory holds."""
    found = _identity(directory)
    if not isinstance(found, dict):
        raise InputError(f"{directory / IDENTITY}: is empty; expected what the run is; --overwrite starts it anew")
    changed = differences(found, identity)
    if changed:
        raise InputError(
            f"--output {directory}: holds an unfinished run that is not this one: {', '.join(changed)}; expected the "
            "same, another directory, or --overwrite to start anew"
        )


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
