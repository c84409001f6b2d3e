"""Which rank this process is, of how many, and how all ranks end.

MPI itself knows, once it is up. Before, the launcher's variables serve for first words and for whether to start MPI.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from ddhpc.errors import InputError, Stopped
from ddhpc.visible import complain

if TYPE_CHECKING:
    from mpi4py import MPI

AGREE_SECONDS = 5.0
HERE = 1
"""Tag of the messages by which ranks that have failed find each other."""
POLL_SECONDS = 0.01
FIRST_WORD_SECONDS = 0.5
"""Time for rank 0 to say why, before the launcher ends it because another rank has left."""

_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_RANKS_ALONE = ("PMI_ID", "PMIX_RANK", "PALS_RANKID")
"""Set by launchers that do not tell the number of ranks: `mpiexec -pmi-port` of MPICH, prterun, PALS."""
_SCHEDULERS = (("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"))
"""Also inherited by what a shell of the job starts, under launchers of its own too."""


@dataclass(frozen=True)
class Launch:
    """What the variables say; a process without a launcher is rank 0 of 1."""

    rank: int = 0
    size: int | None = 1
    """None: perhaps several, the launcher does not say."""
    scheduler: str = ""
    """The variable that gave the rank, where it may be inherited from a shell of the job."""


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """The rank that the launcher gave this process, known before MPI starts."""

    def number(name: str) -> int | None:
        value = environment.get(name, "")
        return int(value) if value.isdecimal() else None

    def first(pairs: Sequence[tuple[str, str]], scheduler: bool) -> Launch | None:
        for pair in pairs:
            rank, size = map(number, pair)
            if rank is not None and size is not None and rank < size:
                return Launch(rank, size, pair[0] if scheduler else "")
        return None

    if found := first(_LAUNCHERS, scheduler=False):
        return found
    rank = next((rank for name in _RANKS_ALONE if (rank := number(name)) is not None), None)
    by_srun = environment.get("PMIX_NAMESPACE", "").startswith("slurm.") and "PMI_ID" not in environment
    if (rank is None or by_srun) and (found := first(_SCHEDULERS, scheduler=True)):
        return found
    return Launch() if rank is None else Launch(rank, None)


def mpi() -> ModuleType | None:
    """mpi4py.MPI while MPI is up; does not start it."""
    module = sys.modules.get("mpi4py.MPI")
    up = module and hasattr(module, "COMM_WORLD") and module.Is_initialized() and not module.Is_finalized()
    return module if up else None


def rank() -> int:
    """Of this process: what MPI says once it is up, else the launcher's variables."""
    running = mpi()
    return int(running.COMM_WORLD.rank) if running else launched().rank


def size() -> int | None:
    """Number of ranks, likewise; None where that is not known before MPI is up."""
    running = mpi()
    return int(running.COMM_WORLD.size) if running else launched().size


def first() -> bool:
    """Whether this process does what one does for all, where MPI is not needed.

    One that leaves it to another says so where it cannot be sure: a shell of a job hands the scheduler's variables on.
    """
    told = launched()
    if told.rank and told.scheduler:
        complain(
            f"ddhpc: {told.scheduler}={told.rank}: left to rank 0 of {told.size}; to run it here: env -u "
            f"{told.scheduler} ..."
        )
    return told.rank == 0


def end_together(error: InputError | Stopped) -> NoReturn:
    """End all ranks with the exit code of the error, its message once, from rank 0 where it has failed too.

    Nearly always all ranks fail alike and meet at the barrier. If one fails alone the others do not come; it then says
    itself what is wrong. After bad input the job is aborted either way: leaving in order would close files that other
    ranks may hold.
    """
    message = f"ddhpc: {error}"
    if isinstance(error, Stopped):
        # srun --kill-on-bad-exit=1 sends SIGTERM to the others as soon as the first rank has left.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if rank() == 0:
        complain(message)
    world = several()
    if world and not _all_come(world):
        if world.rank != 0:
            complain(f"{message} (on rank {world.rank})")
        world.Abort(error.code)
    if world and isinstance(error, InputError):
        world.Abort(error.code)
    sys.exit(error.code)


def raise_together(error: InputError | Stopped) -> NoReturn:
    """Raise an error where all ranks have failed and meet here, else end all ranks, with its message from this one."""
    world = several()
    if world and not _all_come(world):
        complain(f"ddhpc: {error} (on rank {world.rank})")
        world.Abort(error.code)
    raise error


def leave(stop: Stopped) -> NoReturn:
    """End all ranks from a signal handler, whatever this one is doing; only where there is nothing to save.

    Speaks when all have come: launchers send SIGTERM as well to the ranks beside one that has failed. Before MPI is up
    they end all ranks when one leaves.
    """
    running = mpi()
    if running and not _all_come(running.COMM_WORLD):
        complain(f"ddhpc: {stop} (on rank {rank()})")
        running.COMM_WORLD.Abort(stop.code)
    if rank() == 0:
        complain(f"ddhpc: {stop}")
    elif not running:
        time.sleep(FIRST_WORD_SECONDS)
    os._exit(stop.code)


def abort(code: int) -> NoReturn:
    """End all ranks at once: a rank that left on its own would keep the others waiting for ever."""
    if world := several():
        world.Abort(code)
    sys.exit(code)


def several() -> MPI.Comm | None:
    """All ranks, which need MPI to end together; None for one process, and where MPI cannot be had."""
    if size() == 1:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None


def _all_come(world: MPI.Comm) -> bool:
    """Whether all ranks are here within AGREE_SECONDS.

    All tell rank 0, which answers when all have. No barrier: a rank that is not here may be in another collective of
    the same communicator, such as that which starts `communicator.world`, and the two would meet.
    """
    from mpi4py import MPI

    nothing = [None, 0, MPI.BYTE]
    others = range(1, world.size) if world.rank == 0 else [0]
    coming = [world.Irecv(nothing, other, HERE) for other in others]
    if world.rank != 0:
        world.Isend(nothing, 0, HERE)
    deadline = time.monotonic() + AGREE_SECONDS
    while not MPI.Request.Testall(coming):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    if world.rank == 0:
        MPI.Request.Waitall([world.Isend(nothing, other, HERE) for other in others])
    return True
