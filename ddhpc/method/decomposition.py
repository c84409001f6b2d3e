"""Geometry of the domain decomposition: grid, overlap, windows, and which rank owns which subdomain.

Pure functions of integers; no MPI, no torch. Subdomains are numbered row-major over the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import atan2, ceil, cos, prod, radians, sin

import numpy as np

from ddhpc.config import Balance
from ddhpc.errors import InputError

Window = tuple[slice, ...]

TINY = 1e-9
"""Pixels that rounding may add to a whole number of them."""


def block(size: int, parts: int, index: int) -> tuple[int, int]:
    """Bounds [lower, upper) of block `index` when `size` points are shared out among `parts`.

    The first `size % parts` blocks are one point longer, so sizes differ by one at most.
    """
    share, rest = divmod(size, parts)
    lower = index * share + min(index, rest)
    return lower, lower + share + (index < rest)


def owned(subdomains: int, ranks: int, rank: int) -> range:
    """The subdomains that `rank` owns: consecutive ones, shared out evenly.

    With more ranks than subdomains the first of each `team` owns one, and the others none.

    Example:
        >>> [owned(16, 3, rank) for rank in range(3)]
        [range(0, 6), range(6, 11), range(11, 16)]
    """
    if ranks <= subdomains:
        return range(*block(subdomains, ranks, rank))
    subdomain, members = team_of(subdomains, ranks, rank)
    first = subdomain + (rank != members.start)
    return range(first, subdomain + 1)


def team_of(subdomains: int, ranks: int, rank: int) -> tuple[int, range]:
    """The subdomain that `rank` trains, alone or with others, and all the ranks that do, which are consecutive.

    Only with at least as many ranks as subdomains, which share them out evenly.
    """
    teams = (range(*block(ranks, subdomains, subdomain)) for subdomain in range(subdomains))
    return next((subdomain, members) for subdomain, members in enumerate(teams) if rank in members)


def sides(
    image_shape: Sequence[int], grid: Sequence[int], overlap: int = 0, balance: Balance = "blocks"
) -> list[list[slice]]:
    """The sides of the blocks, by dimension; a block of the image takes one side of each. The overlap is one that
    `windows` allows.

    Equal blocks have windows that differ: an interior block is extended on both of its sides, one at the edge of the
    image on one side alone. Equal windows share the pixels of the image and those that lie in two windows, 2 * overlap
    at each boundary; their blocks are what is left without the overlap, smaller inside than at the edge. Both ways the
    blocks cover every pixel exactly once, and each window is its block extended by the overlap.

    Example:
        >>> sides((28,), (4,), overlap=2, balance="blocks")
        [[slice(0, 7, None), slice(7, 14, None), slice(14, 21, None), slice(21, 28, None)]]
        >>> sides((28,), (4,), overlap=2, balance="even")
        [[slice(0, 8, None), slice(8, 14, None), slice(14, 20, None), slice(20, 28, None)]]
    """
    within = overlap if balance == "even" else 0
    return [_along(size, parts, within) for size, parts in zip(image_shape, grid, strict=True)]


def _along(size: int, parts: int, overlap: int) -> list[slice]:
    """Blocks along one dimension whose windows, with this overlap, are equal to a pixel; 0 makes the blocks equal."""
    found = []
    for index in range(parts):
        lower, upper = (bound - 2 * overlap * index for bound in block(size + 2 * overlap * (parts - 1), parts, index))
        found.append(slice(lower + overlap * (index > 0), upper - overlap * (index < parts - 1)))
    return found


def windows(
    image_shape: Sequence[int], grid: Sequence[int], overlap: int = 0, balance: Balance = "blocks"
) -> list[Window]:
    """The window of every subdomain, row-major.

    Args:
        image_shape: pixels (voxels) along each of the d dimensions.
        grid: subdomains along each dimension.
        overlap: pixels that a window extends beyond its block on every interior side.
        balance: blocks of equal extent, or windows of equal extent (even), to a pixel; see `sides`.

    Returns:
        prod(grid) tuples of d slices into the image. Without overlap they cover every pixel exactly once.

    Raises:
        InputError: grid and image have different numbers of dimensions, the grid is larger than the image, or the
            overlap reaches past the neighbouring block.

    Example:
        >>> [extent(window) for window in windows((28, 28), (2, 2), overlap=2)]
        [(16, 16), (16, 16), (16, 16), (16, 16)]
        >>> [extent(window) for window in windows((28,), (4,), overlap=2)]
        [(9,), (11,), (11,), (9,)]
        >>> [extent(window) for window in windows((28,), (4,), overlap=2, balance="even")]
        [(10,), (10,), (10,), (10,)]
    """
    shown = " ".join(map(str, grid))
    pixels = "x".join(map(str, image_shape))
    if len(grid) != len(image_shape):
        raise InputError(
            f"--decomposition.grid {shown}: expected {len(image_shape)} numbers for images of {pixels} pixels"
        )
    if any(parts < 1 or parts > size for parts, size in zip(grid, image_shape, strict=True)):
        raise InputError(
            f"--decomposition.grid {shown}: expected 1 to as many subdomains as pixels along each dimension of {pixels}"
        )
    # an interior block of equal windows has at least `overlap` pixels as long as overlap <= size // (parts + 2)
    limits = [
        size // (parts + 2 if balance == "even" and parts > 2 else parts)
        for size, parts in zip(image_shape, grid, strict=True)
        if parts > 1
    ]
    if overlap < 0 or (limits and overlap > min(limits)):
        expected = f"0 to {min(limits)}" if limits else "0 or more"
        raise InputError(
            f"--decomposition.overlap {overlap}: expected {expected} pixels, so that no window of the grid {shown} on "
            f"images of {pixels} reaches past its neighbour"
        )
    edges = [
        [slice(max(side.start - overlap, 0), min(side.stop + overlap, size)) for side in along]
        for size, along in zip(image_shape, sides(image_shape, grid, overlap, balance), strict=True)
    ]
    return [tuple(window) for window in product(*edges)]


def grow(window: Window, margins: Sequence[int], image_shape: Sequence[int]) -> tuple[Window, Window]:
    """A window grown by up to `margins` pixels on both sides of each dimension, as far as the image reaches.

    Returns:
        The grown window, and the slices of the given window within it.
    """
    grown = tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, size))
        for side, margin, size in zip(window, margins, image_shape, strict=True)
    )
    core = tuple(
        slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(window, grown, strict=True)
    )
    return grown, core


def rotation_margins(window: Sequence[int], degrees: float) -> tuple[int, ...]:
    """Pixels beyond a window that come into it when it rotates about its centre, by dimension.

    Args:
        window: its extent, at least two dimensions, of which the first two are the plane of the rotation.
        degrees: largest angle to either side, at most 90.
    """
    half = [(size - 1) / 2 for size in window[:2]]
    margins = []
    for along, across in (half, half[::-1]):
        angle = min(radians(degrees), atan2(across, along))  # where a corner is farthest out
        margins.append(ceil(along * cos(angle) + across * sin(angle) - along - TINY))
    return (*margins, *[0] * (len(window) - 2))


def bounds(decomposition: Sequence[Window]) -> tuple[np.ndarray, np.ndarray]:
    """Lower (inclusive) and upper (exclusive) bounds of the windows: two int64 arrays [N, d] in pixels."""
    lower = np.array([[side.start for side in window] for window in decomposition], dtype=np.int64)
    upper = np.array([[side.stop for side in window] for window in decomposition], dtype=np.int64)
    return lower, upper


def whole(image_shape: Sequence[int]) -> Window:
    """The window that is the whole image."""
    return tuple(slice(0, size) for size in image_shape)


def extent(window: Window) -> tuple[int, ...]:
    """Pixels of a window along each dimension."""
    return tuple(side.stop - side.start for side in window)


def count_pixels(window: Window) -> int:
    """Number of pixels in a window."""
    return prod(extent(window))
