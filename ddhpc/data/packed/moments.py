"""Mean and standard deviation of each channel of images that come one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Of some images of one shape; those of others are added in float64.

    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983),
    equation 2.1.

    Example:
        >>> both = Moments.of(np.full((1, 2, 2), 1)) + Moments.of(np.full((1, 2, 2), 3))
        >>> both.mean.tolist(), both.std.tolist()
        ([2.0], [1.0])
    """

    images: int
    pixels: int
    """Of a channel of one image."""
    mean: np.ndarray
    """[C] float64."""
    squares: np.ndarray
    """[C] float64, sums of the squared distances from the mean."""

    @classmethod
    def of(cls, image: np.ndarray) -> Moments:
        """Of an image [C, *spatial]."""
        pixels = image.reshape(len(image), -1)
        mean = pixels.mean(axis=1, dtype=np.float64)
        distances = pixels - mean[:, None]
        squares = np.square(distances, out=distances).sum(axis=1)  # in place: large volumes take gigabytes
        return cls(images=1, pixels=pixels.shape[1], mean=mean, squares=squares)

    @property
    def std(self) -> np.ndarray:
        """[C] float64."""
        return np.asarray(np.sqrt(self.squares / (self.images * self.pixels)))

    def __add__(self, other: Moments) -> Moments:
        images, delta = self.images + other.images, other.mean - self.mean
        between = delta**2 * (self.pixels * self.images * other.images / images)
        return Moments(
            images=images,
            pixels=self.pixels,
            mean=self.mean + delta * other.images / images,
            squares=self.squares + (other.squares + between),
        )
