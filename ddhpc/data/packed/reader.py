"""Reading a packed file by window; `packed` has its layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import attribute, check_self_contained, decoded, reading, shown_attribute
from ddhpc.data.packed.checks import (
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
from ddhpc.data.packed.digest import digest
from ddhpc.data.packed.folds import Folds, Span, Spans, cut, read_folds
from ddhpc.data.packed.pyramid import level, levels
from ddhpc.errors import InputError


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
    folds: Folds | None
    """For cross-validation; None where the file has none."""
    spans: Mapping[str, Spans]
    """Where the samples of each split lie in the file; see `of_fold`."""
    fold: int | None = None
    """That is test; None for the splits as they are stored."""

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

    def of_fold(self, fold: int | None) -> Packed:
        """The same images, of which those of a fold are test, see `packed.folds`; itself for None.

        Raises InputError, naming the option --data.fold, where the file has no such fold.
        """
        if fold is None:
            return self
        if self.folds is None:
            raise InputError(f"--data.fold {fold}: {self.path} has no folds; expected a file of `prepare --folds`")
        if not 0 <= fold < len(self.folds):
            raise InputError(f"--data.fold {fold}: {self.path} has folds 0 to {len(self.folds) - 1}")
        spans = self.folds.spans(fold)
        labels = {
            name: np.concatenate([self.labels[each.split][each.start : each.stop] for each in parts])
            for name, parts in spans.items()
        }
        return replace(
            self,
            samples={name: len(index) for name, index in labels.items()},
            labels=labels,
            mean=self.folds.mean[fold],
            std=self.folds.std[fold],
            spans=spans,
            fold=fold,
        )

    def read(self, split: str, window: tuple[slice, ...], images: slice = slice(None)) -> np.ndarray:
        """Windows [S, C, *window] of all or some `images` of a split, stored dtype, from the chunks that they meet.

        Raises InputError where the file cannot be read or the window of a float image holds NaN or infinity.
        """
        if len(window) != self.dimensions:
            raise ValueError(f"window of {len(window)} axes into images of {self.dimensions}")
        pixels = self._stored(lambda stored: f"{stored}/image", split, images, window)
        return self._checked(split, images, pixels)

    def read_restricted(self, split: str, shape: tuple[int, ...], images: slice = slice(None)) -> np.ndarray:
        """All or some `images` [S, C, *shape] of a split at a size of their pyramid, see `levels`; stored dtype.

        They are read as they are stored; where the file is of format version 1, they are computed from whole images, as
        many at a time as a chunk holds. Raises InputError as `read` does.
        """
        if shape in self.restricted:
            pixels = self._stored(lambda stored: restricted_name(stored, shape), split, images)
            return self._checked(split, images, pixels)
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
        image: np.ndarray = self._stored(lambda stored: f"{stored}/image", split, slice(index, index + 1))[0]
        return image

    def ids(self, split: str) -> list[str]:
        """Names [S] of the samples of a split, for most sources relative file paths."""
        return self._texts(split, "id")

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
        return self._texts(split, "patient")

    def _texts(self, split: str, name: str) -> list[str]:
        """Texts [S] of the samples of a split, [] where the file has none of this name."""
        with self._opened() as file:
            parts = [part for part in self.spans[split] if f"{part.split}/{name}" in file]
            return [text for part in parts for text in decoded(file[f"{part.split}/{name}"])[part.start : part.stop]]

    def _stored(
        self, name: Callable[[str], str], split: str, images: slice, window: tuple[slice, ...] = ()
    ) -> np.ndarray:
        """What a dataset, which has its `name` by the split that it is stored in, holds of some images of a split."""
        start, stop, step = images.indices(self.samples[split])
        with self._opened() as file:
            parts = [
                _native(file[name(part.split)][(slice(part.start, part.stop), slice(None), *window)])
                for part in cut(self.spans[split], start, stop)
            ]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[::step]

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


def open_packed(path: Path | str, fold: int | None = None) -> Packed:
    """Open a packed file, check that it is whole and consistent, and describe it.

    Args:
        path: of the file.
        fold: that is test, as of the option --data.fold; None for the splits as they are stored.

    Raises:
        InputError: names the file, for anything that is not a complete packed file of format version 1 or 2 with at
            least two classes, no empty split, labels 0..K-1, training samples of every class and finite statistics; or
            names the option, where the file has no such fold.

    Example:
        >>> from ddhpc.data.packed import find
        >>> packed = open_packed(find("fashion_mnist.h5"))
        >>> packed.image_shape, packed.samples["train"]
        ((28, 28), 6000)
        >>> packed.read("val", (slice(0, 14), slice(14, 28)), slice(0, 3)).shape
        (3, 1, 14, 14)
    """
    path = Path(path)
    with reading(path) as file:
        return describe(file, path).of_fold(fold)


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
    folds = read_folds(file, path, labels, classes)
    known += bytes(folds) if folds else b""
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
        digest=digest(file, path, known, sizes),
        stamps={_stamp(path)},
        folds=folds,
        spans={split: (Span(split, 0, len(index)),) for split, index in labels.items()},
    )
