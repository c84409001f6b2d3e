"""Cross-validation: the final decisions of the runs of all folds, each for its own test samples, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ddhpc.config import Config
from ddhpc.data.hdf5 import attribute, decoded
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method.evaluation import Decided, Evaluation, evaluate
from ddhpc.results.final import positive_class, unchecked_decisions
from ddhpc.results.identity import differences, identity_of
from ddhpc.results.reader import names, open_results, patients

FOLD = "data.fold"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooled:
    """Every sample of a packed file once, decided by the run that has not seen it."""

    classes: list[str]
    decided: Decided
    """Final decisions of all samples, fold after fold."""
    fold: np.ndarray
    """[S] int64, in which each sample is test."""
    evaluation: Evaluation
    """On test alone; there is no val that thresholds and temperatures could come from."""


def pool(runs: Sequence[Path], fusion: str = "dnn", positive: str | None = None) -> Pooled:
    """The final decisions of a run of each fold for its test samples, and their metrics.

    Args:
        runs: run directories or results files, in any order.
        fusion: see `unchecked_decisions`.
        positive: see `evaluated`.

    Raises:
        InputError: names the run that is not one of cross-validation, differs from the first in more than the fold, or
            has the fold of another; the fold that no run has; or the option, as of `evaluated`.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_results(run)) for run in runs]
        of_fold = _by_fold(runs, files)
        first = files[0]
        _check_samples(of_fold, first)
        classes = names(first["classes"])
        labels = [file["samples/test/label"][...].astype(np.int64) for file in of_fold]
        decided = Decided(
            decisions=np.concatenate([unchecked_decisions(file, "test", fusion) for file in of_fold]),
            labels=np.concatenate(labels),
            patients=[patient for file in of_fold for patient in patients(file, "test")],
        )
        return Pooled(
            classes=classes,
            decided=decided,
            fold=np.repeat(np.arange(len(labels)), [len(each) for each in labels]),
            evaluation=evaluate({"test": decided}, positive_class(first, positive)),
        )


def fold_of(file: h5py.File) -> int | None:
    """The fold that is test in a run; None where it is none of cross-validation."""
    return Config.from_yaml(file.attrs["config"]).data.fold


def _by_fold(runs: Sequence[Path], files: Sequence[h5py.File]) -> list[h5py.File]:
    """The results in the order of their folds; InputError unless all are alike and there is one of each fold."""
    found: dict[int, tuple[Path, h5py.File]] = {}
    wanted = identity_of(files[0])
    for run, file in zip(runs, files, strict=True):
        fold = fold_of(file)
        if fold is None:
            raise InputError(f"{run}: trained on the splits as they are stored; expected runs with --{FOLD}")
        one, other = (str(path).replace("{", "{{").replace("}", "}}") for path in (runs[0], run))
        others = differences(wanted, identity_of(file), f"{{}} is {{}} in {one} and {{}} in {other}")
        if changed := [each for each in others if not each.startswith(f"{FOLD} ")]:
            raise InputError(f"{', '.join(changed)}; expected runs that differ in {FOLD} alone")
        if fold in found:
            raise InputError(f"{found[fold][0]} and {run} both have {FOLD} {fold}; expected one run of each fold")
        found[fold] = run, file
    count = attribute(files[0], "folds", int) or 0
    if missing := [str(fold) for fold in range(count) if fold not in found]:
        raise InputError(f"there is no run with {FOLD} {', '.join(missing)}; expected one of each of 0 to {count - 1}")
    return [file for _, (_, file) in sorted(found.items())]


def _check_samples(of_fold: Sequence[h5py.File], first: h5py.File) -> None:
    """InputError unless each sample of the packed file is test once."""
    every = Counter(name for split in SPLITS for name in decoded(first[f"samples/{split}/id"]))
    tested = Counter(name for file in of_fold for name in decoded(file["samples/test/id"]))
    if tested != every:
        name = next(iter((tested - every) | (every - tested)))
        raise InputError(f"{name} is tested {tested[name]} times in all runs together; expected {every[name]}")
