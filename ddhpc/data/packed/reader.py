"""The packed file: labelled images in one HDF5 file that every rank reads by window.

Layout, format version 2 (S samples of a split, C channels, K classes; split is train, val or test)::

    /                   attrs: format, format_version, created, ddhpc_version, source, preparation, complete
    /classes            [K] UTF-8
    /{split}/image      [S, C, *spatial] uint8, int16, uint16 or float32; attr sha256, of all pixels
    /{split}/restricted/{A}x{B}[x{D}]
                        [S, C, A, B, D] like image, whose pixels are halved along each axis (rounded up) until 8 or less
                        are left: means over equal boxes, of integers rounded; attr sha256, likewise
    /{split}/label      [S] int64
    /{split}/id         [S] UTF-8
    /{split}/patient    [S] UTF-8, pseudonyms, empty where nobody knows; only where the source knows patients
    /statistics/mean    [C] float64, of the training split in stored units; std likewise
    /skipped            [n] UTF-8, names of the files left out, each with the reason

`preparation` is JSON text, what `prepare` did to each file; older files lack it. Strings of datasets have fixed length;
filters are shuffle, gzip and a checksum (Fletcher32) of each chunk. h5ls, h5dump and every HDF5 library read the file.

Chunks of `image` are small in space and long over samples, for windows; those of `restricted` hold whole images. Files
of format version 1 lack `restricted`: what would be there is computed, with the same bits.
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
from ddhpc.data.packed.checks import (
    CHECKSUM,
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    OLDER_VERSION,
    SPLITS,
    check_labels,
    check_restricted,
    check_statistics,
    dataset,
    labels_and_ids,
    restricted_name,
    statistics,
)
from ddhpc.data.packed.chunks import CHECKED_CHUNKS, sampled
from ddhpc.data.packed.pyramid import level, levels
from ddhpc.errors import InputError

SMALL_BYTES = 2**26
"""Size up to which files without CHECKSUM are read whole to tell their pixels apart."""
CHECKED_RESTRICTED = CHECKED_CHUNKS // 8
"""Chunks of each restricted dataset whose values the digest covers."""


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
    restricted: Mapping[tuple[int, ...], int]
    """By size to which the file holds images restricted: images of the training split in a chunk. None in version 1."""
    source: str
    preparation: str
    """What `prepare` did to the files, as JSON, which `sources.preparation` reads; "" where the file does not tell."""
    digest: str
    """Hexadecimal SHA-256 over shapes, classes, labels, ids, statistics, checksums of all pixels, restricted or not,
    and some chunks, which tell of changes since the writer left these. Small files without checksums count whole."""
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
        return self._checked(split, images, pixels)

    def read_restricted(self, split: str, shape: tuple[int, ...], images: slice = slice(None)) -> np.ndarray:
        """All or some `images` [S, C, *shape] of a split at a size of their pyramid, see `levels`; stored dtype.

        They are read as they are stored; where the file is of format version 1, they are computed from whole images, as
        many at a time as a chunk holds. Raises InputError as `read` does.
        """
        if shape in self.restricted:
            with self._opened() as file:
                stored: np.ndarray = _native(file[restricted_name(split, shape)][images])
            return self._checked(split, images, stored)
        if shape not in levels(self.image_shape):
            raise ValueError(f"size {shape} of images of {self.image_shape}")
        places, whole = range(self.samples[split])[images], tuple(slice(0, size) for size in self.image_shape)
        computed = np.empty((len(places), self.channels, *shape), self.dtype)
        for start in range(0, len(places), self.chunk_samples):
            block = places[start : start + self.chunk_samples]
            pixels = self.read(split, whole, slice(block.start, block.stop, block.step))
            computed[start : start + len(block)] = level(pixels, shape)
        return computed

    def sample(self, split: str, index: int) -> np.ndarray:
        """One whole image [C, *spatial] in the stored dtype, to look at."""
        with self._opened() as file:
            return _native(file[f"{split}/image"][index])

    def ids(self, split: str) -> list[str]:
        """Names [S] of the samples of a split, for most sources relative file paths."""
        with self._opened() as file:
            return decoded(file[f"{split}/id"])

    def _checked(self, split: str, images: slice, pixels: np.ndarray) -> np.ndarray:
        """The pixels [S, C, *spatial] of some images of a split; InputError where any is not finite."""
        axes = tuple(range(1, pixels.ndim))
        finite = np.isfinite(pixels).all(axis=axes) if pixels.dtype.kind == "f" else True
        if not np.all(finite):
            bad = self.ids(split)[images][int(np.argmin(finite))]
            raise InputError(f"{self.path}: image {bad!r} of split {split} holds NaN or infinity")
        return pixels

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
        InputError: names the file, for anything that is not a complete packed file of format version 1 or 2 with at
            least two classes, no empty split, labels 0..K-1, training samples of every class and finite statistics.

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
    version = attribute(file, "format_version", int)
    if version not in (OLDER_VERSION, FORMAT_VERSION):
        found = shown_attribute(file, "format_version")
        expected = f"{OLDER_VERSION} or {FORMAT_VERSION}"
        raise InputError(f"{path}: has format version {found}; expected {expected}; `prepare` it again")
    if not attribute(file, "complete", int):
        raise InputError(f"{path}: is not complete, its writer was interrupted; `prepare` it again")
    try:
        check_self_contained(file)
    except ValueError as error:
        raise InputError(f"{path}: {error}; `prepare` it again") from error
    listed = dataset(file, path, "classes")
    if listed.ndim != 1 or listed.dtype.kind != "S":
        raise InputError(f"{path}: classes is {listed.dtype} {listed.shape}; expected a string a class")
    classes = tuple(decoded(listed))
    train = dataset(file, path, "train/image")
    if train.ndim not in (4, 5) or train.dtype.name not in DTYPES or train.chunks is None:
        raise InputError(
            f"{path}: train/image is {train.dtype} {train.shape}; expected chunked [S, C, *spatial] "
            f"in 2 or 3 dimensions of {', '.join(DTYPES)}"
        )
    labels, ids = labels_and_ids(file, path, train)
    check_labels(path, classes, labels)
    mean, std = (statistics(file, path, name) for name in ("mean", "std"))
    check_statistics(path, mean, std, channels=train.shape[1])
    sizes = check_restricted(file, path) if version == FORMAT_VERSION else []
    known = repr((train.shape[1:], train.dtype.name, classes)).encode()
    known += b"".join(labels[split].astype("<i8").tobytes() + "\0".join(ids[split]).encode() for split in SPLITS)
    known += np.stack([mean, std]).astype("<f8").tobytes()
    return Packed(
        path=path,
        image_shape=train.shape[2:],
        channels=train.shape[1],
        dtype=train.dtype.newbyteorder("="),
        classes=classes,
        samples={split: len(index) for split, index in labels.items()},
        labels=labels,
        mean=mean,
        std=std,
        chunk_shape=train.chunks[2:],
        chunk_samples=train.chunks[0],
        restricted={size: file[restricted_name("train", size)].chunks[0] for size in sizes},
        source=attribute(file, "source", str) or "",
        preparation=attribute(file, "preparation", str) or "",
        digest=_digest(file, path, known, sizes),
        stamps={_stamp(path)},
    )


def _digest(file: h5py.File, path: Path, known: bytes, sizes: Sequence[tuple[int, ...]]) -> str:
    """`Packed.digest`: over what is `known` of the images, and over the pixels, restricted to `sizes` as well."""
    digest = hashlib.sha256(known)
    digest.update(b"".join(sampled(file[f"{split}/image"]) for split in SPLITS))
    checksums = [attribute(file[f"{split}/image"], CHECKSUM, str) for split in SPLITS]
    if all(checksums):
        digest.update(repr(checksums).encode())
    elif _size(path) <= SMALL_BYTES:
        digest.update(path.read_bytes())
    for stored in (file[restricted_name(split, size)] for size in sizes for split in SPLITS):
        digest.update(repr(attribute(stored, CHECKSUM, str)).encode() + sampled(stored, CHECKED_RESTRICTED))
    return digest.hexdigest()
