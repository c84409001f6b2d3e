"""The sections on what a medical paper reports: metrics with intervals, ROC, precision and recall, reliability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan

import h5py
import numpy as np

from ddhpc.method import calibration, diagnostics
from ddhpc.method.evaluation import AT_THRESHOLD, Evaluation, Table
from ddhpc.method.resampling import Measured
from ddhpc.report.figures import curves
from ddhpc.report.figures.curves import Named
from ddhpc.report.section import Section
from ddhpc.results import evaluated, names, unchecked_decisions
from ddhpc.tables.metrics import NAMES, blocks, rare, remarks, shown
from ddhpc.wording import shortened

THRESHOLD, SENSITIVITY, SPECIFICITY = AT_THRESHOLD


def metrics(file: h5py.File, positive: str | None = None) -> list[Section]:
    """The sections on the metrics of the final decisions of a run.

    Args:
        file: results of the run.
        positive: see `results.evaluated`.

    Raises:
        InputError: as `results.evaluated`.
    """
    classes, found = names(file["classes"]), evaluated(file, positive=positive)
    labels, decisions = file["samples/test/label"][...], unchecked_decisions(file, "test", "dnn")
    named = {metric: curves_of(found, classes, decisions, labels, metric) for metric in ("auc", "average_precision")}
    return [
        _table(found, classes),
        *_by_class(found, classes),
        _roc(found, classes, named["auc"]),
        _precision_recall(found, classes, named["average_precision"]),
        _reliability(found, classes, decisions, labels),
    ]


def curves_of(
    found: Evaluation, classes: list[str], decisions: np.ndarray, labels: np.ndarray, metric: str
) -> list[Named]:
    """The curve of each class that counts as positive in turn, by which a metric of test is named; no undefined ones.

    Args:
        found: the metrics.
        classes: K names.
        decisions: [S, K] of test.
        labels: [S] int64.
        metric: in the legend.
    """
    return [
        Named(
            name=shortened(classes[k]),
            curve=diagnostics.curve(labels == k, np.asarray(decisions[:, k], np.float64)),
            value=table[metric]["test"].value,
            label=shown(table[metric]["test"]),
            chosen=_chosen(table),
        )
        for k, table in found.against_rest.items()
        if 0 < (labels == k).sum() < len(labels)
    ]


def _chosen(table: Mapping[str, Mapping[str, Measured]]) -> tuple[float, float] | None:
    """Where a threshold of val is on the ROC curve of test; None where there is none."""
    if THRESHOLD not in table:
        return None
    at = table[SENSITIVITY]["test"].value, table[SPECIFICITY]["test"].value
    return None if isnan(sum(at)) else at


def _table(found: Evaluation, classes: list[str]) -> Section:
    both = list(blocks(found, classes))
    return Section(
        name="metrics",
        title="Metrics",
        caption=" ".join(filter(None, [*remarks(found), rare(found)])),
        head=("dnn", *found.owners),
        rows=rows_of(found, both[:2] if len(found.against_rest) == 1 else both[:1]),
    )


def rows_of(found: Evaluation, chosen: Iterable[tuple[str, Table]]) -> list[tuple[str, ...]]:
    """The rows of some `blocks` of the metrics, a column for each split."""
    rows: list[tuple[str, ...]] = []
    for title, table in chosen:
        rows += [(title, *[""] * len(found.owners))]
        rows += [(NAMES.get(name, name), *map(shown, each.values())) for name, each in table.items()]
    return rows


def _by_class(found: Evaluation, classes: list[str]) -> list[Section]:
    """Where several classes are taken against the rest in turn, the metrics of each on test."""
    if len(found.against_rest) == 1:
        return []
    columns = list(next(iter(found.against_rest.values())))
    return [
        Section(
            name="metrics_by_class",
            title="Metrics of each class",
            caption="On test, each class as the positive one against the rest.",
            head=("class", *(NAMES.get(name, name).strip() for name in columns)),
            rows=[
                (classes[k], *(shown(table[name]["test"]) for name in columns))
                for k, table in found.against_rest.items()
            ],
        )
    ]


def _roc(found: Evaluation, classes: list[str], named: Sequence[Named]) -> Section:
    title = "ROC curve"
    if not named:
        return Section(name="roc", title=title, caption="It is not defined: test lacks the positive class or the rest.")
    many = " Of many classes those with the smallest area are coloured." * (len(named) > curves.NAMED_CURVES)
    return Section(
        name="roc",
        title=title,
        caption="Sensitivity against 1 - specificity on test for all thresholds of the probability"
        f"{_against(found, classes)}. The legend has the area below (AUC) with its 95 % interval; the mark is the "
        f"threshold of the largest sensitivity + specificity on val (Youden).{many}",
        figure=curves.roc(named),
        alt="ROC curves on test: " + "; ".join(f"{each.name} AUC {each.label}" for each in named),
        head=("class", "AUC on test", "threshold of val", "sensitivity on test there", "specificity on test there"),
        rows=[
            (classes[k], *(shown(table[name]["test"]) for name in ("auc", *AT_THRESHOLD)))
            for k, table in found.against_rest.items()
        ],
    )


def _precision_recall(found: Evaluation, classes: list[str], named: Sequence[Named]) -> Section:
    title = "Precision and recall"
    leave = "It is not defined: test lacks the positive class or the rest."
    if not named:
        return Section(name="precision_recall", title=title, caption=leave)
    return Section(
        name="precision_recall",
        title=title,
        caption="Precision (PPV) against recall (sensitivity) on test for all thresholds of the probability"
        f"{_against(found, classes)}. The legend has the average precision with its 95 % interval. Precision depends "
        "on how frequent the class is in test.",
        figure=curves.precision_recall(named),
        alt="Curves of precision against recall on test: "
        + "; ".join(f"{each.name} average precision {each.label}" for each in named),
        head=("class", "average precision", "PPV", "sensitivity", "F1"),
        rows=[
            (classes[k], *(shown(table[name]["test"]) for name in ("average_precision", "ppv", "sensitivity", "f1")))
            for k, table in found.against_rest.items()
        ],
    )


def _against(found: Evaluation, classes: list[str]) -> str:
    if len(found.against_rest) > 1:
        return ", each class against the rest"
    return f"; positive is {classes[next(iter(found.against_rest))]}"


def _reliability(found: Evaluation, classes: list[str], decisions: np.ndarray, labels: np.ndarray) -> Section:
    """Of the positive class of two; else of the decided one."""
    positive = next(iter(found.against_rest)) if len(classes) == 2 else None
    table = found.overall if positive is None else found.against_rest[positive]
    kinds = {"ece": decisions}
    if not isnan(found.temperature):
        kinds["ece_tempered"] = calibration.tempered(decisions, found.temperature)
    called = {"ece": "as decided", "ece_tempered": f"at the temperature {found.temperature:.3f}, fitted on val"}
    each = {}
    for metric, final in kinds.items():
        said = final.max(1) if positive is None else final[:, positive]
        came = final.argmax(1) == labels if positive is None else labels == positive
        each[f"{called[metric]}: ECE {shown(table[metric]['test'])}"] = calibration.reliability(said, came)
    what = "of the decided class" if positive is None else f"of {classes[positive]}"
    share = "share decided rightly" if positive is None else f"share that is {shortened(classes[positive])}"
    return Section(
        name="reliability",
        title="Reliability",
        caption=f"How often a probability {what} came true on test, in {calibration.BINS} bins of equal width; below, "
        "the samples in each. On the dotted line it came true as often as it said; below the line decisions are too "
        "sure. ECE is the mean distance from it over the samples (Guo et al., arXiv:1706.04599).",
        figure=curves.reliability(each, f"probability {what}", share),
        alt="Reliability on test: " + "; ".join(each),
        head=("decisions", "mean probability", share, "samples"),
        rows=[
            (name.split(":")[0], f"{said:.3f}", f"{came:.3f}", f"{samples:,}")
            for name, bins in each.items()
            for said, came, samples in zip(bins.said, bins.found, bins.samples, strict=True)
        ],
    )
