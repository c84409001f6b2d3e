"""How good decisions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ddhpc.method import diagnostics
from ddhpc.method.calibration import LEAST
from ddhpc.method.resampling import CONFIDENCE, RESAMPLES, blockwise, draws, measured, owners
from ddhpc.wording import listed

BINARY = ("roc_auc", "sensitivity", "specificity")
"""What `scores` tells of two classes alone."""
UNEQUAL = 2
"""How many times the training images of the smallest class the largest has from where on this is told."""


def accuracy(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of samples whose most probable class is their label.

    Args:
        decisions: [..., S, K] class probabilities.
        labels: [S] int64.

    Returns:
        [...] float64, a scalar array for final decisions [S, K].

    Example:
        >>> float(accuracy(np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8]]), np.array([0, 1, 1, 1])))
        0.75
    """
    right: np.ndarray = decisions.argmax(-1) == labels
    return np.asarray(right.mean(-1))


def cross_entropy(decisions: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean negative logarithm of the probability that samples have of their label.

    Args:
        decisions: [S, K] class probabilities.
        labels: [S] int64.
        weights: [K], what a sample of each class weighs; all 1 without them.

    Example:
        >>> round(cross_entropy(np.array([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1])), 4)
        1.0397
    """
    own = np.maximum(decisions[np.arange(len(labels)), labels], LEAST, dtype=np.float64)
    return float(-np.mean(np.log(own) * (1 if weights is None else weights[labels])))


def confusion(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many samples of each true class (row) were given each class (column): [K, K] int64 from [S, K] and [S]."""
    classes = decisions.shape[-1]
    return np.bincount(classes * labels + decisions.argmax(-1), minlength=classes**2).reshape(classes, classes)


def margin(
    decisions: np.ndarray, other: np.ndarray, labels: np.ndarray, patients: Sequence[str] = ()
) -> tuple[float, float]:
    """By how much the accuracy of [S, K] is above that of others for the same samples, and its standard error.

    The error is that of the mean of S paired differences: samples that both decide rightly, or both wrongly, add none.
    Where `patients` [S] are known, those of one are not taken as independent (the cluster-robust error).
    """
    differences = np.subtract(decisions.argmax(-1) == labels, other.argmax(-1) == labels, dtype=np.float64)
    above = differences.mean()
    of_owners = np.bincount(owners(len(labels), patients), differences - above)
    return float(above), float(np.sqrt(np.square(of_owners).sum()) / len(labels))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How good decisions are, and how much better than others for the same samples; shares from 0 to 1."""

    accuracy: float
    interval: tuple[float, float]
    """Of the accuracy, see `scores`."""
    above: float
    """Accuracy less that of the others."""
    above_interval: tuple[float, float]
    """Of the difference: as many standard errors to either side as a normal distribution has 95 % within."""


def compare(decisions: np.ndarray, other: np.ndarray, labels: np.ndarray, patients: Sequence[str] = ()) -> Compared:
    """Compare decisions [S, K] with others for the same samples, whose labels and patients are [S]; see `margin`."""
    found, (above, error) = scores(decisions, labels, patients), margin(decisions, other, labels, patients)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return Compared(
        accuracy=float(accuracy(decisions, labels)),
        interval=(found["accuracy_low"], found["accuracy_high"]),
        above=above,
        above_interval=(above - reach, above + reach),
    )


def below_mean(above: float, error: float) -> str:
    """What to say of a coarse DNN that is below the average probability on val by more than the standard error.

    Args:
        above: accuracy of `dnn` less that of `mean`.
        error: its standard error, see `margin`.
    """
    if above >= -error:
        return ""
    return (
        f"the coarse DNN is {-100 * above:.1f} points below mean on val (standard error {100 * error:.1f}); try more "
        "--local.epochs or --coarse.epochs, or use mean"
    )


def never_chosen(counts: np.ndarray, train: np.ndarray, classes: Sequence[str]) -> str:
    """What to say of classes that final decisions on val never are, though val has images of them.

    Args:
        counts: [K, K] of `confusion`, on val.
        train: [K] int64, training images of each class.
        classes: K names.
    """
    never = np.flatnonzero((counts.sum(0) == 0) & (counts.sum(1) > 0)).tolist()
    if not never:
        return ""
    hint = "try more --local.epochs"
    if train.max() >= UNEQUAL * train.min():
        hint = (
            f"classes have {train.min():,} to {train.max():,} training samples: try another --local.class_weight or "
            "--local.sampling"
        )
    names, there = listed([classes[kind] for kind in never]), counts.sum(1)[never]
    few = f"{there.min():,} to {there.max():,}" if there.min() < there.max() else f"{there.min():,}"
    return f"never chosen on val: {len(never)} of {len(classes)} classes ({names}; {few} samples there); {hint}"


def scores(decisions: np.ndarray, labels: np.ndarray, patients: Sequence[str] = ()) -> dict[str, float]:
    """What the table of a run tells of final decisions; `evaluation` has more, and `all_scores` takes several ones.

    Args:
        decisions: [S, K] class probabilities.
        labels: [S] int64.
        patients: whose each sample is; see `resampling.owners`.

    Returns:
        `balanced_accuracy` (mean over the classes in `labels` of the share classified rightly); for two classes, of
        which the second is the positive one, also `roc_auc`, `sensitivity` and `specificity`, NaN where `labels`
        has one class only; and for each of these and `accuracy` a 95 % interval over patients or samples, `NAME_low`
        and `NAME_high`, see `resampling.measured`. `NAME_resamples` counts the draws with a value, of `resamples`.
    """
    return all_scores({"": decisions}, labels, patients)[""]


def all_scores(
    fusions: Mapping[str, np.ndarray], labels: np.ndarray, patients: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """The `scores` of several final decisions for the same samples, by fusion; these are drawn once."""
    owner = owners(len(labels), patients)
    weights = draws(owner)
    return {fusion: _scores(decisions, labels, owner, weights) for fusion, decisions in fusions.items()}


def _scores(decisions: np.ndarray, labels: np.ndarray, owner: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    counts = confusion(decisions, labels)
    members = counts.sum(1)
    found = {"balanced_accuracy": float((counts.diagonal()[members > 0] / members[members > 0]).mean())}
    right, once = decisions.argmax(1) == labels, np.ones((1, len(labels)), np.uint8)
    # Summed as whole numbers, exactly, so that intervals have the same bits everywhere.
    drawn = blockwise(lambda w: (w[:, right].sum(1, dtype=np.int64) / w.sum(1, dtype=np.int64))[:, None], weights)
    share = measured(right.mean(), drawn[:, 0], int(owner.max()) + 1)
    found |= {"accuracy_low": share.low, "accuracy_high": share.high}
    if decisions.shape[1] > 2:
        return found
    task = diagnostics.OneAgainstRest.of(decisions, labels, 1)
    rates, ranks = diagnostics.rates(task), diagnostics.ranks(task)
    values = {"roc_auc": (ranks, 0), "sensitivity": (rates, 0), "specificity": (rates, 1)}
    for name, (statistic, column) in values.items():
        trials = None if name == "roc_auc" else len(np.unique(owner[task.denominator(name)]))
        of = measured(statistic(once)[0, column], blockwise(statistic, weights)[:, column], trials)
        found |= {name: of.value, f"{name}_resamples": of.resamples, f"{name}_low": of.low, f"{name}_high": of.high}
    return found | {"resamples": RESAMPLES}
