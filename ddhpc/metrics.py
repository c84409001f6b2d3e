"""How good decisions are."""

from __future__ import annotations

import numpy as np


def accuracy(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of samples whose most probable class is their label.

    Args:
        decisions: [..., S, K] class probabilities.
        labels: [S] int64.

    Returns:
        [...] float64, a scalar array for final decisions [S, K].
    """
    right: np.ndarray = decisions.argmax(-1) == labels
    return np.asarray(right.mean(-1))
