"""Source of packed files: labelled volumes, NIfTI files or DICOM series.

Packed arrays are [C, x, y, z] with one channel; x runs from the patient's left to right, y from posterior to
anterior, z from inferior to superior. Volumes that hold whole numbers are stored as uint8, int16 or uint16, the
first that fits, so are volumes clipped to a window of at least 255 units (Hounsfield units lose nothing by it);
others as float32. Each is decoded once, and waits beside the
output until all are; one is in memory at a time, beside the row of chunks that the writer fills.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from ddhpc.data.crew import Crew
from ddhpc.data.dicom import read_series
from ddhpc.data.division import check_drawing, check_patients, counted, divide, drop_copies
from ddhpc.data.hdf5 import check_output
from ddhpc.data.images import Prepared, Progress
from ddhpc.data.listing import Listing, Sample, grouped, list_volumes
from ddhpc.data.nifti import read_nifti
from ddhpc.data.packing import Split, write_packed
from ddhpc.data.partial import Facts, open_partial
from ddhpc.data.voxels import Shape, Spacing, Volume, Window, grid, resampled
from ddhpc.errors import InputError

OnError = Literal["skip", "stop"]
ROUNDED_WINDOW = 255
"""Width of a window from which on rounding to whole numbers costs less than 8 bits do."""
CT_DEFAULTS: Mapping[str, Any] = MappingProxyType({"shape": (128, 128, 64), "window": (-1000.0, 400.0)})
"""Options for CT: Hounsfield units from air to bone, and a shape that keeps the whole chest."""


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What a volume turns out to be."""

    shape: Shape
    spacing: Spacing
    axes: str
    low: float
    """Inside the window."""
    high: float
    whole: bool
    """All voxels are whole numbers."""
    checksum: str


def prepare_ct(source: Path | str, output: Path | str, **options: Any) -> Prepared | None:
    """`prepare_volumes` with CT_DEFAULTS where nothing else is given."""
    return prepare_volumes(source, output, **{**CT_DEFAULTS, **options})


def prepare_volumes(
    source: Path | str,
    output: Path | str,
    *,
    shape: Shape | None = None,
    spacing: Spacing | None = None,
    window: Window | None = None,
    groups: Sequence[str] = (),
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    on_error: OnError = "skip",
    allow_shared_patients: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    crew: Crew | None = None,
) -> Prepared | None:
    """Packs labelled volumes of class folders or a CSV table (`list_volumes`), each resampled (`resampled`).

    `shape` is in voxels, `spacing` in mm, both along x, y, z; `window` in the units of the volumes. Each of
    `groups`, class names joined by commas, becomes one class, and classes in no group are left out; without
    groups classes are in order of name. A split without volumes is drawn from the training volumes by its
    fraction, by class, all volumes of a patient together. Volumes that cannot be used end the run with
    "stop"; with "skip" they are left out and named in the result and in the file. Copies of volumes of an
    earlier split are always left out. Progress counts every volume twice: decoded, then packed. The ranks of a
    `crew` share the decoding; those above 0 get None.

    Raises InputError for bad options, an output that exists, a source that cannot be listed, a class without
    training volumes, a patient in two splits unless allowed, and volumes that end up in different shapes.
    """
    source, output = Path(source), Path(output)
    _check_options(shape, spacing, window, on_error)
    check_drawing(val_fraction, test_fraction, seed)
    check_output(output, overwrite=overwrite)

    listing = grouped(list_volumes(source), groups)
    store = open_partial(output, crew or Crew(), listing.samples, shape=shape, spacing=spacing, window=window)

    def decode(sample: Sample) -> tuple[Facts, np.ndarray | None]:
        found = _try(sample.path, window)
        if isinstance(found, str):
            _stop_at(source, {sample.id: found}, on_error)
            return {"bad": found}, None
        facts, volume = found
        return asdict(facts), resampled(volume, shape=shape, spacing=spacing, window=window)

    _stop_at(source, listing.bad, on_error)
    count = len(listing.samples)
    records = store.each("volumes", listing.samples, decode, lambda done: progress(done, 2 * count))
    decoded = dict(zip(listing.samples, records, strict=True))
    bad = dict(listing.bad) | {s.id: r.facts["bad"] for s, r in decoded.items() if "bad" in r.facts}
    _stop_at(source, bad, on_error)
    facts = {sample: _Facts(**record.facts) for sample, record in decoded.items() if sample.id not in bad}
    samples = [sample for sample in listing.samples if sample in facts]
    _check_classes(source, listing, samples, bad)

    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {name: part for name, part in fractions.items() if all(s.split != name for s in samples)}
    labels = np.array([listing.classes.index(sample.label) for sample in samples])
    ids = [sample.id for sample in samples]
    owners = [sample.patient or sample.id for sample in samples]
    divided = divide([sample.split for sample in samples], labels, owners, missing, seed, listing.classes)
    divided, copies = drop_copies(divided, ids, [facts[sample].checksum for sample in samples])
    if not allow_shared_patients:
        check_patients(divided, ids, [sample.patient for sample in samples])

    packed_shape = shape or _common_shape(source, {s.id: facts[s] for s in samples}, spacing)
    dtype = _stored_as(list(facts.values()), window)
    skipped = dict(sorted({**listing.skipped, **bad, **copies}.items()))
    notes = _conversions(list(facts.values()), dtype, packed_shape, spacing, window)
    notes += [f"class {name} is in no group: {n} volumes" for name, n in sorted(listing.ungrouped.items())]
    notes += [f"{name}: {part:.0%} of each class in train, seed {seed}" for name, part in missing.items()]
    left_out = {"not a volume": listing.skipped, "unusable": bad, "copy of a volume of an earlier split": copies}
    notes += [f"{len(names)} left out: {reason}" for reason, names in left_out.items() if names]

    total = count + sum(map(len, divided.values()))
    order = [decoded[samples[i]] for members in divided.values() for i in members]
    written = counted((_stored(record.pixels(), dtype) for record in order), progress, count, total)

    def write() -> Prepared:
        packed = write_packed(
            output,
            classes=listing.classes,
            splits={
                name: Split(labels=labels[members], ids=[ids[i] for i in members], images=islice(written, len(members)))
                for name, members in divided.items()
            },
            image_shape=packed_shape,
            channels=1,
            dtype=dtype,
            source=f"volumes of {source.absolute().name}: {'; '.join(notes)}",
            skipped=[f"{path}: {reason}" for path, reason in skipped.items()],
            overwrite=overwrite,
        )
        return Prepared(packed=packed, notes=tuple(notes), skipped=skipped)

    return store.finish(write)


def _check_options(shape: Shape | None, spacing: Spacing | None, window: Window | None, on_error: str) -> None:
    if shape is not None and (len(shape) != 3 or min(shape) < 2):
        raise InputError(f"--shape {_by(shape, ' ')}: expected voxels along x, y and z, each at least 2")
    if spacing is not None and not (len(spacing) == 3 and all(0 < size < math.inf for size in spacing)):
        raise InputError(f"--spacing {_by(spacing, ' ')}: expected millimetres along x, y and z, each above 0")
    if window is not None and not (len(window) == 2 and -math.inf < window[0] < window[1] < math.inf):
        raise InputError(f"--window {_by(window, ' ')}: expected a lower and a higher number")
    if on_error not in get_args(OnError):
        raise InputError(f"--on-error {on_error}: expected {' or '.join(get_args(OnError))}")


def _stop_at(source: Path, bad: Mapping[str, str], on_error: OnError) -> None:
    if bad and on_error == "stop":
        name, reason = next(iter(bad.items()))
        raise InputError(f"{source}: {name}: {reason}; --on-error skip leaves such files out")


def _try(path: Path, window: Window | None) -> tuple[_Facts, Volume] | str:
    try:
        volume = read_series(path) if path.is_dir() else read_nifti(path)
        return _facts(volume, window), volume
    except Exception as error:  # on damaged files the libraries raise anything: zlib.error, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(reason.split()) or type(error).__name__


def _facts(volume: Volume, window: Window | None) -> _Facts:
    voxels = volume.voxels
    if min(volume.shape) < 2:
        raise ValueError(f"one slice of shape {_by(volume.shape)}, expected a volume")
    if not np.isfinite(voxels).all():
        raise ValueError("holds NaN or infinity, expected finite numbers")
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise ValueError(f"constant, every voxel is {low:g}")
    if window is not None and (high <= window[0] or low >= window[1]):
        raise ValueError(f"constant inside the window, voxels are {low:g} to {high:g}")
    return _Facts(
        shape=volume.shape,
        spacing=volume.spacing,
        axes=volume.axes,
        low=low if window is None else max(low, window[0]),
        high=high if window is None else min(high, window[1]),
        whole=voxels.dtype.kind in "iu" or bool((voxels == np.rint(voxels)).all()),
        checksum=hashlib.sha256(repr(volume.spacing).encode() + voxels.tobytes()).hexdigest(),
    )


def _check_classes(source: Path, listing: Listing, samples: Sequence[Sample], bad: Mapping[str, str]) -> None:
    trained = {sample.label for sample in samples if sample.split in ("", "train")}
    for name in listing.classes:
        if name not in trained:
            of_class = (sample.id for sample in listing.samples if sample.label == name and sample.id in bad)
            lost = next((f"; {path}: {bad[path]}" for path in of_class), "")
            raise InputError(f"{source}: class {name!r} has no training volumes; expected at least one{lost}")


def _common_shape(source: Path, facts: Mapping[str, _Facts], spacing: Spacing | None) -> Shape:
    shapes: dict[Shape, str] = {}
    for name, fact in facts.items():
        shapes.setdefault(grid(fact.shape, fact.spacing, spacing) if spacing else fact.shape, name)
    (one, first), *others = shapes.items()
    for other, second in others:
        raise InputError(
            f"{source}: volumes of {len(shapes)} shapes{' at --spacing' if spacing else ''}, {_by(one)} ({first}) and "
            f"{_by(other)} ({second}); expected one, --shape X Y Z brings them to it"
        )
    return one


def _stored_as(facts: Sequence[_Facts], window: Window | None) -> str:
    low, high = min(fact.low for fact in facts), max(fact.high for fact in facts)
    wide = window is not None and window[1] - window[0] >= ROUNDED_WINDOW
    if wide or all(fact.whole for fact in facts):
        for name in ("uint8", "int16", "uint16"):
            if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
                return name
    return "float32"


def _stored(voxels: np.ndarray, dtype: str) -> np.ndarray:
    return (voxels if dtype == "float32" else voxels.round().astype(dtype))[None]


def _conversions(
    facts: Sequence[_Facts], dtype: str, packed: Shape, spacing: Spacing | None, window: Window | None
) -> list[str]:
    axes = Counter(fact.axes for fact in facts)
    shapes = sorted({fact.shape for fact in facts}, key=lambda shape: (math.prod(shape), shape))
    sizes = [size for fact in facts for size in fact.spacing]
    notes = [
        f"stored as {dtype}, {_by(packed)} voxels left to right, posterior to anterior, inferior to superior",
        f"read in {len(shapes)} shapes between {_by(shapes[0])} and {_by(shapes[-1])}, spacings between "
        f"{min(sizes):g} and {max(sizes):g} mm, axes {', '.join(f'{name} {n}' for name, n in axes.most_common())}",
    ]
    if window:
        notes.append(f"clipped to {window[0]:g} to {window[1]:g}")
    if spacing:
        notes.append(f"resampled to {_by(spacing)} mm, centred")
    elif set(shapes) != {packed}:
        notes.append(f"stretched to {_by(packed)} voxels")
    return notes


def _by(sizes: Sequence[float], sign: str = "x") -> str:
    return sign.join(f"{size:g}" for size in sizes)
