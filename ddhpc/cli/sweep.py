"""`sweep`: run a study."""

from __future__ import annotations

import os
from functools import partial

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import alone

MPIRUN = "mpirun -n {ranks}"


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "sweep",
        "Run every training of a study, those that are not finished yet, and print their table.",
        "python -m ddhpc sweep study.yaml --list",
        "python -m ddhpc sweep study.yaml --ranks 8",
    )
    options.add_argument("study", metavar="STUDY.yaml", help="what to vary, see docs/training.md")
    options.add_argument("--output", metavar="DIR", help="where the runs go; runs/ and the study's name without it")
    options.add_argument("--ranks", type=int, default=os.cpu_count(), help="at most so many at once")
    options.add_argument("--launcher", default=MPIRUN, help="starts a training on several ranks")
    options.add_argument(
        "--only", type=int, metavar="N", help="this training of the list alone, as a task of a job array"
    )
    options.add_argument(
        "--list", dest="list_only", action="store_true", help="print the commands, in order, and run nothing"
    )
    return options


def run(argv: list[str], started: float) -> None:
    """Run a study: training after training, and their table."""
    given = vars(parse(arguments(), argv))

    from ddhpc.cli.study import run_study

    alone(partial(run_study, **given))
