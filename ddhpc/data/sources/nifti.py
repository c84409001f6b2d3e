"""Reading of NIfTI volumes: one file, or a pair of a header and its voxels."""

from __future__ import annotations

import gzip
import io
import logging
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.imageglobals import logger

from ddhpc.data.sources.resampling import Shape, Volume, oriented

ENDINGS = (".nii", ".nii.gz", ".hdr", ".hdr.gz")
"""Of files, or of the headers of pairs."""
DATA_ENDINGS = {".hdr": ".img", ".hdr.gz": ".img.gz", ".HDR": ".IMG"}
"""Of the voxels of a pair, by that of its header."""
GZIP_MAGIC = b"\x1f\x8b"
IMAGES = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
PAIRS = {348: nibabel.Nifti1Pair, 540: nibabel.Nifti2Pair}
MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"),
    *("qoffset_z", "sform_code", "srow_x", "srow_y", "srow_z"),
)
"""Fields of a header that tell where its voxels are."""
NO_UNIT = "no unit of length in the header, taken as mm"
NO_ORIENTATION = "no orientation in the header, taken as LAS"

logger.setLevel(logging.CRITICAL)  # of headers that it mends; they are judged here


def read_nifti(path: Path) -> Volume:
    """The volume of a file in NIfTI-1 or 2, with the scale of its header applied; trailing axes of length 1 go.

    A compressed file is read to its end, where its checksum is. Spacing in metres or micrometres becomes mm.

    Raises ValueError for what is not one grey volume, and whatever nibabel raises for a damaged file.
    """
    image, header = _load(path)
    kind = image.get_data_dtype()
    if kind.names or kind.kind == "c":
        raise ValueError(f"{'RGB' if kind.names else 'complex'} voxels, expected one number each")
    shape = _shape(image)
    spacing = header["pixdim"][1:4]
    if not (np.isfinite(spacing) & (spacing != 0)).all():
        raise ValueError(f"voxel spacing {' x '.join(f'{size:g}' for size in spacing)} mm, expected positive numbers")
    affine, remarks = _in_millimetres(image)
    stored = image.dataobj
    scaled = (stored.slope, stored.inter) != (1, 0)
    voxels = np.asarray(stored, np.float32) if scaled else np.asanyarray(stored)
    return replace(oriented(voxels.reshape(shape), affine), remarks=remarks)


def read_geometry(path: Path) -> tuple[Shape, np.ndarray, Any]:
    """Voxels of a file as stored, their affine [4, 4] to RAS+ mm, and a header of nothing but its shape and geometry.

    The affine of the header is that of the file to the bit, in the file's unit. Raises as `read_nifti`.
    """
    image, _ = _load(path)
    header = IMAGES[int(image.header["sizeof_hdr"])].header_class()  # of a single file, also for a pair
    for name in GEOMETRY:
        header[name] = image.header[name]
    header.set_data_shape(image.shape)
    return _shape(image), _in_millimetres(image)[0], header


def _shape(image: Any) -> Shape:
    """Of the volume that an image is, without trailing axes of length 1."""
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ValueError(f"{len(shape)}D of shape {'x'.join(map(str, shape))}, expected one 3D volume")
    x, y, z = shape
    return x, y, z


def data_file(path: Path) -> Path:
    """The file that holds the voxels of one: itself, or for the header of a pair that beside it.

    Example:
        >>> data_file(Path("brain.hdr")).name, data_file(Path("brain.nii")).name
        ('brain.img', 'brain.nii')
    """
    for header, data in DATA_ENDINGS.items():
        if path.name.endswith(header):
            return path.with_name(path.name.removesuffix(header) + data)
    return path


def _load(path: Path) -> tuple[Any, Any]:
    """The image, its voxels not yet read, and its header as it stands in the file."""
    data, voxels = _unpacked(path), data_file(path)
    sizes = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    size = next((size for size in IMAGES if size in sizes), None)
    if size is None:
        raise ValueError("not a NIfTI file")
    files = {"header": io.BytesIO(data), "image": io.BytesIO(data)}
    kinds: dict[int, Any] = IMAGES
    if voxels != path:
        if not PAIRS[size].header_class.from_fileobj(io.BytesIO(data), check=False)["magic"].item().startswith(b"ni"):
            raise ValueError("not the header of a NIfTI pair; Analyze 7.5, which it may be, tells no orientation")
        if not voxels.is_file():
            raise ValueError(f"header of a pair without {voxels.name} beside it")
        kinds, files["image"] = PAIRS, io.BytesIO(_unpacked(voxels))
    try:
        image = kinds[size].from_file_map({name: FileHolder(fileobj=file) for name, file in files.items()})
    except ImageFileError as error:
        raise ValueError("not a NIfTI file") from error
    # nibabel makes 1 mm of a spacing of zero
    return image, kinds[size].header_class.from_fileobj(io.BytesIO(data), check=False)


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if not data:
        raise ValueError("empty file")
    if data.startswith(GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"damaged gzip stream: {error}") from error
    return data


def _in_millimetres(image: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine of an image to RAS+ mm, and what of it was converted or assumed."""
    unit, _ = image.header.get_xyzt_units()
    if unit not in MILLIMETRES:
        raise ValueError(f"unit of length {unit}, expected mm, metres or micrometres")
    affine = image.affine.copy()
    affine[:3] *= MILLIMETRES[unit]
    remarks = {"meter": ("metres converted to mm",), "micron": ("micrometres converted to mm",), "unknown": (NO_UNIT,)}
    placed = image.header["qform_code"] > 0 or image.header["sform_code"] > 0
    return affine, (*remarks.get(unit, ()), *(() if placed else (NO_ORIENTATION,)))
