"""Folders of files with one sub-folder a class: `<class>/*`, or `train|val|test/<class>/*`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a class."""

    path: Path
    id: str
    """Path relative to the folder, with slashes."""
    split: str
    """Empty where the folder has no splits."""
    label: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The classes of a folder in order of name, their files in order of path, and what was left out."""

    classes: tuple[str, ...]
    files: tuple[File, ...]
    skipped: Mapping[str, str]
    """Relative path and reason."""


def scan(folder: Path, endings: tuple[str, ...]) -> Folder:
    """Lists all files below the folder whose names have one of the endings (lower case, with the dot).

    Links are followed, but no directory is read twice. Hidden files, other endings and files in no class are
    named in `skipped`. Raises InputError, naming the folder, where there are less than two classes.
    """
    top = _directories(folder)
    splits = [split for split in SPLITS if split in top and _directories(folder / split)]
    if splits and "train" not in splits:
        raise InputError(f"{folder}: has {splits[0]}/ but no train/ with a directory for each class")
    parents = [folder / split for split in splits] or [folder]
    classes = sorted({name for parent in parents for name in _directories(parent)})
    if len(classes) < 2:
        raise InputError(
            f"{folder}: holds {len(classes)} class directories; "
            f"expected at least two, as <class>/* or train|val|test/<class>/*"
        )
    files, skipped = [], {}
    for path, reason in _walk(folder, endings, set()):
        parts = path.relative_to(folder).parts
        name = _text("/".join(parts))
        if not reason and splits and parts[0] not in splits:
            reason = f"outside of {', '.join(splits)}"
        if not reason and len(parts) < (3 if splits else 2):
            reason = "in no class directory"
        if reason:
            skipped[name] = reason
        else:
            split, label = (parts[0], parts[1]) if splits else ("", parts[0])
            files.append(File(path=path, id=name, split=split, label=classes.index(label)))
    return Folder(classes=tuple(map(_text, classes)), files=tuple(files), skipped=skipped)


def _text(name: str) -> str:
    """UTF-8, which file names need not be and HDF5 strings must."""
    return name.encode(errors="backslashreplace").decode()


def _directories(folder: Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; expected a directory of class directories") from error
    return [name for name in names if not name.startswith(".") and os.path.isdir(folder / name)]


def _walk(directory: Path, endings: tuple[str, ...], visited: set[str]) -> Iterator[tuple[Path, str]]:
    """Yields every file below the directory with the reason to leave it out, empty for a wanted one."""
    real = os.path.realpath(directory)
    if real in visited:
        yield directory, "link to a directory that is read already"
        return
    visited.add(real)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        yield directory, error.strerror or "cannot be listed"
        return
    for name in names:
        path = directory / name
        if name.startswith("."):
            yield path, "hidden"
        elif os.path.isdir(path):
            yield from _walk(path, endings, visited)
        elif not name.lower().endswith(endings):
            yield path, "other kind of file by its name"
        elif not os.path.isfile(path):
            yield path, "broken link or special file"
        else:
            yield path, ""
