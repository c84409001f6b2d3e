"""Source of packed files: a folder of images with one sub-folder a class.

The EXIF orientation of an image is applied and transparency is laid on white. Images become RGB of 8 bits if
any of them has colour, else grey of 8 bits, or of 16 bits (uint16) if any of them has more than 8. They are
resized with antialiasing. Of several frames the first counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import UnidentifiedImageError

from ddhpc.data.crew import Crew
from ddhpc.data.decode import Facts as ImageFacts
from ddhpc.data.decode import Mode, Resize, common_mode, endings, examine, pixels
from ddhpc.data.division import check_drawing, counted, divide, drop_copies
from ddhpc.data.folders import File, Folder, scan
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
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    crew: Crew | None = None,
) -> Prepared | None:
    """Packs a folder of images, `<class>/*` or `train|val|test/<class>/*`; classes are in order of name.

    `size` is (height, width) in pixels. "crop" scales an image to cover it and cuts out the centre, "stretch"
    ignores the aspect. A split without images is drawn from the training images of each class by its
    fraction. Files that are unreadable, no images or in no class end the run with "stop"; with "skip" they are
    left out and named in the result and in the file. Copies of images of an earlier split and files that no
    image reader claims by their name are always left out. Progress counts every file three times: examined, decoded,
    packed. The ranks of a `crew` share the first two; those above 0 get None.

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
    notes: Sequence[str] = (),
    overwrite: bool,
    progress: Progress,
    crew: Crew,
) -> Prepared | None:
    """Packs the listed files of a folder as `prepare_images` does, with checked options.

    `fractions` are those of splits to draw where no file is in them, `notes` what the listing did.
    """
    store = open_partial(output, crew, listed.files, size=size, resize=resize)
    facts, damaged = _examine(store, folder, listed.files, on_error, progress)
    skipped = {**listed.skipped, **damaged}
    trained = {file.label for file in facts if file.split in ("", "train")}
    for label, name in enumerate(listed.classes):
        if label not in trained:
            lost = next((f"; {path}: {reason}" for path, reason in skipped.items() if name in path.split("/")), "")
            raise InputError(f"{folder}: class {name!r} has no training images; expected at least one{lost}")

    missing = {name: part for name, part in fractions.items() if all(file.split != name for file in facts)}
    files = list(facts)
    ids = [file.id for file in files]
    labels = np.array([file.label for file in files], np.int64)
    divided = divide([file.split for file in files], labels, ids, missing, seed, listed.classes)
    divided, copies = drop_copies(divided, ids, [facts[file].checksum for file in files])
    skipped = dict(sorted({**skipped, **copies}.items()))
    mode = common_mode({fact.mode for fact in facts.values()})
    left_out = Counter(listed.skipped.values())
    left_out += {
        "unreadable or not an image": len(damaged),
        "copy of an image of an earlier split": len(copies),
    }
    notes = [*notes, *_conversions(list(facts.values()), mode, size, resize)]
    notes += [f"{name}: {part:.0%} of each class in train, seed {seed}" for name, part in missing.items()]
    notes += [f"{count} files left out: {reason}" for reason, count in left_out.most_common()]

    kept = {name: [files[i] for i in members] for name, members in divided.items()}
    examined, chosen = len(listed.files), sum(map(len, kept.values()))
    total = examined + 2 * chosen

    def load(file: File) -> tuple[Facts, np.ndarray]:
        try:
            return {}, pixels(file.path, mode, size, resize)
        except OSError as error:
            raise InputError(f"{file.path}: could be read before, but not any more: {error}") from error

    everything = [file for members in kept.values() for file in members]
    images = store.each("pixels", everything, load, lambda done: progress(examined + done, total))
    written = counted((record.pixels() for record in images), progress, examined + chosen, total)

    def write() -> Prepared:
        packed = write_packed(
            output,
            classes=listed.classes,
            splits={
                name: Split(
                    labels=labels[divided[name]],
                    ids=[file.id for file in members],
                    images=islice(written, len(members)),
                )
                for name, members in kept.items()
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
) -> tuple[dict[File, ImageFacts], dict[str, str]]:
    """Facts of the readable files, and the names of the others with the reason."""

    def judge(file: File) -> tuple[Facts, None]:
        found = _try(file.path)
        if isinstance(found, str):
            if on_error == "stop":
                stop_at(folder, {file.id: found})
            return {"damaged": found}, None
        return asdict(found), None

    records = store.each("facts", files, judge, lambda done: progress(done, 3 * len(files)))
    found = {file: record.facts for file, record in zip(files, records, strict=True)}
    damaged = {file.id: facts["damaged"] for file, facts in found.items() if "damaged" in facts}
    if on_error == "stop":
        stop_at(folder, damaged)
    return {file: ImageFacts(**facts) for file, facts in found.items() if file.id not in damaged}, damaged


def _try(path: Path) -> ImageFacts | str:
    try:
        return examine(path)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # on damaged files decoders raise anything: SyntaxError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(reason.split()) or type(error).__name__


def _conversions(facts: Sequence[ImageFacts], mode: Mode, size: tuple[int, int], resize: Resize) -> list[str]:
    modes = ", ".join(f"{name} {count}" for name, count in Counter(fact.mode for fact in facts).most_common())
    sizes = sorted({fact.size for fact in facts}, key=lambda size: (size[0] * size[1], size))
    smallest, largest, wanted = (f"{height}x{width}" for height, width in (sizes[0], sizes[-1], size))
    given = smallest if len(sizes) == 1 else f"{len(sizes)} sizes between {smallest} and {largest}"
    notes = [f"stored in {mode}; modes of the files: {modes}", f"{resize} from {given} to {wanted}"]
    enlarged = sum(fact.size[0] < size[0] or fact.size[1] < size[1] for fact in facts)
    return [*notes, f"{enlarged} images were smaller and are enlarged"] if enlarged else notes
