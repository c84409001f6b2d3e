"""The run directory: what one training leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from ddhpc.data.hdf5 import reason
from ddhpc.errors import InputError

FILE = "results.h5"
PART = "results.h5.part"
RUNS = Path("runs")


@contextmanager
def file_system(path: Path) -> Iterator[None]:
    """Turn failures to write a path, which h5py raises as OSError or RuntimeError, into one clear line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}; expected a writable directory with space") from error


def run_directory(name: str, output: str | None, overwrite: bool, rank: int) -> str:
    """Make the run directory on rank 0 and give its path; an empty text on other ranks.

    Args:
        name: of the recipe.
        output: what the user named, or None for a new directory `runs/NAME-DATE-TIME`, to which `runs/latest` points.
        overwrite: whether a finished run in `output` may be replaced.

    Raises:
        InputError: `output` holds a finished run, or the directory cannot be made.
    """
    if rank != 0:
        return ""
    if output is not None:
        directory = Path(output)
        with file_system(directory):
            directory.mkdir(parents=True, exist_ok=True)
        if is_finished(directory) and not overwrite:
            raise InputError(f"--output {output}: holds a finished run; expected another directory, or --overwrite")
        return output
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
    return str(directory)


def is_finished(directory: Path) -> bool:
    """Whether the directory holds the results of a finished run."""
    return (directory / FILE).exists()
