"""Metrics of a class against the rest, as medicine reports them: rates, what ranks tell, calibration.

The formulas are for many resamples at once. Tests compare each with scikit-learn, which a run does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddhpc.method import calibration
from ddhpc.method.resampling import Statistic

COUNTS = ("true_positive", "decided", "positive", "samples")
RATES = ("sensitivity", "specificity", "ppv", "npv")
"""Proportions; ppv and npv are the positive and the negative predictive value, the first is also called precision."""
METRICS = (*RATES, "f1", "mcc", "auc", "average_precision", "brier", "ece")
COLUMNS = (*COUNTS, *METRICS)


@dataclass(frozen=True, kw_only=True, eq=False)
class OneAgainstRest:
    """S samples, each of the positive class or of the rest."""

    positive: np.ndarray
    """[S] bool, whether it is."""
    score: np.ndarray
    """[S] float64, the probability that it is."""
    decided: np.ndarray
    """[S] bool, whether it was taken for it."""

    @classmethod
    def of(cls, decisions: np.ndarray, labels: np.ndarray, positive: int) -> OneAgainstRest:
        """A class of decisions [S, K] for labels [S]; taken for it are the samples whose most probable class it is."""
        return cls(
            positive=labels == positive,
            score=np.asarray(decisions[:, positive], np.float64),
            decided=decisions.argmax(1) == positive,
        )

    def denominator(self, rate: str) -> np.ndarray:
        """The samples [S] bool of which one of RATES is a proportion."""
        of = {"sensitivity": self.positive, "specificity": ~self.positive, "ppv": self.decided, "npv": ~self.decided}
        return of[rate]


def statistic(task: OneAgainstRest) -> Statistic:
    """All COLUMNS, of weights of the samples.

    f1 is not defined without positive samples, mcc where all or none are positive or taken for it; the latter is 0
    in scikit-learn.
    """
    squares = np.square(task.score - task.positive)
    linear = np.column_stack([_indicators(task), squares, calibration.excess(task.score, task.positive)])
    of_ranks = ranks(task)

    def of(weights: np.ndarray) -> np.ndarray:
        sums = weights.astype(np.float64) @ linear
        counts, samples = sums[:, : len(COUNTS)], sums[:, 3]
        brier, ece = sums[:, 4] / samples, np.abs(sums[:, 5:]).sum(1) / samples
        return np.column_stack([counts, _of_counts(counts), of_ranks(weights), brier, ece])

    return of


def rates(task: OneAgainstRest) -> Statistic:
    """RATES alone, of weights of the samples."""
    indicators = _indicators(task)
    return lambda weights: _of_counts(weights.astype(np.float64) @ indicators)[:, : len(RATES)]


def _indicators(task: OneAgainstRest) -> np.ndarray:
    """[S, COUNTS] float64, whether a sample counts."""
    kinds = (task.positive & task.decided, task.decided, task.positive, np.ones_like(task.positive))
    return np.stack(kinds, axis=1).astype(np.float64)


def _of_counts(counts: np.ndarray) -> np.ndarray:
    """RATES, f1 and mcc [B, 6] of COUNTS [B, 4]."""
    right, decided, positive, samples = counts.T
    left, rest = samples - decided, samples - positive
    rejected = left - (positive - right)
    with np.errstate(invalid="ignore", divide="ignore"):
        of = [right / positive, rejected / rest, right / decided, rejected / left]
        f1 = np.where(positive > 0, 2 * right / (decided + positive), np.nan)
        mcc = (samples * right - decided * positive) / np.sqrt(decided * positive * left * rest)
    return np.column_stack([*of, f1, mcc])


def ranks(task: OneAgainstRest) -> Statistic:
    """AUC and average precision, [B, 2] of weights [B, S].

    AUC: share of the pairs of a positive and another sample that the score puts in order, ties by half (Mann and
    Whitney's U). Average precision: mean of the precision at the score of each positive sample, without interpolation.
    """
    order = np.lexsort((task.positive, -task.score))  # positive samples last among equal scores
    score, positive = task.score[order], task.positive[order]
    first = np.flatnonzero(np.diff(score, prepend=np.nan) != 0)
    stops = np.append(first[1:], len(score))
    mine = np.add.reduceat(positive.astype(np.int64), first)
    first, stops, mine = (values[mine > 0] for values in (first, stops, mine))  # scores of positive samples

    def of(weights: np.ndarray) -> np.ndarray:
        above = np.zeros((len(weights), len(order) + 1), np.int64)
        np.cumsum(weights[:, order], axis=1, out=above[:, 1:])
        until = above[:, stops].astype(np.float64)
        own = until - above[:, stops - mine]
        tied = above[:, stops - mine] - above[:, first]
        found = own.cumsum(1)
        total = own.sum(1)
        rest = above[:, -1] - total
        ordered = (own * (rest[:, None] - (until - found) + tied / 2)).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.divide(found, until, out=np.zeros_like(found), where=until > 0)
            return np.column_stack([ordered / (total * rest), (own * precision).sum(1) / total])

    return of


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """What becomes of the samples when those of a score from a threshold on are taken for the class, [T] each."""

    threshold: np.ndarray
    """The distinct scores, falling."""
    right: np.ndarray
    """Positive samples of at least this score."""
    wrong: np.ndarray
    """Others."""

    @property
    def positive(self) -> int:
        """How many samples are of the class."""
        return int(self.right[-1])

    @property
    def rest(self) -> int:
        """How many are not."""
        return int(self.wrong[-1])

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """1 - specificity and sensitivity, [T + 1] from (0, 0) to (1, 1)."""
        return np.append(0, self.wrong) / self.rest, np.append(0, self.right) / self.positive

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall (sensitivity) and precision (PPV), [T] of falling thresholds."""
        return self.right / self.positive, self.right / (self.right + self.wrong)

    def youden(self) -> float:
        """The threshold of the largest sensitivity + specificity - 1 (Youden, Cancer 3:32, 1950).

        It lies halfway between two scores, as in pROC. Of equally good ones it is the lowest, the most sensitive.
        NaN where none is better than chance, or a class is absent.
        """
        gain = self.right * self.rest - self.wrong * self.positive
        best = len(gain) - 1 - int(gain[::-1].argmax())
        if gain[best] <= 0:
            return float("nan")
        return float(self.threshold[best : best + 2].mean())


def curve(positive: np.ndarray, score: np.ndarray) -> Curve:
    """The curve of a class, from whether each sample is of it [S] bool and its score [S].

    Example:
        >>> found = curve(np.array([True, False, True]), np.array([0.9, 0.6, 0.4]))
        >>> found.right.tolist(), found.wrong.tolist(), found.youden()
        ([1, 1, 2], [0, 1, 1], 0.75)
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)
    right = positive[order].cumsum()[last]
    return Curve(threshold=score[order][last], right=right, wrong=last + 1 - right)


def many_classes(counts: Sequence[np.ndarray]) -> np.ndarray:
    """Matthews' correlation of K classes, R_K, [B] of COUNTS [B, 4] of each.

    Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, Comput. Biol. Chem. 28
    (2004), doi:10.1016/j.compbiolchem.2004.09.006.
    """
    right, decided, members, samples = np.stack(counts)[..., : len(COUNTS)].transpose(2, 0, 1)
    total = samples[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (total**2 - (decided**2).sum(0)) * (total**2 - (members**2).sum(0))
        return np.asarray((right.sum(0) * total - (decided * members).sum(0)) / np.sqrt(spread))
