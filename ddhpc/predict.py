"""The trained method applied to new images: list the inputs -> share them out -> decide block by block -> gather.

Each rank takes consecutive inputs, decodes as many as fit into its share of memory, and lets the local CNNs of all
subdomains look at them one after the other. Nothing is communicated before all ranks are done.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.errors import InputError
from ddhpc.method.applying import Applied, Block, Decoded, Stored
from ddhpc.method.decomposition import block
from ddhpc.method.solutions import Predictions
from ddhpc.method.trained import Trained
from ddhpc.parallel import logs
from ddhpc.parallel.progress import LINE_SECONDS
from ddhpc.parallel.standing import as_clock
from ddhpc.process import Process
from ddhpc.results.model import Model
from ddhpc.visible import tell
from ddhpc.wording import by, plural

MOST_IMAGES = 4096
"""Of a block, so that progress is seen."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is applied."""

    labels: bool = False
    """Whether every input has a label, which is wanted."""
    coherent: bool = False
    """Whether the networks of the coherent CNN-DNN decide."""
    memory: float = 1.0
    """GiB of whole images that a rank holds at once, but one image at least."""


class Source:
    """What one SOURCE holds: the ids of its inputs, their labels, and their images block by block."""

    ids: Sequence[str]
    labels: np.ndarray
    """[S] int64, -1 where none are wanted."""

    def blocks(self, inputs: range, most: int) -> Iterator[tuple[list[int], Block | None, list[str]]]:
        """For blocks of up to `most` of some inputs: those that could be used, their images, what is wrong with others.

        There are no images where none of a block could be used.
        """
        raise NotImplementedError


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
        self.labels = np.concatenate([packed.labels[split] for split in SPLITS])
        if not labels:
            self.labels = np.full(len(self.ids), -1)

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


def predict(
    model: Model, sources: Sequence[Path], comm: Process, device: str, settings: Settings
) -> Predictions | None:
    """The final decisions of a trained model for images, on rank 0; None elsewhere. Collective.

    Args:
        model: see `results.model.open_model`.
        sources: packed files; image files, NIfTI files, directories of a DICOM series; directories and CSV tables of
            any of these but packed files.
        comm: all ranks, which share the inputs out; `Process()` for one without MPI.
        device: torch device of this rank.
        settings: see `Settings`.

    Raises:
        InputError: on all ranks, where a source does not exist or does not fit to the model, an input comes twice, or
            none can be used.
    """
    trained = model.trained
    if settings.coherent and not trained.coherent:
        raise InputError("--coherent: the run has not trained the coherent CNN-DNN; expected one with --coherent.start")
    listed = comm.together(partial(list_sources, sources, trained, settings.labels))
    check_alike(comm, listed)
    if comm.rank == 0:
        warn_of(listed, model, settings)
    first = np.cumsum([0, *(len(source.ids) for source in listed)])
    total = int(first[-1])
    mine = range(*block(total, comm.size, comm.rank))
    most = images_at_once(trained, settings.memory)
    applied = Applied(trained=trained, load=partial(model.load, coherent=settings.coherent), device=device)
    shown = Shown(comm.rank == 0, len(mine), total, trained.subdomains)

    def decide() -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Numbers of the inputs of this rank that could be used, their decisions, what is wrong with the others."""
        numbers = [np.zeros(0, np.int64)]
        decisions = [np.zeros((0, len(trained.classes)), np.float32)]
        problems: list[str] = []
        for source, start in zip(listed, first.tolist(), strict=False):
            inputs = range(max(mine.start - start, 0), min(mine.stop - start, len(source.ids)))
            for usable, images, wrong in source.blocks(inputs, most):
                if images is not None:
                    numbers.append(start + np.array(usable))
                    decisions.append(applied.decide(images, partial(shown.part, len(usable))))
                problems += wrong
                shown.done(len(usable) + len(wrong))
        return np.concatenate(numbers), np.concatenate(decisions), problems

    numbers, decisions, problems = comm.together(decide)
    (used,) = comm.total(len(numbers))
    numbers, decisions = comm.gather(numbers, used), comm.gather(decisions, used)
    unusable = gather_texts(comm, problems)
    if used == 0:
        raise InputError(comm.broadcast(_none(unusable)))
    if comm.rank != 0:
        return None
    ids, labels = [name for each in listed for name in each.ids], np.concatenate([each.labels for each in listed])
    return Predictions(
        classes=trained.classes,
        ids=tuple(ids[n] for n in numbers),
        decisions=decisions,
        labels=labels[numbers] if settings.labels else None,
        unusable=tuple(unusable),
    )


def images_at_once(trained: Trained, memory: float) -> int:
    """Images of a block that fits, with its local outputs, into so many GiB; one at least."""
    image = np.dtype(trained.dtype).itemsize * trained.channels * prod(trained.image_shape)
    outputs = 4 * trained.subdomains * (len(trained.classes) + trained.features)
    return max(1, min(MOST_IMAGES, int(memory * 2**30 // (image + outputs))))


def warn_of(listed: Sequence[Source], model: Model, settings: Settings) -> None:
    """Say what packed files are not told apart from those of new images."""
    for source in listed:
        if not isinstance(source, PackedSource):
            continue
        packed, trained = source.packed, model.trained
        if settings.labels and packed.digest == model.about["data_digest"]:
            logs.warn(f"{packed.path}: holds the images of the training; how good the decisions on them are flatters")
        if "" not in (packed.preparation, trained.preparation) and packed.preparation != trained.preparation:
            logs.warn(f"{packed.path}: its images were prepared in another way than those of the training")


def check_alike(comm: Process, listed: Sequence[Source]) -> None:
    """InputError on all ranks unless all have listed the same inputs, which they are to share out."""
    mine = hashlib.sha256("\0".join(name for source in listed for name in source.ids).encode()).hexdigest()
    first = comm.broadcast(mine)

    def compare() -> None:
        if mine != first:
            raise InputError(
                f"rank {comm.rank} does not see the files that rank 0 sees; expected the same on all ranks"
            )

    comm.together(compare)


def list_sources(sources: Sequence[Path], trained: Trained, labels: bool) -> list[Source]:
    """What the sources hold, in their order; InputError as of `predict`."""
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


def _none(unusable: Sequence[str]) -> str:
    """In one line that no input could be used."""
    more = f" (and {len(unusable) - 1:,} more)" if len(unusable) > 1 else ""
    return f"{unusable[0]}{more}; expected at least one file that fits to the model" if unusable else ""


def gather_texts(comm: Process, texts: Sequence[str]) -> list[str]:
    """The texts of all ranks in their order on rank 0, none elsewhere; collective."""
    mine = np.frombuffer("".join(json.dumps(text) + "\n" for text in texts).encode(), np.uint8)
    (size,) = comm.total(len(mine))
    return [json.loads(line) for line in comm.gather(mine, size).tobytes().decode().splitlines()]


class Shown:
    """Progress of rank 0, which stands for all: each has as many inputs, up to one."""

    def __init__(self, shows: bool, mine: int, total: int, subdomains: int) -> None:
        self.shows, self.mine, self.total, self.subdomains = shows and mine > 0, mine, total, subdomains
        self.began = time.monotonic()
        self.next = self.began + LINE_SECONDS
        self.inputs, self.subdomain = 0, 0

    def part(self, count: int) -> None:
        """One more subdomain is done for `count` inputs."""
        self.subdomain += 1
        self._show(count * self.subdomain / self.subdomains)

    def done(self, count: int) -> None:
        """A block of `count` inputs is done."""
        self.inputs, self.subdomain = self.inputs + count, 0
        self._show(0)

    def _show(self, more: float) -> None:
        now = time.monotonic()
        if not self.shows or now < self.next:
            return
        self.next = now + LINE_SECONDS
        share = (self.inputs + more) / self.mine
        left = (now - self.began) * (1 - share) / share if share else float("nan")
        tell(f"  {as_clock(now - self.began)}  {share:.0%} of {self.total:,} images, {as_clock(left)} left")
