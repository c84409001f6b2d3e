"""The chunks of a packed file: of images small in space and long over samples, of restricted images whole."""

from __future__ import annotations

import hashlib
import math

import h5py
import numpy as np

CHUNK_BYTES = 256 * 2**10
SMALL_CHUNK_BYTES = 32 * 2**10
ROW_BYTES = 256 * 10**6
CHECKED_CHUNKS = 64


def choose_chunks(image_shape: tuple[int, ...], channels: int, itemsize: int) -> tuple[int, ...]:
    """Chunk shape (samples, C, *edges): about 256 KiB, and a row of chunks at most 256 MB.

    A row is as many whole images as a chunk has samples, what the writer holds in memory. Edges are 4 pixels
    for images below 64 pixels, else 8. They grow where images are so large that the limit on the row would
    leave chunks below 32 KiB, of which a file would hold millions.
    """
    row = max(1, ROW_BYTES // (channels * math.prod(image_shape) * itemsize))
    edge = 4 if max(image_shape) < 64 else 8
    while True:
        edges = tuple(min(edge, size) for size in image_shape)
        sample = channels * math.prod(edges) * itemsize
        samples = min(row, max(1, CHUNK_BYTES // sample))
        if samples * sample >= SMALL_CHUNK_BYTES or edge >= max(image_shape):
            return (samples, channels, *edges)
        edge *= 2


def choose_whole_chunks(image_shape: tuple[int, ...], channels: int, itemsize: int) -> tuple[int, ...]:
    """Chunk shape (samples, C, *edges) of images that are never cut into windows: whole ones, at most 256 KiB together.

    An image of more is cut along its first axes.
    """
    edges = list(image_shape)
    for axis in range(len(edges)):
        rest = channels * math.prod(edges[axis + 1 :]) * itemsize
        edges[axis] = min(edges[axis], max(1, CHUNK_BYTES // rest))
        if rest <= CHUNK_BYTES:
            break
    return (max(1, CHUNK_BYTES // (channels * math.prod(edges) * itemsize)), channels, *edges)


def read_amplification(window: tuple[slice, ...], chunk_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> float:
    """Pixels in the chunks that a window meets over pixels in the window, 1 at best; all spatial."""
    amplification = 1.0
    for axis, edge, size in zip(window, chunk_shape, image_shape, strict=True):
        lower, upper, _ = axis.indices(size)
        touched = min(math.ceil(upper / edge) * edge, size) - lower // edge * edge
        amplification *= touched / (upper - lower)
    return amplification


def sampled(stored: h5py.Dataset, most: int = CHECKED_CHUNKS) -> bytes:
    """SHA-256 over the values of chunks of a dataset: of all, or of `most` evenly spaced ones."""
    grid = [math.ceil(size / edge) for size, edge in zip(stored.shape, stored.chunks, strict=True)]
    count, found = math.prod(grid), hashlib.sha256()
    for number in np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)):
        place = np.unravel_index(number, grid)
        slices = (slice(n * edge, (n + 1) * edge) for n, edge in zip(place, stored.chunks, strict=True))
        found.update(stored[tuple(slices)].tobytes())
    return found.digest()
