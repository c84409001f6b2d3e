"""The section on a cross-validation: what the runs of all folds decided together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import h5py

from ddhpc.report.figures import curves
from ddhpc.report.metrics import curves_of, rows_of
from ddhpc.report.section import Section
from ddhpc.results import pool
from ddhpc.results.pooled import fold_of
from ddhpc.tables.metrics import blocks, rare, remarks
from ddhpc.tables.pooled import caption


def pooled(file: h5py.File, runs: Sequence[Path], positive: str | None = None) -> list[Section]:
    """The section on the final decisions of a run of each fold for its test samples, where the run is one of these.

    Args:
        file: results of the run.
        runs: see `results.pool`; without runs the section tells how to show them.
        positive: likewise.

    Raises:
        InputError: likewise.
    """
    section = partial(Section, name="cross_validation", title="Cross-validation: all folds together")
    if not runs:
        how = "report RUN --pool RUN... shows it: the decisions of the runs of all folds."
        return [] if fold_of(file) is None else [section(caption=how)]
    found = pool(runs, positive=positive)
    evaluation, decided = found.evaluation, found.decided
    named = curves_of(evaluation, found.classes, decided.decisions, decided.labels, "auc")
    said = [caption(found), *remarks(evaluation), rare(evaluation)]
    return [
        section(
            caption=" ".join(["ROC curves and metrics.", *filter(None, said)]),
            figure=curves.roc(named),
            alt="ROC curves of all folds: " + "; ".join(f"{each.name} AUC {each.label}" for each in named),
            head=("dnn", "all samples"),
            rows=rows_of(evaluation, blocks(evaluation, found.classes)),
        )
    ]
