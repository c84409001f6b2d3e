"""Slices of DICOM, each with its place, become one volume with one affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from scipy.ndimage import affine_transform

from ddhpc.data.sources.multi_frame import named
from ddhpc.data.sources.resampling import LPS_TO_RAS, SHEAR_VOXELS, Shape

TOLERANCE = 0.1
"""Share of the usual distance by which that of two neighbouring slices may differ."""
TILTED = "tilted gantry, slices shifted to lie above each other"


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Slices in order of their place, and the grid of the volume that they become."""

    slices: list[pydicom.Dataset]
    shape: Shape
    """Voxels along columns, rows and slices."""
    affine: np.ndarray
    """[4, 4] from voxels [column, row, slice] to RAS+ mm."""
    shifts: np.ndarray | None
    """[slices, 2] voxels by which slices of a tilted gantry lie from the corner of the grid, along columns and rows."""

    def upright(self, voxels: np.ndarray) -> np.ndarray:
        """The slices [column, row, slice] float32 on the grid, between pixels linearly, outside the lowest value."""
        if self.shifts is None:
            return voxels
        grid = np.empty(self.shape, np.float32)
        for z, shift in enumerate(self.shifts):
            grid[:, :, z] = affine_transform(
                voxels[:, :, z],
                np.ones(2),
                -shift,
                output_shape=self.shape[:2],
                order=1,
                mode="grid-constant",
                cval=voxels.min(),
            )
        return grid


def stacked(slices: Sequence[pydicom.Dataset]) -> Stack:
    """The stack of the slices of one series. Raises ValueError where they are not evenly spaced on one line."""
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    if not np.allclose(
        [along_row @ along_row, along_column @ along_column, along_row @ along_column], [1, 1, 0], atol=1e-3
    ):
        raise ValueError("ImageOrientationPatient is not two perpendicular directions of length 1")
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda dataset: float(normal @ _position(dataset)))
    positions = np.array([_position(dataset) for dataset in ordered])
    _check_even(ordered, positions @ normal)
    height, width = np.array(slices[0].PixelSpacing, float)
    affine = np.eye(4)
    affine[:3, 0] = along_row * width
    affine[:3, 1] = along_column * height
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    affine[:3, 3] = positions[0]
    shape, shifts = np.array([slices[0].Columns, slices[0].Rows, len(ordered)]), None
    if _tilted(ordered, positions, normal, min(width, height)):
        affine[:3, 2] = normal * (affine[:3, 2] @ normal)
        places = (positions - positions[0]) @ np.stack([along_row / width, along_column / height], axis=1)
        corner = np.floor(places.min(axis=0))
        affine[:3, 3] += affine[:3, :2] @ corner
        shifts = places - corner
        shape[:2] += np.ceil(shifts.max(axis=0)).astype(int)
    x, y, z = shape.tolist()
    return Stack(slices=ordered, shape=(x, y, z), affine=LPS_TO_RAS @ affine, shifts=shifts)


def _check_even(ordered: Sequence[pydicom.Dataset], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    for gap, before, after in zip(gaps, ordered, ordered[1:], strict=False):
        between = f"{named(before)} and {named(after)}"
        if gap < 1e-3:
            raise ValueError(f"duplicated slice: {between} lie at the same position")
        if abs(gap - usual) > TOLERANCE * usual:
            raise ValueError(f"missing slice: {between} lie {gap:g} mm apart, others {usual:g} mm")


def _tilted(ordered: Sequence[pydicom.Dataset], positions: np.ndarray, normal: np.ndarray, pixel: float) -> bool:
    """Whether slices lie aside of each other by more than a fraction of a pixel; ValueError unless on one line."""
    heights = (positions - positions[0]) @ normal
    aside = positions - positions[0] - heights[:, None] * normal
    furthest = int(np.linalg.norm(aside, axis=1).argmax())
    if np.linalg.norm(aside[furthest]) <= SHEAR_VOXELS * pixel:
        return False
    slope = heights @ aside / (heights @ heights)
    if np.linalg.norm(aside - heights[:, None] * slope, axis=1).max() <= SHEAR_VOXELS * pixel:
        return True
    raise ValueError(
        f"displaced slice: {named(ordered[furthest])} lies {np.linalg.norm(aside[furthest]):g} mm aside of "
        f"{named(ordered[0])}, expected slices on one line"
    )


def _position(dataset: pydicom.Dataset) -> np.ndarray:
    return np.array(dataset.ImagePositionPatient, float)
