"""Source of packed files: labelled volumes, NIfTI files or DICOM series.

Packed arrays are [C, x, y, z] with one channel; x runs from the patient's left to right, y from posterior to
anterior, z from inferior to superior. Each volume is decoded once, and waits beside the output until all are; one is
in memory at a time, beside the row of chunks that the writer fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from ddhpc.data.crew import Crew
from ddhpc.data.division import (
    Divided,
    check_drawing,
    check_patients,
    contradictions,
    counted,
    divide,
    drop_copies,
    patients_note,
    patients_of,
)
from ddhpc.data.hdf5 import check_output
from ddhpc.data.images import Prepared, Progress
from ddhpc.data.listing import Listing, Sample, grouped, list_volumes
from ddhpc.data.nifti import NO_ORIENTATION
from ddhpc.data.packing import Split, write_packed
from ddhpc.data.partial import Facts, open_partial
from ddhpc.data.volume import Geometry, VolumeFacts, as_stored, by, conversions, prepare_volume, stored_as
from ddhpc.data.voxels import Shape, Spacing, Window, grid
from ddhpc.errors import InputError

OnError = Literal["skip", "stop"]
CT_DEFAULTS: Mapping[str, Any] = MappingProxyType({"shape": (128, 128, 64), "window": (-1000.0, 400.0)})
"""Options for CT: Hounsfield units from air to bone, and a shape that keeps the whole chest."""


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
    patients: str | None = None,
    allow_shared_patients: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    crew: Crew | None = None,
) -> Prepared | None:
    """Packs labelled volumes of class folders or a CSV table (`list_volumes`), each resampled (`resampled`).

    `shape` is in voxels, `spacing` in mm, both along x, y, z; `window` in the units of the volumes. Each of
    `groups`, class names joined by commas, becomes one class, and classes in no group are left out; without
    groups classes are in order of name. A split without volumes is drawn from the training volumes by its
    fraction, by class, all volumes of a patient together: that of the table's column, else the one that the regular
    expression `patients` finds in the path, else the PatientID of DICOM files unless all have the same. Volumes that
    cannot be used, and those of the same content under two labels, end the run with "stop"; with "skip" they are left
    out and named in the result and in the file. Copies of volumes of an earlier split are always left out. Progress
    counts every volume twice: decoded, then packed. The ranks of a `crew` share the decoding; those above 0 get None.

    Raises InputError for bad options, an output that exists, a source that cannot be listed, a class without
    training volumes, a patient in two splits unless allowed, and volumes that end up in different shapes.
    """
    source, output = Path(source), Path(output)
    geometry = Geometry(shape=shape, spacing=spacing, window=window)
    if on_error not in get_args(OnError):
        raise InputError(f"--on-error {on_error}: expected {' or '.join(get_args(OnError))}")
    check_drawing(val_fraction, test_fraction, seed)
    check_output(output, overwrite=overwrite)

    listing = grouped(list_volumes(source), groups)
    fractions = {"val": val_fraction, "test": test_fraction}
    if patients is not None:
        found = patients_of([sample.id for sample in listing.samples], patients)
        samples = [replace(s, patient=s.patient or patient) for s, patient in zip(listing.samples, found, strict=True)]
        listing = replace(listing, samples=tuple(samples))
    _check_classes(source, listing, listing.samples, {})
    _divide(listing, listing.samples, fractions, seed)  # too few volumes are found before all are read
    store = open_partial(output, crew or Crew(), listing.samples, shape=shape, spacing=spacing, window=window)

    def decode(sample: Sample) -> tuple[Facts, np.ndarray | None]:
        found = prepare_volume(sample.path, geometry)
        if isinstance(found, str):
            _stop_at(source, {sample.id: found}, on_error)
            return {"bad": found}, None
        facts, voxels = found
        return asdict(facts), voxels

    _stop_at(source, listing.bad, on_error)
    count = len(listing.samples)
    records = store.each("volumes", listing.samples, decode, lambda done: progress(done, 2 * count))
    decoded = {sample.id: record for sample, record in zip(listing.samples, records, strict=True)}
    bad = dict(listing.bad) | {name: record.facts["bad"] for name, record in decoded.items() if "bad" in record.facts}
    _stop_at(source, bad, on_error)
    facts = {name: VolumeFacts(**record.facts) for name, record in decoded.items() if name not in bad}
    samples = [sample for sample in listing.samples if sample.id in facts]
    twofold = contradictions(
        [s.id for s in samples], _labels(listing, samples).tolist(), [facts[s.id].checksum for s in samples]
    )
    _stop_at(source, twofold, on_error)
    samples = _with_patients([sample for sample in samples if sample.id not in twofold], facts)
    _check_classes(source, listing, samples, bad | twofold)
    used = [facts[sample.id] for sample in samples]
    _check_orientations(source, samples, used)

    labels, ids = _labels(listing, samples), [sample.id for sample in samples]
    divided, missing = _divide(listing, samples, fractions, seed)
    divided, copies = drop_copies(divided, ids, [fact.checksum for fact in used])
    if not allow_shared_patients:
        check_patients(divided, ids, [sample.patient for sample in samples])

    packed_shape = shape or _common_shape(source, dict(zip(ids, used, strict=True)), spacing)
    dtype = stored_as(used, window)
    skipped = dict(sorted({**listing.skipped, **bad, **twofold, **copies}.items()))
    notes = conversions(used, dtype, packed_shape, geometry)
    notes += [f"class {name} is in no group: {n} volumes" for name, n in sorted(listing.ungrouped.items())]
    notes += [f"{name}: {part:.0%} of each class in train, seed {seed}" for name, part in missing.items()]
    notes.append(patients_note(divided, [sample.patient for sample in samples], "volume"))
    left_out = {
        "not a volume": listing.skipped,
        "unusable": bad,
        "same content under two labels": twofold,
        "copy of a volume of an earlier split": copies,
    }
    notes += [f"{len(names):,} left out: {reason}" for reason, names in left_out.items() if names]

    total = count + sum(map(len, divided.values()))
    order = [decoded[ids[i]] for members in divided.values() for i in members]
    written = counted((as_stored(record.pixels(), dtype) for record in order), progress, count, total)

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


def _stop_at(source: Path, bad: Mapping[str, str], on_error: OnError) -> None:
    if bad and on_error == "stop":
        name, reason = next(iter(bad.items()))
        raise InputError(f"{source}: {name}: {reason}; --on-error skip leaves such files out")


def _labels(listing: Listing, samples: Sequence[Sample]) -> np.ndarray:
    """Class indices [S] int64."""
    return np.array([listing.classes.index(sample.label) for sample in samples], np.int64)


def _divide(
    listing: Listing, samples: Sequence[Sample], fractions: Mapping[str, float], seed: int
) -> tuple[Divided, dict[str, float]]:
    """The samples by split, and the fractions of the splits that had to be drawn."""
    missing = {name: part for name, part in fractions.items() if all(s.split != name for s in samples)}
    owners = [f"patient {sample.patient}" if sample.patient else f"volume {sample.id}" for sample in samples]
    given = [sample.split for sample in samples]
    return divide(given, _labels(listing, samples), owners, missing, seed, listing.classes), missing


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
        shapes.setdefault(grid(fact.shape, fact.spacing, spacing) if spacing else fact.shape, name)
    (one, first), *others = shapes.items()
    for other, second in others:
        raise InputError(
            f"{source}: volumes of {len(shapes)} shapes{' at --spacing' if spacing else ''}, {by(one)} ({first}) and "
            f"{by(other)} ({second}); expected one, --shape X Y Z brings them to it"
        )
    return one
