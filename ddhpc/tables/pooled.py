"""The metrics of a cross-validation: of the final decisions of all folds together, and of each fold alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddhpc.errors import InputError
from ddhpc.results import Pooled, pool, verify
from ddhpc.tables.metrics import show
from ddhpc.terminal import console
from ddhpc.wording import percent


def print_pooled(
    runs: Sequence[Path], stem: Path | None = None, *, fusion: str = "dnn", positive: str | None = None
) -> None:
    """Verify a run of each fold, and print the metrics of their decisions for all samples; see `results.pool`.

    Args:
        runs: run directories or results files.
        stem: with it, also write STEM.csv.
        fusion: see `results.pool`.
        positive: likewise.

    Raises:
        InputError: as `results.pool`; or a run is damaged, after the table.
    """
    problems = [f"{run}: {problem}" for run in runs for problem in verify(run)]
    found = pool(runs, fusion, positive)
    show(fusion, found.evaluation, found.classes, stem)
    console().print(caption(found))
    if problems:
        raise InputError(f"damaged results: {'; '.join(problems)}")


def caption(found: Pooled) -> str:
    """What the decisions are, and how much folds differ."""
    right = found.decided.decisions.argmax(1) == found.decided.labels
    shares = [float(right[found.fold == fold].mean()) for fold in np.unique(found.fold)]
    return (
        f"Test is each of {len(right):,} samples once, decided by the run of {len(shares)} that has not seen it. "
        f"Accuracy of the folds: {', '.join(map(percent, shares))}. AUC and average precision rank the probabilities "
        "of all runs together. The intervals do not tell how much other training samples would change."
    )
