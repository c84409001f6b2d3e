"""What a results file says about the run that made it."""

from __future__ import annotations

import os
import platform
import uuid
from datetime import datetime, timezone
from pathlib import Path

import h5py
import torch

import ddhpc
from ddhpc import results
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.method import coarse
from ddhpc.method.problem import Problem
from ddhpc.parallel.communicator import Communicator, mpi_library
from ddhpc.parallel.placement import Place


def describe_run(problem: Problem, comm: Communicator, place: Place) -> results.Layout:
    """Metadata and sizes of the results file; collective, since hosts and devices come from all ranks."""
    config, packed = problem.config, problem.packed
    hosts = comm.gather(text([place.host], results.DEVICE_BYTES), comm.size)
    devices = comm.gather(text([f"{place.device} {place.device_name}"], results.DEVICE_BYTES), comm.size)
    attributes = {
        "job": uuid.uuid4().hex,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "ddhpc_version": ddhpc.__version__,
        "git_commit": results.git_commit(),
        "config": config.to_yaml(),
        "seed": config.run.seed,
        **results.digests(packed.digest, problem.weights_digest),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "mpi": mpi_library(),
        "ranks": comm.size,
        "cores": place.cores,
        "threads": place.threads,
        "processor": processor(),
        **{name: value for name, value in os.environ.items() if name.startswith("SLURM_JOB_")},
    }
    if packed.folds and packed.fold is not None:
        attributes["folds"] = len(packed.folds)
    if comm.rank == 0:
        attributes |= {"hosts": hosts, "devices": devices}
    return results.Layout(
        attributes=attributes,
        classes=packed.classes,
        features=problem.features,
        decomposition=problem.decomposition,
        grid=config.decomposition.grid,
        overlap=config.decomposition.overlap,
        balance=config.decomposition.balance,
        image_shape=packed.image_shape,
        coarse_shape=problem.coarse.image_shape if problem.coarse else (),
        labels=packed.labels,
        fold=problem.fold,
        decisions=problem.decisions,
        ids={split: packed.ids(split) for split in SPLITS} if comm.rank == 0 else {},
        patients={split: packed.patients(split) for split in SPLITS} if comm.rank == 0 else {},
        epochs=config.local.epochs,
        coarse_epochs=coarse.epochs(config.coarse, len(problem.learned)) if problem.subdomains > 1 else 0,
        weights=coarse.weight_shapes(problem.subdomains, len(packed.classes), problem.features, config.coarse),
        ranks=comm.size,
        coherent_epochs=config.coherent.epochs if config.coherent.start != "none" else 0,
        allow_missing=config.coarse.allow_missing,
    )


def processor() -> str:
    """Model name of the CPU, as Linux knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
