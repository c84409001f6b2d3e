"""Which subdomains drove a final decision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOVED = 0.05


def drops(decide: Callable[[np.ndarray], np.ndarray], local: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far the probability of the decided class falls when a subdomain says no more than it usually does.

    Occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901)
    at the coarse level: what is covered is a local decision, and what covers it is its mean over the training images,
    which keeps the input among those that the coarse DNN knows.

    Args:
        decide: the coarse DNN, from local decisions [N, S, K] to final ones [S, K].
        local: [N, S, K].
        usual: [N, K], mean local decisions over the training images.

    Returns:
        [S, N] float64, from -1 to 1; positive where the subdomain spoke for the decided class.
    """
    final = decide(local).astype(np.float64)
    decided = final.argmax(axis=1)[:, None]
    found = np.empty((local.shape[1], len(local)))
    for n in range(len(local)):
        covered = local.copy()
        covered[n] = usual[n]
        without = decide(covered).astype(np.float64)
        found[:, n] = np.take_along_axis(final - without, decided, axis=1)[:, 0]
    return found


def examples(labels: np.ndarray, final: np.ndarray, vote: np.ndarray, found: np.ndarray, count: int) -> list[int]:
    """Samples worth a look: right ones, ones put right against the majority vote, wrong ones, in turn.

    Of each kind the first, before others those whose probability a single subdomain moves by MOVED or more.

    Args:
        labels: [S].
        final: [S, K] final decisions of the coarse DNN.
        vote: [S, K] those of the majority vote.
        found: [S, N] as `drops` gives it.
        count: samples wanted, of which there may be fewer.

    Returns:
        Their numbers, ascending.
    """
    right, voted = final.argmax(axis=1) == labels, vote.argmax(axis=1) == labels
    unmoved = np.abs(found).max(axis=1) < MOVED
    order = np.argsort(unmoved, kind="stable")
    kinds = [order[kind[order]].tolist() for kind in (right & voted, right & ~voted, ~right)]
    turns = [kind[turn] for turn in range(count) for kind in kinds if turn < len(kind)]
    return sorted(turns[:count])
