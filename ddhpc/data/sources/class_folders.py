"""Folders of files with one sub-folder a class: `<class>/*`, or `train|val|test/<class>/*`, or other usual names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddhpc.data.hdf5 import utf8
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of directories, in any case, that hold the class directories of a split."""
HIDDEN, OTHER_NAME = "hidden", "other kind of file by its name"
READ_ALREADY = "link to a directory that is read already"


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


def scan(folder: Path, endings: tuple[str, ...], *, training: bool = True) -> Folder:
    """Lists all files below the folder whose names have one of the endings (lower case, with the dot).

    Links are followed, but no directory is read twice. Hidden files, other endings and files in no class are
    named in `skipped`. Raises InputError, naming the folder, where it has less than two classes, or `val` or `test`
    without `train`; what is not for training may have one class and any split.
    """
    splits, fewest = _splits(folder), 2 if training else 1
    if training and splits and "train" not in splits.values():
        raise InputError(f"{folder}: has {next(iter(splits))}/ but no train/ with a directory for each class")
    parents = [folder / name for name in splits] or [folder]
    classes = sorted({name for parent in parents for name in _directories(parent)})
    if len(classes) < fewest:
        raise InputError(
            f"{folder}: holds {len(classes)} class directories; "
            f"expected at least {'two' if training else 'one'}, as <class>/* or train|val|test/<class>/*"
        )
    files, skipped = [], {}
    for path, reason in walk(folder, endings):
        parts = path.relative_to(folder).parts
        name = utf8("/".join(parts))
        if not reason and splits and parts[0] not in splits:
            reason = f"outside of {', '.join(splits)}"
        if not reason and len(parts) < (3 if splits else 2):
            reason = "in no class directory"
        if reason:
            skipped[name] = reason
        else:
            split, label = (splits[parts[0]], parts[1]) if splits else ("", parts[0])
            files.append(File(path=path, id=name, split=split, label=classes.index(label)))
    return Folder(classes=tuple(map(utf8, classes)), files=tuple(files), skipped=skipped)


def _splits(folder: Path) -> dict[str, str]:
    """The split that each directory with directories in it stands for by its name; none where classes lie on top.

    Raises InputError, naming the folder, where there are two for the same split.
    """
    split_of = {name: split for split in SPLITS for name in SPLIT_NAMES[split]}
    found: dict[str, str] = {}
    for name in _directories(folder):
        split = split_of.get(name.lower())
        if split and _directories(folder / name):
            other = next((each for each in found if found[each] == split), None)
            if other:
                raise InputError(f"{folder}: has {other}/ and {name}/, both for {split}; expected one of them")
            found[name] = split
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[1])))


def check_levels(folder: Path, names: Iterable[str], classes: Sequence[str]) -> None:
    """InputError where files lie in the same directories of all classes: those may be the classes, and these splits.

    `names` are paths relative to the folder, of files in it, which has no splits.
    """
    below: dict[str, set[str]] = {name: set() for name in classes}
    for name in names:
        top, *inner = name.split("/")
        below[top].add(inner[0] if len(inner) > 1 else "")
    first = below[classes[0]]
    if len(first) > 1 and "" not in first and all(each == first for each in below.values()):
        raise InputError(
            f"{folder}: its directories {', '.join(classes)} all hold the same ones, {', '.join(sorted(first))}; "
            "expected <class>/* or train|val|test/<class>/*: name the splits so, or move the files to their classes"
        )


def _directories(folder: Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; expected a directory of class directories") from error
    return [name for name in names if not name.startswith(".") and os.path.isdir(folder / name)]


def walk(folder: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yields every file below the folder, sorted, with the reason to leave it out, empty for a wanted one.

    Also yields directories that are not read, with the reason; see `scan`.
    """
    return _walk(folder, endings, set())


def _walk(directory: Path, endings: tuple[str, ...], visited: set[str]) -> Iterator[tuple[Path, str]]:
    """Yields every file below the directory with the reason to leave it out, empty for a wanted one."""
    real = os.path.realpath(directory)
    if real in visited:
        yield directory, READ_ALREADY
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
            yield path, HIDDEN
        elif os.path.isdir(path):
            yield from _walk(path, endings, visited)
        elif not name.lower().endswith(endings):
            yield path, OTHER_NAME
        elif not os.path.isfile(path):
            yield path, "broken link or special file"
        else:
            yield path, ""
