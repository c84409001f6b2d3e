"""New images for a trained model: which ones the sources that a user names hold, and their pixels block by block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.errors import InputError
from ddhpc.method.applying import Block, Decoded, Stored
from ddhpc.method.trained import Trained
from ddhpc.wording import by, plural


class Source(ABC):
    """What one SOURCE holds: the ids of its inputs, their labels, and their images block by block."""

    ids: Sequence[str]
    labels: np.ndarray
    """[S] int64, -1 where none are wanted."""
    left_out: Mapping[str, str]
    """Paths of files in directories that are no inputs, and the reason."""

    @abstractmethod
    def blocks(self, inputs: range, most: int) -> Iterator[tuple[list[int], Block | None, list[str]]]:
        """For blocks of up to `most` of some inputs: those that could be used, their images, what is wrong with others.

        There are no images where none of a block could be used.
        """


class PackedSource(Source):
    """All splits of a packed file; ids are `split/id`, behind the path where there are several packed files."""

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
        self.labels = known if labels else np.full(len(known), -1)
        self.left_out = {}

    def blocks(self, inputs: range, most: int) -> Iterator[tuple[list[int], Block | None, list[str]]]:
        """See `Source`."""
        first = 0
        for split in SPLITS:
            count = self.packed.samples[split]
            lower, upper = max(inputs.start - first, 0), min(inputs.stop - first, count)
            for start in range(lower, upper, most):
                stop = min(start + most, upper)
                images = Stored(packed=self.packed, split=split, images=slice(start, stop))
                yield list(range(first + start, first + stop)), images, []
            first += count


class FileSource(Source):
    """Files that are prepared as those of the training were."""

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
        self.left_out = listed.skipped
        index = {name: n for n, name in enumerate(trained.classes)}
        self.labels = np.array([index[each.label] if each.label is not None else -1 for each in listed.samples])

    def blocks(self, inputs: range, most: int) -> Iterator[tuple[list[int], Block | None, list[str]]]:
        """See `Source`."""
        from ddhpc.data.sources.preparation import UnusableFile

        for start in range(inputs.start, inputs.stop, most):
            numbers = range(start, min(start + most, inputs.stop))
            shape = (self.preparation.channels, *self.preparation.image_shape)
            pixels = np.empty((len(numbers), *shape), self.preparation.stored_dtype)
            usable: list[int] = []
            problems: list[str] = []
            for n in numbers:
                try:
                    pixels[len(usable)] = self.preparation.apply(self.paths[n])
                    usable.append(n)
                except UnusableFile as error:  # noqa: PERF203 - one file must not end the others
                    problems.append(str(error))
            yield usable, Decoded(pixels=pixels[: len(usable)]) if usable else None, problems


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
