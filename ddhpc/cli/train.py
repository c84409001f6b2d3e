"""`train`, also without a verb: the method."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ddhpc import __version__
from ddhpc.cli.options import Command, configure, train_parser
from ddhpc.cli.output import say
from ddhpc.errors import InputError, Stopped
from ddhpc.parallel import launcher, logs, placement, signals
from ddhpc.parallel.communicator import world


def run(argv: list[str], started: float) -> None:
    """Train: the method."""
    command = configure(argv, train_parser())
    if command.options.print_config:
        say(command.config.to_yaml().rstrip())
        return
    ranks = launcher.size()
    counted = f"{ranks} rank{'s' * (ranks > 1)} " if ranks else ""
    say(f"ddhpc {__version__}: {command.title}, starting {counted}(loading MPI and torch)")
    with signals.StopRequest(command.config.run.stop_signal) as request:
        solve(command, request, started)


def solve(command: Command, request: signals.StopRequest, started: float) -> None:
    """Train as configured, on all ranks or one subdomain alone, and print the table."""
    only = command.options.subdomain
    comm = world()
    if only is not None and (comm.size > 1 or command.options.output is None):
        raise InputError(f"--subdomain {only}: expected one process, without mpirun, and --output DIR that all share")
    if only is not None and command.options.overwrite:
        raise InputError(
            f"--subdomain {only}: expected it without --overwrite, which would remove what the tasks for other "
            "subdomains have trained; name a new --output"
        )
    from ddhpc.method.problem import open_problem

    if command.options.log_dir:
        comm.together(lambda: logs.log_to(Path(command.options.log_dir), comm.rank if only is None else only))
    problem = comm.together(partial(open_problem, command.config))
    if only is not None and not 0 <= only < problem.subdomains:
        raise InputError(f"--subdomain {only}: expected 0 to {problem.subdomains - 1}")

    # These load torch, for which wrong data or a wrong grid need not wait.
    from ddhpc import train as method
    from ddhpc.results import begin, check_alike, counted, identity, lock, run_directory
    from ddhpc.tables.run import print_run, problem_line

    place = comm.together(partial(placement.place, comm, command.config.run))

    comm.together(request.obey)
    request.defer()
    options, run = command.options, identity(problem.config, problem.packed.digest)
    check_alike(comm, place.host, problem.config, problem.packed.digest)

    def make_directory() -> str:
        return str(run_directory(command.name, options.output)) if comm.rank == 0 else ""

    directory = Path(comm.broadcast(comm.together(make_directory)))
    with ExitStack() as held:

        def enter() -> None:
            if comm.rank == 0:
                began = time.time() - (time.perf_counter() - started)
                held.enter_context(lock(directory, began, only, say))
                begin(directory, run, options.overwrite)
                held.enter_context(counted(directory, began, only))

        comm.together(enter)
        say(f"{problem_line(problem)}\n{place.line(comm.size)}\nrun directory {directory}")
        if before := len(list(directory.glob("checkpoints/*.pt"))):
            say(f"continuing: {before} of {problem.subdomains} subdomains have a checkpoint")
        try:
            if only is not None:
                method.train_subdomain(problem, only, directory, comm, place, request)
                say(f"subdomain {only} is done")
                return
            method.train(problem, directory, comm, place, request, startup=time.perf_counter() - started)
        except Stopped as stop:
            same = "the same command without --overwrite" if options.overwrite else "the same command"
            kept = any(directory.glob("checkpoints/*.pt"))
            done = "checkpoints are made" if kept else "nothing is trained yet"
            raise Stopped(f"{stop}; {done}, continue with {same}, --output {directory}") from stop
    if comm.rank == 0:
        print_run(directory)
