"""Branching trees for chest phantoms: vessels and airways. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ASYMMETRY = (0.6, 0.95)
"""Radius of a child over that of its parent; 0.79 would keep flow (Murray 1926)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tubes:
    """Straight tubes, n of them, in millimetres."""

    start: np.ndarray
    """[n, 3]"""
    end: np.ndarray
    """[n, 3]"""
    radius: np.ndarray
    """[n]"""

    def points(self, rng: np.random.Generator, volume: float, wall: float = 0.0) -> np.ndarray:
        """Points [m, 3] in mm spread evenly inside the tubes, or in walls as thick as this share of the radius.

        Each stands for `volume` mm3 of tissue.
        """
        along = self.end - self.start
        length = np.linalg.norm(along, axis=1)
        lowest = (1 - wall) ** 2 if wall else 0.0
        count = rng.poisson(np.pi * self.radius**2 * (1 - lowest) * length / volume)
        tube = np.repeat(np.arange(len(length)), count)
        direction = along / length[:, None]
        across = np.cross(direction, direction[:, [2, 0, 1]] + np.array([0.3, 0.1, 0.2]))
        across /= np.linalg.norm(across, axis=1)[:, None]
        angle = rng.uniform(0, 2 * np.pi, len(tube))
        off = self.radius[tube] * np.sqrt(rng.uniform(lowest, 1, len(tube)))
        place = rng.uniform(0, 1, len(tube))
        points: np.ndarray = (
            self.start[tube]
            + place[:, None] * along[tube]
            + (off * np.cos(angle))[:, None] * across[tube]
            + (off * np.sin(angle))[:, None] * np.cross(direction, across)[tube]
        )
        return points


def joined(parts: Sequence[Tubes]) -> Tubes:
    """All tubes of several."""
    return Tubes(
        start=np.concatenate([part.start for part in parts]),
        end=np.concatenate([part.end for part in parts]),
        radius=np.concatenate([part.radius for part in parts]),
    )


def path(points: Sequence[Sequence[float]], radius: float) -> Tubes:
    """A chain of tubes through points [mm]."""
    place = np.array(points, float)
    return Tubes(start=place[:-1], end=place[1:], radius=np.full(len(place) - 1, radius))


def tree(
    rng: np.random.Generator,
    root: np.ndarray,
    directions: np.ndarray,
    *,
    radius: float,
    length: float,
    generations: int,
) -> Tubes:
    """A tree that starts at `root` [3] in mm with one branch along each of `directions` [k, 3] and forks in two.

    `radius` and `length` of the first branches are in mm.
    """
    start = np.repeat(root[None], len(directions), axis=0)
    heading = directions / np.linalg.norm(directions, axis=1)[:, None]
    size = radius * rng.uniform(0.7, 1.0, len(directions))
    levels = []
    for generation in range(generations):
        reach = length * 0.84**generation * rng.uniform(0.6, 1.3, len(start))
        end = start + reach[:, None] * heading
        levels.append(Tubes(start=start, end=end, radius=size))
        bend = rng.normal(0, 0.42, (2, *heading.shape))
        start = np.concatenate([end, end])
        heading = np.concatenate([heading + bend[0], heading - bend[1]])
        heading /= np.linalg.norm(heading, axis=1)[:, None]
        size = np.concatenate([size, size]) * rng.uniform(*ASYMMETRY, len(start))
    return joined(levels)
