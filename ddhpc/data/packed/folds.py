"""The folds of a packed file: parts of its samples, each of which is test once in cross-validation.

With fold F as test, the next one, (F + 1) mod K, is val, and the K - 2 others are train.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import decoded
from ddhpc.data.packed.checks import SPLITS, check_statistics, dataset
from ddhpc.errors import InputError

FEWEST = 3
"""Folds: one is test, one val, and the rest is train."""
MEAN, STD = "statistics/fold_mean", "statistics/fold_std"


@dataclass(frozen=True)
class Span:
    """Samples that lie one after the other in a split of a file."""

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Spans = tuple[Span, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Folds:
    """The K folds of a packed file."""

    fold: Mapping[str, np.ndarray]
    """Of each sample, by split of the file: [S] int64, 0 to K - 1."""
    mean: np.ndarray
    """[K, C] float64: of the samples that are train when fold K is test, in stored units."""
    std: np.ndarray
    """[K, C] float64, likewise."""

    def __len__(self) -> int:
        return len(self.mean)

    def spans(self, fold: int) -> dict[str, Spans]:
        """Where the samples of train, val and test lie in the file when a fold is test."""
        of_split = {split: role(self.fold[split], fold, len(self)) for split in SPLITS}
        return {name: tuple(_spans(of_split, name)) for name in SPLITS}

    def __bytes__(self) -> bytes:
        index = b"".join(self.fold[split].astype("<i8").tobytes() for split in SPLITS)
        return index + np.stack([self.mean, self.std]).astype("<f8").tobytes()


def role(fold: np.ndarray, test: int, count: int) -> np.ndarray:
    """The split that samples of `count` folds belong to when one of these is test.

    Example:
        >>> role(np.arange(5), 4, 5).tolist()
        ['val', 'train', 'train', 'train', 'test']
    """
    names = np.array(["train"] * count)
    names[[test, (test + 1) % count]] = "test", "val"
    return np.asarray(names[fold])


def _spans(of_split: Mapping[str, np.ndarray], name: str) -> Iterator[Span]:
    for split, names in of_split.items():
        edges = np.flatnonzero(np.diff(np.concatenate([[False], names == name, [False]]).astype(int)))
        for start, stop in edges.reshape(-1, 2).tolist():
            yield Span(split, start, stop)


def cut(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """From place `start` to `stop` of the samples of spans, one after the other; an empty span where there are none.

    Example:
        >>> cut((Span("train", 10, 20), Span("val", 0, 5)), 8, 12)
        [Span(split='train', start=18, stop=20), Span(split='val', start=0, stop=2)]
    """
    found = []
    for span in spans:
        lower, upper = max(start, 0), min(stop, len(span))
        if lower < upper:
            found.append(Span(span.split, span.start + lower, span.start + upper))
        start, stop = start - len(span), stop - len(span)
    return found or [Span(SPLITS[0], 0, 0)]


def read_folds(file: h5py.File, path: Path, labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> Folds | None:
    """The folds of a file whose labels [S] are known, None where it has none.

    Raises InputError unless there are at least FEWEST, each with samples of every class, and no patient is in two.
    """
    if f"{SPLITS[0]}/fold" not in file:
        return None
    mean, std = (dataset(file, path, name) for name in (MEAN, STD))
    alike = mean.shape == std.shape and mean.dtype.kind == std.dtype.kind == "f"
    if not alike or mean.ndim != 2 or len(mean) < FEWEST:
        raise InputError(
            f"{path}: {MEAN} is {mean.dtype} {mean.shape} and {STD} {std.dtype} {std.shape}; expected numbers for "
            f"each channel and each of {FEWEST} folds or more"
        )
    folds = Folds(fold=_numbers(file, path, labels, len(mean)), mean=mean[...], std=std[...])
    for of_fold in zip(folds.mean, folds.std, strict=True):
        check_statistics(path, *of_fold, channels=file["train/image"].shape[1])
    _check_classes(path, folds, labels, classes)
    _check_patients(file, path, folds)
    return folds


def _numbers(file: h5py.File, path: Path, labels: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    numbers = {}
    for split in SPLITS:
        found = dataset(file, path, f"{split}/fold")
        if found.shape != labels[split].shape or found.dtype.kind not in "iu":
            raise InputError(f"{path}: {split}/fold is {found.dtype} {found.shape}; expected an integer an image")
        numbers[split] = np.asarray(found, np.int64)
        if outside := numbers[split][(numbers[split] < 0) | (numbers[split] >= count)].tolist():
            raise InputError(f"{path}: split {split} has a sample in fold {outside[0]}; expected 0 to {count - 1}")
    return numbers


def _check_classes(path: Path, folds: Folds, labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    samples = np.zeros((len(folds), len(classes)), np.int64)
    for split in SPLITS:
        np.add.at(samples, (folds.fold[split], labels[split]), 1)
    if not samples.all():
        fold, label = np.argwhere(samples == 0)[0].tolist()
        raise InputError(f"{path}: class {classes[label]!r} is not in fold {fold}; expected every class in every fold")


def _check_patients(file: h5py.File, path: Path, folds: Folds) -> None:
    home: dict[str, int] = {}
    for split in SPLITS if "train/patient" in file else ():
        for patient, fold in zip(decoded(file[f"{split}/patient"]), folds.fold[split].tolist(), strict=True):
            if patient and home.setdefault(patient, fold) != fold:
                found = f"{patient} is in fold {home[patient]} and in fold {fold}"
                raise InputError(f"{path}: {found}; expected each patient in one fold")
