"""The two-level CNN-DNN method: owned windows -> local problems -> results file -> gather -> coarse problem.

Klawonn, Lanser, Weber: A Domain Decomposition-Based CNN-DNN Architecture for Model Parallel Training Applied to Image
Recognition Problems, SIAM J. Sci. Comput. 46(5), C557-C582, 2024, doi:10.1137/23m1562202.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddhpc import coarse, provenance, results, runtime
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.decomposition import grow, owned
from ddhpc.local import Step, channels_last, local_decisions, to_device, train_local
from ddhpc.metrics import accuracy
from ddhpc.models import parameters
from ddhpc.problem import Problem
from ddhpc.progress import Progress

if TYPE_CHECKING:
    from mpi4py import MPI


def train(problem: Problem, directory: Path, comm: MPI.Comm, place: runtime.Place, startup: float) -> None:
    """Solve the local problems and the coarse problem, and leave a finished results file in the run directory.

    Args:
        problem: the same on all ranks.
        directory: of the run; exists.
        comm: all ranks.
        place: of this rank.
        startup: seconds that this job took before.

    Raises:
        InputError: on all ranks, if any of them cannot go on.
    """
    clock = Clock()
    shares = [owned(problem.subdomains, comm.size, rank) for rank in range(comm.size)]
    mine = shares[comm.rank]
    labels = {split: problem.packed.labels(split) for split in SPLITS}
    layout = provenance.layout(problem, labels, comm, place)
    runtime.together(comm, lambda: results.create(directory, layout) if comm.rank == 0 else None)

    with Progress(comm.Dup(), shares, problem.config.local.epochs) as progress:
        solved = runtime.together(
            comm,
            lambda: [solve_local(problem, n, labels, place, clock, partial(progress.step, n)) for n in mine],
            tick=progress.show,
        )
        progress.finish()
    slabs = {name: np.stack([subdomain[name] for subdomain in solved]) for name in solved[0]}
    slabs["rank"] = np.full(len(mine), comm.rank)
    slabs["device"] = text([place.device_name] * len(mine), results.DEVICE_BYTES)

    with clock("write"):
        results.write_local(directory, comm, mine, problem.subdomains, slabs)
    with clock("gather"):
        gathered = {split: runtime.gather(comm, slabs[f"{split}/decision"], problem.subdomains) for split in SPLITS}
        seconds = runtime.gather(comm, slabs["seconds"], problem.subdomains)
        read = runtime.gather(comm, np.array([clock.seconds["read"]]), comm.size)

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


def solve_local(
    problem: Problem,
    subdomain: int,
    labels: dict[str, np.ndarray],
    place: runtime.Place,
    clock: Clock,
    on_step: Step,
) -> dict[str, np.ndarray]:
    """Read the windows of a subdomain, train its CNN, and give what the results file keeps of it below /local."""
    config, packed, window = problem.config.local, problem.packed, problem.decomposition[subdomain]
    on_gpu = place.device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(place.device)
    images = {}
    with clock("read"):
        for split in SPLITS:
            margin = config.shift if split == "train" else 0
            grown, core = grow(window, margin, packed.image_shape)
            images[split] = to_device(packed.read(split, grown), core, packed.mean, packed.std, place.device)

    started, cpu_started = time.perf_counter(), time.process_time()
    cnn = problem.local_cnn(subdomain).to(place.device)
    cnn = cnn.to(memory_format=channels_last(images["train"].pixels.ndim))
    history = train_local(cnn, images["train"], labels["train"], config, on_step)
    decisions = {split: local_decisions(cnn, images[split], config.precision) for split in SPLITS}
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started

    peak = torch.cuda.max_memory_allocated(place.device) if on_gpu else 0
    return {
        **{f"{split}/decision": decisions[split] for split in SPLITS},
        **{f"{split}/accuracy": accuracy(decisions[split], labels[split]) for split in SPLITS},
        **{f"history/{name}": np.array(values) for name, values in vars(history).items()},
        "parameters": np.array(parameters(cnn)),
        "seconds": np.array(seconds),
        "cpu_seconds": np.array(cpu_seconds),
        "peak_memory_bytes": np.array(peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


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
