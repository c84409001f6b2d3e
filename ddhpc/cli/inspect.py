"""`inspect`: verify runs, print their table or their metrics, compare them."""

from __future__ import annotations

from pathlib import Path

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone
from ddhpc.errors import InputError

OF_METRICS = ("fusion", "positive")


def run(argv: list[str], started: float) -> None:
    """Verify runs and print their table."""
    options = parser("inspect", "Verify the results of a run and print its table; compare several runs.")
    options.add_argument("runs", nargs="+", metavar="RUN", help="run directory or results file")
    options.add_argument(
        "--write",
        metavar="STEM",
        help="write the comparison to STEM.txt, STEM.csv and STEM.tex, or the metrics to STEM.csv",
    )
    options.add_argument(
        "--metrics",
        action="store_true",
        help="print sensitivity, specificity, AUC, calibration and more of each class on val and test, with intervals",
    )
    options.add_argument(
        "--fusion", choices=("dnn", "mean", "vote", "coherent"), help="whose metrics (default: dnn, the final decision)"
    )
    options.add_argument(
        "--positive",
        metavar="CLASS",
        help="class that counts as positive in the metrics (default: the last of two; each in turn of more)",
    )
    given = parse(options, argv)
    paths, stem = [Path(run) for run in given.runs], given.write and Path(given.write)
    if given.metrics:
        if len(paths) > 1:
            raise InputError(f"--metrics: expected one run, found {len(paths)}")
        alone(lambda: _metrics(paths[0], stem, given.fusion or "dnn", given.positive))
        return
    for name in OF_METRICS:
        if getattr(given, name) is not None:
            raise InputError(f"--{name} {getattr(given, name)}: is of the metrics; expected --metrics with it")

    from ddhpc.tables.comparison import compare
    from ddhpc.tables.run import inspect_run

    alone(lambda: inspect_run(paths[0]) if len(paths) == 1 and not stem else compare(paths, stem))


def _metrics(run: Path, stem: Path | None, fusion: str, positive: str | None) -> None:
    from ddhpc.tables.metrics import print_metrics

    print_metrics(run, stem, fusion=fusion, positive=positive)
