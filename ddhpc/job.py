"""One training as a job: all ranks agree on what to do, lock the run directory, train, and leave a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddhpc.config import Config
from ddhpc.data.hdf5 import reason
from ddhpc.errors import InputError, Stopped
from ddhpc.parallel import logs, placement, signals
from ddhpc.parallel.communicator import Communicator
from ddhpc.report import check_needs, remove_page
from ddhpc.visible import tell

if TYPE_CHECKING:
    from ddhpc.method.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person asks of a training."""

    config: Config
    name: str
    """For the run directory where `output` is None."""
    output: str | None
    overwrite: bool = False
    subdomain: int | None = None
    """The one that is trained alone, in one process."""
    log_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What all ranks have agreed on before they train."""

    problem: Problem
    place: placement.Place
    run: dict[str, Any]
    """All that the results depend on."""
    directory: Path
    """Of the run."""


def solve(
    asked: Asked, comm: Communicator, request: signals.StopRequest, started: float, show: Callable[[Path], None]
) -> Path:
    """Train as configured, on all ranks or one subdomain alone; collective.

    Args:
        asked: see `Asked`.
        comm: all ranks.
        request: in which signals are noted.
        started: `time.perf_counter()` when the job began.
        show: called with the run directory on rank 0 when the results are finished.

    Returns:
        The run directory.

    Raises:
        InputError: bad input, on the ranks that found it.
        Stopped: on all ranks, when any of them was asked to stop.
    """
    agreed = agree(asked, comm, request)
    from ddhpc.train import train, train_subdomain

    directory, only = agreed.directory, asked.subdomain
    with ExitStack() as held:
        comm.on_root(lambda: held.enter_context(taken(agreed, asked, started)))
        comm.on_root(partial(announce, agreed, comm.size))
        try:
            if only is not None:
                train_subdomain(agreed.problem, only, directory, comm, agreed.place, request)
                tell(f"subdomain {only} is done")
                return directory
            startup = time.perf_counter() - started
            train(agreed.problem, directory, comm, agreed.place, request, startup=startup)
        except Stopped as stop:
            raise Stopped(f"{stop}; {how_to_continue(directory, asked)}") from stop

        def leave() -> None:
            show(directory)
            remove_page(directory)
            if asked.config.run.report:
                draw(directory)

        # Under the lock, since the report is of this run; the ranks wait without using their cores.
        comm.on_root(leave)
    return directory


def agree(asked: Asked, comm: Communicator, request: signals.StopRequest) -> Agreed:
    """Check what is asked for and open the problem, on all ranks alike; from here on signals wait for checkpoints."""
    only = asked.subdomain
    if only is not None and (comm.size > 1 or asked.output is None):
        raise InputError(f"--subdomain {only}: expected one process, without mpirun, and --output DIR that all share")
    if only is not None and asked.overwrite:
        raise InputError(
            f"--subdomain {only}: expected it without --overwrite, which would remove what the tasks for other "
            "subdomains have trained; name a new --output"
        )
    from ddhpc.method.problem import open_problem

    if asked.log_dir:
        log_dir = Path(asked.log_dir)
        comm.together(lambda: logs.log_to(log_dir, comm.rank if only is None else only))
    problem = comm.together(partial(open_problem, asked.config))
    if only is not None and not 0 <= only < problem.subdomains:
        raise InputError(f"--subdomain {only}: expected 0 to {problem.subdomains - 1}")

    # These load torch, for which wrong data or a wrong grid need not wait.
    from ddhpc.results import check_alike, identity, run_directory, scalars

    place = comm.together(partial(placement.place, comm, asked.config.run))
    if asked.config.run.tensorboard:
        comm.together(scalars.check_needs)
    comm.together(request.obey)
    request.defer()
    run = identity(problem.config, problem.packed.digest, problem.weights_digest)
    check_alike(comm, place.host, problem.config, problem.packed.digest, problem.weights_digest)

    def make_directory() -> str:
        return str(run_directory(asked.name, asked.output)) if comm.rank == 0 else ""

    directory = Path(comm.broadcast(comm.together(make_directory)))
    return Agreed(problem=problem, place=place, run=run, directory=directory)


@contextmanager
def taken(agreed: Agreed, asked: Asked, started: float) -> Iterator[None]:
    """Hold the run directory for this job, begin or continue the run in it, and count the job's time; on rank 0."""
    from ddhpc.results import begin, counted, lock

    began = time.time() - (time.perf_counter() - started)
    with lock(agreed.directory, began, asked.subdomain, tell):
        begin(agreed.directory, agreed.run, asked.overwrite)
        with counted(agreed.directory, began, asked.subdomain):
            yield


def announce(agreed: Agreed, ranks: int) -> None:
    """Tell what is solved and where, and what is solved already; on rank 0."""
    from ddhpc.tables.run import problem_line

    directory = agreed.directory
    tell(f"{problem_line(agreed.problem)}\n{agreed.place.line(ranks)}\nrun directory {directory}")
    if before := len(list(directory.glob("checkpoints/*.pt"))):
        tell(f"continuing: {before} of {agreed.problem.subdomains} subdomains have a checkpoint")


def how_to_continue(directory: Path, asked: Asked) -> str:
    """What a person does after a stop."""
    same = "the same command without --overwrite" if asked.overwrite else "the same command"
    kept = any(directory.glob("checkpoints/*.pt"))
    done = "checkpoints are made" if kept else "nothing is trained yet"
    return f"{done}, continue with {same}, --output {directory}"


def draw(directory: Path) -> None:
    """Write the report of a finished run, and tell where; a failure is one warning, for the run is finished."""
    try:
        with _quiet():
            check_needs()
            from ddhpc.report.page import write_report

            page = write_report(directory, None, None)
    except Exception as error:  # whatever it is, nothing of the run depends on it
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {reason(error)}"
        logs.warn(
            f"the run is finished, its report is not: {why}; when that is mended: python -m ddhpc report {directory}"
        )
    else:
        tell(f"report {page}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what matplotlib says of its caches, the first time on a machine."""
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
