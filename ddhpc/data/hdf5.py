"""HDF5 files that are read without locks, appear whole or not at all, and hold strings of fixed length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from ddhpc.errors import InputError

Item = TypeVar("Item")

MOST_OBJECTS, MOST_NESTED = 1000, 20
MOST_COMPRESSION = 2000
"""Times by which stored values may be smaller than they are; DEFLATE's limit is 1,032."""
MOST_SHOWN = 40
MOST_BYTES = 2**20
"""Of a single element, such as a name."""


def check_self_contained(file: h5py.File) -> None:
    """ValueError where something in a file comes from elsewhere, or is far larger than what is stored.

    External storage, links to other files and virtual datasets would bring other files of the machine into results;
    datasets that are declared but not stored would take any memory.
    """
    links: list[tuple[bytes, int]] = []

    def note(name: bytes, info: h5py.h5l.LinkInfo) -> bool | None:
        links.append((name, info.type))
        return True if len(links) > MOST_OBJECTS or name.count(b"/") > MOST_NESTED else None

    # What is raised within visit would not come out of it, so that nothing but names is taken there.
    if file.id.links.visit(note, info=True):
        raise ValueError(f"more than {MOST_OBJECTS:,} objects, or nested more than {MOST_NESTED} deep")
    size, stored = file.id.get_filesize(), 0
    for name, kind in [(b"/", h5py.h5l.TYPE_HARD), *links]:
        shown = f"/{name.decode(errors='backslashreplace').lstrip('/')}"
        if kind != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{shown} is a link to elsewhere, expected all data in the file itself")
        found = file[name]
        try:
            for attribute_name in found.attrs:
                found.attrs.get_id(attribute_name).dtype  # noqa: B018
            if not isinstance(found, h5py.Dataset):
                continue
            itemsize, samples = found.dtype.itemsize, (found.shape or (1,))[0]
        except (TypeError, SystemError, UnicodeDecodeError) as error:
            raise ValueError(f"{shown} is of a type that is not known here") from error
        if found.id.get_create_plist().get_external_count() or found.is_virtual:
            raise ValueError(f"{shown} is stored in another file, expected all data in the file itself")
        own = found.id.get_storage_size()
        stored += own
        if found.nbytes > MOST_COMPRESSION * (own + 64) or max(samples, stored) > size or itemsize > MOST_BYTES:
            raise ValueError(f"{shown} is declared as {found.shape}, of which most is not there")


def attribute(item: h5py.HLObject, name: str, kind: type[Item]) -> Item | None:
    """An attribute of the wanted type; None where there is none, or one of another type or shape."""
    try:
        value = item.attrs.get(name)
    except (OSError, TypeError, ValueError, UnicodeDecodeError):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    value = float(value) if kind is float and type(value) is int else value
    return value if isinstance(value, kind) else None


def shown_attribute(item: h5py.HLObject, name: str) -> str:
    """An attribute in a message, whatever it is."""
    try:
        return f"{item.attrs.get(name)}"[:MOST_SHOWN]
    except (OSError, TypeError, ValueError):
        return "something unreadable"


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Opens a file read-only, without a lock, since parallel file systems may not offer any.

    Raises InputError, naming the file, where it or something asked of it is missing or damaged.
    """
    check_regular(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}; expected an intact HDF5 file") from error


def check_regular(path: Path) -> None:
    """InputError for a pipe or a device, which reading might never come to an end of."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise InputError(f"{path}: is no regular file; expected an HDF5 file")


def check_output(path: Path, *, overwrite: bool, option: str = "--output") -> None:
    """Raises InputError, naming the option, where no file can take the path; a regular one there needs `overwrite`."""
    if os.path.isdir(path):
        raise InputError(f"{option} {path}: is a directory; expected the name of a file")
    if not os.path.isdir(path.parent):
        raise InputError(f"{option} {path}: there is no directory {path.parent}; create it first")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"{option} {path}: is no regular file; expected the name of a file")
    if os.path.exists(path) and not overwrite:
        raise InputError(f"{option} {path}: exists; choose another name, or --overwrite to replace it")


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
    if length:
        data = [value[:length].decode(errors="ignore").encode() for value in data]  # no half letters
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
    text = " ".join(str(error).split())
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""  # as a KeyError's is
    return text[1:-1] if quoted else text


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
