"""Is this job fit to run? Checks of MPI, HDF5, GPUs, threads, disk and clocks before anything expensive."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch

from ddhpc.data.hdf5 import reason, text
from ddhpc.parallel import launcher
from ddhpc.parallel.communicator import Communicator, mpi_library
from ddhpc.parallel.placement import Place

TEXT_BYTES = 256
CLOCK_SECONDS = 5.0
"""Difference of the nodes' clocks from which on checkpoints and logs are hard to put in order."""

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    found: str
    """For a person."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For a program: texts, numbers, truth values and lists of them, by name."""


def examine(comm: Communicator, place: Place, directory: Path, needed: int, code: str) -> list[Finding]:
    """All findings, the same checks on all ranks together; the list is complete on rank 0.

    Args:
        comm: all ranks of the job.
        place: of this rank.
        directory: where run directories are to be written; exists.
        needed: bytes of the results file and the checkpoints.
        code: version and commit of ddhpc on this rank.
    """
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: _ranks(comm),
        lambda: _versions(comm, code),
        lambda: _gpus(comm, place),
        lambda: _threads(comm, place),
        lambda: _hdf5(comm, directory),
        lambda: _disk(directory, needed),
        lambda: _clocks(comm),
    )
    return [check() for check in checks]


def _gathered(comm: Communicator, value: str) -> list[str]:
    """One text of each rank, on rank 0; empty elsewhere."""
    return [row.decode() for row in comm.gather(text([value], TEXT_BYTES), comm.size).tolist()]


def _ranks(comm: Communicator) -> Finding:
    from mpi4py import MPI

    hosts = Counter(_gathered(comm, MPI.Get_processor_name()))
    shown = ", ".join(f"{count} on {host}" for host, count in hosts.items())
    library = mpi_library()
    facts = {"library": library, "ranks": comm.size, "ranks_on_hosts": dict(hosts)}
    started = launcher.launched().size
    if started not in (None, comm.size):
        return Finding(
            check="MPI",
            status="error",
            found=f"{library}: {started} ranks were started, MPI sees {comm.size}; srun --mpi=pmix",
            facts=facts,
        )
    return Finding("MPI", "ok", f"{library}: {comm.size} rank{'s' * (comm.size > 1)}, {shown}", facts)


def _versions(comm: Communicator, code: str) -> Finding:
    facts = {
        "ddhpc": code,
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "h5py": h5py.__version__,
    }
    mine = ", ".join(f"{name} {version}" for name, version in facts.items())
    kinds = Counter(_gathered(comm, mine))
    if len(kinds) > 1:
        shown = "; ".join(f"{count} ranks: {kind}" for kind, count in kinds.items())
        return Finding("versions", "error", f"the ranks differ: {shown}", facts)
    return Finding("versions", "ok", mine, facts)


def _gpus(comm: Communicator, place: Place) -> Finding:
    mine = ""
    if place.device != "cpu":
        properties = torch.cuda.get_device_properties(place.device)
        mine = f"{place.host} {properties.uuid} {properties.name} {properties.total_memory // 2**30} GiB"
    found = _gathered(comm, mine)
    seen = Counter(gpu for gpu in found if gpu)
    facts = {"gpus": list(seen), "ranks_with": sum(seen.values()), "torch_cuda": torch.version.cuda}
    if not seen:
        return Finding("GPUs", "ok", "none: all ranks train on CPUs", facts)
    shared = [f"{count} ranks on {gpu}" for gpu, count in seen.items() if count > 1]
    without = sum(not gpu for gpu in found)
    if shared or without:
        problems = shared + ([f"{without} ranks have none"] if without else [])
        return Finding("GPUs", "warning", "; ".join(problems), facts)
    return Finding("GPUs", "ok", "; ".join(seen), facts)


def _threads(comm: Communicator, place: Place) -> Finding:
    wanted, bound = place.threads * place.local_ranks, len(os.sched_getaffinity(0))
    shown = (
        f"{place.threads} a rank, {place.local_ranks} rank{'s' * (place.local_ranks > 1)} for the {place.cores} cores "
        f"of a node; rank 0 is bound to {bound}"
    )
    facts = {
        "threads_a_rank": place.threads,
        "ranks_a_node": place.local_ranks,
        "cores_a_node": place.cores,
        "cores_of_rank_0": bound,
    }
    status: Status = "ok" if wanted <= place.cores else "warning"
    return Finding("threads", status, shown, facts)


def _hdf5(comm: Communicator, directory: Path) -> Finding:
    """A real collective write of one number a rank, where the results will be."""
    path = directory / ".ddhpc-doctor.h5"
    version = h5py.version.hdf5_version
    facts = {"version": version, "parallel": bool(h5py.get_config().mpi)}
    if not facts["parallel"]:
        return Finding(
            check="HDF5",
            status="ok",
            found=f"{version} without MPI: rank 0 writes the results for all (same file, same values)",
            facts=facts,
        )
    started, failure = time.perf_counter(), ""
    try:
        with h5py.File(path, "w", driver="mpio", comm=comm.mpi) as file:
            dataset = file.create_dataset("rank", (comm.size,), np.int64)
            with dataset.collective:
                dataset[comm.rank] = comm.rank
        with h5py.File(path, "r", locking=False) as file:
            if not np.array_equal(file["rank"][...], np.arange(comm.size)):
                failure = "what was written is not read back"
    except (OSError, RuntimeError) as error:
        failure = reason(error)
    seconds = time.perf_counter() - started
    failures = [each for each in _gathered(comm, failure) if each]
    if comm.rank == 0:
        path.unlink(missing_ok=True)
    if failures:
        return Finding("HDF5", "error", f"{version} with MPI cannot write in {directory}: {failures[0]}", facts)
    shown = f"{version} with MPI, collective write in {directory}: {seconds:.2f} s"
    return Finding("HDF5", "ok", shown, {**facts, "write_seconds": seconds})


def _disk(directory: Path, needed: int) -> Finding:
    free = shutil.disk_usage(directory).free
    shown = f"{free / 2**30:,.1f} GiB free for {directory}, about {needed / 2**30:,.2f} GiB needed"
    facts = {"directory": str(directory), "free_bytes": free, "needed_bytes": needed}
    return Finding("disk", "ok" if free > needed else "error", shown, facts)


def _clocks(comm: Communicator) -> Finding:
    comm.mpi.Barrier()
    clocks = comm.gather(np.array([time.time()]), comm.size)
    spread = float(np.ptp(clocks)) if comm.rank == 0 else 0.0
    status: Status = "ok" if spread < CLOCK_SECONDS else "warning"
    return Finding("clocks", status, f"{spread:.2f} s between the ranks", {"spread_seconds": spread})
