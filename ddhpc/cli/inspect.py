"""`inspect`: verify runs, print their table or their metrics, compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone
from ddhpc.errors import InputError
from ddhpc.visible import tell

TABLES, METRICS = (".txt", ".csv", ".tex"), (".csv",)
"""Endings of the files of --write."""
OF_METRICS = ("fusion", "positive")
"""Options of --metrics and --pool."""


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "inspect",
        "Verify the results of a run and print its table; compare several runs.",
        "python -m ddhpc inspect runs/latest --decisions decisions.csv",
        "python -m ddhpc inspect runs/latest --metrics --positive sick",
        "python -m ddhpc inspect runs/mine runs/global --write table   # table.txt, .csv and .tex",
    )
    options.add_argument("runs", nargs="+", metavar="RUN", help="run directory or results file")
    options.add_argument(
        "--write",
        metavar="STEM",
        help="write the comparison to STEM.txt, STEM.csv and STEM.tex, or the metrics to STEM.csv",
    )
    options.add_argument(
        "--decisions",
        metavar="FILE.csv",
        help="write a row for each sample of the run: split, id, label, decision, probabilities of all fusions",
    )
    options.add_argument("--overwrite", action="store_true", help="replace the files of --decisions or --write")
    options.add_argument(
        "--metrics",
        action="store_true",
        help="print sensitivity, specificity, AUC, calibration and more of each class on val and test, with intervals",
    )
    options.add_argument(
        "--pool",
        action="store_true",
        help="print these metrics of the runs of all folds together, each sample decided by the one that tests it",
    )
    options.add_argument(
        "--fusion", choices=("dnn", "mean", "vote", "coherent"), help="whose metrics (default: dnn, the final decision)"
    )
    options.add_argument(
        "--positive",
        metavar="CLASS",
        help="class that counts as positive in the metrics (default: the last of two; each in turn of more)",
    )
    return options


def run(argv: list[str], started: float) -> None:
    """Verify runs and print their table."""
    given = parse(arguments(), argv)
    paths, stem = [Path(run) for run in given.runs], given.write and Path(given.write)
    if given.decisions and (len(paths) > 1 or stem or given.metrics or given.pool):
        raise InputError(
            f"--decisions {given.decisions}: expected it with one run, and without --write, --metrics or --pool"
        )
    if given.metrics or given.pool:
        if given.metrics and len(paths) > 1:
            raise InputError(f"--metrics: expected one run, found {len(paths)}")
        alone(lambda: _metrics(paths, stem, given))
        return
    for name in OF_METRICS:
        if getattr(given, name) is not None:
            raise InputError(
                f"--{name} {getattr(given, name)}: is of the metrics; expected --metrics or --pool with it"
            )

    from ddhpc.tables.comparison import compare
    from ddhpc.tables.decisions import write_decisions
    from ddhpc.tables.run import inspect_run

    def show() -> None:
        _check_outputs(given, TABLES)
        if len(paths) > 1 or stem:
            compare(paths, stem)
        else:
            inspect_run(paths[0])
        if given.decisions:
            tell(f"{given.decisions}: {write_decisions(paths[0], Path(given.decisions)):,} rows")

    alone(show)


def _check_outputs(given: Any, endings: Sequence[str]) -> None:
    """InputError, before the work, where a file of --decisions or --write cannot be, or is there already."""
    from ddhpc.data.hdf5 import check_output

    wanted = [("--decisions", given.decisions)] if given.decisions else []
    wanted += [("--write", f"{given.write}{ending}") for ending in endings if given.write]
    for option, path in wanted:
        check_output(Path(path), overwrite=given.overwrite, option=option)


def _metrics(runs: list[Path], stem: Path | None, given: Any) -> None:
    from ddhpc.tables.metrics import print_metrics
    from ddhpc.tables.pooled import print_pooled

    _check_outputs(given, METRICS)
    asked = {"fusion": given.fusion or "dnn", "positive": given.positive}
    if given.pool:
        print_pooled(runs, stem, **asked)
    else:
        print_metrics(runs[0], stem, **asked)
