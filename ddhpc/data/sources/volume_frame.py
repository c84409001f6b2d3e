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

from ddhpc.data.sources import dicom, itk, nifti
from ddhpc.data.sources.crop import box_of
from ddhpc.data.sources.preparation import UnusableFile, because
from ddhpc.data.sources.resampling import Shape, Spacing, Volume, oriented, seen
from ddhpc.data.sources.volume import Geometry, VolumePreparation
from ddhpc.data.sources.volume_formats import read_volume
from ddhpc.errors import InputError

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
    """That of a file or the directory of a DICOM series. Raises UnusableFile.

    Voxels are decoded alone where the preparation keeps a box, which is found in them.
    """
    try:
        shape, affine, header = _geometry(path)
        volume = oriented(np.broadcast_to(np.uint8(0), shape), affine)  # of no memory
        return Frame(header=header, orientation=io_orientation(affine), seen=_seen(path, volume, preparation.geometry))
    except InputError:
        raise
    except Exception as error:
        raise UnusableFile(path, because(error)) from error


def _geometry(path: Path) -> tuple[Shape, np.ndarray, Any]:
    """Voxels of a file as stored, their affine to RAS+ mm, and a NIfTI header of its own or a new one."""
    name = path.name.lower()
    if not path.is_dir() and name.endswith(nifti.ENDINGS):
        return nifti.read_geometry(path)
    kind = itk if not path.is_dir() and name.endswith(itk.ENDINGS) else dicom
    shape, affine = kind.read_geometry(path)
    return shape, affine, _header(shape, affine)


def _seen(path: Path, volume: Volume, geometry: Geometry) -> list[np.ndarray]:
    """See `Frame.seen`; -1 outside of the box that is kept."""
    box = [slice(0, size) for size in volume.shape]
    if geometry.crop:
        box = list(box_of(path, read_volume(path), geometry.crop))
    x, y, z = (part.stop - part.start for part in box)
    inside = seen((x, y, z), volume.spacing, shape=geometry.shape, spacing=geometry.spacing)
    found = [np.full(size, -1) for size in volume.shape]
    for whole, part, values in zip(found, box, inside, strict=True):
        whole[part] = values
    return found


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
