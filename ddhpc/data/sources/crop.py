"""The box of a volume that is kept: around a mask that lies beside it, or around its foreground."""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.ndimage import find_objects, label

from ddhpc.data.sources.resampling import Volume
from ddhpc.data.sources.volume_formats import mask_of, read_volume

Box = tuple[slice, slice, slice]
"""Voxels along x, y, z."""
CT_BELOW = -500.0
"""A volume with voxels below it is in Hounsfield units, where it parts air and lung from the body."""
SAMPLE = 1_000_000
"""Voxels from which a threshold is found, evenly taken."""
BINS = 256
OUTLIERS = 99.5
"""Percentile above which voxels do not widen the bins."""
NEAR = 0.1
"""Voxels by which a mask may lie aside of its volume."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """How the box of a volume is found."""

    by: Literal["mask", "foreground"]
    """What it lies around: all voxels of the mask but 0; the largest connected part above the threshold."""
    margin: float
    """Millimetres kept around it, where the volume has them."""
    threshold: float | None
    """Of the foreground; None: -500 where a volume has voxels below it, as CT has, else that of Otsu."""

    def __str__(self) -> str:
        above = "" if self.threshold is None else f" above {self.threshold:g}"
        return f"the {self.by}{above} and {self.margin:g} mm around it"

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"has margin {self.margin}; expected millimetres, at least 0")
        if self.threshold is not None and (self.by == "mask" or not math.isfinite(self.threshold)):
            raise ValueError(f"has threshold {self.threshold} by {self.by}; expected a number, for the foreground only")


def cropped(path: Path, volume: Volume, crop: Crop) -> Volume:
    """The part of a volume that is kept. Raises ValueError, and what reading its mask raises, where there is none."""
    box = box_of(path, volume, crop)
    voxels = volume.voxels[box]
    if min(voxels.shape) < 2:
        raise ValueError(f"box of {'x'.join(map(str, voxels.shape))} voxels around the {crop.by}, expected a volume")
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return replace(volume, voxels=voxels, affine=affine)


def box_of(path: Path, volume: Volume, crop: Crop) -> Box:
    """The box of a volume, read from this path, that is kept; raises as `cropped`."""
    box = _around(_mask(path, volume)) if crop.by == "mask" else _foreground(volume.voxels, crop.threshold)
    x, y, z = (
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, size, more in zip(
            box, volume.shape, (math.ceil(crop.margin / size) for size in volume.spacing), strict=True
        )
    )
    return x, y, z


def _mask(path: Path, volume: Volume) -> np.ndarray:
    """Where the mask of a volume is not 0, on the voxels of the volume."""
    found = mask_of(path)
    mask = read_volume(found)
    if mask.shape != volume.shape:
        shapes = " and ".join("x".join(map(str, shape)) for shape in (mask.shape, volume.shape))
        raise ValueError(f"{found.name} and its volume have {shapes} voxels, expected the same")
    corners = np.array([[0, 0, 0, 1], [*(size - 1 for size in volume.shape), 1]])
    aside = np.linalg.norm((corners @ (mask.affine - volume.affine).T)[:, :3], axis=1).max()
    if aside > NEAR * min(volume.spacing):
        raise ValueError(f"{found.name} lies {aside:g} mm aside of its volume, expected the same place in the patient")
    inside: np.ndarray = mask.voxels != 0
    if not inside.any():
        raise ValueError(f"{found.name} is 0 everywhere, expected a mask")
    return inside


def _around(inside: np.ndarray) -> Box:
    """The smallest box with all that is true."""
    x, y, z = (
        np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)
    )
    return slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1), slice(z[0], z[-1] + 1)


def _foreground(voxels: np.ndarray, threshold: float | None) -> Box:
    """The smallest box with the largest part above a threshold whose voxels touch by their faces."""
    if threshold is None:
        threshold = CT_BELOW if voxels.min() < CT_BELOW else otsu(voxels)
    parts, count = label(voxels > threshold)
    if not count:
        raise ValueError(f"no voxel above {threshold:g}, the threshold of the foreground")
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    box: Sequence[slice] = find_objects(parts)[largest]
    x, y, z = box
    return x, y, z


def otsu(voxels: np.ndarray) -> float:
    """The threshold between which and the rest lies most of the variance of voxels (Otsu, 1979).

    Example:
        >>> otsu(np.array([0.0, 1.0, 2.0, 100.0, 101.0, 102.0])) > 2
        True
    """
    sample = voxels.ravel()[:: max(1, voxels.size // SAMPLE)].astype(np.float64)
    sample = sample.clip(None, np.percentile(sample, OUTLIERS))
    counts, edges = np.histogram(sample, BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    above = counts.sum() - below
    between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    return float(edges[1:][int(between.argmax())])
