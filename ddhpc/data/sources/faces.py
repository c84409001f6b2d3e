"""Source of packed files: the cropped Extended Yale Face Database B, as distributed; its 38 subjects are the classes.

A file `yaleB11_P00A+035E-20.pgm` shows subject 11 in pose 0 under a light at 35 degrees azimuth and -20 degrees
elevation. The database: Georghiades, Belhumeur, Kriegman, IEEE TPAMI 23(6), 2001; its crop: Lee, Ho, Kriegman,
IEEE TPAMI 27(5), 2005.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from ddhpc.data.sources.class_folders import Folder, scan
from ddhpc.data.sources.image_folders import NO_IMAGES, ImageOptions, Listed, pack_images
from ddhpc.data.sources.source import Packing, Prepared, SourceOptions, option
from ddhpc.errors import InputError

Division = Literal["random", "light"]
SMALL_AZIMUTH = 35
"""Degrees from the camera's axis up to which a light counts as small."""
SUBJECT = re.compile(r"yaleB\d\d")
FRAME = re.compile(rf"({SUBJECT.pattern})_P\d\dA([+-]\d{{3}})E[+-]\d\d\.pgm")
LEFT_OUT = {
    "_ambient.pgm": "ambient frame, without the light and not cropped",
    ".bad": "marked as bad by its name",
    ".log": "log",
    ".info": "list of frames",
}
"""Endings of names, lower case, of what is distributed beside the frames, and the reason to leave it out."""
HARMLESS = (*NO_IMAGES, *LEFT_OUT.values())
"""Reasons that do not stop a run."""


@dataclass(frozen=True, kw_only=True)
class FaceOptions(SourceOptions):
    """How faces are packed."""

    size: tuple[int, int] = option("pixels of a packed image", default=(96, 84), metavar="H W")
    split: Division = option(
        "random: drawn from each subject; light: train on lights within 35 degrees azimuth, test on the others",
        default="random",
    )

    def check(self) -> None:
        """See `SourceOptions`."""
        if self.split not in get_args(Division):
            raise InputError(f"--split {self.split}: expected {' or '.join(get_args(Division))}")
        if self.folds is not None and self.split == "light":
            raise InputError(f"--folds {self.folds}: are of all lights of each subject; expected --split random")
        self.of_images().check()

    def of_images(self) -> ImageOptions:
        """The same for `pack_images`."""
        common = {each.name: getattr(self, each.name) for each in fields(SourceOptions)}
        return ImageOptions(size=self.size, **common)


def prepare_faces(source: Path, options: FaceOptions, packing: Packing) -> Prepared | None:
    """Packs the faces of `yaleBNN/*`, grey uint8 of `size`, (height, width) in pixels of the original 192x168.

    "random" draws val and test from each subject by their fractions. "light" tests on lights of more than 35
    degrees azimuth to either side, whatever their elevation, and trains on the others, of which a fraction is
    val. Ambient frames, frames marked as bad, logs and lists are always left out; files that are unreadable or
    whose names do not tell subject and light end the run with "stop" and are left out with "skip". All are named
    in the result and in the file. Progress and `workers` are as for `prepare_images`.

    Raises InputError for bad options, an output that exists, and a source without two subjects that both have
    training images.
    """
    options.check()
    packing.check()
    listed = list_faces(source, options.split)
    options.stop_at(source, {path: why for path, why in listed.skipped.items() if why not in HARMLESS})
    by_light = [f"test: lights of more than {SMALL_AZIMUTH} degrees azimuth, any elevation"]
    notes = by_light if options.split == "light" else []
    return pack_images(Listed(folder=source, found=listed, kind="faces", notes=notes), options.of_images(), packing)


def list_faces(source: Path, split: Division) -> Folder:
    """Lists the frames of `yaleBNN/*` with the subjects as classes; "light" puts each into train or test.

    Everything else is named in `skipped`. Raises InputError, naming the source, without two subjects.
    """
    listed = scan(source, (".pgm",))
    subjects = tuple(name for name in listed.classes if SUBJECT.fullmatch(name))
    if len(subjects) < 2:
        raise InputError(
            f"{source}: holds {len(subjects)} directories named as yaleB01 is; expected at least two, "
            "the Extended Yale Face Database B as distributed"
        )
    files = []
    skipped = {name: _left_out(name) or reason for name, reason in listed.skipped.items()}
    for file in listed.files:
        subject, frame = listed.classes[file.label], FRAME.fullmatch(file.path.name)
        if reason := _left_out(file.id):
            skipped[file.id] = reason
        elif subject not in subjects:
            skipped[file.id] = "in no directory named as yaleB01 is"
        elif not frame or frame[1] != subject:
            skipped[file.id] = f"does not tell the light; expected a name as {subject}_P00A+035E-20.pgm"
        else:
            by_light = "train" if abs(int(frame[2])) <= SMALL_AZIMUTH else "test"
            files.append(
                replace(file, split=by_light if split == "light" else file.split, label=subjects.index(subject))
            )
    return Folder(classes=subjects, files=tuple(files), skipped=skipped)


def _left_out(name: str) -> str:
    """Why a file that is distributed beside the frames is left out; empty for others."""
    return next((reason for ending, reason in LEFT_OUT.items() if name.lower().endswith(ending)), "")
