"""Reading of DICOM series: a directory with one file for each slice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut

from ddhpc.data.sources.resampling import LPS_TO_RAS, SHEAR_VOXELS, Shape, Volume, oriented
from ddhpc.errors import InputError

TOLERANCE = 0.1
"""Share of the usual distance by which that of two neighbouring slices may differ."""
NEEDED = ("SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
ALIKE = (
    *("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "Modality", "PhotometricInterpretation"),
    *("BitsStored", "PixelRepresentation", "RescaleType", "Units"),
)
"""What slices of one volume have in common, if only that they lack it."""
RESCALED = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
"""What may differ between slices, as in PET, but is there in all or in none."""


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that are odd but readable
        ordered, affine = _in_order(_slices(directory))
        check_decoders(ordered)
        rows, columns = ordered[0].Rows, ordered[0].Columns
        voxels = np.empty((columns, rows, len(ordered)), np.float32)
        for z, dataset in enumerate(ordered):
            voxels[:, :, z] = apply_modality_lut(dataset.pixel_array, dataset).T
    volume = oriented(voxels, affine)
    return replace(volume, patient=str(ordered[0].get("PatientID") or "").strip())


def read_geometry(directory: Path) -> tuple[Shape, np.ndarray]:
    """Voxels [column, row, slice] of a series and their affine [4, 4] to RAS+ mm; raises as `read_series`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ordered, affine = _in_order(_slices(directory, stop_before_pixels=True))
    return (ordered[0].Columns, ordered[0].Rows, len(ordered)), affine


def _slices(directory: Path, *, stop_before_pixels: bool = False) -> Sequence[pydicom.Dataset]:
    """The files of a series, checked."""
    entries = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    if broken := next((path for path in entries if path.is_symlink() and not path.exists()), None):
        raise ValueError(f"{broken.name} is a broken link, expected the slice that it stands for")
    paths = [path for path in entries if path.is_file() and is_dicom(path)]
    slices = [pydicom.dcmread(path, stop_before_pixels=stop_before_pixels) for path in paths]
    _check(slices)
    return slices


def check_decoders(slices: Sequence[pydicom.Dataset]) -> None:
    """InputError where a package that decompresses the pixels is not installed, ValueError where there is none."""
    for dataset in slices:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is None or not syntax.is_encapsulated:
            continue
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise ValueError(f"{_named(dataset)} is compressed as {syntax.name}, which is not read") from error
        if not decoder.is_available:
            raise InputError(
                f"{dataset.filename}: is compressed as {syntax.name}, which needs "
                f"{' or '.join(decoder.missing_dependencies)}; pip install 'ddhpc[ct]' brings gdcm"
            )


def _check(slices: Sequence[pydicom.Dataset]) -> None:
    if not slices:
        raise ValueError("no DICOM files in the directory")
    for dataset in slices:
        for name in (*NEEDED, "ImagePositionPatient", "SamplesPerPixel"):
            if name not in dataset or dataset[name].is_empty:
                raise ValueError(f"{_named(dataset)} lacks {name}")
        if dataset.SamplesPerPixel != 1:
            raise ValueError(f"{_named(dataset)} has {dataset.SamplesPerPixel} samples a pixel, expected 1 (grey)")
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(f"{_named(dataset)} holds {dataset.NumberOfFrames} frames, expected one file a slice")
    for name in (*NEEDED, *ALIKE):
        files: dict[object, pydicom.Dataset] = {}
        for dataset in slices:
            files.setdefault(_comparable(dataset.get(name)), dataset)
        if len(files) > 1:
            one, other = list(files.items())[:2]
            raise ValueError(
                f"slices with {len(files)} values of {name}, {_shown(*one)} and {_shown(*other)}, expected one series"
            )
    for name in RESCALED:
        having = [dataset for dataset in slices if name in dataset and not dataset[name].is_empty]
        if having and len(having) < len(slices):
            lacking = next(dataset for dataset in slices if dataset not in having)
            raise ValueError(
                f"{_named(lacking)} lacks {name}, which {_named(having[0])} has; expected it in all or none"
            )
    if len(slices) < 2:
        raise ValueError("one slice, expected a volume")


def _in_order(slices: Sequence[pydicom.Dataset]) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Slices by position along their normal, and the affine of their voxels [column, row, slice] to RAS+ mm."""
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    if not np.allclose(
        [along_row @ along_row, along_column @ along_column, along_row @ along_column], [1, 1, 0], atol=1e-3
    ):
        raise ValueError("ImageOrientationPatient is not two perpendicular directions of length 1")
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
    spacing = np.array(slices[0].PixelSpacing, float)
    _check_upright(ordered, positions, normal, spacing.min())
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacing[1]
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    affine[:3, 3] = positions[0]
    return ordered, LPS_TO_RAS @ affine


def _check_upright(ordered: Sequence[pydicom.Dataset], positions: np.ndarray, normal: np.ndarray, pixel: float) -> None:
    """ValueError unless the slices lie above each other, along their normal, within a fraction of a pixel."""
    heights = (positions - positions[0]) @ normal
    aside = positions - positions[0] - heights[:, None] * normal
    furthest = int(np.linalg.norm(aside, axis=1).argmax())
    if np.linalg.norm(aside[furthest]) <= SHEAR_VOXELS * pixel:
        return
    slope = heights @ aside / (heights @ heights)
    if np.linalg.norm(aside - heights[:, None] * slope, axis=1).max() <= SHEAR_VOXELS * pixel:
        angle = np.degrees(np.arctan(np.linalg.norm(slope)))
        raise ValueError(
            f"sheared: positions are tilted by {angle:.1f} degrees from the normal of the slices (gantry tilt), "
            "expected an upright stack; resample it first"
        )
    raise ValueError(
        f"displaced slice: {_named(ordered[furthest])} lies {np.linalg.norm(aside[furthest]):g} mm aside of "
        f"{_named(ordered[0])}, expected slices above each other along their normal"
    )


def _comparable(value: object) -> object:
    """Numbers without the digits that scanners write differently from slice to slice; no value as an absent one."""
    if isinstance(value, MultiValue):
        return tuple(round(float(x), 4) for x in value)
    return None if value is None or str(value) == "" else value


def _shown(value: object, dataset: pydicom.Dataset) -> str:
    return f"{'none' if value is None else value} in {os.path.basename(dataset.filename)}"


def _position(dataset: pydicom.Dataset) -> np.ndarray:
    return np.array(dataset.ImagePositionPatient, float)


def _named(dataset: pydicom.Dataset) -> str:
    return f"{os.path.basename(dataset.filename)} (InstanceNumber {dataset.get('InstanceNumber')})"
