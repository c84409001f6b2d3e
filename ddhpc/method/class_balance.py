"""Classes of unequal size: weights in the loss, and which images an epoch draws. No MPI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

DRAWS = 1
"""Tells the random numbers of these draws from others of the same seed."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Cross entropy of a batch, weighted by class.

    Divides by the images of the batch, not by the sum of their weights as torch's mean does. So the weight of an image
    does not depend on the others of its batch, and the losses of parts of a batch add up to that of the whole.
    """

    weights: Tensor | None = None
    """[K] float32, on the device of the logits; all 1 without it."""
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits [B, K] for labels [B] int64, a scalar with its graph."""
        if self.weights is None:
            return cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        total = cross_entropy(
            logits, target, weight=self.weights, label_smoothing=self.label_smoothing, reduction="sum"
        )
        return total / len(target)


def weighted_loss(
    labels: np.ndarray, kind: str, classes: int, device: torch.device | str, label_smoothing: float = 0.0
) -> Loss:
    """The loss for training images with these labels [n]; see `class_weights` for `kind` and `classes`."""
    weights = class_weights(labels, kind, classes)
    return Loss(
        weights=None if weights is None else torch.from_numpy(weights).float().to(device),
        label_smoothing=label_smoothing,
    )


def class_weights(labels: np.ndarray, kind: str, classes: int) -> np.ndarray | None:
    """What an image of each class weighs in the loss; the mean over the training images is 1.

    With n images, of which n_k are of class k, of K classes, `balanced` is n / (K n_k): the inverse of the frequency
    (King and Zeng, Political Analysis 9(2), 2001, doi:10.1093/oxfordjournals.pan.a004868; `compute_class_weight` of
    scikit-learn). `sqrt` is in proportion to its square root, half way to it on a logarithmic scale.

    Args:
        labels: [n] int64, of the training images.
        kind: see `config.Local.class_weight`.
        classes: K.

    Returns:
        [K] float64; None where all weigh the same, so that the arithmetic is that of a loss without weights.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), "balanced", 2).tolist()
        [0.6666666666666666, 2.0]
    """
    counts = np.bincount(labels, minlength=classes)
    if kind == "none" or is_balanced(labels):
        return None
    weights = np.ones(classes)
    seen = counts > 0
    weights[seen] = len(labels) / (seen.sum() * counts[seen])
    if kind == "sqrt":
        weights = np.sqrt(weights)
    return np.asarray(weights * len(labels) / (weights * counts).sum())


def is_balanced(labels: np.ndarray) -> bool:
    """Whether all classes that there are have as many images."""
    counts = np.bincount(labels)
    return len(set(counts[counts > 0].tolist())) == 1


def drawn(labels: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Which images an epoch is trained on, before they are put in a random order: [n] int64 indices into `labels`.

    `balanced` draws each class as often as any other, up to one image: a large class without repetition, a small one
    whole as many times as fits, and the rest at random. The draws depend on the seed and the epoch alone, so that all
    subdomains are fitted to the same images as often, as with `natural`, where an epoch is every image once. Else one
    local CNN would know an image by heart that another never saw, and the coarse DNN would learn from both.

    Args:
        labels: [n] int64, of the images that may be drawn.
        sampling: see `config.Local.sampling`.
        seed: of the run.
        epoch: from 0.

    Example:
        >>> counts = np.bincount(np.array([0, 0, 0, 0, 0, 0, 1, 1])[drawn(np.repeat([0, 1], [6, 2]), "balanced", 0, 0)])
        >>> counts.tolist()
        [4, 4]
    """
    if sampling == "natural" or is_balanced(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng((seed, epoch, DRAWS))
    kinds = np.unique(labels)
    wanted = np.full(len(kinds), len(labels) // len(kinds))
    wanted[rng.permutation(len(kinds))[: len(labels) % len(kinds)]] += 1
    parts = []
    for kind, count in zip(kinds, wanted, strict=True):
        members = np.flatnonzero(labels == kind)
        parts += [np.tile(members, count // len(members)), rng.permutation(members)[: count % len(members)]]
    return np.concatenate(parts)
