"""Writing the results: the slabs of all ranks at once, then the coarse problem, then the final name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ddhpc import runtime
from ddhpc.data.hdf5 import attribute, replace, text
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.metrics import accuracy, confusion, margin, scores
from ddhpc.results.directory import FILE, PART, file_system
from ddhpc.results.layout import COHERENT, DIGEST_BYTES, FINAL, FUSIONS, SCORED
from ddhpc.results.read import digest, verify

if TYPE_CHECKING:
    from mpi4py import MPI

    from ddhpc.coarse import Solution

PARALLEL = h5py.get_config().mpi


def write_local(
    directory: Path, comm: MPI.Comm, owned: range, subdomains: int, slabs: Mapping[str, np.ndarray]
) -> None:
    """Write what the ranks know of their subdomains, collectively.

    Args:
        directory: of the run.
        comm: all ranks; they own consecutive subdomains in their order.
        owned: the subdomains of this rank.
        subdomains: N.
        slabs: by dataset name below /local, [n, ...] for the n owned subdomains.

    Raises:
        InputError: this rank cannot write; perhaps not on the other ranks, which then must be ended.
    """
    path = directory / PART
    checksums = {
        f"{split}/sha256": text([digest(decisions) for decisions in slabs[f"{split}/decision"]], DIGEST_BYTES)
        for split in SPLITS
    }
    slabs = {**slabs, **checksums}
    if PARALLEL:
        with file_system(path):
            # Not closed when a write fails: closing waits for ranks that still wait for this one's write.
            file = h5py.File(path, "r+", driver="mpio", comm=comm, locking=False)
            for name, slab in slabs.items():
                dataset = file[f"local/{name}"]
                with dataset.collective:
                    dataset[owned.start : owned.stop] = slab
            file.flush()
            file.close()
        return
    for name, slab in slabs.items():
        everything = runtime.gather(comm, slab, subdomains)
        if comm.rank == 0:
            with file_system(path), h5py.File(path, "r+", locking=False) as file:
                file[f"local/{name}"][...] = everything


def check_own(directory: Path, job: str) -> None:
    """InputError unless the unfinished results file is the one that this job made, with the attribute `job`.

    Another job takes a run over from one that has been suspended for long, and may have finished it.
    """
    path, found = directory / PART, None
    with suppress(OSError), h5py.File(path, "r", locking=False) as file:
        found = attribute(file, "job", str)
    if found != job:
        raise InputError(f"{path}: another job has taken the run over; expected one job at a time in a run directory")


def finish(
    directory: Path,
    *,
    job: str,
    present: np.ndarray,
    solution: Solution,
    labels: Mapping[str, np.ndarray],
    timing: Mapping[str, float],
    spent: np.ndarray,
) -> None:
    """On rank 0: write the coarse problem, check the file by reading it back, and give it its final name.

    Args:
        directory: of the run.
        job: the attribute `job` of the file that this job made.
        present: [N] bool, the subdomains that are not absent.
        solution: of the coarse problem.
        labels: by split, [S].
        timing: seconds by phase.
        spent: [R, P] seconds of each rank in each of PHASES.
    """
    path, fusions = directory / PART, solution.fusions
    check_own(directory, job)
    with file_system(path):
        with h5py.File(path, "r+", locking=False) as file:
            for split in SPLITS:
                for group, fusion in FINAL.items():
                    if fusion in fusions:
                        file[f"{group}/{split}/decision"][...] = fusions[fusion][split]
                        file[f"{group}/{split}/decision"].attrs["sha256"] = digest(fusions[fusion][split])
                for fusion in fusions:
                    file[f"fusion/{fusion}"].attrs[split] = accuracy(fusions[fusion][split], labels[split])
            for fusion in fusions:
                for split in SCORED:
                    group, final = file[f"fusion/{fusion}/{split}"], fusions[fusion][split]
                    group["confusion"][...] = confusion(final, labels[split])
                    group.attrs.update(scores(final, labels[split]))
                    above, error = margin(final, fusions["mean"][split], labels[split])
                    group.attrs.update(above_mean=above, above_mean_error=error)
            for group, history in (("coarse", solution.history), (COHERENT, solution.coherent_history)):
                for name, values in history.items():
                    file[f"{group}/history/{name}"][...] = values
            if solution.network:
                for name, weights in solution.network.state_dict().items():
                    file[f"coarse/weights/{name}"][...] = weights.cpu().numpy()
            for fusion in FUSIONS:
                file[f"fusion/absent/{fusion}"][...] = solution.absent[fusion]
            file["fusion/absent"].attrs["subdomains"] = int((~present).sum())
            file["timing"].attrs.update(timing)
            file["timing"].attrs["units"] = "s"
            file["timing/seconds"][...] = spent
            file.attrs["complete"] = True
        problems = verify(path)
        if problems:
            raise InputError(f"{path} does not read back as written ({problems[0]}); expected a sound file system")
        replace(path, directory / FILE)
