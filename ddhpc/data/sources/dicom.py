"""Reading of DICOM: a directory with one file for each slice, or an enhanced file with all of them."""

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

from ddhpc.data.sources.multi_frame import frames, named
from ddhpc.data.sources.resampling import Shape, Volume, oriented
from ddhpc.data.sources.slice_stack import TILTED, stacked
from ddhpc.errors import InputError

NEEDED = ("SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
ALIKE = (
    *("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "Modality", "PhotometricInterpretation"),
    *("BitsStored", "PixelRepresentation", "RescaleType", "Units", "StackID", "TemporalPositionIndex"),
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


def read_dicom(path: Path) -> Volume:
    """The volume of a series, the directory of its files, or of an enhanced file, in rescaled units (HU for CT).

    Files of other kinds in a directory are passed over. Slices of a tilted gantry are shifted to lie above each other.
    Raises InputError where a package that decodes the pixels is not installed, ValueError for anything but one
    complete series of at least two evenly spaced slices of one number a pixel, and whatever pydicom raises for damaged
    files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that are odd but readable
        stack = stacked(_slices(path))
        first = stack.slices[0]
        voxels = np.empty((first.Columns, first.Rows, len(stack.slices)), np.float32)
        for z, dataset in enumerate(stack.slices):
            voxels[:, :, z] = apply_modality_lut(dataset.pixel_array, dataset).T
    volume = oriented(stack.upright(voxels), stack.affine)
    remarks = () if stack.shifts is None else (TILTED,)
    return replace(volume, patient=str(first.get("PatientID") or "").strip(), remarks=remarks)


def read_geometry(path: Path) -> tuple[Shape, np.ndarray]:
    """Voxels [column, row, slice] of what `read_dicom` reads, and their affine [4, 4] to RAS+ mm; raises as it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stack = stacked(_slices(path, stop_before_pixels=True))
    return stack.shape, stack.affine


def _slices(path: Path, *, stop_before_pixels: bool = False) -> Sequence[pydicom.Dataset]:
    """The slices of a series or of an enhanced file, checked."""
    files = [pydicom.dcmread(each, stop_before_pixels=stop_before_pixels) for each in _files(path)]
    _check_decoders(files)
    whole = len(files) == 1 and int(files[0].get("NumberOfFrames") or 1) > 1
    slices = list(frames(files[0])) if whole else files
    _check(slices)
    return slices


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    entries = [each for each in sorted(path.iterdir()) if not each.name.startswith(".")]
    if broken := next((each for each in entries if each.is_symlink() and not each.exists()), None):
        raise ValueError(f"{broken.name} is a broken link, expected the slice that it stands for")
    return [each for each in entries if each.is_file() and is_dicom(each)]


def _check_decoders(slices: Sequence[pydicom.Dataset]) -> None:
    """InputError where a package that decompresses the pixels is not installed, ValueError where there is none."""
    for dataset in slices:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is None or not syntax.is_encapsulated:
            continue
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise ValueError(f"{named(dataset)} is compressed as {syntax.name}, which is not read") from error
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
                raise ValueError(f"{named(dataset)} lacks {name}")
        if dataset.SamplesPerPixel != 1:
            raise ValueError(f"{named(dataset)} has {dataset.SamplesPerPixel} samples a pixel, expected 1 (grey)")
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(f"{named(dataset)} holds {dataset.NumberOfFrames} frames, expected one file a slice")
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
            raise ValueError(f"{named(lacking)} lacks {name}, which {named(having[0])} has; expected it in all or none")
    if len(slices) < 2:
        raise ValueError("one slice, expected a volume")


def _comparable(value: object) -> object:
    """Numbers without the digits that scanners write differently from slice to slice; no value as an absent one."""
    if isinstance(value, MultiValue):
        return tuple(round(float(x), 4) for x in value)
    return None if value is None or str(value) == "" else value


def _shown(value: object, dataset: pydicom.Dataset) -> str:
    return f"{'none' if value is None else value} in {os.path.basename(dataset.filename)}"
