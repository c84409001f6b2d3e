"""Maps of which subdomains spoke for the decisions of new images; none gets its name before all are made."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np

from ddhpc.data.hdf5 import check_output, reason, replace
from ddhpc.errors import InputError
from ddhpc.method.dependence import spread
from ddhpc.method.solutions import Mapped
from ddhpc.method.trained import Trained
from ddhpc.results import mean_outputs, open_results
from ddhpc.results.model_directory import DESCRIPTION
from ddhpc.solver.map_picture import Picture, draw, points
from ddhpc.solver.new_images import Source
from ddhpc.visible import visible
from ddhpc.wording import percent, shortened

UNFIT = re.compile(r"[^\w.+-]+")
"""What the name of a map has not from that of its input."""
MOST_NAME_BYTES = 250
"""Of a map, so that with `.part` any file system takes it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapsWanted:
    """What maps are of, and where they go."""

    folder: Path
    overwrite: bool
    usual: np.ndarray
    """[N, K + F], mean local outputs over the training images."""


def maps_wanted(folder: Path, run: Path, *, overwrite: bool) -> MapsWanted:
    """Maps of decisions of a run; InputError where it is a model alone, which lacks the outputs of the training."""
    if (run / DESCRIPTION).is_file():
        raise InputError(
            f"--maps {folder}: {run} is a model alone; expected the run directory, whose results file has the local "
            "outputs of the training images"
        )
    with open_results(run) as file:
        return MapsWanted(folder=folder, overwrite=overwrite, usual=mean_outputs(file))


class Maps:
    """The maps that a rank makes, each under the name of its input; none gets its name before all are made.

    A context: what is unfinished in the end is removed.

    Args:
        wanted: see `MapsWanted`.
        listed: all inputs, those of other ranks as well.
        trained: what decides.
    """

    def __init__(self, wanted: MapsWanted, listed: Sequence[Source], trained: Trained) -> None:
        self.wanted, self.listed, self.trained = wanted, listed, trained
        self.names = [map_name(name, trained) for source in listed for name in source.names]
        self.is_new = not wanted.folder.exists()
        self.parts: dict[Path, Path] = {}

    def check(self) -> None:
        """InputError, naming --maps, where not all maps of this job can be written; one rank asks for all."""
        folder = self.wanted.folder
        twice, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            first, second = [name for name, its in zip(self._ids(), self.names, strict=True) if its == twice][:2]
            raise InputError(f"--maps {folder}: {first} and {second} both get {twice}; expected inputs of other names")
        longest = max(self.names, key=lambda name: len(name.encode()))
        if len(longest.encode()) > MOST_NAME_BYTES:
            raise InputError(f"--maps {folder}: {longest}: longer than {MOST_NAME_BYTES} bytes; expected shorter names")
        if len(self.trained.image_shape) == 3:
            try:
                import ddhpc.data.sources.volume_frame  # noqa: F401
            except ImportError as error:
                raise InputError(
                    f"--maps {folder}: {error.name} is not installed; pip install 'ddhpc[ct]' brings what volumes need"
                ) from error
        self._check_folder()
        there = [folder / name for name in self.names if os.path.lexists(folder / name)]
        inputs = {os.path.realpath(path) for source in self.listed for path in source.paths} if there else set()
        for path in there:
            check_output(path, overwrite=self.wanted.overwrite, option="--maps")
            if os.path.realpath(path) in inputs:
                raise InputError(f"--maps {folder}: {path} is an input; expected another directory")

    def _check_folder(self) -> None:
        """InputError unless files can be made in the directory, or it can be made."""
        folder = self.wanted.folder
        if not self.is_new and not folder.is_dir():
            raise InputError(f"--maps {folder}: is no directory; expected one, or the name of a new one")
        if self.is_new and not folder.parent.is_dir():
            raise InputError(f"--maps {folder}: there is no directory {folder.parent}; create it first")
        try:
            if self.is_new:
                folder.mkdir()
                folder.rmdir()
            else:
                part = _part(folder / self.names[0])
                part.touch()
                part.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, numbers: np.ndarray, decisions: np.ndarray, drops: np.ndarray) -> None:
        """Make the maps of some inputs, which get their names with `finish`.

        Args:
            numbers: [n], of the inputs among all.
            decisions: [n, K].
            drops: [n, N] of `dependence.drops`.
        """
        for number, decision, values in zip(numbers.tolist(), decisions, drops, strict=True):
            self._write(number, decision, values)

    def _write(self, number: int, decision: np.ndarray, drops: np.ndarray) -> None:
        path = self.wanted.folder / self.names[number]
        if not np.isfinite(drops).all():
            raise InputError(f"{self._ids()[number]}: the model decides nothing for it; expected finite weights")
        data = self._file(number, decision, drops)
        try:
            path.parent.mkdir(exist_ok=True)
            self.parts[path] = _part(path)
            self.parts[path].write_bytes(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _file(self, number: int, decision: np.ndarray, drops: np.ndarray) -> bytes:
        trained, (source, own) = self.trained, self._input(number)
        decided = f"{shortened(trained.classes[decision.argmax()])}, {percent(decision.max())}"
        over_grid, rest = np.split(drops, [prod(trained.grid)])
        image = source.whole(own)
        if isinstance(image, Picture):
            coarse = "".join(f"; coarse image {points(value)}" for value in rest)
            said = [visible(decided), f"points of it that are lost without a block{coarse}"]
            file = io.BytesIO()
            draw(image, trained.sides, over_grid, said).save(file, "PNG")
            return file.getvalue()
        from ddhpc.data.sources.volume_frame import compressed

        coarse = "".join(f"; coarse image {value:+.3f}" for value in rest)
        values = spread(over_grid, trained.sides, image.seen)
        return compressed(image, values, f"{decided}; lost of it without a block{coarse}")

    def finish(self) -> None:
        """Give the maps of this rank their names."""
        try:
            for path, part in self.parts.items():
                replace(part, path)
        except OSError as error:
            raise self._unwritable(error) from error

    def shown(self, numbers: np.ndarray, drops: np.ndarray) -> Mapped:
        """What the maps of all ranks show, for [n] inputs with their [n, N] drops."""
        files = tuple(self.names[number] for number in numbers.tolist())
        return Mapped(files=files, drops=drops, coarse_image=self.trained.coarse_shape is not None)

    def __enter__(self) -> Maps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for part in self.parts.values():
            part.unlink(missing_ok=True)
        if error is not None and self.is_new:
            with suppress(OSError):  # another rank removes it, whose files are in it
                self.wanted.folder.rmdir()

    def _ids(self) -> list[str]:
        return [name for source in self.listed for name in source.ids]

    def _input(self, number: int) -> tuple[Source, int]:
        """The source of an input, and its number there."""
        for source in self.listed:
            if number < len(source.ids):
                return source, number
            number -= len(source.ids)
        raise IndexError(number)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"--maps {self.wanted.folder}: cannot be written: {reason(error)}; expected a writable directory with space"
        )


def map_name(name: str, trained: Trained) -> str:
    """Of the map of an input, whose name is that of its file without its ending, below its source.

    What a terminal or another file system may not take is an underscore: `CT-2/study_0001` becomes
    `CT-2_study_0001_map.nii.gz`.
    """
    ending = ".png" if len(trained.image_shape) == 2 else ".nii.gz"
    return f"{UNFIT.sub('_', name).lstrip('.')}_map{ending}"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
