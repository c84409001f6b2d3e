"""Reading of DICOM series: a directory with one file for each slice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut

from ddhpc.data.voxels import Volume, oriented

TOLERANCE = 0.1
"""Share of the usual distance by which that of two neighbouring slices may differ."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
COMMON = ("SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")


def is_dicom(path: Path) -> bool:
    """Whether a file is a slice by its ending or its magic number; raises OSError where it cannot be read."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_series(directory: Path) -> Volume:
    """The volume of the DICOM files of a directory, in order of position, in rescaled units (Hounsfield for CT).

    Files of other kinds are passed over. Raises ValueError for anything but one complete series of at least two
    evenly spaced slices of one number a pixel, and whatever pydicom raises for damaged files.
    """
    paths = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".") and path.is_file()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that are odd but readable
        slices = [pydicom.dcmread(path) for path in paths if is_dicom(path)]
        _check(slices)
        ordered, affine = _in_order(slices)
        rows, columns = ordered[0].Rows, ordered[0].Columns
        voxels = np.empty((columns, rows, len(ordered)), np.float32)
        for z, dataset in enumerate(ordered):
            voxels[:, :, z] = apply_modality_lut(dataset.pixel_array, dataset).T
    return oriented(voxels, affine)


def _check(slices: Sequence[pydicom.Dataset]) -> None:
    if not slices:
        raise ValueError("no DICOM files in the directory")
    for dataset in slices:
        for name in (*COMMON, "ImagePositionPatient", "SamplesPerPixel"):
            if name not in dataset or dataset[name].is_empty:
                raise ValueError(f"{_named(dataset)} lacks {name}")
        if dataset.SamplesPerPixel != 1:
            raise ValueError(f"{_named(dataset)} has {dataset.SamplesPerPixel} samples a pixel, expected 1 (grey)")
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(f"{_named(dataset)} holds {dataset.NumberOfFrames} frames, expected one file a slice")
    for name in COMMON:
        found = list(dict.fromkeys(_comparable(dataset[name].value) for dataset in slices))
        if len(found) > 1:
            raise ValueError(
                f"slices with {len(found)} values of {name}, {found[0]} and {found[1]}, expected one series"
            )
    if len(slices) < 2:
        raise ValueError("one slice, expected a volume")


def _in_order(slices: Sequence[pydicom.Dataset]) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Slices by position along their normal, and the affine of their voxels [column, row, slice] to RAS+ mm."""
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda dataset: float(normal @ _position(dataset)))
    positions = np.array([_position(dataset) for dataset in ordered])
    gaps = np.diff(positions @ normal)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    for gap, before, after in zip(gaps, ordered, ordered[1:], strict=False):
        between = f"{_named(before)} and {_named(after)}"
        if gap < 1e-3:
            raise ValueError(f"duplicated slice: {between} lie at the same position")
        if abs(gap - usual) > TOLERANCE * usual:
            raise ValueError(f"missing slice: {between} lie {gap:g} mm apart, others {usual:g} mm")
    affine = np.eye(4)
    spacing = np.array(slices[0].PixelSpacing, float)
    affine[:3, 0] = along_row * spacing[1]
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    affine[:3, 3] = positions[0]
    return ordered, LPS_TO_RAS @ affine


def _comparable(value: object) -> object:
    """Numbers without the digits that scanners write differently from slice to slice."""
    return tuple(round(float(x), 4) for x in value) if isinstance(value, MultiValue) else value


def _position(dataset: pydicom.Dataset) -> np.ndarray:
    return np.array(dataset.ImagePositionPatient, float)


def _named(dataset: pydicom.Dataset) -> str:
    return f"{os.path.basename(dataset.filename)} (InstanceNumber {dataset.get('InstanceNumber')})"
