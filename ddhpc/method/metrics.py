"""How good decisions are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np

from ddhpc.wording import listed

RESAMPLES = 1000
BINARY = ("roc_auc", "sensitivity", "specificity")
"""What `scores` tells of two classes alone."""
CONFIDENCE = 0.95
BLOCK = 2**17
"""Drawn samples that are looked at together; about 65 bytes each."""

UNEQUAL = 2
"""How many times the training images of the smallest class the largest has from where on this is told."""

Statistic = Callable[..., np.ndarray]
"""Of true classes, decided classes and scores of the positive class, along an axis; NaN where it is not defined."""


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


def confusion(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many samples of each true class (row) were given each class (column): [K, K] int64 from [S, K] and [S]."""
    classes = decisions.shape[-1]
    return np.bincount(classes * labels + decisions.argmax(-1), minlength=classes**2).reshape(classes, classes)


def margin(decisions: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """By how much the accuracy of [S, K] is above that of others for the same samples, and its standard error.

    The error is that of the mean of S paired differences: samples that both decide rightly, or both wrongly, add none.
    """
    differences = np.subtract(decisions.argmax(-1) == labels, other.argmax(-1) == labels, dtype=np.float64)
    return float(differences.mean()), float(differences.std() / np.sqrt(len(labels)))


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


def compare(decisions: np.ndarray, other: np.ndarray, labels: np.ndarray) -> Compared:
    """Compare decisions [S, K] with others for the same samples, whose labels are [S]; see `margin`."""
    found, (above, error) = scores(decisions, labels), margin(decisions, other, labels)
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


def scores(decisions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What people in the field report of final decisions.

    Args:
        decisions: [S, K] class probabilities.
        labels: [S] int64.

    Returns:
        `balanced_accuracy` (mean over the classes in `labels` of the share classified rightly); for two classes, of
        which the second is the positive one, also `roc_auc`, `sensitivity` and `specificity`, NaN where `labels`
        has one class only; and for each of these and `accuracy` a 95 % percentile bootstrap interval over the
        samples, `NAME_low` and `NAME_high` (1,000 resamples, the same ones each time).

        A resample that lacks a class has no value of what is about this class, and is left out, as in pROC (Robin et
        al., BMC Bioinformatics 12:77, 2011, doi:10.1186/1471-2105-12-77); `NAME_resamples` counts those with a value.
        With a handful of samples of a class the interval is too narrow, with one it is a point.
    """
    counts = confusion(decisions, labels)
    members = counts.sum(1)
    found = {"balanced_accuracy": float((counts.diagonal()[members > 0] / members[members > 0]).mean())}
    statistics: dict[str, Statistic] = {"accuracy": _accuracy}
    if decisions.shape[-1] == 2:
        statistics |= {"roc_auc": _roc_auc, "sensitivity": partial(_recall, 1), "specificity": partial(_recall, 0)}
    samples = (labels, decisions.argmax(-1), decisions[:, -1])
    for name, values in _resampled(samples, statistics).items():
        defined = values[~np.isnan(values)]
        if name != "accuracy":
            found[name] = float(statistics[name](*samples, axis=-1))
            found[f"{name}_resamples"] = len(defined)
        tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
        low, high = np.percentile(defined, tails) if len(defined) else (np.nan, np.nan)
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _resampled(samples: tuple[np.ndarray, ...], statistics: Mapping[str, Statistic]) -> dict[str, np.ndarray]:
    """Statistics of RESAMPLES draws of the samples with replacement, by name: [RESAMPLES] float64."""
    rng, count = np.random.default_rng(0), len(samples[0])
    found = {name: np.empty(RESAMPLES) for name in statistics}
    rows = max(1, BLOCK // count)
    for start in range(0, RESAMPLES, rows):
        block = slice(start, min(start + rows, RESAMPLES))
        drawn = rng.integers(0, count, (block.stop - start, count))
        resamples = [values[drawn] for values in samples]
        for name, statistic in statistics.items():
            found[name][block] = statistic(*resamples, axis=-1)
    return found


def _accuracy(labels: np.ndarray, predicted: np.ndarray, score: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray((labels == predicted).mean(axis))


def _recall(kind: int, labels: np.ndarray, predicted: np.ndarray, score: np.ndarray, axis: int) -> np.ndarray:
    members = labels == kind
    with np.errstate(invalid="ignore"):
        return np.asarray((members & (predicted == kind)).sum(axis) / members.sum(axis))


def _roc_auc(labels: np.ndarray, predicted: np.ndarray, score: np.ndarray, axis: int) -> np.ndarray:
    """Share of pairs of a positive and a negative sample that the score puts in order (Mann and Whitney's U)."""
    from scipy.stats import rankdata

    positive = (labels == 1).sum(axis)
    negative = labels.shape[axis] - positive
    ranks = (rankdata(score, axis=axis) * (labels == 1)).sum(axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ranks - positive * (positive + 1) / 2) / (positive * negative))
