"""Reading of MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) volumes, with SimpleITK."""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddhpc.data.sources.resampling import LPS_TO_RAS, Shape, Volume, oriented
from ddhpc.errors import InputError

ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
LONGEST_HEADER = 1 << 20
MAGIC = b"NRRD000"
SPACES = ("left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las")
"""Coordinates of a patient in NRRD; others are of a scanner, or of nothing."""
BLOCK = 1 << 24
"""Bytes decompressed at once where they are only checked."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The text before the voxels."""

    fields: Mapping[str, str]
    """By name in lower case."""
    size: int
    """Bytes of the file that it takes."""
    nrrd: bool

    def get(self, *names: str) -> str:
        """The value of the first of these fields that is there, or nothing."""
        return next((self.fields[name] for name in names if name in self.fields), "")


def read_itk(path: Path) -> Volume:
    """The volume of a file in MetaImage or NRRD, whether its voxels are in the same file or in one beside it.

    Raises InputError where SimpleITK is not installed, ValueError for what is not one grey volume placed in a patient,
    and whatever SimpleITK raises for a damaged file.
    """
    reader = _opened(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ValueError(_told(error)) from error
    return oriented(_itk().GetArrayFromImage(image).T, _affine(reader))


def read_geometry(path: Path) -> tuple[Shape, np.ndarray]:
    """Voxels of a file as stored, and their affine [4, 4] to RAS+ mm; raises as `read_itk`."""
    reader = _opened(path)
    x, y, z = reader.GetSize()
    return (x, y, z), _affine(reader)


def data_file(path: Path) -> Path:
    """The file that holds the voxels of one: itself, or another. Raises ValueError where there is none or several."""
    return _data_file(path, _header(path))


def _itk() -> Any:
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise InputError(
            "SimpleITK is not installed; pip install 'ddhpc[ct]' brings what MHA and NRRD files need"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def _opened(path: Path) -> Any:
    """A reader that knows the geometry of a file, all of which is checked."""
    itk = _itk()
    header = _header(path)
    data = _data_file(path, header)
    (_check_nrrd if header.nrrd else _check_meta)(header)
    reader = itk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if header.nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(_told(error)) from error
    if reader.GetNumberOfComponents() != 1 or reader.GetDimension() != 3:
        raise ValueError(
            f"{reader.GetDimension()}D with {reader.GetNumberOfComponents()} numbers a voxel, "
            "expected one 3D volume of one number each"
        )
    voxel = itk.Image(1, 1, reader.GetPixelID()).GetSizeOfPixelComponent()
    _check_data(data, header if data == path else replace(header, size=0), math.prod(reader.GetSize()) * voxel)
    return reader


def _header(path: Path) -> _Header:
    with open(path, "rb") as file:
        start = file.read(LONGEST_HEADER)
    if not start:
        raise ValueError("empty file")
    nrrd = start.startswith(MAGIC)
    end = re.search(rb"\r?\n\r?\n|\Z" if nrrd else rb"(?im)^\s*ElementDataFile\s*=[^\n]*(\n|\Z)", start)
    if end is None:
        raise ValueError("neither MetaImage nor NRRD, its header does not name the data (ElementDataFile)")
    text = start[: end.end()].decode("latin-1")
    pairs = re.findall(r"^\s*([^#:=\n]+?)\s*(?::(?!=)|=)[ \t]*([^\n]*?)\s*$", text, re.MULTILINE)
    return _Header(fields={name.lower(): value for name, value in pairs}, size=end.end(), nrrd=nrrd)


def _check_meta(header: _Header) -> None:
    if not header.get("transformmatrix", "orientation", "rotation"):
        raise ValueError("no orientation in the header, expected TransformMatrix")
    if not header.get("elementspacing", "elementsize"):
        raise ValueError("no spacing in the header, expected ElementSpacing")
    scale = header.get("elementtointensityfunctionslope") or "1", header.get("elementtointensityfunctionoffset") or "0"
    if tuple(map(float, scale)) != (1, 0):
        raise ValueError(f"intensities scaled by {scale[0]} and {scale[1]} in the header, expected them as stored")


def _check_nrrd(header: _Header) -> None:
    space = header.get("space")
    if space.lower() not in SPACES or not header.get("space directions"):
        raise ValueError(
            f"{f'space {space}' if space else 'no space'} in the header, expected one of a patient, such as "
            "left-posterior-superior, with space directions"
        )
    units = set(re.findall(r'"([^"]*)"', header.get("space units"))) - {"mm"}
    if units:
        raise ValueError(f"space units {', '.join(sorted(units))}, expected mm")


def _data_file(path: Path, header: _Header) -> Path:
    name = header.get("data file", "datafile", "elementdatafile") or "LOCAL"
    if name.upper() == "LOCAL":
        return path
    data = path.parent / name
    if not data.is_file():
        raise ValueError(f"its voxels are in {name}, which is no file; expected one file beside the header")
    return data


def _check_data(data: Path, header: _Header, size: int) -> None:
    """ValueError where voxels are missing or damaged, which ITK reads as if they were whole or reports elsewhere."""
    text = header.get("encoding") in ("ascii", "txt", "text", "hex") or header.get("binarydata").lower() == "false"
    with open(data, "rb") as file:
        file.seek(header.size)
        if header.get("encoding").lower() in ("gz", "gzip") or header.get("compresseddata").lower() == "true":
            _check_stream(file)
        elif not text and (found := file.seek(0, os.SEEK_END) - header.size) < size:
            raise ValueError(f"damaged: {found:,} bytes of voxels, expected {size:,}")


def _check_stream(file: Any) -> None:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # of zlib or gzip, each with a checksum
    try:
        while not stream.eof:
            data = stream.unconsumed_tail or file.read(BLOCK)
            if not data:
                raise ValueError("damaged: its compressed voxels break off")
            stream.decompress(data, BLOCK)
    except zlib.error as error:
        raise ValueError(f"damaged: its compressed voxels do not unpack: {error}") from error


def _affine(reader: Any) -> np.ndarray:
    """[4, 4] from voxels to RAS+ mm; ITK counts to left, posterior and superior."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return LPS_TO_RAS @ affine


def _told(error: RuntimeError) -> str:
    """What ITK says, without the places in its own code."""
    return re.sub(r"(?s)^.*?ERROR: (\w+\(0x\w+\): )?", "", str(error))
