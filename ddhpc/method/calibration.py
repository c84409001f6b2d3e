"""Whether probabilities are as often right as they say, and temperature scaling, which brings them nearer to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
"""Of equal width, as in Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
arXiv:1706.04599."""
LEAST = float(np.finfo(np.float32).tiny)
"""What a probability of zero counts as in a logarithm."""
STEEPEST = 2.0**20
"""Inverse temperature beyond which none is looked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Of the bins that hold samples, in rising order: [n] each."""

    said: np.ndarray
    """Mean probability."""
    found: np.ndarray
    """Share of the samples that were as the probability said."""
    samples: np.ndarray
    """How many."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |found - said| over the samples."""
        return float(np.average(np.abs(self.found - self.said), weights=self.samples))


def bins(probability: np.ndarray) -> np.ndarray:
    """The bin of each probability [S], 0 to BINS - 1; a value on an edge belongs to the bin below."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)


def excess(probability: np.ndarray, came: np.ndarray) -> np.ndarray:
    """What came true [S] bool less what was said of it [S], in the column of its bin: [S, BINS] float64."""
    found = np.zeros((len(came), BINS))
    found[np.arange(len(came)), bins(probability)] = came - np.asarray(probability, np.float64)
    return found


def reliability(probability: np.ndarray, came: np.ndarray) -> Reliability:
    """How often came true what was said with a probability.

    Args:
        probability: [S].
        came: [S] bool.

    Example:
        >>> found = reliability(np.array([0.5, 0.5, 0.9]), np.array([True, False, True]))
        >>> found.said.tolist(), found.found.tolist(), round(found.error, 3)
        ([0.5, 0.9], [0.5, 1.0], 0.033)
    """
    place = bins(probability)
    samples = np.bincount(place, minlength=BINS)
    held = samples > 0
    said, found = (np.bincount(place, np.asarray(values, np.float64), BINS)[held] for values in (probability, came))
    return Reliability(said=said / samples[held], found=found / samples[held], samples=samples[held])


def temperature(decisions: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the labels are most likely: by it logits are divided before the softmax.

    The logarithm of a probability is a logit but for a constant of the sample, so that stored decisions are enough.
    The decided classes do not change.

    Args:
        decisions: [S, K] class probabilities, of val.
        labels: [S] int64.

    Returns:
        Above 1 for decisions that are too sure. NaN where no temperature is best: none of the samples is decided
        wrongly, so that surer is always better, or the true classes are no more probable than others.
    """
    from scipy.optimize import brentq

    logits = np.log(np.maximum(decisions, LEAST, dtype=np.float64))
    logits -= logits.max(1, keepdims=True)
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Of the mean negative log-likelihood, which is convex in the inverse temperature."""
        weights = np.exp(inverse * logits)
        return float(((weights * logits).sum(1) / weights.sum(1) - own).mean())

    steepest = 1.0
    while slope(steepest) <= 0 and steepest < STEEPEST:
        steepest *= 2
    if slope(0) >= 0 or slope(steepest) <= 0:
        return float("nan")
    return 1 / float(brentq(slope, 0, steepest, xtol=1e-12))


def tempered(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """Class probabilities [S, K] at a temperature, float64; as they are where it is NaN.

    Example:
        >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    if np.isnan(temperature):
        return np.asarray(decisions, np.float64)
    logits = np.log(np.maximum(decisions, LEAST, dtype=np.float64)) / temperature
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True))
