"""Reading of NIfTI volumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger

from ddhpc.data.voxels import Volume, oriented

ENDINGS = (".nii", ".nii.gz")

logger.setLevel(logging.CRITICAL)  # of headers that it mends; they are judged here


def read_nifti(path: Path) -> Volume:
    """The volume of a file in NIfTI-1 or 2, with the scale of its header applied; trailing axes of length 1 go.

    Raises ValueError for what is not one grey volume, and whatever nibabel raises for a damaged file.
    """
    with open(path, "rb") as file:  # nibabel calls a file that it may not read one of no known type
        if not file.read(1):
            raise ValueError("empty file")
    try:
        image: Any = nibabel.load(path, mmap=False)
    except ImageFileError as error:
        raise ValueError("not a NIfTI file") from error
    # nibabel makes 1 mm of a spacing of zero
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        header = type(image.header).from_fileobj(file, check=False)
    kind = image.get_data_dtype()
    if kind.names or kind.kind == "c":
        raise ValueError(f"{'RGB' if kind.names else 'complex'} voxels, expected one number each")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ValueError(f"{len(shape)}D of shape {'x'.join(map(str, shape))}, expected one 3D volume")
    spacing = header["pixdim"][1:4]
    if not (np.isfinite(spacing) & (spacing != 0)).all():
        raise ValueError(f"voxel spacing {' x '.join(f'{size:g}' for size in spacing)} mm, expected positive numbers")
    stored = image.dataobj
    scaled = (stored.slope, stored.inter) != (1, 0)
    voxels = np.asarray(stored, np.float32) if scaled else np.asanyarray(stored)
    return oriented(voxels.reshape(shape), image.affine)
