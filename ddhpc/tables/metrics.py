"""The table of metrics that a medical paper needs, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from math import isnan
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ddhpc.errors import InputError
from ddhpc.method.evaluation import AT_THRESHOLD, TEMPERED, Evaluation
from ddhpc.method.evaluation import Table as Metrics
from ddhpc.method.resampling import RESAMPLES, Measured
from ddhpc.results import evaluated, file_system, names, open_results, verify
from ddhpc.tables.comparison import spreadsheet_cell
from ddhpc.terminal import console

NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "mean_f1": "F1, mean of the classes",
    "mean_auc": "AUC, mean of the classes",
    "mean_average_precision": "average precision, mean",
    "ppv": "PPV (precision)",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "MCC",
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "ece": "ECE",
    "threshold": "threshold, Youden on val",
    "sensitivity_at_threshold": "  sensitivity there",
    "specificity_at_threshold": "  specificity there",
    "brier_tempered": "Brier score, tempered",
    "ece_tempered": "ECE, tempered",
}
"""Of metrics that are not called as they are named."""
UNDEFINED = "-"


def shown(found: Measured) -> str:
    """A metric and its interval as a person reads them; "-" where it is not defined."""
    if isnan(found.value):
        return UNDEFINED
    interval = "" if isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"


def blocks(found: Evaluation, classes: list[str]) -> Iterator[tuple[str, Metrics]]:
    """The blocks of the table: all classes, then each that is taken as positive against the rest."""
    yield "all classes", found.overall
    for positive, table in found.against_rest.items():
        rest = classes[1 - positive] if len(classes) == 2 else "the rest"
        yield f"{classes[positive]} (positive) against {rest}", table


def remarks(found: Evaluation) -> list[str]:
    """What one has to know of the metrics, a sentence each."""
    counts = " and ".join(f"{count:,} on {split}" for split, count in found.owners.items())
    resampled = (
        f"whole patients ({counts})"
        if found.by_patient
        else f"samples ({counts}), taken as independent: the packed file tells no patients"
    )
    said = [
        f"In brackets are 95 % intervals: percentile bootstrap, {RESAMPLES:,} draws of {resampled}; Wilson's, where "
        "all draws agree on 0 or 1.",
        "Decided is the most probable class.",
        "ECE has 15 bins; its interval is that of the draws less their bias, for noise adds to it. Undefined is -.",
    ]
    if "val" not in found.owners:
        return said
    said.append("The threshold is chosen on val, so that what it gives there flatters.")
    if isnan(found.temperature):
        return [*said, "No temperature is best on val, so that none is taken."]
    return [*said, f"Tempered: logits divided by the temperature {found.temperature:.3f}, fitted on val."]


def rare(found: Evaluation) -> str:
    """How many draws the metric has that has the fewest, where it is not all."""
    counts = [one.resamples for _, one in _measured(found) if not isnan(one.low)]
    fewest = min(counts, default=RESAMPLES)
    return f"Of some metrics only {fewest:,} draws have a value; the others lack a class." if fewest < RESAMPLES else ""


def _measured(found: Evaluation) -> Iterator[tuple[str, Measured]]:
    for table in (found.overall, *found.against_rest.values()):
        for metric, by_split in table.items():
            for one in by_split.values():
                yield metric, one


def print_metrics(run: Path, stem: Path | None = None, *, fusion: str = "dnn", positive: str | None = None) -> None:
    """Verify a run and print the metrics of its final decisions; with a stem also write STEM.csv.

    Args:
        run: run directory or results file.
        stem: of the file.
        fusion: see `results.evaluated`.
        positive: likewise.

    Raises:
        InputError: there is no such run, fusion or class; or the run is damaged, after the table.
    """
    problems = verify(run)
    with open_results(run) as file:
        classes, found = names(file["classes"]), evaluated(file, fusion, positive)
    show(fusion, found, classes, stem)
    if problems:
        raise InputError(f"{run}: damaged: {'; '.join(problems)}")


def show(fusion: str, found: Evaluation, classes: list[str], stem: Path | None) -> None:
    """Print the metrics of a fusion; with a stem also write STEM.csv."""
    _print(console(), fusion, found, classes)
    if stem:
        with file_system(stem):
            Path(f"{stem}.csv").write_text(as_csv(found, classes), encoding="utf-8")
        console().print(f"written: {stem}.csv", soft_wrap=True)


def _print(out: Console, fusion: str, found: Evaluation, classes: list[str]) -> None:
    for title, metrics in blocks(found, classes):
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in (fusion, *found.owners):
            table.add_column(column, justify="left" if column == fusion else "right", min_width=24)
        for metric, by_split in metrics.items():
            if metric in (AT_THRESHOLD[0], TEMPERED[0]):
                table.add_section()
            table.add_row(NAMES.get(metric, metric), *(shown(by_split[split]) for split in found.owners))
        out.print()
        out.print(table)
    out.print(" ".join(filter(None, [*remarks(found), rare(found)])))


def as_csv(found: Evaluation, classes: list[str]) -> str:
    """All metrics, a line each, unrounded; empty where one is not defined.

    The columns: class (empty for all together), metric, split, value, low, high, resamples (draws with a value), owners
    (patients or samples that are drawn).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("class", "metric", "split", "value", "low", "high", "resamples", "owners"))
    tables = {"": found.overall, **{classes[k]: table for k, table in found.against_rest.items()}}
    for name, table in tables.items():
        for metric, by_split in table.items():
            for split, one in by_split.items():
                numbers = ("" if isnan(number) else number for number in (one.value, one.low, one.high))
                owners = found.owners[split]
                writer.writerow((spreadsheet_cell(name), metric, split, *numbers, one.resamples, owners))
    if "val" not in found.owners:
        return out.getvalue()
    kept = "" if isnan(found.temperature) else found.temperature
    writer.writerow(("", "temperature", "val", kept, "", "", 0, found.owners["val"]))
    return out.getvalue()
