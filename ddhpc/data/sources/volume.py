"""One volume prepared: read, judged, resampled; the type in which prepared volumes are stored; and all of it as data.

Volumes are stored as uint8, int16 or uint16, the first that fits, where they hold whole numbers once they are prepared,
or where rounding costs each of them less than 8 bits would: whole numbers as read, or a window of at least 255 units,
and at least so many units from the lowest to the highest voxel. Others are stored as float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ddhpc.data.sources.crop import Crop, cropped
from ddhpc.data.sources.nifti import NO_ORIENTATION
from ddhpc.data.sources.preparation import Kind, Preparation, UnusableFile, because
from ddhpc.data.sources.resampling import IntensityRange, Shape, Spacing, Volume, resampled, share_cut_off
from ddhpc.data.sources.volume_formats import read_volume
from ddhpc.errors import InputError

Stored = Literal["uint8", "int16", "uint16", "float32"]
"""Types in which volumes are stored."""
INTEGERS: tuple[Stored, ...] = ("uint8", "int16", "uint16")
ROUNDED_RANGE = 255
"""Units between the lowest and the highest voxel from which on rounding to whole numbers costs less than 8 bits do."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What volumes are brought to; see `voxels.resampled`."""

    shape: Shape | None = None
    spacing: Spacing | None = None
    window: IntensityRange | None = None
    crop: Crop | None = None

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
    kept: Shape
    """Of the box that is kept, before it is resampled."""
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
    """Read and resample one volume: what it is and its voxels [x, y, z] float32, or why it cannot be used.

    Raises InputError where a package that reads files of its kind is not installed.
    """
    try:
        volume, kept, voxels = _read(path, geometry)
        return _facts(volume, kept, voxels, geometry), voxels
    except InputError:
        raise
    except Exception as error:  # on damaged files the libraries raise anything: zlib.error, struct.error, ...
        return because(error)


def _read(path: Path, geometry: Geometry) -> tuple[Volume, Volume, np.ndarray]:
    """A volume as read, what is kept of it, and that [x, y, z] float32 as prepared; raises where it cannot be used."""
    volume = read_volume(path)
    _check_readable(volume, geometry.window)
    kept = cropped(path, volume, geometry.crop) if geometry.crop else volume
    voxels = resampled(kept, shape=geometry.shape, spacing=geometry.spacing, window=geometry.window)
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        cut_off = share_cut_off(kept, shape=geometry.shape, spacing=geometry.spacing)
        cut = f", {cut_off:.0%} of it does not fit into {by(voxels.shape)} voxels" if cut_off else ""
        raise ValueError(f"constant once it is prepared, every voxel is {low:g}{cut}")
    return volume, kept, voxels


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
        raise ValueError(f"constant between {window[0]:g} and {window[1]:g}, voxels are {low:g} to {high:g}")


def _facts(volume: Volume, kept: Volume, voxels: np.ndarray, geometry: Geometry) -> VolumeFacts:
    return VolumeFacts(
        shape=volume.shape,
        kept=kept.shape,
        spacing=volume.spacing,
        axes=volume.axes,
        patient=volume.patient,
        remarks=volume.remarks,
        read_whole=_whole(volume.voxels),
        low=float(voxels.min()),
        high=float(voxels.max()),
        whole=_whole(voxels),
        cut_off=share_cut_off(kept, shape=geometry.shape, spacing=geometry.spacing),
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


def stored_as(facts: Sequence[VolumeFacts], window: IntensityRange | None) -> Stored:
    """Name of the type in which prepared volumes are stored."""
    wide = window is not None and window[1] - window[0] >= ROUNDED_RANGE
    exact = all(fact.whole for fact in facts)
    fine = all((wide or fact.read_whole) and fact.high - fact.low >= ROUNDED_RANGE for fact in facts)
    if exact or fine:
        low, high = min(fact.low for fact in facts), max(fact.high for fact in facts)
        for name in INTEGERS:
            if _holds(name, low, high):
                return name
    return "float32"


def _holds(dtype: str, low: float, high: float) -> bool:
    """Whether an integer type holds all numbers of a range."""
    return bool(np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)


@dataclass(frozen=True, kw_only=True)
class VolumePreparation(Preparation):
    """What all volumes of a set become."""

    kind: ClassVar[Kind] = "volumes"
    shape: Shape
    """Of a packed volume."""
    resize: Literal["none", "stretch", "centre"]
    """How a volume comes to the shape: it must have it, at the spacing; it is stretched; it is cut or filled."""
    spacing: Spacing | None
    """Millimetres between voxels to which volumes are resampled first; None: they keep theirs."""
    intensity_range: IntensityRange | None
    """Range to which voxels are clipped before all else, Hounsfield units for CT."""
    axes: Literal["RAS"] = "RAS"
    """Directions in which x, y, z increase: right, anterior, superior."""
    orientation: Literal["of the file", "taken as LAS"]
    """Where that of a file comes from; only NIfTI files may not tell it."""
    dtype: Stored
    """In which voxels are stored; for integers they are rounded."""
    crop: Crop | None = None
    """What is kept of a volume, before it is resampled; None: all of it."""

    def __post_init__(self) -> None:
        least = 1 if self.resize == "none" else 2
        if min(self.shape) < least:
            raise ValueError(f"has shape {list(self.shape)}; expected at least {least} along each axis")
        if self.resize != "none" and (self.resize == "centre") == (self.spacing is None):
            raise ValueError(f"has resize {self.resize} and spacing {self.spacing}; expected centre with spacings only")
        if self.spacing and not min(self.spacing) > 0:
            raise ValueError(f"has spacing {list(self.spacing)}; expected millimetres above 0")
        if self.intensity_range and not self.intensity_range[0] < self.intensity_range[1]:
            raise ValueError(f"has intensity_range {list(self.intensity_range)}; expected a lower and a higher number")

    @classmethod
    def of_set(cls, geometry: Geometry, shape: Shape, facts: Sequence[VolumeFacts]) -> VolumePreparation:
        """What these volumes of one set become, with their common shape."""
        by_spacing: Literal["stretch", "centre"] = "centre" if geometry.spacing else "stretch"
        assumed = all(NO_ORIENTATION in fact.remarks for fact in facts)
        return cls(
            shape=shape,
            resize=by_spacing if geometry.shape else "none",
            spacing=geometry.spacing,
            intensity_range=geometry.window,
            orientation="taken as LAS" if assumed else "of the file",
            dtype=stored_as(facts, geometry.window),
            crop=geometry.crop,
        )

    @property
    def channels(self) -> int:
        """See `Preparation`."""
        return 1

    @property
    def image_shape(self) -> Shape:
        """See `Preparation`."""
        return self.shape

    @property
    def stored_dtype(self) -> np.dtype:
        """See `Preparation`."""
        return np.dtype(self.dtype)

    @property
    def geometry(self) -> Geometry:
        """What each volume is brought to."""
        fixed = None if self.resize == "none" else self.shape
        return Geometry(shape=fixed, spacing=self.spacing, window=self.intensity_range, crop=self.crop)

    def apply(self, path: Path) -> np.ndarray:
        """See `Preparation`.

        Refused are volumes of another shape where none is resized to it, volumes that tell their orientation where the
        set does not, and the other way round, and voxels that the integer type does not hold or that rounding would
        cost more than 8 bits would.
        """
        try:
            volume, _, voxels = _read(path, self.geometry)
            self._check_fits(volume, voxels)
            return self.stored(voxels)
        except InputError:
            raise
        except Exception as error:
            raise UnusableFile(path, because(error)) from error

    def stored(self, voxels: np.ndarray) -> np.ndarray:
        """Prepared voxels float32 [x, y, z] as they are packed, [1, x, y, z]."""
        return (voxels if self.dtype == "float32" else voxels.round().astype(self.dtype))[None]

    def _check_fits(self, volume: Volume, voxels: np.ndarray) -> None:
        """ValueError unless the set stays what it is with this volume in it."""
        if voxels.shape != self.shape:
            at = f" at {by(self.spacing)} mm" if self.spacing else ""
            raise ValueError(f"{by(voxels.shape)} voxels{at}, expected {by(self.shape)} as the volumes of the set have")
        if (NO_ORIENTATION in volume.remarks) != (self.orientation == "taken as LAS"):
            tells = ("tells no", "do") if NO_ORIENTATION in volume.remarks else ("tells its", "do not")
            raise ValueError(f"{tells[0]} orientation, the volumes of the set {tells[1]}: it may be mirrored to them")
        low, high = float(voxels.min()), float(voxels.max())
        if not math.isfinite(high - low):
            raise ValueError("voxels beyond the range of float32")
        if self.dtype == "float32":
            return
        if not _holds(self.dtype, low, high):
            raise ValueError(f"voxels from {low:g} to {high:g}, which {self.dtype}, the type of the set, does not hold")
        if high - low < ROUNDED_RANGE and not _whole(voxels):
            raise ValueError(
                f"fractions between {low:g} and {high:g}, which would be lost in {self.dtype}, the type of the set; "
                f"expected whole numbers, or at least {ROUNDED_RANGE} units from the lowest to the highest"
            )


def by(sizes: Sequence[float], sign: str = "x") -> str:
    """Sizes as 64x64x32, or with another sign between them."""
    return sign.join(f"{size:g}" for size in sizes)
