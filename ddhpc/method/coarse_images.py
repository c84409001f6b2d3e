"""The coarse image: whole images restricted to few pixels. No MPI, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ddhpc.data.packed import Packed
from ddhpc.data.packed.pyramid import level, levels, restrict
from ddhpc.method.decomposition import Window, whole


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseImages:
    """The images of a packed file, restricted; they are read as those of `Packed` are, block by block.

    They are made of the coarsest size of the pyramid that has no fewer pixels along any axis, or of whole images where
    none has. The packed file holds the pyramid, so that no whole images are read; one of format version 1 does not.
    """

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
    def origin(self) -> tuple[int, ...]:
        """Spatial, in pixels: the size of the pyramid that they are made of, or that of whole images."""
        return level_of(self.packed.image_shape, self.image_shape) or self.packed.image_shape

    @property
    def read_shape(self) -> tuple[int, ...]:
        """Spatial, in pixels: of the images that are read, whole ones where the file has not those of `origin`."""
        return self.origin if self.origin in self.packed.restricted else self.packed.image_shape

    @property
    def chunk_samples(self) -> int:
        """Images that are read at once."""
        return self.packed.restricted.get(self.origin, self.packed.chunk_samples)

    def read(self, split: str, window: Window, images: slice = slice(None)) -> np.ndarray:
        """Windows [S, C, *window] float32 of all or some images of a split; see `Packed.read`."""
        if self.origin == self.packed.image_shape:
            pixels = self.packed.read(split, whole(self.packed.image_shape), images)
        else:
            pixels = self.packed.read_restricted(split, self.origin, images)
        return restrict(pixels, self.image_shape)[(slice(None), slice(None), *window)]


def coarse_image(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whole images [S, C, *spatial] in stored units, restricted: [S, C, *shape] float32."""
    size = level_of(pixels.shape[2:], shape)
    return restrict(pixels if size is None else level(pixels, size), shape)


def level_of(image_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Size of the level of the pyramid that a coarse image of this shape is made of; None for the whole image."""
    fit = [size for size in levels(image_shape) if all(map(int.__ge__, size, shape))]
    return fit[-1] if fit else None
