"""New images for a trained model: which ones the sources that a user names hold, and their pixels block by block."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import h5py
import numpy as np
from PIL import Image

from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.data.packed.pictures import shown
from ddhpc.errors import InputError
from ddhpc.method.applying import Block, Decoded, Stored
from ddhpc.method.trained import Trained
from ddhpc.solver.map_picture import Picture
from ddhpc.wording import by, plural

if TYPE_CHECKING:
    from ddhpc.data.sources.volume_frame import Frame


class Source(ABC):
    """What one SOURCE holds: the ids of its inputs, their labels, and their images block by block."""

    ids: Sequence[str]
    names: Sequence[str]
    """Of the inputs as other files may be named after them: below the source, without endings."""
    paths: Sequence[Path] = ()
    """Of the inputs, where each has its own."""
    labels: np.ndarray
    """[S] int64, -1 where none are wanted."""
    left_out: Mapping[str, str]
    """Paths of files in directories that are no inputs, and the reason."""
    has_windows: ClassVar[bool]
    """Whether windows are read without the rest of the images."""

    def blocks(self, inputs: range, most: int) -> list[range]:
        """Some inputs in blocks of up to `most`, as `block` takes them."""
        return [inputs[start : start + most] for start in range(0, len(inputs), most)]

    @abstractmethod
    def block(self, inputs: range) -> tuple[list[int], Block | None, list[str]]:
        """Of a block those that could be used, their images, what is wrong with the others.

        There are no images where none of a block could be used.
        """

    @abstractmethod
    def whole(self, number: int) -> Picture | Frame:
        """An image or the frame of a volume as the file of an input has it, before it was prepared."""


class PackedSource(Source):
    """All splits of a packed file; ids are `split/id`, behind the path where there are several packed files."""

    has_windows = True

    def __init__(self, path: Path, trained: Trained, labels: bool) -> None:
        self.packed = packed = open_packed(path)
        found = (packed.channels, packed.image_shape, packed.dtype.name)
        wanted = (trained.channels, trained.image_shape, trained.dtype)
        if found != wanted:
            raise InputError(f"{path}: holds {_described(*found)}; expected {_described(*wanted)}, as in training")
        if labels and packed.classes != trained.classes:
            raise InputError(
                f"{path}: has the classes {', '.join(packed.classes)}; expected those of the model with --labels: "
                f"{', '.join(trained.classes)}"
            )
        self.ids = [f"{split}/{name}" for split in SPLITS for name in packed.ids(split)]
        known = np.concatenate([packed.labels[split] for split in SPLITS])
        self.names = list(self.ids)
        self.labels = known if labels else np.full(len(known), -1)
        self.left_out = {}

    def blocks(self, inputs: range, most: int) -> list[range]:
        """See `Source`; each is of one split."""
        found, first = [], 0
        for split in SPLITS:
            last = first + self.packed.samples[split]
            found += super().blocks(range(max(inputs.start, first), min(inputs.stop, last)), most)
            first = last
        return found

    def block(self, inputs: range) -> tuple[list[int], Block | None, list[str]]:
        """See `Source`."""
        split, start = self._place(inputs.start)
        images = Stored(packed=self.packed, split=split, images=slice(start, start + len(inputs)))
        return list(inputs), images, []

    def _place(self, number: int) -> tuple[str, int]:
        """The split of an input, and its number there."""
        for split in SPLITS:
            if number < self.packed.samples[split]:
                return split, number
            number -= self.packed.samples[split]
        raise IndexError(number)

    def whole(self, number: int) -> Picture | Frame:
        """As it is packed, all that is left; see `Source`."""
        shape = self.packed.image_shape
        if len(shape) == 3:
            from ddhpc.data.sources.preparation import Preparation
            from ddhpc.data.sources.volume_frame import packed_frame

            text = self.packed.preparation
            known = Preparation.from_json(text, self.packed.path) if text else None
            x, y, z = shape
            return packed_frame((x, y, z), getattr(known, "spacing", None))
        pixels = np.rint(255 * shown(self.packed.sample(*self._place(number)))).astype(np.uint8)
        return Picture(image=Image.fromarray(pixels), seen=(0, 0, shape[1], shape[0]))


class FileSource(Source):
    """Files that are prepared as those of the training were, each as a whole: resampling and checks see all of it."""

    has_windows = False

    def __init__(self, path: Path, trained: Trained, labels: bool) -> None:
        from ddhpc.data.sources.inputs import list_inputs
        from ddhpc.data.sources.preparation import Preparation

        where = "the model"
        if not trained.preparation:
            raise InputError(
                f"{path}: the packed file of the training does not tell how its images were prepared; expected packed "
                "files, or a model of a file that this version's `prepare` has made"
            )
        self.preparation = preparation = Preparation.from_json(trained.preparation, where)
        found = (preparation.channels, preparation.image_shape, preparation.stored_dtype.name)
        wanted = (trained.channels, trained.image_shape, trained.dtype)
        if found != wanted:
            raise InputError(f"{where}: prepares {_described(*found)}; expected {_described(*wanted)}")
        listed = list_inputs([path], preparation, labels=labels, classes=trained.classes)
        self.ids = [each.id for each in listed.samples]
        self.paths = [each.path for each in listed.samples]
        self.names = [_name(each, path, preparation.kind) for each in self.paths]
        self.left_out = listed.skipped
        index = {name: n for n, name in enumerate(trained.classes)}
        self.labels = np.array([index[each.label] if each.label is not None else -1 for each in listed.samples])

    def block(self, inputs: range) -> tuple[list[int], Block | None, list[str]]:
        """See `Source`."""
        from ddhpc.data.sources.preparation import UnusableFile

        shape = (self.preparation.channels, *self.preparation.image_shape)
        pixels = np.empty((len(inputs), *shape), self.preparation.stored_dtype)
        usable: list[int] = []
        problems: list[str] = []
        for n in inputs:
            try:
                pixels[len(usable)] = self.preparation.apply(self.paths[n])
                usable.append(n)
            except UnusableFile as error:  # noqa: PERF203 - one file must not end the others
                problems.append(str(error))
        return usable, Decoded(pixels=pixels[: len(usable)]) if usable else None, problems

    def whole(self, number: int) -> Picture | Frame:
        """See `Source`."""
        path, preparation = self.paths[number], self.preparation
        if preparation.kind == "volumes":
            from ddhpc.data.sources.volume import VolumePreparation
            from ddhpc.data.sources.volume_frame import frame

            return frame(path, cast(VolumePreparation, preparation))
        from ddhpc.data.sources.image_decoding import ImagePreparation, picture, seen

        target = cast(ImagePreparation, preparation)
        image = picture(path, target)
        return Picture(image=image, seen=seen(image.size, target))


def _name(path: Path, source: Path, kind: str) -> str:
    """Of an input below the source that lists it, without its ending; of one elsewhere that of its file."""
    root = source if source.is_dir() and path != source else source.parent
    inner = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    if kind == "volumes":
        return re.sub(r"\.nii(\.gz)?$", "", inner, flags=re.IGNORECASE)
    return os.path.splitext(inner)[0]


def list_sources(sources: Sequence[Path], trained: Trained, labels: bool) -> list[Source]:
    """What the sources hold, in their order.

    Raises InputError where one does not exist or does not fit to the model, or an input comes twice.
    """
    listed = [_source(path, trained, labels) for path in sources]
    packed = [isinstance(source, PackedSource) for source in listed]
    for n in np.flatnonzero(packed).tolist() if sum(packed) > 1 else ():
        listed[n].ids = [f"{sources[n]}/{name}" for name in listed[n].ids]
    seen: set[str] = set()
    for path, source in zip(sources, listed, strict=True):
        twice = next((name for name in source.ids if name in seen), None)
        if twice is not None:
            raise InputError(f"{path}: {twice} is named twice; expected every input once")
        seen.update(source.ids)
    return listed


def _source(path: Path, trained: Trained, labels: bool) -> Source:
    kind = PackedSource if path.is_file() and h5py.is_hdf5(path) else FileSource
    return kind(path, trained, labels)


def _described(channels: int, shape: tuple[int, ...], dtype: str) -> str:
    return f"images of {by(shape)}, {plural(channels, 'channel')}, {dtype}"
