"""Several runs side by side, as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from math import isnan, nan
from pathlib import Path
from statistics import mean, median

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from ddhpc.config import CODE, Config
from ddhpc.data.hdf5 import attribute
from ddhpc.errors import InputError
from ddhpc.method.metrics import scores
from ddhpc.results import COHERENT, FUSIONS, file_system, flat, identity, open_results, patients, verify
from ddhpc.results.cost import critical_path
from ddhpc.terminal import PlainConsole, console, is_terminal
from ddhpc.visible import visible
from ddhpc.wording import by, duration, percent

COLUMNS = ("data.file", "decomposition.grid", "decomposition.overlap", "model.name")
"""Options that the table shows."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of what spreadsheets compute (OWASP, CSV injection)."""
LATEX = {letter: f"\\{letter}" for letter in "#$%&_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "[": "{[}",  # at the beginning of a row it would belong to the line break before
    "*": "{*}",
    "-": "{-}",  # two would be a dash
}
WIDTH = 200
"""Columns of the table in a file."""

CAPTION = (
    "accuracy on test; in brackets: {spread}. Critical path, projected where ranks share cores: the slowest local CNN "
    "(CPU seconds; on a GPU wall seconds), and the coarse DNN"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is compared of a run; accuracies are shares on test, times are seconds."""

    run: str
    data: str
    grid: str
    overlap: int
    network: str
    epochs: int
    seed: int
    parameters: int
    """Of all local CNNs."""
    best_local: float
    """The local CNN that is best on val."""
    mean: float
    vote: float
    dnn: float
    dnn_low: float
    dnn_high: float
    """95 % bootstrap interval over the test samples, or patients where they are known."""
    coherent: float
    """NaN where the coherent CNN-DNN is not trained."""
    critical_path: float
    """Projected, see CAPTION."""
    compute: float
    """All local CNNs and the coarse DNN: CPU seconds, on a GPU wall seconds."""
    wall: float
    """Of the whole run as it was."""
    settings: str
    """The configuration without the seed, as JSON: runs of the same data that share it differ in the seed alone."""
    data_digest: str
    code: str
    """Version and commit."""


def row(run: Path) -> Row:
    """Read what is compared from the results of a run; InputError if there are none."""
    with open_results(run) as file:
        config = Config.from_yaml(file.attrs["config"])
        path, coarse = critical_path(file), file["timing"].attrs["coarse"]
        seconds = file["local/cpu_seconds" if path.clock == "CPU" else "local/seconds"][...]
        best = int(np.nanargmax(file["local/val/accuracy"][...]))
        final, labels = file["coarse/test/decision"][...], file["samples/test/label"][...]
        interval = (
            file["fusion/dnn/test"].attrs
            if "test" in file["fusion/dnn"]
            else scores(final, labels, patients(file, "test"))
        )
        settings = config.to_dict()
        settings["model"]["weights"] = attribute(file, "weights_digest", str)  # where they lie is no setting
        for name in ("seed", "report", "tensorboard"):
            del settings["run"][name]
        return Row(
            run=run.name,
            data=Path(config.data.file).stem,
            grid=by(config.decomposition.grid),
            overlap=config.decomposition.overlap,
            network=config.model.name,
            epochs=config.local.epochs,
            seed=config.run.seed,
            parameters=int(file["local/parameters"][...].sum()),
            best_local=float(file["local/test/accuracy"][best]),
            **{fusion: float(file[f"fusion/{fusion}"].attrs["test"]) for fusion in FUSIONS},
            coherent=float(file[f"fusion/{COHERENT}"].attrs["test"]) if COHERENT in file["fusion"] else float("nan"),
            dnn_low=float(interval["accuracy_low"]),
            dnn_high=float(interval["accuracy_high"]),
            critical_path=path.seconds,
            compute=float(seconds.sum() + coarse),
            wall=float(file["timing"].attrs["total"]),
            settings=json.dumps(settings),
            data_digest=str(file.attrs["data_digest"]),
            code=_code(file),
        )


def _code(file: h5py.File) -> str:
    """Version and commit, and those that solved the second level again where they are others."""
    trained = " ".join(str(file.attrs[name]) for name in CODE).strip()
    again = str(file.attrs.get("second_level_code", trained))
    return trained if again == trained else f"{trained}, second level {again}"


def by_seed(rows: Iterable[Row]) -> list[list[Row]]:
    """Runs that differ in the seed alone together, in the order in which they come."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for each in rows:
        groups.setdefault((each.settings, each.data_digest), []).append(each)
    return list(groups.values())


def cells(group: Sequence[Row]) -> dict[str, str]:
    """A line of the table, by column: of a run, or the mean accuracies and median times of runs of several seeds."""
    first, finals, coherent = group[0], [each.dnn for each in group], [each.coherent for each in group]
    low, high = (first.dnn_low, first.dnn_high) if len(group) == 1 else (min(finals), max(finals))
    alone = set(first.grid.split("x")) == {"1"}
    average = {name: percent(mean(getattr(each, name) for each in group)) for name in ("best_local", "mean", "vote")}
    return {
        "run": first.run if len(group) == 1 else f"{len(group)} seeds",
        "data": first.data,
        "grid": first.grid,
        "overlap": str(first.overlap),
        "network": first.network,
        "parameters": f"{first.parameters:,}",
        **({name.replace("_", " "): "" if alone else share for name, share in average.items()}),
        "dnn": f"{percent(mean(finals))} ({100 * low:.1f} to {100 * high:.1f})",
        "coherent": "" if any(map(isnan, coherent)) else percent(mean(coherent)),
        "critical path": duration(median(each.critical_path for each in group)),
        "compute": duration(median(each.compute for each in group)),
        "wall": duration(nan if any(isnan(each.wall) for each in group) else median(each.wall for each in group)),
    }


def _lines(groups: Sequence[Sequence[Row]]) -> list[dict[str, str]]:
    """The cells of all lines, without the columns in which all are empty."""
    lines = [cells(group) for group in groups]
    used = [column for column in lines[0] if any(line[column] for line in lines)]
    return [{column: line[column] for column in used} for line in lines]


def _caption(groups: Sequence[Sequence[Row]]) -> str:
    """What the numbers are; a grid of ones is the global CNN, which decides alone."""
    single = all(len(group) == 1 for group in groups)
    caption = CAPTION.format(spread="95 % interval over the samples" if single else "lowest to highest seed")
    return ". ".join([caption, *mixed([each for group in groups for each in group])])


def mixed(rows: Sequence[Row]) -> list[str]:
    """What differs between runs and no column shows: code, data of the same name, settings; a sentence each."""
    said = []
    if len(codes := _runs(rows, "code")) > 1:
        said.append(f"Different code: {'; '.join(f'{code}: {runs}' for code, runs in codes.items())}")
    if len(rows) > 1 and any(code.endswith("-dirty") for code in codes):
        said.append("Code that ends in -dirty had uncommitted changes, which may differ between runs")
    for name in dict.fromkeys(each.data for each in rows):
        digests = _runs([each for each in rows if each.data == name], "data_digest")
        if len(digests) > 1:
            said.append(f"Different data {name}: {'; '.join(f'{key[:12]}: {runs}' for key, runs in digests.items())}")
    settings = [flat(identity(Config.from_yaml(each.settings), "")) for each in rows]
    names = [
        name for name in settings[0] if name not in COLUMNS and any(e[name] != settings[0][name] for e in settings)
    ]
    if names:
        said.append(f"They also differ in {', '.join(names)}")
    return said


def _runs(rows: Sequence[Row], key: str) -> dict[str, str]:
    """Names of runs by the value that they share."""
    named: dict[str, list[str]] = {}
    for each in rows:
        named.setdefault(getattr(each, key), []).append(each.run)
    return {value: ", ".join(runs) for value, runs in named.items()}


def as_text(groups: Sequence[Sequence[Row]], out: Console) -> None:
    """Print the table for a person."""
    lines = _lines(groups)
    table = Table(title="Runs", title_justify="left", caption=_caption(groups), caption_justify="left")
    for column in lines[0]:
        table.add_column(column, justify="left" if column in ("run", "data", "network") else "right")
    for line in lines:
        table.add_row(*line.values())
    out.print(table)


def as_csv(rows: Sequence[Row]) -> str:
    """All numbers of every run, a line each, unrounded."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in asdict(each).items()} for each in rows)
    return out.getvalue()


def as_latex(groups: Sequence[Sequence[Row]]) -> str:
    """The table for a paper: a tabular of the package booktabs."""
    lines = _lines(groups)
    body = [r"\midrule", *(" & ".join(map(latex_cell, line.values())) + r" \\" for line in lines)]
    head = " & ".join(map(latex_cell, lines[0])) + r" \\"
    columns = "".join("l" if column in ("run", "data", "network") else "r" for column in lines[0])
    frame = [f"% {_caption(groups)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, *body]
    return "\n".join([*frame, r"\bottomrule", r"\end{tabular}", ""])


def spreadsheet_cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula, and that steers no terminal."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.startswith(FORMULA) else visible(value)


def latex_cell(cell: str) -> str:
    """A cell as LaTeX shows it."""
    return "".join(LATEX.get(letter, letter) for letter in visible(cell, kept=""))


def compare(runs: Sequence[Path], stem: Path | None = None, seeds_together: bool = False) -> None:
    """Verify runs and print their table; with a stem also write STEM.txt, STEM.csv and STEM.tex.

    Raises InputError if a run is not whole, after the table.
    """
    damaged = [f"{run}: {problem}" for run in runs for problem in verify(run)]
    rows = [row(run) for run in runs]
    groups = by_seed(rows) if seeds_together else [[each] for each in rows]
    as_text(groups, PlainConsole() if is_terminal() else PlainConsole(width=WIDTH))
    if stem:
        with file_system(stem):
            with Path(f"{stem}.txt").open("w", encoding="utf-8") as text:
                as_text(groups, PlainConsole(file=text, width=WIDTH))
            Path(f"{stem}.csv").write_text(as_csv(rows), encoding="utf-8")
            Path(f"{stem}.tex").write_text(as_latex(groups), encoding="utf-8")
        console().print(f"written: {stem}.txt, {stem}.csv, {stem}.tex", soft_wrap=True)
    if damaged:
        raise InputError(f"damaged results: {'; '.join(damaged)}")
