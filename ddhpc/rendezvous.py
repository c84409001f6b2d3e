"""How the ranks that train one subdomain together find each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed

from ddhpc import runtime
from ddhpc.decomposition import team
from ddhpc.team import ALONE, Team

if TYPE_CHECKING:
    from mpi4py import MPI


@contextmanager
def form_team(comm: MPI.Comm, subdomains: int, place: runtime.Place) -> Iterator[Team]:
    """The team of this rank: `ALONE`, or with others where there are more ranks than subdomains; collective.

    torch's processes find each other by an address that travels with MPI. What they exchange from then on goes by
    NCCL where each has a GPU of its own, which NCCL asks for, else by gloo.
    """
    if comm.size <= subdomains:
        yield ALONE
        return
    from mpi4py import MPI
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    subdomain, ranks = team(subdomains, comm.size, comm.rank)
    members = comm.Split(subdomain, comm.rank)
    node = members.Split_type(MPI.COMM_TYPE_SHARED)
    host = runtime.broadcast_text(members, "localhost" if node.size == members.size else place.host)
    if members.rank == 0:
        store = TCPStore(host, 0, members.size, is_master=True, wait_for_workers=False)
        runtime.broadcast_text(members, str(store.port))
    else:
        store = TCPStore(host, int(runtime.broadcast_text(members, "")), members.size)
    gpus = [runtime.broadcast_text(members, _gpu(place), root) for root in range(members.size)]
    backend = "nccl" if all(gpus) and len(set(gpus)) == len(gpus) else "gloo"
    distributed.init_process_group(backend, store=store, rank=members.rank, world_size=members.size)
    node.Free()
    members.Free()
    yield Team(subdomain=subdomain, rank=comm.rank - ranks.start, size=len(ranks))
    distributed.destroy_process_group()


def _gpu(place: runtime.Place) -> str:
    """What tells this rank's GPU from all others, empty without one; Slurm may call that of every task cuda:0."""
    return "" if place.device == "cpu" else str(torch.cuda.get_device_properties(place.device).uuid)
