"""`doctor`: is this job fit to run?"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from ddhpc.cli.options import add_configuration, configure, parser
from ddhpc.parallel import placement
from ddhpc.parallel.communicator import world


def run(argv: list[str], started: float) -> None:
    """Check that this job is fit to run."""
    options = parser("doctor", "Check MPI, HDF5, GPUs, threads, disk and clocks of this job; exit code 1 if unfit.")
    options.add_argument("--output", metavar="DIR", default="runs", help="where results would be written")
    add_configuration(options)
    command = configure(argv, options)
    comm = world()
    from ddhpc.method.problem import open_problem
    from ddhpc.parallel.doctor import examine
    from ddhpc.results.provenance import describe_run
    from ddhpc.tables.doctor import print_findings

    problem = comm.together(partial(open_problem, command.config))
    place = comm.together(partial(placement.place, comm, command.config.run))
    output = Path(command.options.output).absolute()
    directory = next(parent for parent in (output, *output.parents) if parent.is_dir())
    findings = examine(comm, place, directory, 3 * describe_run(problem, comm, place).size())
    if comm.rank == 0:
        print_findings(findings)
    unfit = comm.rank == 0 and any(finding.status == "error" for finding in findings)
    if comm.broadcast("unfit" if unfit else ""):
        sys.exit(1)
