"""`inspect`: verify runs, print their table or their metrics, compare them."""

from __future__ import annotations

from pathlib import Path

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone
from ddhpc.errors import InputError
from ddhpc.visible import tell

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
        "--decisions",
        metavar="FILE.csv",
        help="write a row for each sample of the run: split, id, label, decision, probabilities of all fusions",
    )
    options.add_argument("--overwrite", action="store_true", help="replace the file of --decisions")
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
    if given.decisions and (len(paths) > 1 or stem or given.metrics):
        raise InputError(f"--decisions {given.decisions}: expected it with one run, and without --write or --metrics")
    if given.metrics:
        if len(paths) > 1:
            raise InputError(f"--metrics: expected one run, found {len(paths)}")
        alone(lambda: _metrics(paths[0], stem, given.fusion or "dnn", given.positive))
        return
    for name in OF_METRICS:
        if getattr(given, name) is not None:
            raise InputError(f"--{name} {getattr(given, name)}: is of the metrics; expected --metrics with it")

    from ddhpc.tables.comparison import compare
    from ddhpc.tables.decisions import check_file, write_decisions
    from ddhpc.tables.run import inspect_run

    def show() -> None:
        if given.decisions:
            check_file(Path(given.decisions), overwrite=given.overwrite)
        if len(paths) > 1 or stem:
            compare(paths, stem)
        else:
            inspect_run(paths[0])
        if given.decisions:
            tell(f"{given.decisions}: {write_decisions(paths[0], Path(given.decisions)):,} rows")

    alone(show)


def _metrics(run: Path, stem: Path | None, fusion: str, positive: str | None) -> None:
    from ddhpc.tables.metrics import print_metrics

    print_metrics(run, stem, fusion=fusion, positive=positive)
