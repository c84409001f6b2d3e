"""What makes a phantom's lungs look ill: disease, and findings that healthy people have too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ddhpc.phantoms.chest import Chest, Grid


@dataclass(frozen=True, kw_only=True)
class Severity:
    """How much disease; pairs are the ends of uniform distributions."""

    lesions: tuple[int, int]
    """Ground-glass opacities, both ends included."""
    foci: tuple[int, int]
    """Places that the opacities gather round, likewise."""
    radius: tuple[float, float]
    """Of an opacity in mm."""
    opacity: tuple[float, float]
    """Highest share of ground glass in an opacity."""
    consolidated: float
    """Probability that an opacity has a dense core."""


def diseased(
    rng: np.random.Generator, grid: Grid, healthy: Chest, voxels: np.ndarray, severity: Severity
) -> np.ndarray:
    """Lungs [x, y, z] in Hounsfield units with opacities round a few places, the more likely at the wall, the back
    and the base; the rest of the lungs stays as it was."""
    _, y, z = grid.axes
    at_wall = np.exp(-healthy.depth / rng.uniform(15, 60))
    behind = np.exp(-(y / 60) * rng.uniform(0, 0.8))
    below = np.exp(-(z / healthy.height) * rng.uniform(-0.5, 2))
    weight = at_wall * behind * below * healthy.lung
    gathered = np.zeros(grid.shape, np.float32)
    for focus in _drawn(rng, grid, weight, int(rng.integers(*severity.foci, endpoint=True))):
        gathered += np.exp(-_distance(grid, focus, rng.uniform(25, 60, 3)))
    fuzzy, fine = grid.cloud(rng, 16), grid.cloud(rng, 6)
    for place in _drawn(rng, grid, weight * gathered, int(rng.integers(*severity.lesions, endpoint=True))):
        distance = _distance(grid, place, rng.uniform(*severity.radius) * rng.uniform(0.6, 1.5, 3))
        share = (1.1 - distance + 0.45 * fuzzy).clip(0, 1) * rng.uniform(*severity.opacity)
        share *= (0.8 + 0.2 * fine).clip(0, 1) * healthy.lung
        voxels = voxels + share * (rng.uniform(-700, -400) - voxels).clip(0)
        if rng.uniform() < severity.consolidated:
            core = (0.5 - distance + 0.3 * fuzzy).clip(0, 0.5) * 2 * healthy.lung
            voxels = voxels + core * (rng.uniform(-100, 50) - voxels).clip(0)
    return voxels


def _drawn(rng: np.random.Generator, grid: Grid, weight: np.ndarray, count: int) -> np.ndarray:
    """Places [count, 3] in mm, drawn by the weight of their voxels."""
    total = np.cumsum(weight, dtype=float)
    flat = np.searchsorted(total, rng.uniform(0, total[-1], count), side="right")
    places: np.ndarray = grid.origin + np.stack(np.unravel_index(flat, grid.shape), axis=-1) * grid.spacing
    return places


def _distance(grid: Grid, middle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Squared distance [x, y, z] float32 from a place, in radii [3]."""
    x, y, z = (((axis - m) / r).astype(np.float32) ** 2 for axis, m, r in zip(grid.axes, middle, radius, strict=True))
    distance: np.ndarray = x + y + z
    return distance


def with_findings(rng: np.random.Generator, grid: Grid, healthy: Chest) -> np.ndarray:
    """Lungs with what healthy and ill people have alike, each in some: density that gravity brings, plates of
    collapsed lung, scars, small nodules, emphysema, blurred breathing."""
    x, y, z = grid.axes
    lung, voxels = healthy.lung, healthy.voxels
    fuzzy = grid.cloud(rng, 22)
    if rng.uniform() < 0.6:
        reach = rng.uniform(6, 22) * (1 + 0.4 * fuzzy).clip(0.1)
        dependent = np.exp(-healthy.depth.clip(0) / reach) * (y < -10) * lung
        voxels = voxels + dependent * rng.uniform(60, 330)
    if rng.uniform() < 0.3:
        level, slope = rng.uniform(10, 70), rng.normal(0, 0.3, 2)
        plate = (np.abs(z - level - slope[0] * x - slope[1] * y) < 4) & (fuzzy > 0.2) & lung
        voxels = np.where(plate, rng.uniform(-650, -250), voxels)
    for place in _drawn(rng, grid, lung, rng.poisson(1.0)):
        nodule = np.exp(-_distance(grid, place, np.full(3, rng.uniform(3, 9)))) * lung
        voxels = voxels + nodule * (rng.uniform(-500, 50) - voxels).clip(0)
    if rng.uniform() < 0.25:
        holes = (fuzzy < -0.8) & (z > rng.uniform(0.2, 0.7) * healthy.height) & lung
        voxels = np.where(holes, np.minimum(voxels, -940), voxels)
    if rng.uniform() < 0.35:
        moved = gaussian_filter1d(voxels, rng.uniform(1, 2.5), axis=int(rng.integers(1, 3)), mode="nearest")
        near = np.exp(-(z.clip(0) / rng.uniform(30, 90)))
        voxels = voxels + near * (moved - voxels)
    return voxels
