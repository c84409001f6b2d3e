"""The packed file: labelled images in one HDF5 file that every rank reads by window.

Layout, format version 1 (S samples of a split, C channels, K classes; split is train, val or test)::

    /                   attrs: format, format_version, created, ddhpc_version, source, complete
    /classes            [K] UTF-8
    /{split}/image      [S, C, *spatial] uint8, int16, uint16 or float32; attr sha256, of all pixels
    /{split}/label      [S] int64
    /{split}/id         [S] UTF-8
    /{split}/patient    [S] UTF-8, pseudonyms, empty where nobody knows; only where the source knows patients
    /statistics/mean    [C] float64, of the training split in stored units; std likewise
    /skipped            [n] UTF-8, names of the files left out, each with the reason

Strings have fixed length; filters are shuffle, gzip and a checksum (Fletcher32) of each chunk. h5ls, h5dump and every
HDF5 library read the file.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import attribute, check_self_contained, decoded, reading, shown_attribute
from ddhpc.data.packed.chunks import sampled
from ddhpc.errors import InputError

FORMAT = "ddhpc packed images"
FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
CHECKSUM = "sha256"
"""Attribute of `image`: SHA-256 over the images of the split, hexadecimal; absent in older files."""
SMALL_BYTES = 2**26
"""Size up to which files without CHECKSUM are read whole to tell their pixels apart."""
DTYPES = ("uint8", "int16", "uint16", "float32")


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """What a packed file holds, and reading from it; no file stays open between calls."""

    path: Path
    image_shape: tuple[int, ...]
    """Spatial, in pixels, 2 or 3 axes."""
    channels: int
    dtype: np.dtype
    classes: tuple[str, ...]
    samples: dict[str, int]
    """Number of images by split."""
    labels: Mapping[str, np.ndarray]
    """Class indices by split, [S] int64."""
    mean: np.ndarray
    """[C] float64, of the training split in stored units."""
    std: np.ndarray
    """[C] float64, likewise."""
    chunk_shape: tuple[int, ...]
    """Spatial, in pixels."""
    chunk_samples: int
    """Images of the training split that a chunk holds."""
    source: str
    digest: str
    """Hexadecimal SHA-256 over shapes, classes, labels, ids, statistics, the checksums of all pixels, which the writer
    leaves, and some chunks of them, which tell of changes since. Small files without checksums count whole."""
    stamps: set[tuple[int, ...]]
    """Place, size and time of change that the file had, with this content."""

    @property
    def dimensions(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return len(self.image_shape)

    @property
    def noun(self) -> str:
        """What a sample is: "images" or "volumes"."""
        return "images" if self.dimensions == 2 else "volumes"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: train, val, test."""
        return tuple(self.samples)

    def read(self, split: str, window: tuple[slice, ...], images: slice = slice(None)) -> np.ndarray:
        """Windows [S, C, *window] of all or some `images` of a split, stored dtype, from the chunks that they meet.

        Raises InputError where the file cannot be read or the window of a float image holds NaN or infinity.
        """
        if len(window) != self.dimensions:
            raise ValueError(f"window of {len(window)} axes into images of {self.dimensions}")
        with self._opened() as file:
            pixels: np.ndarray = _native(file[f"{split}/image"][(images, slice(None), *window)])
        finite = np.isfinite(pixels).reshape(len(pixels), -1).all(axis=1) if pixels.dtype.kind == "f" else True
        if not np.all(finite):
            bad = self.ids(split)[images][int(np.argmin(finite))]
            raise InputError(f"{self.path}: image {bad!r} of split {split} holds NaN or infinity")
        return pixels

    def sample(self, split: str, index: int) -> np.ndarray:
        """One whole image [C, *spatial] in the stored dtype, to look at."""
        with self._opened() as file:
            return _native(file[f"{split}/image"][index])

    def ids(self, split: str) -> list[str]:
        """Names [S] of the samples of a split, for most sources relative file paths."""
        with self._opened() as file:
            return decoded(file[f"{split}/id"])

    def patients(self, split: str) -> list[str]:
        """Pseudonym [S] of the patient of each sample of a split, empty where nobody knows; [] without patients."""
        with self._opened() as file:
            return decoded(file[f"{split}/patient"]) if f"{split}/patient" in file else []

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """The file for reading; InputError where it has been replaced by other data since it was described."""
        with reading(self.path) as file:
            stamp = _stamp(self.path)
            if stamp not in self.stamps:
                if describe(file, self.path).digest != self.digest:
                    raise InputError(f"{self.path}: has changed since the job began; expected the same data to its end")
                self.stamps.add(stamp)
            yield file


def _native(pixels: np.ndarray) -> np.ndarray:
    """The same values in the byte order of this machine, which torch wants."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except FileNotFoundError:  # described before it has its name
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def find(file: str) -> Path:
    """Path of a packed file: as typed, else, where relative, among the data that ships with the package.

    Raises InputError, naming the option --data.file and the places looked at, where there is none.
    """
    shipped = [Path(__file__).parents[3] / "data", Path(sys.prefix) / "share" / "ddhpc"]
    typed = Path(file)
    places = [typed, *(folder / typed for folder in shipped if not typed.is_absolute())]
    for place in places:
        if os.path.isdir(place):
            raise InputError(
                f"--data.file {file}: is a directory; expected a packed file, which `prepare` makes: "
                f"python -m ddhpc prepare images {file} --output x.h5 --size 64 64"
            )
        if os.path.exists(place):
            return place
    looked = ", ".join(str(place.absolute()) for place in places)
    raise InputError(f"--data.file {file}: no such file; looked for {looked}; `prepare` makes a packed file")


def open_packed(path: Path | str) -> Packed:
    """Open a packed file, check that it is whole and consistent, and describe it.

    Raises:
        InputError: names the file, for anything that is not a complete packed file of format version 1 with at least
            two classes, no empty split, labels 0..K-1, training samples of every class and finite statistics.

    Example:
        >>> packed = open_packed(find("fashion_mnist.h5"))
        >>> packed.image_shape, packed.samples["train"]
        ((28, 28), 6000)
        >>> packed.read("val", (slice(0, 14), slice(14, 28)), slice(0, 3)).shape
        (3, 1, 14, 14)
    """
    path = Path(path)
    with reading(path) as file:
        return describe(file, path)


def describe(file: h5py.File, path: Path) -> Packed:
    """What an open packed file holds; InputError as of `open_packed`."""
    if attribute(file, "format", str) != FORMAT:
        raise InputError(f"{path}: is an HDF5 file but not a packed file; make one with `prepare`")
    if attribute(file, "format_version", int) != FORMAT_VERSION:
        found = shown_attribute(file, "format_version")
        raise InputError(f"{path}: has format version {found}; expected {FORMAT_VERSION}; `prepare` it again")
    if not attribute(file, "complete", int):
        raise InputError(f"{path}: is not complete, its writer was interrupted; `prepare` it again")
    try:
        check_self_contained(file)
    except ValueError as error:
        raise InputError(f"{path}: {error}; `prepare` it again") from error
    listed = _dataset(file, path, "classes")
    if listed.ndim != 1 or listed.dtype.kind != "S":
        raise InputError(f"{path}: classes is {listed.dtype} {listed.shape}; expected a string a class")
    classes = tuple(decoded(listed))
    train = _dataset(file, path, "train/image")
    if train.ndim not in (4, 5) or train.dtype.name not in DTYPES or train.chunks is None:
        raise InputError(
            f"{path}: train/image is {train.dtype} {train.shape}; expected chunked [S, C, *spatial] "
            f"in 2 or 3 dimensions of {', '.join(DTYPES)}"
        )
    samples, labels, ids = {}, {}, {}
    for split in SPLITS:
        image, label, name = (_dataset(file, path, f"{split}/{part}") for part in ("image", "label", "id"))
        if image.shape[1:] != train.shape[1:] or image.dtype != train.dtype:
            raise InputError(
                f"{path}: {split}/image is {image.dtype} {image.shape[1:]} a sample; "
                f"expected {train.dtype} {train.shape[1:]} as in train"
            )
        consistent = label.shape == name.shape == image.shape[:1] and label.ndim == 1
        if not consistent or label.dtype.kind not in "iu" or name.dtype.kind != "S":
            raise InputError(
                f"{path}: split {split} has {image.shape[0]} images, label {label.dtype} {label.shape} and "
                f"id {name.dtype} {name.shape}; expected one integer and one string an image"
            )
        if f"{split}/patient" in file or "train/patient" in file:
            found = _dataset(file, path, f"{split}/patient")
            if found.shape != image.shape[:1] or found.dtype.kind != "S":
                raise InputError(f"{path}: {split}/patient is {found.dtype} {found.shape}; expected a string an image")
        samples[split], labels[split], ids[split] = image.shape[0], np.asarray(label, np.int64), decoded(name)
    check_labels(path, classes, labels)
    mean, std = (_statistics(file, path, name) for name in ("mean", "std"))
    _check_statistics(path, mean, std, channels=train.shape[1])
    digest = hashlib.sha256(repr((train.shape[1:], train.dtype.name, classes)).encode())
    for split in SPLITS:
        digest.update(labels[split].astype("<i8").tobytes() + "\0".join(ids[split]).encode())
    digest.update(np.stack([mean, std]).astype("<f8").tobytes())
    digest.update(b"".join(sampled(file[f"{split}/image"]) for split in SPLITS))
    checksums = [attribute(file[f"{split}/image"], CHECKSUM, str) for split in SPLITS]
    if all(checksums):
        digest.update(repr(checksums).encode())
    elif _size(path) <= SMALL_BYTES:
        digest.update(path.read_bytes())
    return Packed(
        path=path,
        image_shape=train.shape[2:],
        channels=train.shape[1],
        dtype=train.dtype.newbyteorder("="),
        classes=classes,
        samples=samples,
        labels=labels,
        mean=mean,
        std=std,
        chunk_shape=train.chunks[2:],
        chunk_samples=train.chunks[0],
        source=attribute(file, "source", str) or "",
        digest=digest.hexdigest(),
        stamps={_stamp(path)},
    )


def check_labels(path: Path, classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> None:
    """InputError unless the labels [S] of each split are those of two classes or more, all of them in training."""
    if len(classes) < 2:
        raise InputError(f"{path}: has {len(classes)} class ({', '.join(classes)}); expected at least two")
    for split, index in labels.items():
        if not index.size:
            raise InputError(f"{path}: split {split} is empty; expected samples in all of {', '.join(SPLITS)}")
        outside = index[(index < 0) | (index >= len(classes))]
        if outside.size:
            raise InputError(f"{path}: split {split} has label {outside[0]}; expected 0 to {len(classes) - 1}")
    absent = sorted(set(range(len(classes))) - set(labels["train"].tolist()))
    if absent:
        raise InputError(f"{path}: class {classes[absent[0]]!r} has no training sample; expected at least one")


def _statistics(file: h5py.File, path: Path, name: str) -> np.ndarray:
    found = _dataset(file, path, f"statistics/{name}")
    if found.dtype.kind not in "iuf" or found.ndim != 1:
        raise InputError(f"{path}: statistics/{name} is {found.dtype} {found.shape}; expected a number a channel")
    return np.asarray(found, np.float64)


def _check_statistics(path: Path, mean: np.ndarray, std: np.ndarray, *, channels: int) -> None:
    if not mean.shape == std.shape == (channels,):
        raise InputError(f"{path}: statistics have shapes {mean.shape} and {std.shape}; expected ({channels},)")
    varies = np.isfinite([mean, std]).all(axis=0) & (std > 0)
    if not varies.all():
        bad = int(np.argmin(varies))
        raise InputError(
            f"{path}: channel {bad} of the training images has mean {mean[bad]:g} and standard deviation "
            f"{std[bad]:g}; expected finite numbers and images that are not constant"
        )


def _dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise InputError(f"{path}: lacks the dataset /{name}; `prepare` it again")
    return found
