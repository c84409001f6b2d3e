"""A finished run in Python: its decisions as numpy arrays, and its model."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ddhpc.config import Config
from ddhpc.data.hdf5 import attribute
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.report import check_needs
from ddhpc.results import decisions, names, open_results
from ddhpc.visible import visible
from ddhpc.wording import by, percent, plural

if TYPE_CHECKING:
    from ddhpc.method.cnn_dnn import CnnDnn


def open_run(path: str | Path) -> Run:
    """Open a finished run.

    Args:
        path: run directory, or its results file.

    Raises:
        InputError: there is no run, it is not finished, or its results file is damaged.

    Example:
        >>> import ddhpc
        >>> run = ddhpc.open_run("runs/mine")
        >>> run.classes
        ('rows', 'columns', 'none')
        >>> run.decisions("test").shape, run.local_decisions("test").shape
        ((33, 3), (4, 33, 3))
        >>> right = run.decisions("test").argmax(1) == run.labels("test")
        >>> float(right.mean()) == run.accuracy("test")
        True
    """
    return Run(Path(path))


class Run:
    """A finished run, opened by `open_run`; arrays are read when they are asked for, and checked against checksums.

    All that one `Run` gives is of the same run: one that is overwritten is refused from then on. A notebook shows its
    tables and figures.

    Example:
        >>> import ddhpc
        >>> run = ddhpc.open_run("runs/mine")
        >>> run  # doctest: +ELLIPSIS
        <Run runs/mine: small.h5, 4 subdomains (2x2), 3 classes, ... % on test>
        >>> run.config.decomposition.grid, run.ids("test")[:2]
        ((2, 2), ['test/0', 'test/1'])
    """

    path: Path
    """Run directory, or results file."""
    config: Config
    classes: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_results(path) as file:
            if not attribute(file, "complete", int):
                raise InputError(f"{path}: is not complete; expected the results file of a finished run")
            self.config = Config.from_yaml(file.attrs["config"])
            self.classes = tuple(names(file["classes"]))
            self._made = _made(file)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        """The results file, not longer than it is read: HDF5 lets nobody open it otherwise in the meantime."""
        with open_results(self.path) as file:
            if _made(file) != self._made:
                raise InputError(f"{self.path}: holds another run by now; expected the one that was opened")
            yield file

    def accuracy(self, split: str = "test", fusion: str = "dnn") -> float:
        """The share of the samples of a split whose final decision is right; of train it flatters.

        Args:
            split: train, val or test.
            fusion: dnn, mean, vote, or coherent where it was trained.
        """
        decisions.check_word("split", split, SPLITS)
        with self._open() as file:
            decisions.check_word("fusion", fusion, decisions.fusions(file))
            return float(file[f"fusion/{fusion}"].attrs[split])

    def decisions(self, split: str, fusion: str = "dnn") -> np.ndarray:
        """Final decisions [S, K] float32, class probabilities; see `accuracy` for the arguments.

        Those of vote are shares of the votes, the average probability as half a vote more, which decides where two
        classes have as many.
        """
        with self._open() as file:
            return decisions.final_decisions(file, split, fusion)

    def local_decisions(self, split: str) -> np.ndarray:
        """Local decisions [N, S, K] float32 of the subdomains; zeros where one is absent."""
        with self._open() as file:
            return decisions.local_decisions(file, split)

    def labels(self, split: str) -> np.ndarray:
        """Numbers of the true classes, [S] int64."""
        with self._open() as file:
            return decisions.labels(file, split)

    def ids(self, split: str) -> list[str]:
        """What the samples are called, S texts."""
        with self._open() as file:
            return decisions.ids(file, split)

    def model(self) -> CnnDnn:
        """The trained CNN-DNN as a torch module, from whole images [B, C, *spatial] to probabilities [B, K].

        Images are in stored units, as the packed file has them; its method `predict` takes files instead.

        Raises:
            InputError: the run was made before models were kept, or its model is damaged.

        Example:
            >>> import ddhpc, torch
            >>> model = ddhpc.open_run("runs/mine").model()
            >>> model(torch.zeros(2, 1, 16, 14)).shape
            torch.Size([2, 3])
        """
        from ddhpc.results.model import open_model

        with self._open():
            return open_model(self.path).cnn_dnn()

    def __repr__(self) -> str:
        """One line."""
        cut = self.config.decomposition
        return visible(
            f"<Run {self.path}: {Path(self.config.data.file).name}, {plural(cut.subdomains, 'subdomain')} "
            f"({by(cut.grid)}), {len(self.classes)} classes, {percent(self.accuracy())} on test>",
            kept="",
        )

    def _repr_html_(self) -> str:
        """For notebooks: tables, and figures where what draws them is installed."""
        return self._html

    @cached_property
    def _html(self) -> str:
        from ddhpc.tables.run import html_tables

        with self._open() as file:
            parts = [f"<p>{html.escape(repr(self))}</p>", html_tables(file)]
            try:
                check_needs()
            except InputError as error:
                return "\n".join([*parts, f"<p>{html.escape(str(error))}</p>"])
            from ddhpc.report.notebook import figures

            return "\n".join([*parts, figures(file)])


def _made(file: h5py.File) -> tuple[str, ...]:
    """Tells a results file from others."""
    return tuple(str(file.attrs.get(name)) for name in ("job", "created", "model_sha256"))
