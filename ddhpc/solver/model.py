"""The trained networks of a run become its model: each owner writes those of its subdomains, rank 0 the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from pathlib import Path

import numpy as np

from ddhpc.config import Coarse
from ddhpc.errors import InputError
from ddhpc.method.calibration import temperature
from ddhpc.method.solutions import CoarseSolution, CoherentSolution
from ddhpc.method.trained import trained
from ddhpc.method.training import State
from ddhpc.parallel.communicator import Communicator
from ddhpc.results import COHERENT, checkpoint, file_system
from ddhpc.results.model import Model, to_dict, with_coarse
from ddhpc.results.model_directory import (
    MODEL_PART,
    begin_model,
    copy_network,
    describe_model,
    network_file,
    write_network,
)
from ddhpc.solver.subdomain import Job

DIGEST = "S64"
"""Of arrays of SHA-256 as hexadecimal digits; empty where there is no file."""


@dataclass(frozen=True, kw_only=True)
class Solutions:
    """Of the second level, on rank 0; None on the others."""

    coarse: CoarseSolution | None
    coherent: CoherentSolution | None


def _temperature(decisions: np.ndarray, labels: np.ndarray) -> float | None:
    """That calibrates the decisions [S, K] on val; None where none is best."""
    found = temperature(decisions, labels)
    return None if isnan(found) else found


def keep_model(
    job: Job, comm: Communicator, owners: Communicator, present: Mapping[int, bool], solved: Solutions
) -> str | None:
    """Write the unfinished model into the run directory, to which `results.finish` gives its name; collective.

    The weights are taken from the checkpoints one network after the other, so that no rank holds more than one.

    Args:
        job: of this rank.
        comm: all ranks.
        owners: the ranks that own subdomains; of no meaning on others.
        present: for the subdomains that this rank owns, by number, whether they could be trained.
        solved: the second level.

    Returns:
        SHA-256 of its description on rank 0, None elsewhere.

    Raises:
        InputError: on all ranks, if any of them cannot write.
    """
    part, subdomains = job.directory / MODEL_PART, job.problem.subdomains
    coherent = job.problem.config.coherent.start != "none"

    def begin() -> None:
        with file_system(part):
            begin_model(job.directory, coherent=coherent)

    def describe() -> str:
        files = {
            network_file(n, coherent=phase > 0): digests[n, phase].decode()
            for n, phase in zip(*np.nonzero(digests != b""), strict=True)
        }
        with file_system(part):
            assert solved.coarse is not None
            if solved.coarse.network is not None:
                coarse = solved.coarse.network.state_dict()
                files[network_file(None)] = write_network(job.directory, network_file(None), coarse)
            if coherent:
                name = network_file(None, coherent=True)
                files[name] = write_network(job.directory, name, _state(job, subdomains, COHERENT))
            about = {"data_digest": job.problem.packed.digest, "run": job.run}
            val, coherent_one = job.problem.packed.labels["val"], solved.coherent
            what = replace(
                trained(job.problem, there),
                temperature=_temperature(solved.coarse.fusions["dnn"]["val"], val),
                coherent_temperature=_temperature(coherent_one.decisions["val"], val) if coherent_one else None,
            )
            return describe_model(job.directory, to_dict(what, files, about))

    comm.on_root(begin)
    written = comm.together(partial(_write_local, job, present, coherent))
    if present:
        digests = owners.gather(written, subdomains)
        there = owners.gather(np.array(list(present.values())), subdomains)
    return comm.on_root(describe)


def _write_local(job: Job, present: Mapping[int, bool], coherent: bool) -> np.ndarray:
    """Write the local CNNs of this rank; their digests [n, 1], with those of the coherent CNN-DNN [n, 2]."""
    phases = ("", COHERENT) if coherent else ("",)
    digests = np.zeros((len(present), len(phases)), DIGEST)
    for row, (n, there) in enumerate(present.items()):
        for column, phase in enumerate(phases) if there else ():
            name = network_file(n, coherent=phase == COHERENT)
            state = _state(job, n, phase)
            with file_system(job.directory / MODEL_PART / name):
                digests[row, column] = write_network(job.directory, name, state)
    return digests


def _state(job: Job, number: int, phase: str) -> State:
    """The state dictionary of a trained network, from its last checkpoint."""
    file, kind = checkpoint.path(job.directory, number, phase), "network" if phase else "cnn"
    saved, _ = checkpoint.load(file, job.run)
    if not saved or not (phase or "solved" in saved):
        raise InputError(f"{file}: is missing or damaged since it was written; start the same command again")
    state: State = saved[kind]
    return state


def keep_with_coarse(
    model: Model, directory: Path, config: Coarse, features: int, solution: CoarseSolution, labels: np.ndarray
) -> str:
    """Write the unfinished model of a run whose second level is solved again, with the local CNNs of the run.

    Args:
        model: of the run.
        directory: of the new results.
        config: section `coarse`.
        features: local features of each subdomain that the coarse DNN takes.
        solution: with the new coarse DNN.
        labels: [S] int64, of val.

    Returns:
        SHA-256 of its description.

    Raises:
        InputError: a file of the model is damaged, or the directory cannot be written.
    """
    assert solution.network is not None
    after = with_coarse(model, config, features, _temperature(solution.fusions["dnn"]["val"], labels))
    local = [network_file(n) for n, network in enumerate(after.networks) if network.present]
    about = {name: model.about[name] for name in ("data_digest", "run")}
    with file_system(directory / MODEL_PART):
        begin_model(directory, coherent=False)
        for name in local:
            copy_network(model.folder, directory, name)
        files = {name: model.files[name] for name in local}
        files[network_file(None)] = write_network(directory, network_file(None), solution.network.state_dict())
        return describe_model(directory, to_dict(after, files, about))
