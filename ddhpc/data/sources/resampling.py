"""Volumes in one orientation, on one grid.

Axes of every array here are x from the patient's left to right, y from posterior to anterior, z from inferior to
superior: the RAS+ of NIfTI. Oblique volumes are turned to the nearest of these axes, not resampled for it.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt2axcodes
from scipy.ndimage import gaussian_filter, zoom

Shape = tuple[int, int, int]
"""Voxels along x, y, z."""
Spacing = tuple[float, float, float]
"""Millimetres between voxels along x, y, z."""
IntensityRange = tuple[float, float]
"""Lowest and highest value kept, Hounsfield units for CT."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the coordinates of DICOM and ITK, which count to left, posterior and superior."""
SHEAR_VOXELS = 0.5
"""Displacement over the whole volume up to which its axes count as perpendicular, its slices as an upright stack."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A scalar volume."""

    voxels: np.ndarray
    """[x, y, z], integer or float."""
    affine: np.ndarray
    """[4, 4] from voxels to RAS+ millimetres."""
    spacing: Spacing
    axes: str
    """Directions of the axes as they were stored, e.g. LPS."""
    patient: str = ""
    """Identifier of the patient in the file, empty where there is none."""
    remarks: tuple[str, ...] = ()
    """What had to be converted or assumed to read the volume."""

    @property
    def shape(self) -> Shape:
        """Voxels along x, y, z."""
        x, y, z = self.voxels.shape
        return x, y, z


def oriented(voxels: np.ndarray, affine: np.ndarray) -> Volume:
    """The volume of an array of three axes and its affine [4, 4] to RAS+ millimetres.

    Raises ValueError where the spacing is not positive and finite, or the axes are not perpendicular.
    """
    x, y, z = voxel_sizes(affine).tolist()
    if not np.isfinite(affine).all() or not min(x, y, z) > 0:
        raise ValueError(f"voxel spacing {x:g} x {y:g} x {z:g} mm, expected positive numbers")
    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise ValueError("two axes of the affine are parallel, expected three directions")
    _check_perpendicular(affine, voxels.shape)
    # NIfTI keeps seven digits: with six, one volume has one grid in files of every kind
    sizes = (float(f"{size:.6g}") for size in (x, y, z))
    spacing = {int(axis): size for axis, size in zip(orientation[:, 0], sizes, strict=True)}
    return Volume(
        voxels=apply_orientation(voxels, orientation),
        affine=affine @ inv_ornt_aff(orientation, voxels.shape),
        spacing=(spacing[0], spacing[1], spacing[2]),
        axes="".join(ornt2axcodes(orientation)),
    )


def _check_perpendicular(affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """ValueError where an axis of the affine, followed over the volume, drifts along another one."""
    sizes = voxel_sizes(affine)
    directions = affine[:3, :3] / sizes
    for one, other in combinations(range(3), 2):
        cosine = float(directions[:, one] @ directions[:, other])
        drift = abs(cosine) * max(
            shape[one] * sizes[one] / sizes[other],
            shape[other] * sizes[other] / sizes[one],
        )
        if drift > SHEAR_VOXELS:
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            raise ValueError(
                f"sheared: axes {one + 1} and {other + 1} of the affine meet at {angle:.1f} degrees, expected 90; "
                "resample it to a grid without shear first"
            )


def grid(volume_shape: Shape, volume_spacing: Spacing, spacing: Spacing) -> Shape:
    """Voxels along x, y, z that cover the volume with this spacing, within half a voxel."""
    sizes = (
        max(1, round(size * old / new)) for size, old, new in zip(volume_shape, volume_spacing, spacing, strict=True)
    )
    x, y, z = sizes
    return x, y, z


def resampled(
    volume: Volume, *, shape: Shape | None, spacing: Spacing | None, window: IntensityRange | None
) -> np.ndarray:
    """The volume float32 [x, y, z], clipped to the window, then brought to a spacing, a shape or both.

    A shape alone stretches the whole volume to it. A spacing alone gives as many voxels as the volume needs.
    With both the volume keeps its proportions: it is brought to the spacing, then centred in the shape, where
    it is cut off or surrounded by its lowest value (that of the window, where there is one).
    """
    voxels = volume.voxels.astype(np.float32)
    if window is not None:
        voxels = voxels.clip(*window)
    if spacing is not None:
        voxels = _zoomed(voxels, grid(volume.shape, volume.spacing, spacing))
        return voxels if shape is None else _centred(voxels, shape, window[0] if window else voxels.min())
    return voxels if shape is None else _zoomed(voxels, shape)


def _zoomed(voxels: np.ndarray, shape: Shape) -> np.ndarray:
    """Linear interpolation between voxel centres of the same extent, after a Gaussian against aliasing.

    Its standard deviation is (factor - 1) / 2 voxels where an axis shrinks by that factor, the default of
    `resize` in scikit-image.
    """
    if voxels.shape == shape:
        return voxels
    factors = [have / want for have, want in zip(voxels.shape, shape, strict=True)]
    smooth = gaussian_filter(voxels, [max(0.0, (factor - 1) / 2) for factor in factors], mode="nearest")
    result: np.ndarray = zoom(smooth, [1 / factor for factor in factors], order=1, mode="nearest", grid_mode=True)
    return result


def share_cut_off(volume: Volume, *, shape: Shape | None, spacing: Spacing | None) -> float:
    """Share of the volume that `resampled` cuts off, 0 unless both a shape and a spacing are given."""
    if shape is None or spacing is None:
        return 0.0
    whole = grid(volume.shape, volume.spacing, spacing)
    return 1 - math.prod(min(1.0, want / have) for have, want in zip(whole, shape, strict=True))


def _centred(voxels: np.ndarray, shape: Shape, fill: float) -> np.ndarray:
    result = np.full(shape, fill, np.float32)
    both = [_centre(have, want) for have, want in zip(voxels.shape, shape, strict=True)]
    result[tuple(target for _, target in both)] = voxels[tuple(source for source, _ in both)]
    return result


def _centre(have: int, want: int) -> tuple[slice, slice]:
    """Which of the voxels that an axis has are kept where others are wanted, and the places that they get there."""
    both = min(have, want)
    source, target = (have - both) // 2, (want - both) // 2
    return slice(source, source + both), slice(target, target + both)


def seen(
    volume_shape: Shape, volume_spacing: Spacing, *, shape: Shape | None, spacing: Spacing | None
) -> list[np.ndarray]:
    """Along x, y and z: the voxel of the `resampled` volume at the centre of each voxel of the volume, -1 beyond it.

    Three int64 arrays, each as long as that axis of the volume.

    Example:
        >>> [each.tolist() for each in seen((4, 3, 1), (1.0, 1.0, 1.0), shape=(2, 3, 2), spacing=None)]
        [[0, 0, 1, 1], [0, 1, 2], [1]]
        >>> [each.tolist() for each in seen((4, 3, 1), (1.0, 1.0, 1.0), shape=(2, 6, 2), spacing=(1.0, 0.5, 1.0))]
        [[-1, 0, 1, -1], [1, 3, 5], [0]]
    """
    zoomed = grid(volume_shape, volume_spacing, spacing) if spacing is not None else shape or volume_shape
    found = []
    for have, between, want in zip(volume_shape, zoomed, shape or zoomed, strict=True):
        place = (2 * np.arange(have) + 1) * between // (2 * have)  # as `_zoomed` lays one grid over the other
        source, target = _centre(between, want)
        inside = (source.start <= place) & (place < source.stop)
        found.append(np.where(inside, place - source.start + target.start, -1))
    return found
