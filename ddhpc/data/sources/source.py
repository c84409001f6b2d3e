"""What all sources of packed files have in common: their options, what they report, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ddhpc.data.hdf5 import check_output
from ddhpc.data.packed import Packed, Split
from ddhpc.data.packed.folds import FEWEST
from ddhpc.data.packed.writer import Contents, write_packed
from ddhpc.data.sources.workers import Workers
from ddhpc.errors import InputError

OnProgress = Callable[[int, int], None]
"""Called with the steps done and their total, which may shrink."""
OnError = Literal["skip", "stop"]


def option(help: str, default: Any = ..., metavar: str | None = None) -> Any:
    """A field of the options of a source, which `prepare` offers on the command line; required without a default."""
    given = {} if default is ... else {"default": default}
    return field(**given, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What to do with files that cannot be used, and how to draw the splits that a source lacks."""

    on_error: OnError = option(
        "what to do with files that cannot be used: leave them out and name them, or end", default="skip"
    )
    val_fraction: float = option("share drawn as val where there is none", default=0.15)
    test_fraction: float = option("share drawn as test where there is none", default=0.15)
    seed: int = option("of the drawn splits", default=0)
    folds: int | None = option(
        "for cross-validation, also draw so many parts of all samples, by class and by patient; see --data.fold",
        default=None,
        metavar="K",
    )

    @property
    def fractions(self) -> dict[str, float]:
        """Of the splits that may have to be drawn."""
        return {"val": self.val_fraction, "test": self.test_fraction}

    def check(self) -> None:
        """InputError, naming the option, where one is out of its range."""
        if self.on_error not in get_args(OnError):
            raise InputError(f"--on-error {self.on_error}: expected {' or '.join(get_args(OnError))}")
        for name, part in self.fractions.items():
            if not 0 < part < 1:
                raise InputError(f"--{name}-fraction {part}: expected a number between 0 and 1")
        if self.val_fraction + self.test_fraction >= 1:
            both = f"--val-fraction {self.val_fraction} --test-fraction {self.test_fraction}"
            raise InputError(f"{both}: leave nothing to train on; expected a sum below 1")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: expected 0 or more")
        if self.folds is not None and self.folds < FEWEST:
            raise InputError(f"--folds {self.folds}: expected {FEWEST} or more, of which one is test and one val")

    def stop_at(self, source: Path, bad: Mapping[str, str]) -> None:
        """InputError with the first of the samples that cannot be used and its reason, if these end the run."""
        if bad and self.on_error == "stop":
            name, reason = next(iter(bad.items()))
            raise InputError(f"{source}: {name}: {reason}; --on-error skip leaves such files out")


@dataclass(frozen=True, kw_only=True)
class PatientOptions(SourceOptions):
    """Whose the samples are, so that no patient is in two splits."""

    patients: str | None = option(
        "regular expression that finds the patient in a path, e.g. 'sub-(\\d+)': all of a patient go to one split",
        default=None,
        metavar="PATTERN",
    )
    allow_shared_patients: bool = option("let a patient be in several splits", default=False)


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where a packed file is written, by which processes, and who is told."""

    output: Path
    overwrite: bool = False
    """Replace an existing packed file."""
    progress: OnProgress = lambda done, total: None
    workers: Workers = field(default_factory=Workers)

    def check(self) -> None:
        """InputError, naming --output, where no file can take the path."""
        check_output(self.output, overwrite=self.overwrite)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of a source."""

    packed: Packed
    notes: tuple[str, ...]
    """What was done, a sentence each."""
    skipped: Mapping[str, str]
    """Relative path and reason of each file or row left out."""


def write_prepared(packing: Packing, contents: Contents, notes: Sequence[str], skipped: Mapping[str, str]) -> Prepared:
    """Write the packed file, and tell what became of the source; see `Prepared`."""
    packed = write_packed(packing.output, contents, overwrite=packing.overwrite)
    return Prepared(packed=packed, notes=tuple(notes), skipped=skipped)


def as_splits(
    divided: Mapping[str, Sequence[int]],
    labels: np.ndarray,
    ids: Sequence[str],
    images: Iterator[np.ndarray],
    patients: Sequence[str],
    fold: np.ndarray,
) -> dict[str, Split]:
    """Samples to be packed, by split.

    Args:
        divided: indices of the samples of each split.
        labels: [S] int64.
        ids: [S].
        images: yields those of all splits, one split after the other.
        patients: [S], empty where nobody knows.
        fold: [S] int64, -1 where there are no folds.
    """
    return {
        name: Split(
            labels=labels[members],
            ids=[ids[i] for i in members],
            images=islice(images, len(members)),
            patients=[patients[i] for i in members],
            fold=[number for number in fold[members].tolist() if number >= 0],
        )
        for name, members in divided.items()
    }
