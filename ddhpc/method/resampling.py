"""How certain a metric is: percentile bootstrap intervals over whole patients, or over samples where none are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
BLOCK = 2**18
"""Weights that are looked at together; about 20 bytes each."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""From how often each sample counts, [B, S], to M metrics, [B, M] float64; NaN where one is not defined."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float
    resamples: int
    """Draws in which the metric is defined, of RESAMPLES; the others lack the class that it is about."""


def owners(samples: int, patients: Sequence[str] = ()) -> np.ndarray:
    """Whose each sample is, numbered from 0: [S] int64.

    Args:
        samples: S.
        patients: name of the patient of each sample; where it is empty, or there are none, a sample is its own.

    Example:
        >>> owners(4, ["b", "", "b", ""]).tolist()
        [0, 1, 0, 2]
    """
    keys: list[str | int] = [patient or n for n, patient in enumerate(patients or [""] * samples)]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], np.int64)


def draws(owner: np.ndarray) -> np.ndarray:
    """How often each sample is in each of RESAMPLES draws of the owners with replacement, the same ones each time.

    Args:
        owner: [S] int64 as `owners` gives it. All samples of an owner are drawn together.

    Returns:
        [RESAMPLES, S] uint8; an owner is not drawn 256 times among so many.
    """
    rng, count = np.random.default_rng(0), int(owner.max()) + 1
    found = np.empty((RESAMPLES, len(owner)), np.uint8)
    rows = max(1, BLOCK // count)
    for start in range(0, RESAMPLES, rows):
        stop = min(start + rows, RESAMPLES)
        drawn = rng.integers(0, count, (stop - start, count)) + count * np.arange(stop - start)[:, None]
        times = np.bincount(drawn.ravel(), minlength=(stop - start) * count).astype(np.uint8)
        found[start:stop] = times.reshape(-1, count)[:, owner]
    return found


def blockwise(statistic: Statistic, weights: np.ndarray) -> np.ndarray:
    """A statistic of many weights [B, S], a block of rows at a time: [B, M] float64."""
    rows = max(1, BLOCK // weights.shape[1])
    return np.concatenate([statistic(weights[start : start + rows]) for start in range(0, len(weights), rows)])


def measured(value: float, drawn: np.ndarray, trials: int | None = None) -> Measured:
    """A metric with its percentile bootstrap interval.

    A draw that lacks a class has no value of what is about this class, and is left out, as in pROC (Robin et al., BMC
    Bioinformatics 12:77, 2011, doi:10.1186/1471-2105-12-77).

    Args:
        value: of all samples.
        drawn: [RESAMPLES] of the draws.
        trials: owners that a proportion is of. Where all draws give 0, or all give 1, the bootstrap would be sure of
            it; the interval is then Wilson's with as many independent trials. None for what is no proportion.
    """
    defined = drawn[~np.isnan(drawn)]
    tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    low, high = np.percentile(defined, tails) if len(defined) else (np.nan, np.nan)
    if trials and low == high and value in (0, 1):
        low, high = wilson(value, trials)
    return Measured(value=float(value), low=float(low), high=float(high), resamples=len(defined))


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion: J. Amer. Statist. Assoc. 22 (1927), doi:10.2307/2276774.

    Example:
        >>> [round(bound, 3) for bound in wilson(1.0, 20)]
        [0.839, 1.0]
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = share + z**2 / (2 * trials)
    reach = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, float((centre - reach) / (1 + z**2 / trials))), min(
        1.0, float((centre + reach) / (1 + z**2 / trials))
    )
