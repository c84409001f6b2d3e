"""The coarse image: whole images restricted to few pixels. No MPI, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddhpc.data.packed import Packed
from ddhpc.method.decomposition import Window, whole


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


def restrict(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Means of images [S, C, *spatial] over `shape` equal boxes: [S, C, *shape] float32, computed in float64."""
    for axis, parts in enumerate(shape, 2):
        weights = restriction(pixels.shape[axis], parts)
        pixels = np.moveaxis(np.tensordot(pixels, weights, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(pixels, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseImages:
    """The images of a packed file, restricted; they are read as those of `Packed` are, block by block."""

    packed: Packed
    image_shape: tuple[int, ...]
    """Spatial, in pixels of the coarse image."""
    dtype = np.dtype(np.float32)

    @property
    def channels(self) -> int:
        """C."""
        return self.packed.channels

    @property
    def samples(self) -> Mapping[str, int]:
        """Number of images by split."""
        return self.packed.samples

    @property
    def mean(self) -> np.ndarray:
        """[C] float64, of the images as they are packed."""
        return self.packed.mean

    @property
    def std(self) -> np.ndarray:
        """[C] float64, likewise."""
        return self.packed.std

    @property
    def chunk_samples(self) -> int:
        """Images that are read at once."""
        return self.packed.chunk_samples

    def read(self, split: str, window: Window, images: slice = slice(None)) -> np.ndarray:
        """Windows [S, C, *window] float32 of all or some images of a split; see `Packed.read`."""
        pixels = self.packed.read(split, whole(self.packed.image_shape), images)
        return restrict(pixels, self.image_shape)[(slice(None), slice(None), *window)]
