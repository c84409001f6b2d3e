"""Which training images a local CNN is fitted to, and which of its decisions the coarse DNN is trained on. Pure.

A CNN is surer of the images that it was fitted to than of others. Decisions for images that were kept from it are what
the coarse DNN meets later (stacking: Wolpert, Neural Networks 5(2), 1992, doi:10.1016/S0893-6080(05)80023-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddhpc.data.sources.splits import stratified
from ddhpc.errors import InputError

HELD_OUT = 0.2
"""Share of the training images of each class that `held_out` keeps from the local CNNs."""
FOLDS = 3
"""Parts of the training images of each class, each of which `cross_fitted` keeps from one more CNN."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """One training of a local CNN."""

    images: np.ndarray
    """[n] int64, the training images that it is fitted to."""
    decides: np.ndarray
    """[m] int64, the training images for which its decisions are kept."""
    key: tuple[int, ...] = ()
    """What its random numbers are drawn from beside the seed and the subdomain."""


def folds(labels: np.ndarray, decisions: str, seed: int, classes: Sequence[str]) -> np.ndarray:
    """The fold of each training image, the same on all subdomains.

    Args:
        labels: [S] int64.
        decisions: see `config.Coarse`.
        seed: of the run.
        classes: K names.

    Returns:
        [S] int64, -1 for images that the coarse DNN is not trained on; 0 for all with in_sample.

    Raises:
        InputError: a class has too few images to be divided.
    """
    if decisions == "in_sample":
        return np.zeros(len(labels), np.int64)
    # The last fold is what the others leave.
    drawn = {f"fold {number}": 1 / FOLDS for number in range(FOLDS - 1)}
    shares = {"held_out": HELD_OUT} if decisions == "held_out" else drawn
    try:
        parts = stratified(labels, shares, seed, classes)
    except InputError as error:
        raise InputError(f"--coarse.decisions {decisions}: {error}") from error
    fold = np.full(len(labels), -1 if decisions == "held_out" else FOLDS - 1, np.int64)
    for number, name in enumerate(shares):
        fold[parts[name]] = number
    return fold


def fits(fold: np.ndarray, decisions: str) -> list[Fit]:
    """The trainings of a local CNN, one after the other; the last CNN decides the images of val and test.

    Args:
        fold: [S] int64 of `folds`.
        decisions: see `config.Coarse`.
    """
    everything = np.arange(len(fold))
    if decisions == "in_sample":
        return [Fit(images=everything, decides=everything)]
    if decisions == "held_out":
        return [Fit(images=np.flatnonzero(fold != 0), decides=everything)]
    return [
        *(
            Fit(images=np.flatnonzero(fold != number), decides=np.flatnonzero(fold == number), key=(number,))
            for number in range(FOLDS)
        ),
        Fit(images=everything, decides=everything[:0]),
    ]
