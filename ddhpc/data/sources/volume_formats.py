"""Files that hold volumes: how they are known, and what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddhpc.data.sources import itk, nifti
from ddhpc.data.sources.dicom import is_dicom, read_dicom
from ddhpc.data.sources.multi_frame import is_enhanced
from ddhpc.data.sources.resampling import Volume

ENDINGS = (*nifti.ENDINGS, *itk.ENDINGS)
EXPECTED = ".nii, .nii.gz, .hdr, .mha, .mhd, .nrrd, .nhdr, enhanced DICOM or the directory of a DICOM series"
OTHER = "no kind of volume"
DATA = "voxels of the header beside it"
MASK = "mask of the volume beside it"
NO_VOLUME = (OTHER, DATA, MASK)
"""Why files that lie among volumes are left out."""
HEADERS = {".img": (".hdr",), ".img.gz": (".hdr.gz",)} | dict.fromkeys((".raw", ".zraw", ".raw.gz"), (".mhd", ".nhdr"))
"""Endings of the headers that files with nothing but voxels may belong to."""
MASK_SIGNS = ("_mask", "-mask")
"""What the name of a mask has more than that of its volume, before the ending."""


def volume_of(path: Path) -> Path | str:
    """The volume that a file is, or is a slice of: its own path or its directory; a text tells why it is neither."""
    try:
        if path.name.lower().endswith(ENDINGS):
            return MASK if _is_mask(path) else path
        if is_dicom(path):
            return path if is_enhanced(path) else path.parent
        return DATA if _has_header(path) else OTHER
    except OSError as error:
        return error.strerror or "cannot be read"


def read_volume(path: Path) -> Volume:
    """The volume of a file or of the directory of a series, in rescaled units.

    Raises InputError where a package that reads its kind is not installed, and whatever its reader raises otherwise.
    """
    if path.is_dir():
        return read_dicom(path)
    name = path.name.lower()
    if name.endswith(itk.ENDINGS):
        return itk.read_itk(path)
    return read_dicom(path) if not name.endswith(ENDINGS) and is_dicom(path) else nifti.read_nifti(path)


def mask_of(path: Path) -> Path:
    """The mask beside a volume: NAME_mask or NAME-mask, in any kind of file. Raises ValueError unless there is one.

    NAME is that of the volume without its ending, or of the directory of a series.
    """
    name = path.name if path.is_dir() else _stem(path)
    found = [mask for sign in MASK_SIGNS for end in ENDINGS if (mask := path.with_name(f"{name}{sign}{end}")).is_file()]
    if len(found) != 1:
        many = f"{found[0].name} and {found[1].name}" if found else "no mask"
        raise ValueError(f"{many} beside it, expected one {name}_mask in a file such as .nii.gz")
    return found[0]


def _is_mask(path: Path) -> bool:
    """Whether a file is the mask of a volume, which lies beside it."""
    stem = _stem(path)
    name = next((stem.removesuffix(sign) for sign in MASK_SIGNS if stem.endswith(sign)), "")
    return bool(name) and any(path.with_name(f"{name}{end}").exists() for end in (*ENDINGS, ".dcm", ""))


def _stem(path: Path) -> str:
    """The name of a file without the ending that tells its kind."""
    end = max((end for end in (*ENDINGS, ".dcm") if path.name.lower().endswith(end)), key=len, default="")
    return path.name[: len(path.name) - len(end)]


def parts(path: Path) -> Sequence[Path]:
    """The files, or the directory, that a volume is read from; those that are named and missing are left out."""
    if path.is_dir():
        return [path]
    try:
        data = (itk if path.name.lower().endswith(itk.ENDINGS) else nifti).data_file(path)
    except (OSError, ValueError):  # which reading it tells
        data = path
    return [path] if data == path or not data.exists() else [path, data]


def _has_header(path: Path) -> bool:
    return any(
        path.name.lower().endswith(ending) and path.with_name(path.name[: -len(ending)] + header).exists()
        for ending, headers in HEADERS.items()
        for header in headers
    )
