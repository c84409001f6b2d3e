"""Fusions: ways from the local decisions of an image to a final one, and what they lose without some subdomains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ddhpc.method.metrics import accuracy

ABSENT_DRAWS = 20
BLOCK = 512
"""Samples that are fused at once, so that N x K numbers of each fit into memory where not all samples' do."""

Fusion = Callable[[np.ndarray], np.ndarray]
"""From local outputs [N, S, K + F] to final decisions [S, K]."""


def present(local: np.ndarray) -> np.ndarray:
    """Which of the subdomains of local outputs [N, S, K + F] are there: [N] bool."""
    return np.asarray(local.any(axis=(1, 2)))


def by_blocks(fusion: Fusion, local: np.ndarray) -> np.ndarray:
    """The final decisions [S, K] of a fusion for local outputs [N, S, K + F] that may be mapped from a file."""
    starts = range(0, local.shape[1], BLOCK)
    return np.concatenate([fusion(np.ascontiguousarray(local[:, start : start + BLOCK])) for start in starts])


def mean(local: np.ndarray) -> np.ndarray:
    """Average probability of the local decisions [N, S, K]: final decisions [S, K].

    Example:
        >>> mean(np.array([[[0.5, 0.5]], [[0.75, 0.25]]])).tolist()
        [[0.625, 0.375]]
    """
    return np.asarray(local[present(local)].mean(axis=0, dtype=np.float64), np.float32)


def vote(local: np.ndarray) -> np.ndarray:
    """Majority vote of the local decisions [N, S, K]: final decisions [S, K], the share of the votes.

    A tie is decided by the average probability, which weighs less than one vote.

    Example:
        >>> vote(np.array([[[0.6, 0.4]], [[0.4, 0.6]], [[0.1, 0.9]]])).argmax(axis=1).tolist()
        [1]
    """
    voters = local[present(local)]
    votes = np.eye(local.shape[2], dtype=np.float32)[voters.argmax(axis=2)].sum(axis=0)
    return np.asarray((votes + mean(local) / 2) / (len(voters) + 0.5))


def accuracy_without(fusion: Fusion, local: np.ndarray, labels: np.ndarray, allow_missing: int) -> np.ndarray:
    """Accuracy of a fusion without 0 to `allow_missing` subdomains: [allow_missing + 1], see `CoarseSolution`."""
    draw = np.random.default_rng(0)
    there = np.flatnonzero(present(local))
    found = np.full(allow_missing + 1, np.nan)
    for count in range(min(allow_missing + 1, len(there))):
        tried = []
        for _ in range(ABSENT_DRAWS if count else 1):
            left = np.ones((len(local), 1, 1), local.dtype)
            left[draw.choice(there, count, replace=False)] = 0
            tried.append(accuracy(by_blocks(partial(_without, fusion, left), local), labels))
        found[count] = np.mean(tried)
    return found


def _without(fusion: Fusion, left: np.ndarray, local: np.ndarray) -> np.ndarray:
    """A fusion of the local outputs [N, S, K + F] of the subdomains that are left, [N, 1, 1] ones and zeros."""
    return fusion(local * left)
