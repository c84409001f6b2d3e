"""Writing the results: the slabs of all ranks at once, then the coarse problem, then the final name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ddhpc.data.hdf5 import attribute, replace, text
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method.calibration import temperature
from ddhpc.method.metrics import accuracy, all_scores, confusion, margin
from ddhpc.method.solutions import CoarseSolution, CoherentSolution, LocalSolution
from ddhpc.parallel.communicator import Communicator
from ddhpc.results.format import CHECKSUMS, COHERENT, DEVICE_BYTES, DIGEST_BYTES, FINAL, FUSIONS, HISTORY, SCORED
from ddhpc.results.model_directory import remove_replaced, take_place
from ddhpc.results.reader import digest, patients, verify
from ddhpc.results.run_directory import FILE, PART, file_system

PARALLEL = h5py.get_config().mpi


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a run, the attributes of /timing."""

    startup: float
    read: float
    """Of the slowest rank."""
    local_max: float
    """Of the slowest local CNN."""
    local_sum: float
    """Of all local CNNs."""
    write: float
    gather: float
    coarse: float
    coherent: float | None
    """None where the coherent CNN-DNN is not trained."""
    total: float
    """Of all jobs of the run; NaN where the times of earlier jobs are lost."""
    jobs: int


def local_slabs(
    solutions: Sequence[LocalSolution], classes: int, epochs: int, rank: int, device: str
) -> dict[str, np.ndarray]:
    """What /local holds of the subdomains of a rank: by dataset, [n, ...] for n solutions.

    The history of a training that stopped early goes on with NaN.
    """

    def stacked(values: Iterable[Any]) -> np.ndarray:
        return np.stack([np.asarray(value) for value in values])

    slabs: dict[str, np.ndarray] = {}
    for split in SPLITS:
        outputs = stacked(each.outputs[split] for each in solutions)
        slabs[f"{split}/decision"] = np.ascontiguousarray(outputs[:, :, :classes])
        if outputs.shape[2] > classes:
            slabs[f"{split}/feature"] = np.ascontiguousarray(outputs[:, :, classes:])
        slabs[f"{split}/accuracy"] = stacked(each.accuracy[split] for each in solutions)
    for name in HISTORY:
        known = [getattr(each.history, name) for each in solutions]
        slabs[f"history/{name}"] = stacked(values + [float("nan")] * (epochs - len(values)) for values in known)
    for name in ("seconds", "cpu_seconds", "path_seconds", "peak_memory_bytes"):
        slabs[name] = stacked(getattr(each.cost, name) for each in solutions)
    slabs["parameters"] = stacked(each.parameters for each in solutions)
    slabs["rank"] = np.full(len(solutions), rank)
    slabs["device"] = text([device] * len(solutions), DEVICE_BYTES)
    return slabs


def write_local(
    directory: Path, comm: Communicator, owned: range, subdomains: int, slabs: Mapping[str, np.ndarray]
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
        f"{split}/{checksum}": text([digest(values) for values in slabs[f"{split}/{name}"]], DIGEST_BYTES)
        for split in SPLITS
        for name, checksum in CHECKSUMS.items()
        if f"{split}/{name}" in slabs
    }
    slabs = {**slabs, **checksums}
    if PARALLEL:
        with file_system(path):
            # Not closed when a write fails: closing waits for ranks that still wait for this one's write.
            file = h5py.File(path, "r+", driver="mpio", comm=comm.mpi, locking=False)
            for name, slab in slabs.items():
                dataset = file[f"local/{name}"]
                with dataset.collective:
                    dataset[owned.start : owned.stop] = slab
            file.flush()
            file.close()
        return
    for name, slab in slabs.items():
        everything = comm.gather(slab, subdomains)
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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What rank 0 adds to a results file that holds the local decisions of all subdomains."""

    job: str
    """Attribute `job` of the file, which this job made."""
    labels: Mapping[str, np.ndarray]
    """By split, [S] int64."""
    present: np.ndarray
    """[N] bool, the subdomains that could be trained."""
    coarse: CoarseSolution
    coherent: CoherentSolution | None
    timing: Timing
    rank_seconds: np.ndarray
    """[R, P] float64, of each rank in each of PHASES."""
    model_sha256: str | None
    """Of the description of the unfinished model in the run directory; None where there is none."""

    @property
    def fusions(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Final decisions by fusion and split, [S, K] float32."""
        return {**self.coarse.fusions, **({COHERENT: self.coherent.decisions} if self.coherent else {})}


def finish(directory: Path, outcome: Outcome) -> None:
    """On rank 0: write the coarse problem, check the file by reading it back, and give it its final name.

    So is the model, if any, just before, so that a finished run has its model.

    Raises:
        InputError: another job has taken the run over, or the file cannot be written or is not read back as written.
    """
    path = directory / PART
    check_own(directory, outcome.job)
    with file_system(path):
        with h5py.File(path, "r+", locking=False) as file:
            _write_fusions(file, outcome)
            histories = {"coarse": outcome.coarse.history}
            if outcome.coherent:
                histories[COHERENT] = outcome.coherent.history
            for group, history in histories.items():
                for name, dataset in file[f"{group}/history"].items():
                    if name != "epoch":
                        dataset[: len(history)] = getattr(history, name)
            if outcome.coarse.network:
                for name, weights in outcome.coarse.network.state_dict().items():
                    file[f"coarse/weights/{name}"][...] = weights.cpu().numpy()
            for fusion in FUSIONS:
                file[f"fusion/absent/{fusion}"][...] = outcome.coarse.absent[fusion]
            file["fusion/absent"].attrs["subdomains"] = int((~outcome.present).sum())
            file["timing"].attrs.update({name: s for name, s in vars(outcome.timing).items() if s is not None})
            file["timing"].attrs["units"] = "s"
            file["timing/seconds"][...] = outcome.rank_seconds
            if outcome.model_sha256:
                file.attrs["model_sha256"] = outcome.model_sha256
            file.attrs["complete"] = True
        problems = verify(path)
        if problems:
            raise InputError(f"{path} does not read back as written ({problems[0]}); expected a sound file system")
        if outcome.model_sha256:
            take_place(directory)
        replace(path, directory / FILE)
        remove_replaced(directory)


def _write_fusions(file: h5py.File, outcome: Outcome) -> None:
    fusions, labels = outcome.fusions, outcome.labels
    for split in SPLITS:
        for group, fusion in FINAL.items():
            if fusion in fusions:
                file[f"{group}/{split}/decision"][...] = fusions[fusion][split]
                file[f"{group}/{split}/decision"].attrs["sha256"] = digest(fusions[fusion][split])
        for fusion in fusions:
            file[f"fusion/{fusion}"].attrs[split] = accuracy(fusions[fusion][split], labels[split])
    for fusion in FINAL.values():
        if fusion in fusions:
            file[f"fusion/{fusion}"].attrs["temperature"] = temperature(fusions[fusion]["val"], labels["val"])
    for split in SCORED:
        finals, whose = {fusion: by_split[split] for fusion, by_split in fusions.items()}, patients(file, split)
        for fusion, found in all_scores(finals, labels[split], whose).items():
            group = file[f"fusion/{fusion}/{split}"]
            group["confusion"][...] = confusion(finals[fusion], labels[split])
            group.attrs.update(found)
            above, error = margin(finals[fusion], finals["mean"], labels[split], whose)
            group.attrs.update(above_mean=above, above_mean_error=error)
