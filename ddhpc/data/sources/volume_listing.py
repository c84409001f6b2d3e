"""Lists labelled volumes: of class folders, or of a CSV table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ddhpc.data.packed import SPLITS
from ddhpc.data.sources.class_folders import check_levels, scan
from ddhpc.data.sources.csv_table import rows
from ddhpc.data.sources.volume_formats import DATA, EXPECTED, NO_VOLUME, volume_of
from ddhpc.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A labelled volume."""

    path: Path
    """A file, or the directory of a DICOM series."""
    id: str
    """Path relative to the source, with slashes."""
    label: str
    split: str = ""
    """Empty where none is given."""
    patient: str = ""
    """Empty where none is named."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source holds."""

    classes: tuple[str, ...]
    """All labels in order of name; after `grouped` in order of the groups."""
    samples: tuple[Sample, ...]
    skipped: Mapping[str, str]
    """Names of files that were never meant, and why they are left out."""
    bad: Mapping[str, str]
    """Names of volumes that cannot be used, and the reason."""
    ungrouped: Mapping[str, int] = field(default_factory=dict)
    """Number of volumes of each class that is in no group."""


def list_volumes(source: Path) -> Listing:
    """Lists `<class>/*` or `train|val|test/<class>/*` of a directory, or the rows of a CSV file.

    A table has the columns path (relative to the file itself) and label, and may have patient and split
    (train, val, test or empty). Raises InputError, naming the source, where it is neither, or has less than
    two classes.
    """
    if os.path.isdir(source):
        return _folder(source)
    if source.suffix.lower() == ".csv":
        return _table(source)
    found = "is a file" if source.exists() else "does not exist"
    raise InputError(f"{source}: {found}; expected a directory of class directories, or a .csv of path,label")


def grouped(listing: Listing, groups: Sequence[str]) -> Listing:
    """The listing with each group, class names joined by commas, as one class; other classes are left out.

    Raises InputError, naming the option --groups, for one group, an unknown class, and one named twice.
    """
    if not groups:
        return listing
    if len(groups) < 2:
        raise InputError(f"--groups {groups[0]}: expected at least two groups, e.g. CT-0 CT-2,CT-3")
    group_of: dict[str, str] = {}
    for group in groups:
        for name in [group] if group in listing.classes else group.split(","):
            if name not in listing.classes:
                raise InputError(f"--groups {group}: no class {name!r}; there are {', '.join(listing.classes)}")
            if name in group_of:
                raise InputError(f"--groups {' '.join(groups)}: names class {name!r} twice")
            group_of[name] = group
    samples = [replace(s, label=group_of[s.label]) for s in listing.samples if s.label in group_of]
    ungrouped = Counter(s.label for s in listing.samples if s.label not in group_of)
    return replace(listing, classes=tuple(groups), samples=tuple(samples), ungrouped=ungrouped)


def _folder(source: Path) -> Listing:
    scanned = scan(source, ("",))
    samples: dict[str, Sample] = {}
    skipped: dict[str, str] = {}
    bad: dict[str, str] = {}
    for name, reason in scanned.skipped.items():
        other = reason == "hidden" or (os.path.isfile(source / name) and volume_of(source / name) in NO_VOLUME)
        (skipped if other else bad)[name] = reason
    for file in scanned.files:
        path = volume_of(file.path)
        if path == DATA:
            continue  # read with its header, not left out
        if isinstance(path, str):
            (skipped if path in NO_VOLUME else bad)[file.id] = path
        else:
            name = file.id if path == file.path else file.id.rpartition("/")[0]
            samples[name] = Sample(path=path, id=name, label=scanned.classes[file.label], split=file.split)
    if samples and not any(sample.split or os.path.isdir(sample.path) for sample in samples.values()):
        check_levels(source, samples, scanned.classes)
    return Listing(classes=scanned.classes, samples=tuple(samples.values()), skipped=skipped, bad=bad)


def _table(source: Path) -> Listing:
    samples: dict[str, Sample] = {}
    bad: dict[str, str] = {}
    labels = set()
    for line, row in rows(source):
        name, label, split = row["path"], row["label"], row.get("split", "")
        if label:
            labels.add(label)
        path = source.parent / name
        if not name:
            bad[f"{source.name} line {line}"] = "label without a path"
        elif not label:
            bad[name] = f"no label in line {line} of {source.name}"
        elif split not in ("", *SPLITS):
            raise InputError(f"{source}: line {line} has split {split!r}; expected {', '.join(SPLITS)} or nothing")
        elif name in samples:
            bad[f"{source.name} line {line}"] = f"{name} is listed before"
        elif not os.path.exists(path):
            bad[name] = f"no such file, though line {line} of {source.name} gives it a label"
        elif not os.path.isdir(path) and volume_of(path) != path:
            bad[name] = f"expected {EXPECTED}"
        else:
            samples[name] = Sample(path=path, id=name, label=label, split=split, patient=row.get("patient", ""))
    if len(labels) < 2:
        raise InputError(f"{source}: has {len(labels)} labels; expected at least two")
    return Listing(classes=tuple(sorted(labels)), samples=tuple(samples.values()), skipped={}, bad=bad)
