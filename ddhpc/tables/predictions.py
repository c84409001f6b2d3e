"""What a model decides for new images: on the terminal, and as a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from rich.table import Table

from ddhpc.data.hdf5 import check_output, replace
from ddhpc.errors import InputError
from ddhpc.method.metrics import BINARY, accuracy, confusion, scores
from ddhpc.method.solutions import Mapped, Predictions
from ddhpc.terminal import console
from ddhpc.wording import percent, plural

MOST_SHOWN = 30
"""Inputs in the table; a CSV file has all."""
MOST_CLASSES = 6
"""Whose probabilities the table shows; of more, that of the decision alone."""


def check_csv(path: Path, *, overwrite: bool) -> None:
    """InputError, naming --csv, where no file can be written, see `check_output`."""
    check_output(path, overwrite=overwrite, option="--csv")
    part = _part(path)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written: {error.strerror}; expected a writable directory") from error


def write_csv(path: Path, found: Predictions) -> None:
    """Write a row for each input: id, decision, label where there are any, and the probability of each class.

    With maps also the name of its map and the drop of each subdomain, that of the coarse image in a column of its own
    name. Probabilities have as many digits as float32 has, so that a reader gets the same numbers. The file is whole or
    absent. InputError, naming --csv, where it cannot be written.
    """
    labelled = [] if found.labels is None else ["label"]
    probabilities = [f"probability_{name}" for name in found.classes]
    header = ["id", "decision", *labelled, *probabilities, *(_of_maps(found.maps) if found.maps else [])]
    part = _part(path)
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for n, (name, row) in enumerate(zip(found.ids, found.decisions, strict=True)):
                label = [] if found.labels is None else [found.classes[found.labels[n]]]
                mapped = [found.maps.files[n], *map(str, found.maps.drops[n])] if found.maps else []
                writer.writerow([name, found.classes[row.argmax()], *label, *map(str, row), *mapped])
        replace(part, path)
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written: {error.strerror}; expected a disk with space") from error
    finally:
        part.unlink(missing_ok=True)


def _of_maps(maps: Mapped) -> list[str]:
    """Columns of what maps show."""
    names = [f"drop_{n}" for n in range(maps.drops.shape[1])]
    return ["map", *names[:-1], "drop_coarse_image" if maps.coarse_image else names[-1]]


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def print_predictions(found: Predictions, written: Path | None) -> None:
    """Print the decisions, how many inputs each class got, how good they are where there are labels, what failed."""
    out = console()
    if written is None:
        out.print(_table(found))
        if len(found.ids) > MOST_SHOWN:
            out.print(f"{len(found.ids) - MOST_SHOWN:,} more are not shown; --csv FILE writes all")
    counts = Counter(found.decisions.argmax(1).tolist())
    decided = ", ".join(f"{found.classes[n]} {count:,}" for n, count in counts.most_common())
    out.print(f"{plural(len(found.ids), 'input')} decided: {decided}", soft_wrap=True)
    if found.labels is not None:
        _print_scores(found, found.labels)
    for problem in found.unusable:
        out.print(f"not used: {problem}", soft_wrap=True)
    if found.unusable:
        out.print(f"{plural(len(found.unusable), 'input')} could not be used, see above", soft_wrap=True)
    if written is not None:
        out.print(f"{written}: {plural(len(found.ids), 'row')}", soft_wrap=True)


def _table(found: Predictions) -> Table:
    table = Table()
    few = len(found.classes) <= MOST_CLASSES
    table.add_column("input", overflow="fold")
    table.add_column("decision")
    if found.labels is not None:
        table.add_column("label")
    for name in found.classes if few else ("probability",):
        table.add_column(name, justify="right")
    for n in range(min(len(found.ids), MOST_SHOWN)):
        row = found.decisions[n]
        label = [] if found.labels is None else [found.classes[found.labels[n]]]
        cells = map(percent, row.tolist() if few else [row.max()])
        table.add_row(found.ids[n], found.classes[row.argmax()], *label, *cells)
    return table


def _print_scores(found: Predictions, labels: np.ndarray) -> None:
    """As after a training: accuracy with its interval, balanced accuracy, what is usual of two classes, confusion."""
    out, each = console(), scores(found.decisions, labels)
    low, high = percent(each["accuracy_low"]), percent(each["accuracy_high"])
    out.print(
        f"accuracy {percent(float(accuracy(found.decisions, labels)))} (95 % interval {low} to {high}), balanced "
        f"{percent(each['balanced_accuracy'])}"
    )
    if len(found.classes) == 2:
        shown = (
            f"{name.replace('_', ' ')} {each[name]:.3f} ({each[f'{name}_low']:.3f} to {each[f'{name}_high']:.3f})"
            for name in BINARY
        )
        out.print(f"{found.classes[1]} (positive) against {found.classes[0]}: {', '.join(shown)}", soft_wrap=True)
    table = Table(title="rows: label; columns: decision")
    table.add_column("label")
    for name in found.classes:
        table.add_column(name, justify="right")
    for name, row in zip(found.classes, confusion(found.decisions, labels), strict=True):
        table.add_row(name, *map(str, row))
    out.print(table)
