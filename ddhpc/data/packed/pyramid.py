"""Images restricted to fewer pixels: means over boxes, and the pyramid of halved sizes that a packed file keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COARSEST = 8
"""Pixels along the longest axis at which the pyramid ends."""


def restriction(size: int, parts: int) -> np.ndarray:
    """Weights [parts, size] that average `size` pixels over `parts` equal intervals, one row an interval.

    A pixel that two intervals share counts in each with the share that lies there.

    Example:
        >>> (3 * restriction(3, 2)).round(3).tolist()
        [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]
    """
    edges = np.arange(parts + 1) * size / parts
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(shared, 0, None) * (parts / size))


def boxes(size: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The first, second, ... pixel of each of `parts` equal intervals, and its weight in the mean, see `restriction`.

    Returns:
        [places, parts] int64 pixels, and [places, parts] float64 weights, zero where an interval has fewer pixels.

    Example:
        >>> pixels, weights = boxes(3, 2)
        >>> pixels.tolist(), (3 * weights).round(3).tolist()
        ([[0, 1], [1, 2]], [[2.0, 1.0], [1.0, 2.0]])
    """
    weights = restriction(size, parts)
    places = np.arange(int((weights > 0).sum(axis=1).max()))[:, None]
    at = (weights > 0).argmax(axis=1) + places
    pixels = np.minimum(at, size - 1)
    return pixels, np.where(at == pixels, weights[np.arange(parts), pixels], 0)


def restrict(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Means of images [S, C, *spatial] over `shape` equal boxes: [S, C, *shape] float32, computed in float64.

    Sums are made pixel by pixel in a fixed order, not as matrix products, whose last bits depend on the processor: what
    one machine stores is what another one computes.
    """
    for axis, parts in enumerate(shape, 2):
        means = np.zeros((*pixels.shape[:axis], parts, *pixels.shape[axis + 1 :]))
        for found, weights in zip(*boxes(pixels.shape[axis], parts), strict=True):
            means += pixels.take(found, axis) * weights.reshape(-1, *[1] * (pixels.ndim - axis - 1))
        pixels = means
    return np.ascontiguousarray(pixels, np.float32)


def levels(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Sizes of the pyramid of images of this shape, the finest first: a half along each axis, a quarter, and so on.

    Example:
        >>> levels((28, 20))
        [(14, 10), (7, 5)]
    """
    sizes: list[tuple[int, ...]] = []
    while max(shape) > COARSEST:
        shape = tuple(-(-size // 2) for size in shape)
        sizes.append(shape)
    return sizes


def level(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Images [S, C, *spatial] at one size of their pyramid, [S, C, *shape] of their own dtype; integers are rounded."""
    means = restrict(pixels, shape)
    return means.astype(pixels.dtype) if pixels.dtype.kind == "f" else np.rint(means).astype(pixels.dtype)
