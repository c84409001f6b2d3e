"""Source of packed files: a folder of images with one sub-folder a class.

The EXIF orientation of an image is applied and transparency is laid on white. Images become RGB of 8 bits if
any of them has colour, else grey of 8 bits, or of 16 bits (uint16) if any of them has more than 8. White is then the
largest value of as many bits as the set needs, and images of 8 bits are scaled to it, as deeper ones are to 255 beside
colour. They are resized with antialiasing. Of several frames the first counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np

from ddhpc.data.packed.writer import Contents
from ddhpc.data.sources.class_folders import HIDDEN, OTHER_NAME, File, Folder, check_levels, scan
from ddhpc.data.sources.decode_cache import DecodeCache, Findings, open_cache
from ddhpc.data.sources.folds import deal
from ddhpc.data.sources.image_decoding import (
    DEEP,
    ImageFacts,
    ImagePreparation,
    Resize,
    common_mode,
    endings,
    examine,
    white,
    why_unreadable,
)
from ddhpc.data.sources.preparation import UnusableFile
from ddhpc.data.sources.source import (
    OnProgress,
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
from ddhpc.errors import InputError
from ddhpc.wording import plural

NO_IMAGES = (HIDDEN, OTHER_NAME)
"""Reasons of `scan` for files that were never meant to be packed."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(PatientOptions):
    """How images are packed."""

    size: tuple[int, int] = option("pixels of a packed image", metavar="H W")
    resize: Resize = option("crop: shorter side to size, centre cut out; stretch: ignore the aspect", default="crop")

    def check(self) -> None:
        """See `SourceOptions`."""
        if len(self.size) != 2 or min(self.size) < 1:
            shown = " ".join(map(str, self.size))
            raise InputError(f"--size {shown}: expected height and width in pixels, at least 1")
        if self.resize not in get_args(Resize):
            raise InputError(f"--resize {self.resize}: expected {' or '.join(get_args(Resize))}")
        super().check()


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Image files to pack, by class."""

    folder: Path
    found: Folder
    kind: str = "images"
    """Of the folder, as the packed file names its source."""
    notes: Sequence[str] = ()
    """What the listing did."""


def prepare_images(folder: Path, options: ImageOptions, packing: Packing) -> Prepared | None:
    """Packs a folder of images, `<class>/*` or `train|val|test/<class>/*`; classes are in order of name.

    "crop" scales an image to cover `size` and cuts out the centre, "stretch" ignores the aspect. A split without
    images is drawn from the training images of each class by its fraction, all images of a patient together where the
    regular expression `patients` finds one in each path. Likewise all images are divided into `folds`, copies together.
    Files that are unreadable, no images, in no class, or of the same pixels as one of another class end the run with
    "stop"; with "skip" they are left out and named in the result and in the file. Copies of images of an earlier split,
    equal in the pixels that are packed, and files that no image reader claims by their name are always left out.
    Progress counts every file three times: examined, decoded, packed. The `workers` share the first two; ranks above 0
    get None.

    Raises InputError for bad options, an output that exists, and a folder without two classes that both have
    training images.
    """
    options.check()
    packing.check()
    listed = scan(folder, endings())
    if not any(file.split for file in listed.files):
        check_levels(folder, (file.id for file in listed.files), listed.classes)
    options.stop_at(folder, {path: why for path, why in listed.skipped.items() if why not in NO_IMAGES})
    return pack_images(Listed(folder=folder, found=listed), options, packing)


def pack_images(source: Listed, options: ImageOptions, packing: Packing) -> Prepared | None:
    """Packs the listed files of a folder as `prepare_images` does, with checked options."""
    folder, listed, progress, patients = source.folder, source.found, packing.progress, options.patients
    owners = patients_of([file.id for file in listed.files], patients) if patients else []
    patient = dict(zip((file.id for file in listed.files), owners, strict=bool(patients)))
    divided, _ = _divide(folder, listed, listed.files, options, patient)  # too few are found before all are read
    deal(divided, _labels(listed.files), [_owners(listed.files, patient)], options, listed.classes)
    store = open_cache(packing.output, packing.workers, listed.files, size=options.size, resize=options.resize)
    facts, damaged = _examine(store, source, options, progress)
    files = [file for file in listed.files if file.id in facts]
    target = _target(facts.values(), options)
    examined, read = len(listed.files), len(files)

    def load(file: File) -> tuple[Findings, np.ndarray]:
        try:
            image = target.apply(file.path)
        except UnusableFile as error:
            raise InputError(f"{file.path}: could be read before, but not any more: {error.reason}") from error
        return {"checksum": sha256(image.tobytes()).hexdigest()}, image

    records = store.each("pixels", files, load, lambda done: progress(examined + done, examined + 2 * read))
    images = {file.id: record for file, record in zip(files, records, strict=True)}
    twofold = contradictions(
        [file.id for file in files],
        [file.label for file in files],
        [images[file.id].facts["checksum"] for file in files],
    )
    options.stop_at(folder, twofold)
    files = [file for file in files if file.id not in twofold]
    skipped = {**listed.skipped, **damaged, **twofold}
    divided, missing = _divide(folder, replace(listed, skipped=skipped), files, options, patient)
    ids = [file.id for file in files]
    divided, copies = drop_copies(divided, ids, [images[name].facts["checksum"] for name in ids])
    if patients and not options.allow_shared_patients:
        check_patients(divided, ids, [patient[name] for name in ids])
    keys = [_owners(files, patient), [images[name].facts["checksum"] for name in ids]]
    divided, fold, folded = deal(divided, _labels(files), keys, options, listed.classes)
    skipped = dict(sorted({**skipped, **copies}.items()))
    left_out = Counter(listed.skipped.values())
    left_out += {
        "unreadable or not an image": len(damaged),
        "same pixels under two labels": len(twofold),
        "copy of an image of an earlier split": len(copies),
    }
    notes = [*source.notes, *_conversions(list(facts.values()), target)]
    notes += drawn_notes(missing, options.seed)
    if source.kind == "images":
        notes.append(patients_note(divided, [patient.get(name, "") for name in ids], "image"))
    notes += folded
    notes += [f"{plural(count, 'file')} left out: {reason}" for reason, count in left_out.most_common()]

    chosen = [name for members in divided.values() for name in (ids[i] for i in members)]
    stored = (images[name].pixels() for name in chosen)
    written = counted(stored, progress, examined + read, examined + read + len(chosen))
    contents = Contents(
        classes=listed.classes,
        splits=as_splits(divided, _labels(files), ids, written, [patient.get(name, "") for name in ids], fold),
        image_shape=target.image_shape,
        channels=target.channels,
        dtype=target.stored_dtype,
        preparation=target.to_json(),
        source=f"{source.kind} of {folder.absolute().name}: {'; '.join(notes)}",
        skipped=[f"{path}: {reason}" for path, reason in skipped.items()],
    )

    return store.finish(lambda: write_prepared(packing, contents, notes, skipped))


def _target(facts: Collection[ImageFacts], options: ImageOptions) -> ImagePreparation:
    """What all images become: the least that holds them all."""
    deepest = max((fact.largest for fact in facts), default=0)
    mode = common_mode({fact.mode for fact in facts})
    return ImagePreparation(mode=mode, white=white(deepest), size=options.size, resize=options.resize)


def _divide(
    folder: Path,
    listed: Folder,
    files: Sequence[File],
    options: SourceOptions,
    patient: Mapping[str, str],
) -> tuple[Divided, dict[str, float]]:
    """The files by split, and the fractions of the splits that had to be drawn."""
    trained = {file.label for file in files if file.split in ("", "train")}
    for label, name in enumerate(listed.classes):
        if label not in trained:
            lost = next((f"; {path}: {why}" for path, why in listed.skipped.items() if name in path.split("/")), "")
            raise InputError(f"{folder}: class {name!r} has no training images; expected at least one{lost}")
    missing = {name: part for name, part in options.fractions.items() if all(file.split != name for file in files)}
    given, owners = [file.split for file in files], _owners(files, patient)
    return divide(given, _labels(files), owners, missing, options.seed, listed.classes), missing


def _labels(files: Sequence[File]) -> np.ndarray:
    """Class indices [S] int64."""
    return np.array([file.label for file in files], np.int64)


def _owners(files: Sequence[File], patient: Mapping[str, str]) -> list[str]:
    """What must not be torn apart: the patient of each file, or the file itself."""
    return [f"patient {patient[file.id]}" if file.id in patient else f"image {file.id}" for file in files]


def _examine(
    store: DecodeCache, source: Listed, options: SourceOptions, progress: OnProgress
) -> tuple[dict[str, ImageFacts], dict[str, str]]:
    """Facts of the readable files by id, and the reason for each of the others."""
    files = source.found.files

    def judge(file: File) -> tuple[Findings, None]:
        found = _try(file.path)
        if isinstance(found, str):
            options.stop_at(source.folder, {file.id: found})
            return {"damaged": found}, None
        return asdict(found), None

    records = store.each("facts", files, judge, lambda done: progress(done, 3 * len(files)))
    found = {file.id: record.facts for file, record in zip(files, records, strict=True)}
    damaged = {name: facts["damaged"] for name, facts in found.items() if "damaged" in facts}
    options.stop_at(source.folder, damaged)
    return {name: ImageFacts(**facts) for name, facts in found.items() if name not in damaged}, damaged


def _try(path: Path) -> ImageFacts | str:
    try:
        return examine(path)
    except Exception as error:
        return why_unreadable(error)


def _conversions(facts: Sequence[ImageFacts], target: ImagePreparation) -> list[str]:
    modes = Counter(fact.mode for fact in facts)
    largest = {mode: max(fact.largest for fact in facts if fact.mode == mode) for mode in modes}
    named = ", ".join(
        f"{mode} {count}" + (f" (up to {largest[mode]:,})" if largest[mode] else "")
        for mode, count in modes.most_common()
    )
    sizes = sorted({fact.size for fact in facts}, key=lambda size: (size[0] * size[1], size))
    smallest, biggest, wanted = (f"{height}x{width}" for height, width in (sizes[0], sizes[-1], target.size))
    given = smallest if len(sizes) == 1 else f"{len(sizes)} sizes between {smallest} and {biggest}"
    notes = [f"stored in {target.mode}; modes of the files: {named}", f"{target.resize} from {given} to {wanted}"]
    deep = [mode for mode in modes if mode in DEEP]
    if deep and (target.mode == "colour" or len(deep) < len(modes)):
        notes.append(f"{target.white:,} of {', '.join(deep)} taken as white, as 255 of the others")
    enlarged = sum(fact.size[0] < target.size[0] or fact.size[1] < target.size[1] for fact in facts)
    verb = "was" if enlarged == 1 else "were"
    return [*notes, f"{plural(enlarged, 'image')} {verb} smaller and enlarged"] if enlarged else notes
