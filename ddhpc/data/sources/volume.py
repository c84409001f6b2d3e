"""One volume prepared: read, judged, resampled; and the type in which prepared volumes are stored.

Volumes are stored as uint8, int16 or uint16, the first that fits, where they hold whole numbers once they are prepared,
or where rounding costs each of them less than 8 bits would: whole numbers as read, or a window of at least 255 units,
and at least so many units from the lowest to the highest voxel. Others are stored as float32.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddhpc.data.sources.dicom import read_series
from ddhpc.data.sources.nifti import read_nifti
from ddhpc.data.sources.resampling import IntensityRange, Shape, Spacing, Volume, resampled, share_cut_off
from ddhpc.errors import InputError

ROUNDED_RANGE = 255
"""Units between the lowest and the highest voxel from which on rounding to whole numbers costs less than 8 bits do."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What volumes are brought to; see `voxels.resampled`."""

    shape: Shape | None = None
    spacing: Spacing | None = None
    window: IntensityRange | None = None

    def __post_init__(self) -> None:
        shape, spacing, window = self.shape, self.spacing, self.window
        if shape is not None and (len(shape) != 3 or min(shape) < 2):
            raise InputError(f"--shape {by(shape, ' ')}: expected voxels along x, y and z, each at least 2")
        if spacing is not None and not (len(spacing) == 3 and all(0 < size < math.inf for size in spacing)):
            raise InputError(f"--spacing {by(spacing, ' ')}: expected millimetres along x, y and z, each above 0")
        if window is not None and not (len(window) == 2 and -math.inf < window[0] < window[1] < math.inf):
            raise InputError(f"--window {by(window, ' ')}: expected a lower and a higher number")


@dataclass(frozen=True, kw_only=True)
class VolumeFacts:
    """What a volume turns out to be."""

    shape: Shape
    """As read, like spacing and axes."""
    spacing: Spacing
    axes: str
    patient: str
    """As the file names it, or empty."""
    remarks: tuple[str, ...]
    """Of reading it."""
    read_whole: bool
    """All voxels were whole numbers before the volume was prepared."""
    low: float
    """Lowest voxel of the prepared volume."""
    high: float
    whole: bool
    """All voxels of the prepared volume are whole numbers."""
    cut_off: float
    """Share of the volume that is not in the prepared one."""
    checksum: str
    """Of the voxels as read, the same for the same numbers in another type or byte order."""


def prepare_volume(path: Path, geometry: Geometry) -> tuple[VolumeFacts, np.ndarray] | str:
    """Read and resample one volume: what it is and its voxels [x, y, z] float32, or why it cannot be used."""
    try:
        volume = read_series(path) if path.is_dir() else read_nifti(path)
        _check_readable(volume, geometry.window)
        voxels = resampled(volume, shape=geometry.shape, spacing=geometry.spacing, window=geometry.window)
        return _facts(volume, voxels, geometry), voxels
    except Exception as error:  # on damaged files the libraries raise anything: zlib.error, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(reason.split()) or type(error).__name__


def _check_readable(volume: Volume, window: IntensityRange | None) -> None:
    voxels = volume.voxels
    if min(volume.shape) < 2:
        raise ValueError(f"one slice of shape {by(volume.shape)}, expected a volume")
    if not np.isfinite(voxels).all():
        raise ValueError("holds NaN or infinity, expected finite numbers")
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise ValueError(f"constant, every voxel is {low:g}")
    if window is not None and (high <= window[0] or low >= window[1]):
        raise ValueError(f"constant inside the window, voxels are {low:g} to {high:g}")


def _facts(volume: Volume, voxels: np.ndarray, geometry: Geometry) -> VolumeFacts:
    low, high = float(voxels.min()), float(voxels.max())
    cut_off = share_cut_off(volume, shape=geometry.shape, spacing=geometry.spacing)
    if low == high:
        cut = f", --shape cuts {cut_off:.0%} of it off" if cut_off else ""
        raise ValueError(f"constant once it is prepared, every voxel is {low:g}{cut}")
    return VolumeFacts(
        shape=volume.shape,
        spacing=volume.spacing,
        axes=volume.axes,
        patient=volume.patient,
        remarks=volume.remarks,
        read_whole=_whole(volume.voxels),
        low=low,
        high=high,
        whole=_whole(voxels),
        cut_off=cut_off,
        checksum=_checksum(volume.voxels),
    )


def _whole(voxels: np.ndarray) -> bool:
    return voxels.dtype.kind in "biu" or bool((voxels == np.rint(voxels)).all())


def _checksum(voxels: np.ndarray) -> str:
    """SHA-256 of the shape and of the numbers, whatever type holds them."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    for plane in voxels:
        digest.update((plane.astype("<f8") + 0.0).tobytes())  # -0 becomes 0
    return digest.hexdigest()


def stored_as(facts: Sequence[VolumeFacts], window: IntensityRange | None) -> str:
    """Name of the type in which prepared volumes are stored."""
    wide = window is not None and window[1] - window[0] >= ROUNDED_RANGE
    exact = all(fact.whole for fact in facts)
    fine = all((wide or fact.read_whole) and fact.high - fact.low >= ROUNDED_RANGE for fact in facts)
    if exact or fine:
        low, high = min(fact.low for fact in facts), max(fact.high for fact in facts)
        for name in ("uint8", "int16", "uint16"):
            if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
                return name
    return "float32"


def as_stored(voxels: np.ndarray, dtype: str) -> np.ndarray:
    """Prepared voxels [x, y, z] as they are packed, [1, x, y, z]."""
    return (voxels if dtype == "float32" else voxels.round().astype(dtype))[None]


def conversions(facts: Sequence[VolumeFacts], dtype: str, packed: Shape, geometry: Geometry) -> list[str]:
    """What was done to the volumes, for a person."""
    axes = Counter(fact.axes for fact in facts)
    shapes = sorted({fact.shape for fact in facts}, key=lambda shape: (math.prod(shape), shape))
    sizes = [size for fact in facts for size in fact.spacing]
    one, many = by(shapes[0]), f"{len(shapes)} shapes between {by(shapes[0])} and {by(shapes[-1])}"
    notes = [
        f"stored as {dtype}, {by(packed)} voxels left to right, posterior to anterior, inferior to superior",
        f"read in {many if len(shapes) > 1 else one}, spacings between {min(sizes):g} and {max(sizes):g} mm, "
        f"axes {', '.join(f'{name} {n}' for name, n in axes.most_common())}",
    ]
    if geometry.window:
        notes.append(f"clipped to {geometry.window[0]:g} to {geometry.window[1]:g}")
    if geometry.spacing:
        notes.append(f"resampled to {by(geometry.spacing)} mm, centred")
    elif set(shapes) != {packed}:
        notes.append(f"stretched to {by(packed)} voxels")
    cut = [fact.cut_off for fact in facts if fact.cut_off > 0]
    if cut:
        notes.append(f"cut off by --shape: up to {max(cut):.0%} of {len(cut)} of {len(facts)} volumes")
    remarks = Counter(remark for fact in facts for remark in fact.remarks)
    return notes + [f"{count} of {len(facts)} volumes: {remark}" for remark, count in remarks.most_common()]


def by(sizes: Sequence[float], sign: str = "x") -> str:
    """Sizes as 64x64x32, or with another sign between them."""
    return sign.join(f"{size:g}" for size in sizes)
