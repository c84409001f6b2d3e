"""The two-level CNN-DNN method: owned windows -> local problems -> results file -> gather -> coarse problem.

Klawonn, Lanser, Weber: A Domain Decomposition-Based CNN-DNN Architecture for Model Parallel Training Applied to Image
Recognition Problems, SIAM J. Sci. Comput. 46(5), C557-C582, 2024, doi:10.1137/23m1562202.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddhpc import coarse, provenance, results, runtime
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.decomposition import owned
from ddhpc.problem import Problem
from ddhpc.progress import Progress
from ddhpc.subdomain import solve_local

if TYPE_CHECKING:
    from mpi4py import MPI

PATIENCE_SECONDS = 5.0


def train(
    problem: Problem,
    directory: Path,
    comm: MPI.Comm,
    place: runtime.Place,
    request: runtime.StopRequest,
    startup: float,
) -> None:
    """Solve the local problems and the coarse problem, and leave a finished results file in the run directory.

    Goes on from the checkpoints that the directory holds.

    Args:
        problem: the same on all ranks.
        directory: of the run; exists.
        comm: all ranks.
        place: of this rank.
        request: looked at between the steps of the local CNNs.
        startup: seconds that this job took before.

    Raises:
        InputError: on all ranks, if any of them cannot go on.
        Stopped: on all ranks, when any of them was asked to stop; all have made a checkpoint.
    """
    clock = runtime.Clock()
    shares = [owned(problem.subdomains, comm.size, rank) for rank in range(comm.size)]
    mine = shares[comm.rank]
    labels = {split: problem.packed.labels(split) for split in SPLITS}
    layout = provenance.layout(problem, labels, comm, place)
    runtime.together(comm, lambda: results.create(directory, layout) if comm.rank == 0 else None)

    with Progress(comm.Dup(), shares, problem.config.local.epochs) as progress:

        def solve_owned() -> list[dict[str, np.ndarray]]:
            solved = [solve_local(problem, n, labels, directory, place, clock, progress, request) for n in mine]
            request.obey()
            return solved

        solved = runtime.together(comm, solve_owned, tick=progress.show, patience=PATIENCE_SECONDS)
        progress.finish()
    slabs = {name: np.stack([subdomain[name] for subdomain in solved]) for name in solved[0]}
    slabs["rank"] = np.full(len(mine), comm.rank)
    slabs["device"] = text([place.device_name] * len(mine), results.DEVICE_BYTES)

    with clock("write"):
        results.write_local(directory, comm, mine, problem.subdomains, slabs)
    with clock("gather"):
        gathered = {split: runtime.gather(comm, slabs[f"{split}/decision"], problem.subdomains) for split in SPLITS}
        seconds = runtime.gather(comm, slabs["seconds"], problem.subdomains)
        read = runtime.gather(comm, np.array([clock.seconds.get("read", 0.0)]), comm.size)

    def solve_coarse() -> None:
        if comm.rank != 0:
            return
        with clock("coarse"):
            problem.seed(problem.subdomains)
            fusions, history = coarse.solve(gathered, labels, problem.config.coarse, place.device)
        timing = {
            "startup": startup,
            "read": read.max(),
            "local_max": seconds.max(),
            "local_sum": seconds.sum(),
            **{phase: clock.seconds[phase] for phase in ("write", "gather", "coarse")},
            "total": startup + clock.elapsed(),
        }
        results.finish(directory, local=gathered, fusions=fusions, labels=labels, coarse_history=history, timing=timing)

    runtime.together(comm, solve_coarse)


def train_subdomain(
    problem: Problem,
    subdomain: int,
    directory: Path,
    comm: MPI.Comm,
    place: runtime.Place,
    request: runtime.StopRequest,
) -> None:
    """Solve one local problem and leave its checkpoint in the run directory, from which `train` takes it.

    For clusters where N single GPUs are free sooner than one job of N; several processes may do this at once, each for
    another subdomain.

    Args:
        problem: see `train`.
        subdomain: its number.
        directory: see `train`.
        comm: of this process alone.
        place: of this process.
        request: see `train`.

    Raises:
        InputError, Stopped: see `train`.
    """
    labels = {split: problem.packed.labels(split) for split in SPLITS}
    with Progress(comm.Dup(), [range(subdomain, subdomain + 1)], problem.config.local.epochs) as progress:
        solve_local(problem, subdomain, labels, directory, place, runtime.Clock(), progress, request)
