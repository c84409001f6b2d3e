"""HDF5 files that are read without locks, appear whole or not at all, and hold strings of fixed length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ddhpc.errors import InputError


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Opens a file read-only, without a lock, since parallel file systems may not offer any.

    Raises InputError, naming the file, where it or something asked of it is missing or damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}; expected an intact HDF5 file") from error


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises InputError, naming --output, where no file can take the path; one there needs `overwrite`."""
    if os.path.isdir(path):
        raise InputError(f"--output {path}: is a directory; expected the name of a file")
    if not os.path.isdir(path.parent):
        raise InputError(f"--output {path}: there is no directory {path.parent}; create it first")
    if os.path.exists(path) and not overwrite:
        raise InputError(f"--output {path}: exists; choose another name, or --overwrite to replace it")


@contextmanager
def writing(path: Path) -> Iterator[h5py.File]:
    """Creates a file beside the path, ending in `.part`, that takes the path once it is whole and synced.

    Raises InputError, naming the option --output, where the file system refuses.
    """
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w", locking=False) as file:
            yield file
        replace(part, path)
    except (OSError, RuntimeError) as error:
        raise InputError(f"--output {path}: cannot be written: {reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def replace(part: Path, path: Path) -> None:
    """Gives a closed file its final name, so that after a crash the name holds the old file or the new one, whole."""
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def text(values: Sequence[str], length: int = 0) -> np.ndarray:
    """Strings as fixed-length UTF-8 [n], which every HDF5 library can read and MPI programs can write in parallel.

    `length` is in bytes, longer strings are cut; 0 is that of the longest.
    """
    data = [value.encode() for value in values]
    return np.array(data, dtype=h5py.string_dtype("utf-8", length or max([1, *map(len, data)])))


def utf8(text: str) -> str:
    """A text fit for HDF5 and for terminals: bytes of file names that are not UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def decoded(stored: h5py.Dataset) -> list[str]:
    """The strings of a dataset of fixed-length UTF-8 [n]."""
    return [value.decode() for value in stored[...].tolist()]


def reason(error: Exception) -> str:
    """Why the file system or HDF5 refused, in one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split()).strip("'\"")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
