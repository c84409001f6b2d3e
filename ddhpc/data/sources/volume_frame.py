"""The voxels of a file as they are stored, and NIfTI files over the same voxels, which viewers overlay on it."""
# mypy: allow-untyped-calls

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from ddhpc.data.sources import dicom, nifti
from ddhpc.data.sources.preparation import UnusableFile, because
from ddhpc.data.sources.resampling import Shape, Spacing, oriented, seen
from ddhpc.data.sources.volume import VolumePreparation

AXES = np.array([[0, 1], [1, 1], [2, 1]])
"""RAS as an orientation of nibabel."""
LEVEL = 6
"""Of compression: values over blocks come down to a thousandth with it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """How a file holds its volume."""

    header: Any
    """A NIfTI header of its shape and its geometry."""
    orientation: np.ndarray
    """[3, 2] of its axes, as nibabel has it."""
    seen: Sequence[np.ndarray]
    """Along x, y and z: the voxel of the prepared volume at the centre of each of its own, see `resampling.seen`."""


def frame(path: Path, preparation: VolumePreparation) -> Frame:
    """That of a NIfTI file or the directory of a DICOM series; no voxel is decoded. Raises UnusableFile."""
    try:
        if path.is_dir():
            shape, affine = dicom.read_geometry(path)
            header = _header(shape, affine)
        else:
            shape, affine, header = nifti.read_geometry(path)
        volume = oriented(np.broadcast_to(np.uint8(0), shape), affine)  # of no memory
        geometry = preparation.geometry
        return Frame(
            header=header,
            orientation=io_orientation(affine),
            seen=seen(volume.shape, volume.spacing, shape=geometry.shape, spacing=geometry.spacing),
        )
    except Exception as error:
        raise UnusableFile(path, because(error)) from error


def packed_frame(shape: Shape, spacing: Spacing | None) -> Frame:
    """That of a prepared volume, whose place in the patient is lost: its spacing, or the identity without one."""
    header = _header(shape, np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0]))
    return Frame(header=header, orientation=AXES, seen=[np.arange(size) for size in shape])


def compressed(frame: Frame, values: np.ndarray, described: str) -> bytes:
    """A .nii.gz file over the voxels of a frame, the same bytes each time.

    Args:
        frame: whose affine and shape it gets.
        values: [x, y, z] float32, as many along x, y and z as the frame has.
        described: for the header, which has room for 79 bytes.
    """
    header = frame.header.copy()
    stored = apply_orientation(values, ornt_transform(AXES, frame.orientation)).reshape(header.get_data_shape())
    header.set_data_dtype(np.float32)
    header["descrip"] = described.encode()[:79].decode(errors="ignore").encode()
    header["cal_max"] = np.abs(values).max()
    header["cal_min"] = -header["cal_max"]
    image = nifti.IMAGES[int(header["sizeof_hdr"])](stored, None, header)
    return gzip.compress(image.to_bytes(), LEVEL, mtime=0)


def _header(shape: Shape, affine: np.ndarray) -> Any:
    """Of voxels that an affine places in the coordinates of a scanner, in millimetres."""
    image = nibabel.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    return image.header
