"""Where a rank computes: its host, its GPU, its cores and its threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ddhpc.config import Run
from ddhpc.errors import InputError
from ddhpc.parallel.communicator import Communicator


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


def place(comm: Communicator, run: Run) -> Place:
    """Pin this rank to its device and set its threads.

    The device is the local rank modulo the visible GPUs, which is right when Slurm shows each task one GPU and when
    it shows all. Threads that nobody asked for are the cores of the node shared out among its ranks, at least one:
    more threads than cores would slow these small networks down several times.
    """
    import torch
    from mpi4py import MPI

    node = comm.on_node()
    mine = np.zeros(4096, dtype=np.uint8)
    mine[list(os.sched_getaffinity(0))] = 1
    cores = np.empty_like(mine)
    node.mpi.Allreduce(mine, cores, op=MPI.BOR)
    local_rank, local_ranks = node.rank, node.size
    node.free()
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
