"""All metrics of final decisions that a medical paper needs, on val and test, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ddhpc.method import calibration, diagnostics
from ddhpc.method.diagnostics import COLUMNS, COUNTS, METRICS, RATES, OneAgainstRest
from ddhpc.method.resampling import Measured, Statistic, blockwise, draws, measured, owners

AT_THRESHOLD = ("threshold", "sensitivity_at_threshold", "specificity_at_threshold")
MEANS = {
    "balanced_accuracy": "sensitivity",
    "mean_f1": "f1",
    "mean_auc": "auc",
    "mean_average_precision": "average_precision",
}
"""Of several classes: means over the classes of what each has against the rest."""
TEMPERED = ("brier_tempered", "ece_tempered")
"""After temperature scaling."""

Table = dict[str, dict[str, Measured]]
"""By metric and split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decided:
    """Final decisions of a split, and what they are measured by."""

    decisions: np.ndarray
    """[S, K] class probabilities."""
    labels: np.ndarray
    """[S] int64."""
    patients: Sequence[str] = ()
    """Whose each sample is; see `resampling.owners`."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics by split. What is not defined is NaN."""

    overall: Table
    """Of all classes together."""
    against_rest: Mapping[int, Table]
    """By the class that counts as positive; METRICS, and with val AT_THRESHOLD and, of two classes, TEMPERED."""
    temperature: float
    """Fitted on val; NaN where there is none. All but TEMPERED is of decisions as they are."""
    owners: Mapping[str, int]
    """By split, how many patients or single samples are resampled."""
    by_patient: bool
    """Whether patients are known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Split:
    """A split, drawn again and again."""

    decided: Decided
    owner: np.ndarray
    once: np.ndarray
    """[1, S], every sample as it is."""
    weights: np.ndarray = field(repr=False)
    """[RESAMPLES, S]."""

    @classmethod
    def of(cls, decided: Decided) -> _Split:
        owner = owners(len(decided.labels), decided.patients)
        return cls(decided=decided, owner=owner, once=np.ones((1, len(owner)), np.uint8), weights=draws(owner))

    def columns(self, statistic: Statistic) -> np.ndarray:
        """A statistic of all samples, and of the draws in the rows below: [1 + RESAMPLES, M]."""
        return np.concatenate([statistic(self.once), blockwise(statistic, self.weights)])

    def measured(self, column: np.ndarray, trials: np.ndarray | None = None) -> Measured:
        """From such a column [1 + RESAMPLES]; without an interval where all samples are of one owner.

        Args:
            column: of a metric.
            trials: samples [S] bool that it is a proportion of.
        """
        if self.owner.max() == 0:
            return Measured(value=float(column[0]), low=np.nan, high=np.nan, resamples=0)
        return measured(float(column[0]), column[1:], None if trials is None else len(np.unique(self.owner[trials])))


def evaluate(decided: Mapping[str, Decided], positive: int | None = None) -> Evaluation:
    """All metrics of final decisions on val and test, or on test alone.

    Intervals are percentile bootstrap intervals of 2,000 draws, the same ones each time, of whole patients where these
    are known. One way serves all metrics and keeps the images of a patient together, which closed formulas for
    proportions do not; these give the interval only where all draws agree on 0 or 1, see `resampling.measured`.

    Args:
        decided: val, from which temperature and thresholds come, and test; without val there are none of these.
        positive: the class that counts as positive; None for the last of two classes, or all in turn where there are
            more.
    """
    split = {name: _Split.of(each) for name, each in decided.items()}
    classes, val = decided["test"].decisions.shape[1], decided.get("val")
    temperature = calibration.temperature(val.decisions, val.labels) if val else np.nan
    shown = [positive] if positive is not None else [1] if classes == 2 else list(range(classes))
    needed = range(classes) if classes > 2 else shown
    columns: dict[str, dict[int, np.ndarray]] = {name: {} for name in split}
    against_rest: dict[int, Table] = {}
    for k in needed:
        tasks = {name: OneAgainstRest.of(each.decisions, each.labels, k) for name, each in decided.items()}
        for name, task in tasks.items():
            columns[name][k] = split[name].columns(diagnostics.statistic(task))
        if k in shown:
            against_rest[k] = _metrics(split, tasks, {name: columns[name][k] for name in split})
            if classes == 2 and val:
                _add(against_rest[k], _tempered(split, temperature, k))
    return Evaluation(
        overall=_overall(split, columns, temperature),
        against_rest=against_rest,
        temperature=temperature,
        owners={name: int(each.owner.max()) + 1 for name, each in split.items()},
        by_patient=any(any(each.patients) for each in decided.values()),
    )


def _add(table: Table, other: Table) -> None:
    for metric, by_split in other.items():
        table.setdefault(metric, {}).update(by_split)


def _metrics(
    split: Mapping[str, _Split], tasks: Mapping[str, OneAgainstRest], columns: Mapping[str, np.ndarray]
) -> Table:
    """METRICS and, where there is val, AT_THRESHOLD of a class against the rest."""
    val = tasks.get("val")
    threshold = diagnostics.curve(val.positive, val.score).youden() if val else None
    table: Table = {}
    for name, task in tasks.items():
        found = columns[name][:, len(COUNTS) :]
        of = {rate: task.denominator(rate) for rate in RATES}
        for metric, column in zip(METRICS, found.T, strict=True):
            column = centred(column) if metric == "ece" else column
            _add(table, {metric: {name: split[name].measured(column, of.get(metric))}})
        if threshold is None:
            continue
        at = OneAgainstRest(positive=task.positive, score=task.score, decided=task.score >= threshold)
        shares = split[name].columns(diagnostics.rates(at))[:, :2]
        shares = np.full_like(shares, np.nan) if np.isnan(threshold) else shares
        fixed = Measured(value=threshold, low=np.nan, high=np.nan, resamples=0)
        kept = (split[name].measured(shares[:, n], of[RATES[n]]) for n in range(2))
        _add(table, {metric: {name: one} for metric, one in zip(AT_THRESHOLD, (fixed, *kept), strict=True)})
    return table


def _tempered(split: Mapping[str, _Split], temperature: float, positive: int | None) -> Table:
    """TEMPERED of a class against the rest, or of all classes together."""
    table: Table = {}
    for name, each_split in split.items():
        decided = each_split.decided
        decisions = calibration.tempered(decided.decisions, temperature)
        if positive is None:
            found = each_split.columns(_of_all(decisions, decided.labels))[:, 1:]
        else:
            task = OneAgainstRest.of(decisions, decided.labels, positive)
            found = each_split.columns(diagnostics.statistic(task))[:, [COLUMNS.index(m) for m in ("brier", "ece")]]
        for metric, column in zip(TEMPERED, found.T, strict=True):
            column = centred(column) if metric == "ece_tempered" else column
            column = np.full_like(column, np.nan) if np.isnan(temperature) else column
            _add(table, {metric: {name: each_split.measured(column)}})
    return table


def centred(column: np.ndarray) -> np.ndarray:
    """A calibration error of all samples and, below, of the draws, shifted to have their mean there: [1 + RESAMPLES].

    A mean of absolute values grows with noise, of which each draw has more than the samples. Unshifted, an interval may
    lie wholly above the value.
    """
    value, drawn = column[0], column[1:]
    return np.append(value, np.maximum(drawn - drawn.mean() + value, 0))


def _of_all(decisions: np.ndarray, labels: np.ndarray) -> Statistic:
    """Accuracy, Brier score (summed over the classes) and calibration error of the decided class, [B, 3]."""
    right = decisions.argmax(1) == labels
    squares = np.square(decisions - np.eye(decisions.shape[1])[labels]).sum(1)
    linear = np.column_stack([right, squares, calibration.excess(decisions.max(1), right)])

    def of(weights: np.ndarray) -> np.ndarray:
        means = weights.astype(np.float64) @ linear / weights.sum(1, dtype=np.float64)[:, None]
        return np.column_stack([means[:, :2], np.abs(means[:, 2:]).sum(1)])

    return of


def _overall(split: Mapping[str, _Split], columns: Mapping[str, Mapping[int, np.ndarray]], temperature: float) -> Table:
    """Of all classes together; of two, what the positive class does not tell already."""
    table: Table = {}
    for name, each_split in split.items():
        decided, counted = each_split.decided, list(columns[name].values())
        everything = np.ones(len(decided.labels), bool)
        accuracy, brier, ece = each_split.columns(_of_all(decided.decisions, decided.labels)).T
        found = {"accuracy": each_split.measured(accuracy, everything)}
        if len(counted) == 1:
            both = counted[0][:, [COLUMNS.index(rate) for rate in ("sensitivity", "specificity")]]
            found["balanced_accuracy"] = each_split.measured(_mean(both))
        else:
            for metric, of_class in MEANS.items():
                one = np.stack([column[:, COLUMNS.index(of_class)] for column in counted], axis=1)
                found[metric] = each_split.measured(_mean(one))
            found["mcc"] = each_split.measured(diagnostics.many_classes(counted))
            found |= {"brier": each_split.measured(brier), "ece": each_split.measured(centred(ece))}
        _add(table, {metric: {name: one} for metric, one in found.items()})
    if len(columns["test"]) > 1 and "val" in split:
        _add(table, _tempered(split, temperature, None))
    return table


def _mean(of_classes: np.ndarray) -> np.ndarray:
    """Mean over the classes [B, K] that a draw has; NaN where it has none."""
    defined = ~np.isnan(of_classes)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, of_classes, 0).sum(1) / defined.sum(1))
