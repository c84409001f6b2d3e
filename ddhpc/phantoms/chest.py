"""The healthy chest of a phantom: shapes and Hounsfield units of body, lungs, vessels, airways and bones.

Shapes and units are our own, set by eye on what textbooks of chest radiology show; x runs from the patient's left to
right, y from posterior to anterior, z from inferior to superior, in millimetres from the middle of the lung bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from ddhpc.data.sources.resampling import Shape, Spacing
from ddhpc.phantoms.trees import Tubes, joined, path, tree

AIR, FAT, MUSCLE, BLOOD, LIVER = -1000.0, -100.0, 55.0, 40.0, 60.0
LUNG_VOLUME_OF_A_POINT = 3.0
"""mm3 of tissue that one point of a tree stands for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels are."""

    shape: Shape
    spacing: Spacing
    origin: tuple[float, float, float]
    """Centre of the first voxel in mm."""

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions in mm, [x, 1, 1], [1, y, 1] and [1, 1, z] float32."""
        x, y, z = (
            (first + step * np.arange(count)).astype(np.float32)
            for first, step, count in zip(self.origin, self.spacing, self.shape, strict=True)
        )
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def cloud(self, rng: np.random.Generator, size: float) -> np.ndarray:
        """Smooth random numbers [x, y, z] float32 of mean 0 and deviation 1 whose bumps are about `size` mm wide."""
        extent = [count * step for count, step in zip(self.shape, self.spacing, strict=True)]
        coarse = rng.normal(size=[max(2, round(length / size) + 2) for length in extent]).astype(np.float32)
        factors = [count / few for count, few in zip(self.shape, coarse.shape, strict=True)]
        result: np.ndarray = zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
        result = (result - result.mean()) / result.std()
        return result

    def filled(self, points: np.ndarray, volume: float) -> np.ndarray:
        """Share [x, y, z] of each voxel that points [n, 3], each standing for `volume` mm3, take up, at most 1."""
        index = np.rint((points - self.origin) / self.spacing).astype(int)
        index = index[((index >= 0) & (index < self.shape)).all(axis=1)]
        flat = np.ravel_multi_index(tuple(index.T), self.shape)
        share = np.bincount(flat, minlength=np.prod(self.shape)).reshape(self.shape) * (volume / np.prod(self.spacing))
        return share.astype(np.float32).clip(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Chest:
    """A chest without disease."""

    voxels: np.ndarray
    """[x, y, z] float32, Hounsfield units."""
    lung: np.ndarray
    """[x, y, z] bool"""
    depth: np.ndarray
    """[x, y, z] float32, about the distance to the outer wall of the thorax in mm."""
    height: float
    """From the lung bases to the tips in mm."""


@dataclass(frozen=True, kw_only=True)
class _Build:
    """The size of a person in mm, drawn once."""

    width: float
    thickness: float
    fat: float
    height: float
    dome: float
    mediastinum: float
    heart: float
    density: float
    """Of the lungs in Hounsfield units: deep breath or shallow."""
    bust: float


def _build(rng: np.random.Generator) -> _Build:
    width = rng.uniform(150, 190)
    return _Build(
        width=width,
        thickness=width * rng.uniform(0.62, 0.74),
        fat=rng.uniform(6, 24),
        height=rng.uniform(195, 260),
        dome=rng.uniform(35, 70),
        mediastinum=rng.uniform(20, 32),
        heart=rng.uniform(0.85, 1.2),
        density=rng.uniform(-885, -790),
        bust=rng.choice([0.0, 1.0]) * rng.uniform(15, 45),
    )


class _Cage(NamedTuple):
    """The rib cage."""

    level: np.ndarray
    """[x, y, z], grows from the axis outwards."""
    edge: np.ndarray
    """Level at the inside of the ribs, [1, 1, z]."""
    thickness: float
    """Half, from front to back, in mm."""


def chest(rng: np.random.Generator, grid: Grid) -> Chest:
    """A chest on a grid."""
    build = _build(rng)
    x, y, z = grid.axes
    rough = grid.cloud(rng, 60)
    tip = (z / build.height).clip(0, 1.3)

    outside = _radius(x / (build.width * (1 + 0.12 * (tip > 0.85) * (tip - 0.85))), y / build.thickness, 2.4)
    outside = outside + 0.008 * rough
    body = outside < 1
    front = build.thickness * (1 - np.abs(x / build.width) ** 2.4).clip(0) ** (1 / 2.4)
    bump = ((np.abs(x) - 0.48 * build.width) / 50) ** 2 + ((z - 0.42 * build.height) / 55) ** 2
    body |= (y > 0) & (y < front + build.bust * np.exp(-bump)) & (np.abs(x) < build.width)
    fat = build.fat / build.thickness
    cage_width, cage_thickness = build.width - build.fat - 22, build.thickness - build.fat - 16
    cage = _radius(x / cage_width, y / cage_thickness, 2.2) + 0.012 * rough
    narrow = np.sqrt((1 - ((tip - 0.3) / 0.72).clip(0, 1) ** 2.4).clip(1e-4)).astype(np.float32)
    inside = cage < narrow
    depth = (narrow - cage) * cage_thickness

    voxels = np.full(grid.shape, AIR, np.float32)
    voxels[body] = FAT
    muscle = body & (outside < 1 - fat) & ~inside
    voxels += muscle * (MUSCLE - FAT) * (rough > -1.3)
    voxels = np.where(inside, np.float32(-20) + 45 * grid.cloud(rng, 25), voxels)

    lung = inside & _above_diaphragm(build, x, y, z) & ~_mediastinum(build, x, y, z, tip, rough)
    under = inside & ~_above_diaphragm(build, x, y, z)
    voxels = np.where(under, np.where(x > -20, LIVER, BLOOD - 10) + 6 * rough, voxels)
    gas = _ball(x + 60, y - 20, z + 30, rng.uniform(5, 35)) & under
    voxels[gas] = -850
    voxels = np.where(_heart(build, x, y, z) & ~lung & ~under, np.float32(BLOOD), voxels)
    aorta = (x + 24) ** 2 + (y + 0.42 * cage_thickness) ** 2 < rng.uniform(10, 14) ** 2
    voxels = np.where(aorta & (tip < 0.75) & ~lung, np.float32(BLOOD), voxels)

    texture = 18 * grid.cloud(rng, 14) + 12 * rough
    gravity = rng.uniform(15, 60) * (-y / cage_thickness)
    voxels = np.where(lung, build.density + texture + gravity, voxels)
    voxels = _with_trees(rng, grid, build, voxels, lung, cage_thickness)
    voxels = _with_bones(rng, build, voxels, (x, y, z), _Cage(cage, narrow, cage_thickness))
    voxels = _with_table(rng, build, voxels, x, y, body)
    return Chest(voxels=voxels.astype(np.float32), lung=lung, depth=depth, height=build.height)


def _radius(u: np.ndarray, v: np.ndarray, power: float) -> np.ndarray:
    """Distance from the axis of a superellipse, 1 on it."""
    result: np.ndarray = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    return result


def _ball(x: np.ndarray, y: np.ndarray, z: np.ndarray, radius: float) -> np.ndarray:
    inside: np.ndarray = x**2 + y**2 + z**2 < radius**2
    return inside


def _above_diaphragm(build: _Build, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Two domes, the right one higher, that fall towards the back."""
    side = np.where(x > 0, 1.0, -1.0).astype(np.float32)
    middle = side * 0.42 * build.width
    fall = ((x - middle) / (0.46 * build.width)) ** 2 + ((y - 0.15 * build.thickness) / (0.75 * build.thickness)) ** 2
    top = build.dome + 6 * side - (build.dome + 30) * fall
    above: np.ndarray = z > top
    return above


def _heart(build: _Build, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    size = build.heart
    shape = ((x + 22) / (58 * size)) ** 2 + ((y - 0.22 * build.thickness) / (42 * size)) ** 2
    inside: np.ndarray = shape + ((z - build.dome - 28) / (52 * size)) ** 2 < 1
    return inside


def _mediastinum(
    build: _Build, x: np.ndarray, y: np.ndarray, z: np.ndarray, tip: np.ndarray, rough: np.ndarray
) -> np.ndarray:
    half = build.mediastinum * (1 + 0.15 * rough) + 14 * np.exp(-(((tip - 0.6) / 0.15) ** 2))
    front = 1 - 0.6 * ((y / build.thickness - 0.2) / 0.6).clip(0, 1)
    spine = (np.abs(x) < 26) & (y < -0.35 * build.thickness)
    result: np.ndarray = (np.abs(x + 4) < half * front) | spine | _heart(build, x, y, z)
    return result


def _with_trees(
    rng: np.random.Generator,
    grid: Grid,
    build: _Build,
    voxels: np.ndarray,
    lung: np.ndarray,
    cage_thickness: float,
) -> np.ndarray:
    """Arteries, veins and bronchi from both hila, and the trachea; thin ones fill voxels in part."""
    vessels: list[Tubes] = []
    airways: list[Tubes] = []
    fork = np.array([0.0, -0.08 * cage_thickness, 0.62 * build.height])
    for side in (-1.0, 1.0):
        hilum = np.array([side * (build.mediastinum + 12), -0.05 * cage_thickness, 0.5 * build.height])
        aims = np.array([[0.5, 0.3, 1.1], [0.9, 0.8, 0.2], [1.0, -0.7, 0.1], [0.7, 0.5, -0.9], [0.7, -0.8, -1.0]])
        aims = aims * [side, 1, 1] + rng.normal(0, 0.25, (5, 3))
        for radius in (5.2, 4.4):
            start = hilum + rng.normal(0, 4, 3)
            vessels.append(tree(rng, start, aims, radius=radius, length=31, generations=8))
        airways.append(path([fork.tolist(), hilum.tolist()], 6.5))
        airways.append(tree(rng, hilum, aims, radius=3.6, length=26, generations=4))
    top = [0.0, -0.02 * cage_thickness, 1.3 * build.height]
    airways.append(path([top, fork.tolist()], rng.uniform(7, 9.5)))

    size = LUNG_VOLUME_OF_A_POINT
    blood = grid.filled(joined(vessels).points(rng, size), size) * lung
    walls = grid.filled(joined(airways).points(rng, size, wall=0.3), size)
    lumen = grid.filled(joined(airways).points(rng, size), size)
    soft = gaussian_filter(np.maximum(blood, 0.6 * walls), 0.35).clip(0, 1)
    voxels = voxels + soft * (BLOOD - voxels)
    air: np.ndarray = gaussian_filter(lumen, 0.35) * 0.85
    return voxels + air * (AIR - voxels)


def _with_bones(
    rng: np.random.Generator,
    build: _Build,
    voxels: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    cage: _Cage,
) -> np.ndarray:
    """Ribs that fall towards the front, breast bone and spine."""
    x, y, z = axes
    period, phase, hard = rng.uniform(24, 30), rng.uniform(0, 30), rng.uniform(0.7, 1.15)
    shell = (cage.level >= cage.edge) & (cage.level < cage.edge + 8 / cage.thickness) & (z < 1.02 * build.height)
    wave = ((z + 0.55 * y + phase) / period) % 1
    ribs = shell & (wave < 0.42) & (np.abs(x) > 18)
    edge = np.abs(wave - 0.21) > 0.12
    voxels = np.where(ribs, np.where(edge, 420, 230) * hard, voxels)
    sternum = shell & (np.abs(x) < 17) & (y > 0) & (z > 0.25 * build.height)
    voxels = np.where(sternum, 160 * hard, voxels)

    middle = -0.62 * cage.thickness
    disc = ((z + phase) / (0.85 * period)) % 1 < 0.22
    body = (x / 19) ** 2 + ((y - middle) / 16) ** 2
    voxels = np.where(body < 1, np.where(disc, 90, np.where(body > 0.72, 330, 190) * hard), voxels)
    arch = (np.abs(x) < 24) & (y < middle - 14) & (y > middle - 36)
    canal = (x / 9) ** 2 + ((y - middle + 23) / 8) ** 2 < 1
    behind = (np.abs(x) < 5) & (y <= middle - 36) & (y > middle - 56) & ~disc
    bone = ((arch & ~disc) | behind) & (cage.level >= cage.edge)
    voxels = np.where(bone, 280 * hard, voxels)
    return np.where(canal, np.float32(30), voxels)


def _with_table(
    rng: np.random.Generator, build: _Build, voxels: np.ndarray, x: np.ndarray, y: np.ndarray, body: np.ndarray
) -> np.ndarray:
    """A curved plate with a shell under the back."""
    below = -build.thickness - rng.uniform(2, 12) + rng.uniform(0, 0.0006) * x**2
    plate = (y < below) & (y > below - 22) & (np.abs(x) < 210) & ~body
    shell = (y > below - 5) | (y < below - 17)
    return np.where(plate, np.where(shell, -150, -900), voxels)
