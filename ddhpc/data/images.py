"""Source of packed files: a folder of images with one sub-folder a class.

The EXIF orientation of an image is applied and transparency is laid on white. Images become RGB of 8 bits if
any of them has colour, else grey of 8 bits, or of 16 bits (uint16) if any of them has more than 8. White is then the
largest value of as many bits as the set needs, and images of 8 bits are scaled to it, as deeper ones are to 255 beside
colour. They are resized with antialiasing. Of several frames the first counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import UnidentifiedImageError

from ddhpc.data.crew import Crew
from ddhpc.data.decode import DEEP, Resize, Target, common_mode, endings, examine, pixels, white
from ddhpc.data.decode import Facts as ImageFacts
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
    plural,
)
from ddhpc.data.folders import File, Folder, check_levels, scan
from ddhpc.data.hdf5 import check_output
from ddhpc.data.packed import Packed
from ddhpc.data.packing import Split, write_packed
from ddhpc.data.partial import Facts, Partial, open_partial
from ddhpc.errors import InputError

Progress = Callable[[int, int], None]
"""Called with the steps done and their total, which may shrink."""
OnError = Literal["skip", "stop"]
NO_IMAGES = ("hidden", "other kind of file by its name")
"""Reasons of `scan` for files that were never meant to be packed."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of a source."""

    packed: Packed
    notes: tuple[str, ...]
    """What was done, a sentence each."""
    skipped: Mapping[str, str]
    """Relative path and reason of each file left out."""


def prepare_images(
    folder: Path | str,
    output: Path | str,
    *,
    size: tuple[int, int],
    resize: Resize = "crop",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    on_error: OnError = "skip",
    patients: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    crew: Crew | None = None,
) -> Prepared | None:
    """Packs a folder of images, `<class>/*` or `train|val|test/<class>/*`; classes are in order of name.

    `size` is (height, width) in pixels. "crop" scales an image to cover it and cuts out the centre, "stretch"
    ignores the aspect. A split without images is drawn from the training images of each class by its
    fraction, all images of a patient together where the regular expression `patients` finds one in each path. Files
    that are unreadable, no images, in no class, or of the same pixels as one of another class end the run with "stop";
    with "skip" they are left out and named in the result and in the file. Copies of images of an earlier split, equal
    in the pixels that are packed, and files that no image reader claims by their name are always left out. Progress
    counts every file three times: examined, decoded, packed. The ranks of a `crew` share the first two; those above 0
    get None.

    Raises InputError for bad options, an output that exists, and a folder without two classes that both have
    training images.
    """
    folder, output = Path(folder), Path(output)
    check_size(size)
    if resize not in get_args(Resize):
        raise InputError(f"--resize {resize}: expected {' or '.join(get_args(Resize))}")
    check_on_error(on_error)
    check_drawing(val_fraction, test_fraction, seed)
    check_output(output, overwrite=overwrite)
    listed = scan(folder, endings())
    if not any(file.split for file in listed.files):
        check_levels(folder, (file.id for file in listed.files), listed.classes)
    if on_error == "stop":
        stop_at(folder, {path: reason for path, reason in listed.skipped.items() if reason not in NO_IMAGES})
    return pack_images(
        folder,
        listed,
        output,
        size=size,
        resize=resize,
        fractions={"val": val_fraction, "test": test_fraction},
        seed=seed,
        on_error=on_error,
        patients=patients,
        overwrite=overwrite,
        progress=progress,
        crew=crew or Crew(),
    )


def pack_images(
    folder: Path,
    listed: Folder,
    output: Path,
    *,
    kind: str = "images",
    size: tuple[int, int],
    resize: Resize = "crop",
    fractions: Mapping[str, float],
    seed: int,
    on_error: OnError,
    patients: str | None = None,
    notes: Sequence[str] = (),
    overwrite: bool,
    progress: Progress,
    crew: Crew,
) -> Prepared | None:
    """Packs the listed files of a folder as `prepare_images` does, with checked options.

    `fractions` are those of splits to draw where no file is in them, `notes` what the listing did.
    """
    owners = patients_of([file.id for file in listed.files], patients) if patients else []
    patient = dict(zip((file.id for file in listed.files), owners, strict=bool(patients)))
    _divide(folder, listed, listed.files, fractions, seed, patient)  # too few are found before all are read
    store = open_partial(output, crew, listed.files, size=size, resize=resize)
    facts, damaged = _examine(store, folder, listed.files, on_error, progress)
    files = [file for file in listed.files if file.id in facts]
    deepest = max((fact.largest for fact in facts.values()), default=0)
    mode = common_mode({fact.mode for fact in facts.values()})
    target = Target(mode=mode, white=white(deepest), size=size, resize=resize)
    examined, read = len(listed.files), len(files)

    def load(file: File) -> tuple[Facts, np.ndarray]:
        try:
            image = pixels(file.path, target)
        except OSError as error:
            raise InputError(f"{file.path}: could be read before, but not any more: {error}") from error
        return {"checksum": sha256(image.tobytes()).hexdigest()}, image

    records = store.each("pixels", files, load, lambda done: progress(examined + done, examined + 2 * read))
    images = {file.id: record for file, record in zip(files, records, strict=True)}
    twofold = contradictions(
        [file.id for file in files],
        [file.label for file in files],
        [images[file.id].facts["checksum"] for file in files],
    )
    if on_error == "stop":
        stop_at(folder, twofold)
    files = [file for file in files if file.id not in twofold]
    skipped = {**listed.skipped, **damaged, **twofold}
    divided, missing = _divide(folder, replace(listed, skipped=skipped), files, fractions, seed, patient)
    ids = [file.id for file in files]
    divided, copies = drop_copies(divided, ids, [images[name].facts["checksum"] for name in ids])
    if patients:
        check_patients(divided, ids, [patient[name] for name in ids])
    skipped = dict(sorted({**skipped, **copies}.items()))
    left_out = Counter(listed.skipped.values())
    left_out += {
        "unreadable or not an image": len(damaged),
        "same pixels under two labels": len(twofold),
        "copy of an image of an earlier split": len(copies),
    }
    notes = [*notes, *_conversions(list(facts.values()), target)]
    notes += [f"{name}: {part:.0%} of each class in train, seed {seed}" for name, part in missing.items()]
    if kind == "images":
        notes.append(patients_note(divided, [patient.get(name, "") for name in ids], "image"))
    notes += [f"{plural(count, 'file')} left out: {reason}" for reason, count in left_out.most_common()]

    labels = np.array([file.label for file in files], np.int64)
    chosen = [name for members in divided.values() for name in (ids[i] for i in members)]
    packing = (images[name].pixels() for name in chosen)
    written = counted(packing, progress, examined + read, examined + read + len(chosen))

    def write() -> Prepared:
        packed = write_packed(
            output,
            classes=listed.classes,
            splits={
                name: Split(labels=labels[members], ids=[ids[i] for i in members], images=islice(written, len(members)))
                for name, members in divided.items()
            },
            image_shape=size,
            channels=3 if mode == "colour" else 1,
            dtype="uint16" if mode == "16-bit grey" else "uint8",
            source=f"{kind} of {folder.absolute().name}: {'; '.join(notes)}",
            skipped=[f"{path}: {reason}" for path, reason in skipped.items()],
            overwrite=overwrite,
        )
        return Prepared(packed=packed, notes=tuple(notes), skipped=skipped)

    return store.finish(write)


def _divide(
    folder: Path,
    listed: Folder,
    files: Sequence[File],
    fractions: Mapping[str, float],
    seed: int,
    patient: Mapping[str, str],
) -> tuple[Divided, dict[str, float]]:
    """The files by split, and the fractions of the splits that had to be drawn."""
    trained = {file.label for file in files if file.split in ("", "train")}
    for label, name in enumerate(listed.classes):
        if label not in trained:
            lost = next((f"; {path}: {why}" for path, why in listed.skipped.items() if name in path.split("/")), "")
            raise InputError(f"{folder}: class {name!r} has no training images; expected at least one{lost}")
    missing = {name: part for name, part in fractions.items() if all(file.split != name for file in files)}
    labels = np.array([file.label for file in files], np.int64)
    owners = [f"patient {patient[file.id]}" if file.id in patient else f"image {file.id}" for file in files]
    return divide([file.split for file in files], labels, owners, missing, seed, listed.classes), missing


def check_size(size: tuple[int, int]) -> None:
    """Raises InputError, naming the option --size, where it is no (height, width)."""
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"--size {' '.join(map(str, size))}: expected height and width in pixels, at least 1")


def check_on_error(on_error: str) -> None:
    """Raises InputError, naming the option --on-error, for anything but skip and stop."""
    if on_error not in get_args(OnError):
        raise InputError(f"--on-error {on_error}: expected {' or '.join(get_args(OnError))}")


def stop_at(folder: Path, bad: Mapping[str, str]) -> None:
    """Raises InputError, naming the first file that cannot be used and the reason, where there is any."""
    for path, reason in bad.items():
        raise InputError(f"{folder}: {path}: {reason}; --on-error skip leaves such files out")


def _examine(
    store: Partial, folder: Path, files: Sequence[File], on_error: OnError, progress: Progress
) -> tuple[dict[str, ImageFacts], dict[str, str]]:
    """Facts of the readable files by id, and the reason for each of the others."""

    def judge(file: File) -> tuple[Facts, None]:
        found = _try(file.path)
        if isinstance(found, str):
            if on_error == "stop":
                stop_at(folder, {file.id: found})
            return {"damaged": found}, None
        return asdict(found), None

    records = store.each("facts", files, judge, lambda done: progress(done, 3 * len(files)))
    found = {file.id: record.facts for file, record in zip(files, records, strict=True)}
    damaged = {name: facts["damaged"] for name, facts in found.items() if "damaged" in facts}
    if on_error == "stop":
        stop_at(folder, damaged)
    return {name: ImageFacts(**facts) for name, facts in found.items() if name not in damaged}, damaged


def _try(path: Path) -> ImageFacts | str:
    try:
        return examine(path)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # on damaged files decoders raise anything: SyntaxError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(reason.split()) or type(error).__name__


def _conversions(facts: Sequence[ImageFacts], target: Target) -> list[str]:
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
