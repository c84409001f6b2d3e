"""The trained method applied to new images: list the inputs -> share them out -> decide block by block -> gather.

Each rank takes consecutive inputs, decodes as many as fit into its share of memory, and lets the local CNNs of all
subdomains look at them one after the other; nothing is communicated before all ranks are done. Where there are fewer
inputs than ranks, or an image is larger than that share, a group of ranks takes them and shares the subdomains out.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from ddhpc.errors import InputError
from ddhpc.method.applying import Applied
from ddhpc.method.calibration import tempered
from ddhpc.method.dependence import drops
from ddhpc.method.solutions import Predictions
from ddhpc.method.trained import Trained
from ddhpc.parallel import logs
from ddhpc.parallel.progress import LINE_SECONDS
from ddhpc.parallel.standing import as_clock
from ddhpc.process import Process
from ddhpc.results.model import Model, training_ids
from ddhpc.solver.maps import Maps, MapsWanted
from ddhpc.solver.new_images import PackedSource, Source, list_sources
from ddhpc.solver.sharing import Group, form_group
from ddhpc.visible import tell
from ddhpc.wording import plural

MOST_IMAGES = 4096
"""Of a block, so that progress is seen."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is applied."""

    labels: bool = False
    """Whether every input has a label, which is wanted."""
    coherent: bool = False
    """Whether the networks of the coherent CNN-DNN decide."""
    calibrated: bool = False
    """Whether probabilities are calibrated by the temperature that the model keeps."""
    memory: float = 1.0
    """GiB of whole images that a rank holds at once, but one image at least; see `sharing.form_group`."""
    maps: MapsWanted | None = None
    """Maps of which subdomains spoke for the decisions, where these are wanted."""


def predict(
    model: Model, sources: Sequence[Path], comm: Process, device: str, settings: Settings
) -> Predictions | None:
    """The final decisions of a trained model for images, on rank 0; None elsewhere. Collective.

    Args:
        model: see `results.model.open_model`.
        sources: packed files; files of images and volumes, directories of a DICOM series; directories and CSV tables of
            any of these but packed files.
        comm: all ranks, which share the inputs or their subdomains out; `Process()` for one without MPI.
        device: torch device of this rank.
        settings: see `Settings`.

    Raises:
        InputError: on all ranks, where a source does not exist or does not fit to the model, an input comes twice, or
            none can be used.
    """
    trained = model.trained
    if settings.coherent and not trained.coherent:
        raise InputError("--coherent: the run has not trained the coherent CNN-DNN; expected one with --coherent.start")
    if settings.calibrated and temperature_of(trained, settings) is None:
        raise InputError("--calibrated: the model keeps no temperature; expected one that this version has calibrated")
    if settings.calibrated and settings.maps:
        raise InputError("--calibrated with --maps: maps tell of probabilities as decided; expected one of the two")
    if settings.maps:
        check_maps(settings, trained)
    listed = comm.together(partial(list_sources, sources, trained, settings.labels))
    check_alike(comm, listed)
    comm.on_root(partial(warn_of, listed, model, settings))
    if not settings.maps:
        return decide_all(model, listed, comm, device, settings)
    maps = comm.together(partial(Maps, settings.maps, listed, trained))
    comm.on_root(maps.check)
    with maps:
        found = decide_all(model, listed, comm, device, settings, maps)
        comm.together(maps.finish)
    return found


def decide_all(
    model: Model, listed: Sequence[Source], comm: Process, device: str, settings: Settings, maps: Maps | None = None
) -> Predictions | None:
    """`predict` for inputs that are listed, whose maps get their names later."""
    trained = model.trained
    total = sum(len(source.ids) for source in listed)
    group = form_group(comm, total, trained, settings.memory)
    if comm.rank == 0 and group.ranks.size > 1:
        tell(f"{plural(group.ranks.size, 'rank')} share the {trained.subdomains} subdomains of an image")
    applied = Applied(trained=trained, load=partial(model.load, coherent=settings.coherent), device=device)
    mine = Decided(applied, maps)
    shown = Shown(comm.rank == 0, len(group.inputs), total, len(group.subdomains))
    comm.together(partial(decide, listed, group, mine, images_at_once(trained, settings.memory), shown))
    group.ranks.free()
    numbers, decisions, dropped, unusable = mine.gathered(comm)
    if comm.rank != 0:
        return None
    if settings.calibrated:
        decisions = tempered(decisions, temperature_of(trained, settings) or 1).astype(np.float32)
    ids, labels = [name for each in listed for name in each.ids], np.concatenate([each.labels for each in listed])
    return Predictions(
        classes=trained.classes,
        ids=tuple(ids[n] for n in numbers),
        decisions=decisions,
        labels=labels[numbers] if settings.labels else None,
        unusable=tuple(unusable),
        maps=maps.shown(numbers, dropped) if maps else None,
    )


def decide(listed: Sequence[Source], group: Group, mine: Decided, most: int, shown: Shown) -> None:
    """Decide the inputs of a group, up to `most` at once; its first rank has what is found. Collective in the group."""
    start = 0
    for source in listed:
        stop = start + len(source.ids)
        inputs = range(max(group.inputs.start, start) - start, min(group.inputs.stop, stop) - start)
        for block in source.blocks(inputs, most):
            usable, images, wrong = group.block(source, block)
            if images is not None:
                outputs = group.outputs(mine.applied, images, partial(shown.part, len(images)))
                group.ranks.on_root(partial(mine.fuse, start + np.array(usable), outputs))
            mine.problems += wrong
            shown.done(len(block))
        start = stop


class Decided:
    """What a rank has decided, and of which inputs it knows what is wrong with them."""

    def __init__(self, applied: Applied, maps: Maps | None) -> None:
        self.applied, self.maps = applied, maps
        trained = applied.trained
        self.numbers = [np.zeros(0, np.int64)]
        self.decisions = [np.zeros((0, len(trained.classes)), np.float32)]
        self.dropped = [np.zeros((0, trained.subdomains), np.float32)]
        self.problems: list[str] = []

    def fuse(self, numbers: np.ndarray, outputs: np.ndarray) -> None:
        """Decide some inputs, with these numbers among all, by their local outputs [N, n, K + F]; make their maps."""
        decisions = self.applied.fuse(outputs)
        self.numbers.append(numbers)
        self.decisions.append(decisions)
        if self.maps:
            dropped = drops(self.applied.fuse, outputs, self.maps.wanted.usual).astype(np.float32)
            self.dropped.append(dropped)
            self.maps.write(numbers, decisions, dropped)

    def gathered(self, comm: Process) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Numbers, decisions, drops and problems of all ranks on rank 0; InputError where all failed. Collective."""
        rows = [np.concatenate(each) for each in (self.numbers, self.decisions, self.dropped)]
        (used,) = comm.total(len(rows[0]))
        unusable = gather_texts(comm, self.problems)
        if used == 0:
            raise InputError(comm.broadcast(_none(unusable)))
        counts = (used, used, used if self.maps else 0)
        numbers, decisions, dropped = (comm.gather(each, count) for each, count in zip(rows, counts, strict=True))
        return numbers, decisions, dropped, unusable


def temperature_of(trained: Trained, settings: Settings) -> float | None:
    """That calibrates the decisions."""
    return trained.coherent_temperature if settings.coherent else trained.temperature


def check_maps(settings: Settings, trained: Trained) -> None:
    """InputError where decisions have no maps."""
    if trained.coarse is None:
        raise InputError("--maps: a single subdomain, the global CNN, decides alone; expected a run of several")
    if settings.coherent:
        raise InputError(
            "--maps with --coherent: a run does not keep the local outputs of the coherent CNN-DNN for its training "
            "images, whose mean is needed; expected one of the two"
        )


def images_at_once(trained: Trained, memory: float) -> int:
    """Images of a block that fits, with its local outputs, into so many GiB; one at least."""
    outputs = 4 * trained.subdomains * (len(trained.classes) + trained.features)
    return max(1, int(min(MOST_IMAGES, memory * 2**30 / (trained.image_bytes + outputs))))


def warn_of(listed: Sequence[Source], model: Model, settings: Settings) -> None:
    """Tell what is left out, and warn of images of the training, and of packed files prepared in another way."""
    left_out = Counter(reason for source in listed for reason in source.left_out.values())
    if left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
        tell(f"{plural(left_out.total(), 'file')} in the directories left out: {reasons}")
    training = training_ids(model) if settings.labels else frozenset()
    for source in listed:
        if not isinstance(source, PackedSource):
            warn_of_names(source.ids, training)
            continue
        packed, trained = source.packed, model.trained
        if settings.labels and packed.digest == model.about["data_digest"]:
            logs.warn(f"{packed.path}: holds the images of the training; accuracy on them is too high for new ones")
        if "" not in (packed.preparation, trained.preparation) and packed.preparation != trained.preparation:
            logs.warn(f"{packed.path}: its images were prepared in another way than those of the training")


def warn_of_names(ids: Sequence[str], training: frozenset[str]) -> None:
    """Warn of files whose paths end in the id of a training image, its path below the prepared directory."""
    alike = [name for name in ids if any(str(tail) in training for tail in _tails(PurePath(os.path.abspath(name))))]
    if alike:
        verb = "have names" if len(alike) > 1 else "has the name"
        logs.warn(
            f"{plural(len(alike), 'input')} {verb} of training images, such as {alike[0]}; if they are the same "
            "images, accuracy on them is too high for new ones"
        )


def _tails(path: PurePath) -> Iterator[PurePath]:
    """The path, then what is left of it without its first part, its first two, and so on."""
    return (PurePath(*path.parts[start:]) for start in range(len(path.parts)))


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
