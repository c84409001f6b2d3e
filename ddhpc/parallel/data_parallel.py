"""More ranks than subdomains: the ranks of a team train one CNN together, data-parallel.

Each takes its rows of every batch; gradients and the statistics of batch normalisation are those of the whole batch,
so that the training is that of one rank up to rounding (torch DistributedDataParallel, arXiv:2006.15704).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ddhpc.method.decomposition import team_of
from ddhpc.method.team import ALONE, Team
from ddhpc.parallel.communicator import Communicator
from ddhpc.parallel.placement import Place
from ddhpc.parallel.synchronised_norm import synchronise


@dataclass(frozen=True, kw_only=True)
class DataParallelTeam(Team):
    """Several ranks; torch's default process group is that of the team. See `Team` for what the methods do."""

    def parallel(self, cnn: nn.Module) -> Callable[[Tensor], Tensor]:
        """See `Team`."""
        synchronise(cnn)
        with warnings.catch_warnings():
            # torch 2.14 would have forward_sync_buffers here, which 2.5 does not know
            warnings.simplefilter("ignore", FutureWarning)
            replicated: Callable[[Tensor], Tensor] = DistributedDataParallel(
                cnn, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        return replicated

    def total(self, values: Tensor) -> Tensor:
        """See `Team`."""
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """See `Team`."""
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return [bool(count) for count in self.total(torch.tensor(flags, dtype=torch.int32, device=device)).tolist()]

    @contextmanager
    def own_random(self, device: torch.device, step: int) -> Iterator[None]:
        """See `Team`."""
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, ())) + self.size * step + self.rank)
            yield


@contextmanager
def form_team(comm: Communicator, subdomains: int, place: Place) -> Iterator[Team]:
    """The team of this rank: `ALONE`, or with others where there are more ranks than subdomains; collective.

    torch's processes find each other by an address that travels with MPI. What they exchange from then on goes by
    NCCL where each has a GPU of its own, which NCCL asks for, else by gloo.
    """
    if comm.size <= subdomains:
        yield ALONE
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    subdomain, ranks = team_of(subdomains, comm.size, comm.rank)
    members = comm.split(subdomain)
    node = members.on_node()
    host = members.broadcast("localhost" if node.size == members.size else place.host)
    if members.rank == 0:
        store = TCPStore(host, 0, members.size, is_master=True, wait_for_workers=False)
        members.broadcast(str(store.port))
    else:
        store = TCPStore(host, int(members.broadcast("")), members.size)
    gpus = [members.broadcast(_gpu(place), root) for root in range(members.size)]
    backend = "nccl" if all(gpus) and len(set(gpus)) == len(gpus) else "gloo"
    distributed.init_process_group(backend, store=store, rank=members.rank, world_size=members.size)
    node.free()
    members.free()
    yield DataParallelTeam(subdomain=subdomain, rank=comm.rank - ranks.start, size=len(ranks))
    distributed.destroy_process_group()


def _gpu(place: Place) -> str:
    """What tells this rank's GPU from all others, empty without one; Slurm may call that of every task cuda:0."""
    return "" if place.device == "cpu" else str(torch.cuda.get_device_properties(place.device).uuid)
