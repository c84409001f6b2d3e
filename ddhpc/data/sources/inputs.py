"""What `predict` is asked to classify: from the paths that a user names to a list of files.

A path may be an image or a volume, a directory that is one DICOM series, a directory that holds any of these, or a CSV
table with a column path, relative to the table, and optionally label.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddhpc.data.hdf5 import utf8
from ddhpc.data.sources.class_folders import HIDDEN, OTHER_NAME, READ_ALREADY, scan, walk
from ddhpc.data.sources.csv_table import COLUMNS, rows
from ddhpc.data.sources.image_decoding import endings
from ddhpc.data.sources.preparation import Preparation
from ddhpc.errors import InputError

HARMLESS = (HIDDEN, OTHER_NAME, READ_ALREADY)
"""Reasons to leave out what was never meant to be classified."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file to classify, or a directory that is a DICOM series."""

    path: Path
    """For `Preparation.apply`."""
    id: str
    """The path as text, unique, to show."""
    label: str | None
    """Name of a class, where labels are wanted."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the sources hold."""

    samples: tuple[Input, ...]
    """In the order of the sources; those of a directory in order of path."""
    skipped: Mapping[str, str]
    """Paths of files in directories that were never meant, and the reason."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How files of one kind of preparation are known; a text is the reason why one is not."""

    noun: str
    expected: str
    endings: tuple[str, ...]
    """Of names, that `walk` looks for."""
    of_file: Callable[[Path], Path | str]
    """The input that a file with such an ending is, or is a part of."""
    others: tuple[str, ...]
    """Reasons for files of another kind."""
    directories: bool
    """A directory may be one input."""


def list_inputs(
    sources: Sequence[Path], preparation: Preparation, *, labels: bool = False, classes: Sequence[str] = ()
) -> Inputs:
    """Lists the files that a preparation takes, of the sources that a user names; see the module.

    Nothing is decoded: a file that cannot be read is in the list, and `Preparation.apply` tells why. In directories
    hidden files and files of other kinds are left out.

    Args:
        sources: as typed.
        preparation: of the training images.
        labels: every input has one: in the table, or by its directory, `<class>/*` or `train|val|test/<class>/*`.
        classes: names that a label can have; "CT-2,CT-3", a group of `prepare --groups`, is also that of CT-2.

    Raises:
        InputError: names the source, where there is no such file, it is of another kind, a directory or table holds
            none, a table has a row without a path or file, a path comes twice, or a label is missing or of no class.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from ddhpc.data.sources.image_decoding import ImagePreparation
        >>> preparation = ImagePreparation(mode="grey", white=255, size=(28, 28), resize="crop")
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "shoe.png").touch()
        ...     [each.path.name for each in list_inputs([Path(folder)], preparation).samples]
        ['shoe.png']
    """
    kind, of_class = _kind(preparation), _of_class(classes) if labels else None
    samples: dict[str, Input] = {}
    skipped: dict[str, str] = {}
    for source in sources:
        for path, label in _listed(source, kind, of_class, skipped):
            name = utf8(str(path))
            if name in samples:
                raise InputError(f"{source}: {name} is named twice; expected every file once")
            samples[name] = Input(path=path, id=name, label=label)
    return Inputs(samples=tuple(samples.values()), skipped=skipped)


def _kind(preparation: Preparation) -> _Kind:
    if preparation.kind == "images":
        return _Kind(
            noun="image",
            expected="an image, such as .png, .jpg or .tif",
            endings=endings(),
            of_file=lambda path: path,
            others=(OTHER_NAME,),
            directories=False,
        )
    # needs libraries that images do without
    from ddhpc.data.sources.volume_formats import EXPECTED, NO_VOLUME, volume_of

    return _Kind(
        noun="volume",
        expected=f"a volume: {EXPECTED}",
        endings=("",),
        of_file=volume_of,
        others=NO_VOLUME,
        directories=True,
    )


def _of_class(classes: Sequence[str]) -> dict[str, str]:
    """The class that each label names: its own, or the group that it is in."""
    members = {member: name for name in classes for member in name.split(",")}
    return members | {name: name for name in classes}


def _listed(
    source: Path, kind: _Kind, of_class: Mapping[str, str] | None, skipped: dict[str, str]
) -> Iterator[tuple[Path, str | None]]:
    """Paths and labels of a source; `of_class` tells the class of each label, None where none is wanted."""
    if not os.path.exists(source):
        raise InputError(f"{source}: no such file or directory")
    if source.suffix.lower() == ".csv" and os.path.isfile(source):
        yield from _table(source, kind, of_class)
    elif not os.path.isdir(source):
        if of_class is not None:
            raise InputError(f"{source}: has no label; expected a CSV table of path,label or a directory of classes")
        _check(source, kind, f"{source}")
        yield source, None
    else:
        left_out: dict[str, str] = {}
        listed = _below(source, kind, left_out) if of_class is None else _labelled(source, kind, of_class, left_out)
        found = dict(listed)
        if not found:
            why = ", ".join(f"{count:,} {reason}" for reason, count in Counter(left_out.values()).most_common())
            raise InputError(f"{source}: holds no {kind.noun}{f' ({why})' if why else ''}; expected {kind.expected}")
        skipped |= left_out
        yield from found.items()


def _below(folder: Path, kind: _Kind, left_out: dict[str, str]) -> Iterator[tuple[Path, str | None]]:
    """All inputs below a directory, a DICOM series once for each of its slices."""
    for path, reason in walk(folder, kind.endings):
        found = reason or kind.of_file(path)
        if isinstance(found, Path):
            yield found, None
        elif found in (*HARMLESS, *kind.others):
            left_out[utf8(str(path))] = found
        elif os.path.isdir(path):
            raise InputError(f"{path}: {found}; expected a directory that can be listed")
        else:  # cannot be read, which `apply` tells
            yield path, None


def _labelled(
    folder: Path, kind: _Kind, of_class: Mapping[str, str], left_out: dict[str, str]
) -> Iterator[tuple[Path, str | None]]:
    """All inputs in the class directories of a directory, as `_below`."""
    scanned = scan(folder, kind.endings, training=False)
    for name, reason in scanned.skipped.items():
        found = reason if reason in HARMLESS else kind.of_file(folder / name)
        if not isinstance(found, str) or found not in (*HARMLESS, *kind.others):
            raise InputError(f"{folder}: {name}: {reason}; expected all of <class>/* or train|val|test/<class>/*")
        left_out[utf8(str(folder / name))] = found
    for file in scanned.files:
        found, label = kind.of_file(file.path), scanned.classes[file.label]
        if isinstance(found, str) and found in kind.others:
            left_out[utf8(str(file.path))] = found
        elif label not in of_class:
            raise InputError(f"{folder}: {file.id}: {_no_class(label, of_class)}")
        else:
            yield found if isinstance(found, Path) else file.path, of_class[label]


def _table(source: Path, kind: _Kind, of_class: Mapping[str, str] | None) -> Iterator[tuple[Path, str | None]]:
    """The rows of a CSV file."""
    found = rows(source, COLUMNS if of_class is not None else COLUMNS[:1])
    if not found:
        raise InputError(f"{source}: has no rows; expected one for each {kind.noun}")
    for line, row in found:
        where, path, label = f"{source}: line {line}", source.parent / row["path"], row.get("label", "")
        if not row["path"]:
            raise InputError(f"{where}: no path; expected {kind.expected}")
        if not os.path.exists(path):
            raise InputError(f"{where}: {row['path']}: no such file, looked for {path}")
        _check(path, kind, f"{where}: {row['path']}")
        if of_class is None:
            yield path, None
        elif label in of_class:
            yield path, of_class[label]
        else:
            raise InputError(f"{where}: {_no_class(label, of_class)}")


def _check(path: Path, kind: _Kind, where: str) -> None:
    """InputError where a single path, which exists, is of another kind."""
    if os.path.isdir(path):
        if not kind.directories:
            raise InputError(f"{where}: is a directory; expected {kind.expected}")
    elif not os.path.isfile(path):
        raise InputError(f"{where}: is no regular file; expected {kind.expected}")
    elif not path.name.lower().endswith(kind.endings) or (found := kind.of_file(path)) in kind.others:
        raise InputError(f"{where}: is of another kind; expected {kind.expected}")
    elif found == path.parent:
        raise InputError(f"{where}: is one slice; expected the directory of the DICOM series, {path.parent}")


def _no_class(label: str, of_class: Mapping[str, str]) -> str:
    found = f"no class {label!r}" if label else "no label"
    return f"{found}; the model knows {', '.join(dict.fromkeys(of_class.values()))}"
