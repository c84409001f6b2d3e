"""`doctor`: is this job fit to run?"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser

from ddhpc.cli.options import add_configuration, configure, parser, print_config
from ddhpc.cli.output import say
from ddhpc.parallel import placement
from ddhpc.parallel.communicator import world


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "doctor",
        "Check MPI, HDF5, GPUs, threads, disk and clocks of this job; exit code 1 if unfit.",
        "mpirun -n 4 python -m ddhpc doctor        # of a job like the training",
        "mpirun -n 4 python -m ddhpc doctor --json > doctor.json",
    )
    options.add_argument("--output", metavar="DIR", default="runs", help="where results would be written")
    options.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    add_configuration(options)
    return options


def run(argv: list[str], started: float) -> None:
    """Check that this job is fit to run."""
    command = configure(argv, arguments())
    if print_config(command):
        return
    comm = world()
    from ddhpc.method.problem import open_problem
    from ddhpc.parallel.doctor import examine
    from ddhpc.results import code
    from ddhpc.results.provenance import describe_run
    from ddhpc.tables.doctor import as_json, print_findings, unfit

    problem = comm.together(partial(open_problem, command.config))
    place = comm.together(partial(placement.place, comm, command.config.run))
    output = Path(command.options.output).absolute()
    directory = next(parent for parent in (output, *output.parents) if parent.is_dir())
    findings = examine(comm, place, directory, 3 * describe_run(problem, comm, place).size(), code())
    if comm.rank == 0 and command.options.json:
        say(as_json(findings))
    elif comm.rank == 0:
        print_findings(findings)
    if comm.broadcast(" ".join(unfit(findings)) if comm.rank == 0 else ""):
        sys.exit(1)
