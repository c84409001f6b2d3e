"""`inspect`: verify runs, print their table, compare them."""

from __future__ import annotations

from pathlib import Path

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone


def run(argv: list[str], started: float) -> None:
    """Verify runs and print their table."""
    options = parser("inspect", "Verify the results of a run and print its table; compare several runs.")
    options.add_argument("runs", nargs="+", metavar="RUN", help="run directory or results file")
    options.add_argument("--write", metavar="STEM", help="write the comparison to STEM.txt, STEM.csv and STEM.tex")
    given = parse(options, argv)

    from ddhpc.tables.comparison import compare
    from ddhpc.tables.run import inspect_run

    paths, stem = [Path(run) for run in given.runs], given.write and Path(given.write)
    alone(lambda: inspect_run(paths[0]) if len(paths) == 1 and not stem else compare(paths, stem))
