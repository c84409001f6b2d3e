"""Writing a packed file from streams of images; `packed` has its layout."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import reduce
from operator import add
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from ddhpc import __version__
from ddhpc.data.hdf5 import check_output, text, utf8, writing
from ddhpc.data.packed.checks import CHECKSUM, FORMAT, FORMAT_VERSION, SPLITS, check_labels, restricted_name
from ddhpc.data.packed.chunks import choose_chunks, choose_whole_chunks
from ddhpc.data.packed.folds import FEWEST, MEAN, STD, role
from ddhpc.data.packed.moments import Moments
from ddhpc.data.packed.pyramid import level, levels
from ddhpc.data.packed.reader import Packed, describe
from ddhpc.errors import InputError

Key = TypeVar("Key")
RESTRICTED_AT_ONCE = 2**17
"""Pixels of images that are restricted together; one by one images that have more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Samples to be packed."""

    labels: np.ndarray
    """[S] integer."""
    ids: Sequence[str]
    """[S]."""
    images: Iterable[np.ndarray]
    """Yields S arrays [C, *spatial] in order, once."""
    patients: Sequence[str] = ()
    """[S], whose each sample is, empty where nobody knows; stored as a running number alone, see `pseudonyms`."""
    fold: Sequence[int] = ()
    """[S], of each sample, in all splits or none; read fastest where it rises."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """What a packed file is to hold."""

    classes: Sequence[str]
    splits: Mapping[str, Split]
    """train, val and test."""
    image_shape: tuple[int, ...]
    channels: int
    dtype: np.dtype | str
    source: str
    """Where the images come from, and what was done to them."""
    skipped: Sequence[str] = ()
    """What was left out, and why, a line each."""
    preparation: str = ""
    """What made the images of files, as JSON; see `sources.preparation`. Empty where no files can be made so."""


def write_packed(path: Path | str, contents: Contents, *, overwrite: bool = False) -> Packed:
    """Writes a packed file from streams of images, holding one row of chunks at a time, and describes it.

    The file is checked as by `open_packed` and takes its name only when it is whole. Raises InputError where
    it is not consistent, the output exists or cannot be written, or an image has another shape or dtype than
    announced or is not finite.
    """
    path, splits = Path(path), contents.splits
    check_output(path, overwrite=overwrite)
    labels = {name: np.asarray(splits[name].labels, np.int64) for name in SPLITS}
    check_labels(path, contents.classes, labels)
    patients = pseudonyms({name: splits[name].patients for name in SPLITS})
    by_fold: dict[int, Moments] = {}
    with writing(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        file.attrs["ddhpc_version"] = __version__
        file.attrs["source"] = utf8(contents.source)
        if contents.preparation:
            file.attrs["preparation"] = contents.preparation
        file["classes"] = text(contents.classes)
        file["skipped"] = text(contents.skipped)
        for name in SPLITS:
            group = file.create_group(name)
            group.create_dataset("label", data=labels[name], compression="gzip", shuffle=True, fletcher32=True)
            group.create_dataset("id", data=text(splits[name].ids), compression="gzip", fletcher32=True)
            if patients:
                group.create_dataset("patient", data=text(patients[name]), compression="gzip", fletcher32=True)
            if len(splits[name].fold):
                fold = np.asarray(splits[name].fold, np.int64)
                group.create_dataset("fold", data=fold, compression="gzip", shuffle=True, fletcher32=True)
            moments = _write_images(file, name, contents, by_fold)
            if name == "train":
                file["statistics/mean"], file["statistics/std"] = moments.mean, moments.std
        if by_fold:
            _write_folds(file, by_fold)
        file.flush()
        file.attrs["complete"] = True
        return describe(file, path)


class _Stored:
    """A dataset of images that come one after the other; a row of chunks is in memory."""

    def __init__(self, file: h5py.File, name: str, images: tuple[int, ...], dtype: np.dtype, chunks: Sequence[int]):
        """`images` are S, C, *spatial; a chunk has no more images than there are."""
        row = min(chunks[0], images[0])
        filters = {"compression": "gzip", "shuffle": dtype.itemsize > 1, "fletcher32": True}
        self.dataset = file.create_dataset(name, images, dtype, chunks=(row, *chunks[1:]), **filters)
        self.row, self.count, self.checksum = np.empty((row, *images[1:]), dtype), 0, hashlib.sha256()

    def append(self, image: np.ndarray) -> None:
        """Take the next image [C, *spatial]."""
        row, place = len(self.row), self.count % len(self.row)
        self.row[place] = image
        self.checksum.update(image.astype(image.dtype.newbyteorder("<")).tobytes())
        self.count += 1
        if place + 1 == row or self.count == len(self.dataset):
            self.dataset[self.count - place - 1 : self.count] = self.row[: place + 1]

    def finish(self) -> None:
        """Leave the checksum."""
        self.dataset.attrs[CHECKSUM] = self.checksum.hexdigest()


class _Restricted:
    """The images of a split at all sizes of their pyramid, made of the images while these pass by."""

    def __init__(self, file: h5py.File, split: str, images: tuple[int, ...], dtype: np.dtype):
        self.stored = {}
        for size in levels(images[2:]):
            chunks = choose_whole_chunks(size, images[1], dtype.itemsize)
            self.stored[size] = _Stored(file, restricted_name(split, size), (*images[:2], *size), dtype, chunks)
        together = min(images[0], RESTRICTED_AT_ONCE // math.prod(images[1:]))
        self.waiting, self.count = np.empty((together, *images[1:]), dtype), 0

    def append(self, image: np.ndarray) -> None:
        """Take the next image [C, *spatial]."""
        if not len(self.waiting):
            self._restrict(image[None])
            return
        self.waiting[self.count] = image
        self.count += 1
        if self.count == len(self.waiting):
            self._restrict(self.waiting)
            self.count = 0

    def finish(self) -> None:
        """Restrict the last images, and leave the checksums."""
        self._restrict(self.waiting[: self.count])
        for stored in self.stored.values():
            stored.finish()

    def _restrict(self, images: np.ndarray) -> None:
        for size, stored in self.stored.items():
            for image in level(images, size):
                stored.append(image)


def pseudonyms(patients: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Running numbers for patients, in the order in which they come, the same in all splits.

    What names a patient in hospital, such as the PatientID of DICOM, is not for files that are passed on.

    Args:
        patients: names by split, [S] each or none; empty where nobody knows.

    Returns:
        "patient 1" and so on, empty where nobody knows; nothing where no patient is known at all.

    Example:
        >>> pseudonyms({"train": ["Smith", "", "Jones"], "test": ["Jones"]})
        {'train': ['patient 1', '', 'patient 2'], 'test': ['patient 2']}
    """
    known = dict.fromkeys(name for split in patients.values() for name in split if name)
    number = {name: f"patient {n}" for n, name in enumerate(known, 1)}
    return {split: [number.get(name, "") for name in names] for split, names in patients.items()} if number else {}


def _write_images(file: h5py.File, name: str, contents: Contents, by_fold: dict[int, Moments]) -> Moments:
    """Streams the images of a split into the file, and gives their moments; adds them to those of their folds."""
    split, shape, dtype = contents.splits[name], (contents.channels, *contents.image_shape), np.dtype(contents.dtype)
    images = (len(split.ids), *shape)
    stored = _Stored(file, f"{name}/image", images, dtype, choose_chunks(shape[1:], shape[0], dtype.itemsize))
    restricted = _Restricted(file, name, images, dtype)
    moments: dict[str, Moments] = {}
    for n, (found, image) in enumerate(zip(split.ids, split.images, strict=True)):
        if image.shape != shape or image.dtype != dtype:
            raise InputError(f"image {found!r} is {image.dtype} {image.shape}; expected {dtype} {shape}")
        if dtype.kind == "f" and not np.isfinite(image).all():
            raise InputError(f"image {found!r} holds NaN or infinity; expected finite values")
        stored.append(image)
        restricted.append(image)
        own = Moments.of(image)
        _add(moments, name, own)
        if len(split.fold):
            _add(by_fold, int(split.fold[n]), own)
    stored.finish()
    restricted.finish()
    return moments[name]


def _add(moments: dict[Key, Moments], key: Key, own: Moments) -> None:
    moments[key] = moments[key] + own if key in moments else own


def _write_folds(file: h5py.File, by_fold: Mapping[int, Moments]) -> None:
    """The statistics of what is train when a fold is test, for each fold in turn."""
    count = len(by_fold)
    if count < FEWEST or sorted(by_fold) != list(range(count)):
        raise InputError(f"folds {sorted(by_fold)}: expected 0, 1, 2 and so on, {FEWEST} or more")
    roles = [role(np.arange(count), fold, count) for fold in range(count)]
    trained = [reduce(add, (by_fold[n] for n in np.flatnonzero(names == "train").tolist())) for names in roles]
    file[MEAN], file[STD] = [each.mean for each in trained], [each.std for each in trained]
