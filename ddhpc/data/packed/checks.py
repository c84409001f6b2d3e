"""What makes an HDF5 file a packed file: its words, and checks of its datasets; `packed` has the layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import decoded
from ddhpc.data.packed.pyramid import levels
from ddhpc.errors import InputError
from ddhpc.wording import by

FORMAT = "ddhpc packed images"
FORMAT_VERSION = 2
OLDER_VERSION = 1
"""Without restricted images; still read."""
SPLITS = ("train", "val", "test")
CHECKSUM = "sha256"
"""Attribute of `image`: SHA-256 over the images of the split, hexadecimal; absent in older files."""
DTYPES = ("uint8", "int16", "uint16", "float32")


def restricted_name(split: str, shape: Sequence[int]) -> str:
    """Where a file holds the images of a split restricted to a size of their pyramid.

    Example:
        >>> restricted_name("train", (14, 10))
        'train/restricted/14x10'
    """
    return f"{split}/restricted/{by(tuple(shape))}"


def labels_and_ids(
    file: h5py.File, path: Path, train: h5py.Dataset
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Labels [S] int64 and ids by split; InputError where they are not those of images like the training images."""
    labels, ids = {}, {}
    for split in SPLITS:
        image, label, name = (dataset(file, path, f"{split}/{part}") for part in ("image", "label", "id"))
        if image.shape[1:] != train.shape[1:] or image.dtype != train.dtype or image.chunks is None:
            raise InputError(
                f"{path}: {split}/image is {image.dtype} {image.shape[1:]} a sample; "
                f"expected chunked {train.dtype} {train.shape[1:]} as in train"
            )
        consistent = label.shape == name.shape == image.shape[:1] and label.ndim == 1
        if not consistent or label.dtype.kind not in "iu" or name.dtype.kind != "S":
            raise InputError(
                f"{path}: split {split} has {image.shape[0]} images, label {label.dtype} {label.shape} and "
                f"id {name.dtype} {name.shape}; expected one integer and one string an image"
            )
        if f"{split}/patient" in file or "train/patient" in file:
            found = dataset(file, path, f"{split}/patient")
            if found.shape != image.shape[:1] or found.dtype.kind != "S":
                raise InputError(f"{path}: {split}/patient is {found.dtype} {found.shape}; expected a string an image")
        labels[split], ids[split] = np.asarray(label, np.int64), decoded(name)
    return labels, ids


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


def statistics(file: h5py.File, path: Path, name: str) -> np.ndarray:
    """The mean or the standard deviation of each channel; InputError where it is not numbers."""
    found = dataset(file, path, f"statistics/{name}")
    if found.dtype.kind not in "iuf" or found.ndim != 1:
        raise InputError(f"{path}: statistics/{name} is {found.dtype} {found.shape}; expected a number a channel")
    return np.asarray(found, np.float64)


def check_statistics(path: Path, mean: np.ndarray, std: np.ndarray, *, channels: int) -> None:
    """InputError unless mean and standard deviation [C] are of images that are finite and not constant."""
    if not mean.shape == std.shape == (channels,):
        raise InputError(f"{path}: statistics have shapes {mean.shape} and {std.shape}; expected ({channels},)")
    varies = np.isfinite([mean, std]).all(axis=0) & (std > 0)
    if not varies.all():
        bad = int(np.argmin(varies))
        raise InputError(
            f"{path}: channel {bad} of the training images has mean {mean[bad]:g} and standard deviation "
            f"{std[bad]:g}; expected finite numbers and images that are not constant"
        )


def dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A dataset by name; InputError where there is none, or one without values."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise InputError(f"{path}: lacks the dataset /{name}; `prepare` it again")
    return found


def check_restricted(file: h5py.File, path: Path) -> list[tuple[int, ...]]:
    """Sizes of the pyramid of the images; InputError unless the images of each split are there restricted to all."""
    sizes = levels(file["train/image"].shape[2:])
    for split in SPLITS:
        image = file[f"{split}/image"]
        for size in sizes:
            name, expected = restricted_name(split, size), (*image.shape[:2], *size)
            found = dataset(file, path, name)
            if (found.shape, found.dtype.name) != (expected, image.dtype.name) or found.chunks is None:
                raise InputError(
                    f"{path}: {name} is {found.dtype} {found.shape}; expected chunked {image.dtype} {expected}, the "
                    f"images of {split}/image restricted; `prepare` it again"
                )
    return sizes
