"""Source of packed files: labelled volumes, see `volume_formats`.

Packed arrays are [C, x, y, z] with one channel; x runs from the patient's left to right, y from posterior to
anterior, z from inferior to superior. Each volume is decoded once, and waits beside the output until all are; one is
in memory at a time, beside the row of chunks that the writer fills.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ddhpc.data.packed.writer import Contents
from ddhpc.data.sources.conversions import conversions
from ddhpc.data.sources.crop import Crop
from ddhpc.data.sources.decode_cache import DecodeCache, Findings, Record, open_cache
from ddhpc.data.sources.folds import deal
from ddhpc.data.sources.nifti import NO_ORIENTATION
from ddhpc.data.sources.resampling import IntensityRange, Shape, Spacing, grid
from ddhpc.data.sources.source import (
    Packing,
    PatientOptions,
    Prepared,
    SourceOptions,
    as_splits,
    option,
    write_prepared,
)
from ddhpc.data.sources.splits import (
    Divided,
    check_patients,
    contradictions,
    counted,
    divide,
    drawn_notes,
    drop_copies,
    patients_note,
    patients_of,
)
from ddhpc.data.sources.volume import Geometry, VolumeFacts, VolumePreparation, by, prepare_volume
from ddhpc.data.sources.volume_formats import mask_of, parts
from ddhpc.data.sources.volume_listing import Listing, Sample, grouped, list_volumes
from ddhpc.errors import InputError

MARGIN = 5.0
"""Millimetres around a box, unless others are given."""


@dataclass(frozen=True, kw_only=True)
class VolumeOptions(PatientOptions):
    """How volumes are packed."""

    shape: Shape | None = option("voxels of a packed volume", default=None, metavar="X Y Z")
    spacing: Spacing | None = option("resample to, in mm", default=None, metavar="X Y Z")
    window: IntensityRange | None = option("clip to, e.g. -1000 400 for CT", default=None, metavar="LOW HIGH")
    crop: Literal["none", "mask", "foreground"] = option(
        "keep the box of NAME_mask beside each volume, or of its largest part that is not background", default="none"
    )
    crop_margin: float | None = option("mm kept around the box, 5 unless given", default=None, metavar="MM")
    crop_threshold: float | None = option(
        "the foreground lies above it; else -500 for CT in Hounsfield units, and Otsu's threshold for others",
        default=None,
        metavar="VALUE",
    )
    groups: list[str] = option(
        "each group of classes becomes one class; classes in no group are left out", default=(), metavar="A B,C"
    )

    @property
    def geometry(self) -> Geometry:
        """InputError, naming the option, where it is none."""
        return Geometry(shape=self.shape, spacing=self.spacing, window=self.window, crop=self._crop())

    def _crop(self) -> Crop | None:
        margin, threshold = self.crop_margin, self.crop_threshold
        if margin is not None and (self.crop == "none" or not 0 <= margin < math.inf):
            raise InputError(f"--crop-margin {margin:g}: expected millimetres, at least 0, with --crop")
        if threshold is not None and (self.crop != "foreground" or not math.isfinite(threshold)):
            raise InputError(f"--crop-threshold {threshold:g}: expected a number, with --crop foreground")
        if self.crop == "none":
            return None
        return Crop(by=self.crop, margin=MARGIN if margin is None else margin, threshold=threshold)


def prepare_volumes(source: Path, options: VolumeOptions, packing: Packing) -> Prepared | None:
    """Packs labelled volumes of class folders or a CSV table (`list_volumes`), each resampled (`resampled`).

    `shape` is in voxels, `spacing` in mm, both along x, y, z; `window` in the units of the volumes. With `crop` the box
    of a mask or of the foreground is all that is resampled (`crop.Crop`). Each of
    `groups`, class names joined by commas, becomes one class, and classes in no group are left out; without
    groups classes are in order of name. A split without volumes is drawn from the training volumes by its
    fraction, by class, all volumes of a patient together: that of the table's column, else the one that the regular
    expression `patients` finds in the path, else the PatientID of DICOM files unless all have the same. Likewise all
    volumes are divided into `folds`, copies together. Volumes that cannot be used, and those of the same content under
    two labels, end the run with "stop"; with "skip" they are left out and named in the result and in the file. Copies
    of volumes of an earlier split are always left out. Progress counts every volume twice: decoded, then packed. The
    `workers` share the decoding; ranks above 0 get None.

    Raises InputError for bad options, an output that exists, a source that cannot be listed, a class without
    training volumes, a patient in two splits unless allowed, and volumes that end up in different shapes.
    """
    geometry = options.geometry
    options.check()
    packing.check()
    listing = _list(source, options)
    files = [replace(sample, path=path) for sample in listing.samples for path in _files(sample.path, geometry)]
    store = open_cache(packing.output, packing.workers, files, **vars(geometry))
    records = _decode(source, listing, options, packing, store)
    usable = _usable(source, listing, options, records)
    samples, facts = usable.samples, usable.facts
    ids, labels = [sample.id for sample in samples], _labels(listing, samples)
    divided, missing = _divide(listing, samples, options)
    divided, copies = drop_copies(divided, ids, [fact.checksum for fact in facts])
    if not options.allow_shared_patients:
        check_patients(divided, ids, [sample.patient for sample in samples])
    keys = [_owners(samples), [fact.checksum for fact in facts]]
    divided, fold, folded = deal(divided, labels, keys, options, listing.classes)

    shape = options.shape or _common_shape(source, dict(zip(ids, facts, strict=True)), options.spacing)
    preparation = VolumePreparation.of_set(geometry, shape, facts)
    left_out = {
        "not a volume": listing.skipped,
        "unusable": usable.bad,
        "same content under two labels": usable.twofold,
        "copy of a volume of an earlier split": copies,
    }
    notes = conversions(facts, preparation)
    notes += [f"class {name} is in no group: {n} volumes" for name, n in sorted(listing.ungrouped.items())]
    notes += drawn_notes(missing, options.seed)
    notes.append(patients_note(divided, [sample.patient for sample in samples], "volume"))
    notes += folded
    notes += [f"{len(names):,} left out: {reason}" for reason, names in left_out.items() if names]
    skipped = dict(sorted((name, reason) for names in left_out.values() for name, reason in names.items()))
    count, order = len(listing.samples), [records[ids[i]] for members in divided.values() for i in members]
    stored = (preparation.stored(record.pixels()) for record in order)
    contents = Contents(
        classes=listing.classes,
        splits=as_splits(
            divided,
            labels,
            ids,
            counted(stored, packing.progress, count, count + len(order)),
            [sample.patient for sample in samples],
            fold,
        ),
        image_shape=preparation.image_shape,
        channels=preparation.channels,
        dtype=preparation.stored_dtype,
        preparation=preparation.to_json(),
        source=f"volumes of {source.absolute().name}: {'; '.join(notes)}",
        skipped=[f"{path}: {reason}" for path, reason in skipped.items()],
    )

    return store.finish(lambda: write_prepared(packing, contents, notes, skipped))


def _files(path: Path, geometry: Geometry) -> Sequence[Path]:
    """All files of a volume, that of its mask among them where it is cropped to it."""
    if geometry.crop and geometry.crop.by == "mask":
        with suppress(ValueError):  # which decoding it tells
            return [*parts(path), *parts(mask_of(path))]
    return parts(path)


def _list(source: Path, options: VolumeOptions) -> Listing:
    """The volumes of a source, by group and patient; InputError where there are too few, before any is read."""
    listing = grouped(list_volumes(source), options.groups)
    if options.patients is not None:
        found = patients_of([sample.id for sample in listing.samples], options.patients)
        samples = [replace(s, patient=s.patient or patient) for s, patient in zip(listing.samples, found, strict=True)]
        listing = replace(listing, samples=tuple(samples))
    _check_classes(source, listing, listing.samples, {})
    divided, _ = _divide(listing, listing.samples, options)
    deal(divided, _labels(listing, listing.samples), [_owners(listing.samples)], options, listing.classes)
    options.stop_at(source, listing.bad)
    return listing


def _decode(
    source: Path, listing: Listing, options: VolumeOptions, packing: Packing, store: DecodeCache
) -> dict[str, Record]:
    """What was decoded of each volume, by id; shared among the workers."""
    geometry, count = options.geometry, len(listing.samples)

    def decode(sample: Sample) -> tuple[Findings, np.ndarray | None]:
        found = prepare_volume(sample.path, geometry)
        if isinstance(found, str):
            options.stop_at(source, {sample.id: found})
            return {"bad": found}, None
        facts, voxels = found
        return asdict(facts), voxels

    records = store.each("volumes", listing.samples, decode, lambda done: packing.progress(done, 2 * count))
    return {sample.id: record for sample, record in zip(listing.samples, records, strict=True)}


@dataclass(frozen=True, kw_only=True)
class _Usable:
    """The volumes that can be packed, and the others with the reasons."""

    samples: list[Sample]
    facts: list[VolumeFacts]
    """Of each of the samples."""
    bad: Mapping[str, str]
    twofold: Mapping[str, str]
    """Those of the same content under two labels."""


def _usable(source: Path, listing: Listing, options: VolumeOptions, records: Mapping[str, Record]) -> _Usable:
    bad = dict(listing.bad) | {name: record.facts["bad"] for name, record in records.items() if "bad" in record.facts}
    options.stop_at(source, bad)
    facts = {name: VolumeFacts(**record.facts) for name, record in records.items() if name not in bad}
    samples = [sample for sample in listing.samples if sample.id in facts]
    twofold = contradictions(
        [s.id for s in samples], _labels(listing, samples).tolist(), [facts[s.id].checksum for s in samples]
    )
    options.stop_at(source, twofold)
    samples = _with_patients([sample for sample in samples if sample.id not in twofold], facts)
    _check_classes(source, listing, samples, bad | twofold)
    used = [facts[sample.id] for sample in samples]
    _check_orientations(source, samples, used)
    return _Usable(samples=samples, facts=used, bad=bad, twofold=twofold)


def _labels(listing: Listing, samples: Sequence[Sample]) -> np.ndarray:
    """Class indices [S] int64."""
    return np.array([listing.classes.index(sample.label) for sample in samples], np.int64)


def _divide(listing: Listing, samples: Sequence[Sample], options: SourceOptions) -> tuple[Divided, dict[str, float]]:
    """The samples by split, and the fractions of the splits that had to be drawn."""
    missing = {name: part for name, part in options.fractions.items() if all(s.split != name for s in samples)}
    given = [sample.split for sample in samples]
    return divide(given, _labels(listing, samples), _owners(samples), missing, options.seed, listing.classes), missing


def _owners(samples: Sequence[Sample]) -> list[str]:
    """What must not be torn apart: the patient of each sample, or the sample itself."""
    return [f"patient {sample.patient}" if sample.patient else f"volume {sample.id}" for sample in samples]


def _with_patients(samples: Sequence[Sample], facts: Mapping[str, VolumeFacts]) -> list[Sample]:
    """The samples with the patients that the files name, where nothing else does and not all name the same one."""
    named = {facts[sample.id].patient for sample in samples}
    if len(named) < 2:
        return list(samples)
    return [sample if sample.patient else replace(sample, patient=facts[sample.id].patient) for sample in samples]


def _check_orientations(source: Path, samples: Sequence[Sample], facts: Sequence[VolumeFacts]) -> None:
    """InputError where some volumes tell their orientation and others do not: these may be mirrored."""
    without = [NO_ORIENTATION in fact.remarks for fact in facts]
    if any(without) and not all(without):
        first, other = samples[without.index(True)].id, samples[without.index(False)].id
        raise InputError(
            f"{source}: {sum(without)} of {len(samples)} volumes tell no orientation ({first}), others do ({other}); "
            "expected it of all or of none: set their sform or qform, or leave them out"
        )


def _check_classes(source: Path, listing: Listing, samples: Sequence[Sample], bad: Mapping[str, str]) -> None:
    trained = {sample.label for sample in samples if sample.split in ("", "train")}
    for name in listing.classes:
        if name not in trained:
            of_class = (sample.id for sample in listing.samples if sample.label == name and sample.id in bad)
            lost = next((f"; {path}: {bad[path]}" for path in of_class), "")
            raise InputError(f"{source}: class {name!r} has no training volumes; expected at least one{lost}")


def _common_shape(source: Path, facts: Mapping[str, VolumeFacts], spacing: Spacing | None) -> Shape:
    shapes: dict[Shape, str] = {}
    for name, fact in facts.items():
        shapes.setdefault(grid(fact.kept, fact.spacing, spacing) if spacing else fact.kept, name)
    (one, first), *others = shapes.items()
    for other, second in others:
        raise InputError(
            f"{source}: volumes of {len(shapes)} shapes{' at --spacing' if spacing else ''}, {by(one)} ({first}) and "
            f"{by(other)} ({second}); expected one, --shape X Y Z brings them to it"
        )
    return one
