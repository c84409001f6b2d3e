"""What each input of the second level brought: the coarse DNN of a finished run solved again with fewer of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import h5py
import numpy as np
import torch

from ddhpc import results
from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method import coarse
from ddhpc.method.fusions import by_blocks
from ddhpc.method.metrics import Compared, compare
from ddhpc.method.problem import seed_process

Decisions = Mapping[str, np.ndarray]
"""Class probabilities [S, K] by split."""

CPU = "CPU"
"""Device of a subdomain in the results file, where it is no GPU."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the coarse DNN takes beside the local decisions of the subdomains of the grid."""

    features: bool
    """The local features of each subdomain."""
    coarse_image: bool
    """The local output of the coarse image."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """How good the final decisions are with fewer inputs; on val and on test, against decisions alone."""

    with_inputs: Mapping[Inputs, Mapping[str, Compared]]
    """By split, from decisions alone to all inputs of the run."""
    coarse_image: Mapping[str, Compared]
    """Of the coarse image's CNN alone, by split; empty where it is absent, or there is none."""
    coarse_image_above: Compared | None
    """The same on test, against the final decisions with all inputs."""
    differing: int
    """Final decisions on val and test that do not have the bits of the run's own, with all inputs."""
    device: str
    """What solved the coarse DNN again, for a person."""


def stored_inputs(file: h5py.File) -> list[Inputs]:
    """The inputs that the coarse DNN of a run can be solved with, from decisions alone to all that it has.

    One alone where the second level is not enriched.
    """
    features = (False, True) if "feature" in file["local/train"] else (False,)
    images = (False, True) if results.has_coarse_image(file) else (False,)
    return [Inputs(features=feature, coarse_image=image) for image in images for feature in features]


def ablate(file: h5py.File) -> Ablation:
    """Solve the coarse DNN of a run again with each of the `stored_inputs`, from its local outputs.

    With the options of the run, and the seed that a run without these inputs has, so that this is the same coarse DNN.
    One set of local outputs is held at once, within `coarse.memory_limit`.

    Args:
        file: results of a run, open for reading.

    Raises:
        InputError: the second level of the run is not enriched, or there is no room for a temporary file.
    """
    wanted = stored_inputs(file)
    if len(wanted) == 1:
        kind = "of the global CNN" if len(file["subdomain"]) == 1 else "whose coarse DNN takes decisions alone"
        raise InputError(
            f"--ablation: {file.filename} is of a run {kind}; expected one with local features or a coarse image"
        )
    if "samples/train/fold" not in file:
        raise InputError(f"--ablation: an older version wrote {file.filename}; expected a run of this one")
    device, threads = _place(file)
    with _threads(threads):
        solved = {inputs: decisions_with(file, inputs, device) for inputs in wanted}
    alone, full = solved[wanted[0]], solved[wanted[-1]]
    image = {split: file[f"local/{split}/decision"][-1] for split in results.SCORED}
    there = wanted[-1].coarse_image and image["test"].any()

    def above(final: Decisions, other: Decisions, split: str) -> Compared:
        labels = file[f"samples/{split}/label"][...]
        return compare(final[split], other[split], labels, results.patients(file, split))

    own = {split: file[f"coarse/{split}/decision"][...] for split in results.SCORED}
    return Ablation(
        with_inputs={
            inputs: {split: above(final, alone, split) for split in results.SCORED} for inputs, final in solved.items()
        },
        coarse_image={split: above(image, alone, split) for split in image} if there else {},
        coarse_image_above=above(image, full, "test") if there else None,
        differing=sum(int((full[split] != own[split]).any(1).sum()) for split in results.SCORED),
        device=f"torch {torch.__version__} on {device}, {threads} thread{'s' * (threads > 1)}",
    )


def decisions_with(file: h5py.File, inputs: Inputs, device: str) -> dict[str, np.ndarray]:
    """The final decisions [S, K] on val and test of the coarse DNN solved with some of its inputs."""
    config = Config.from_yaml(file.attrs["config"])
    subdomains = len(file["subdomain"])
    features = file["local/train/feature"].shape[2] if inputs.features else 0
    if results.has_coarse_image(file) and not inputs.coarse_image:
        subdomains -= 1
        features = min(features, _filled(file, subdomains)) if inputs.features else 0
    limit = config.coarse.memory_limit
    local = results.stored_outputs(file, subdomains=subdomains, features=features, memory_limit=limit)
    labels = {split: file[f"samples/{split}/label"][...].astype(np.int64) for split in ("train", "val")}
    learned = np.flatnonzero(file["samples/train/fold"][...] >= 0)
    seed_process(config.run.seed, subdomains)
    network, _ = coarse.train_dnn(local, labels, len(file["classes"]), config.coarse, device, learned)
    return {split: by_blocks(partial(coarse.decide, network), local[split]) for split in results.SCORED}


def _filled(file: h5py.File, subdomains: int) -> int:
    """How many features the first so many subdomains have.

    A CNN of the coarse image that is wider than the others has more; zeros follow those of the others.
    """
    stored = file["local/train/feature"]
    columns = (np.flatnonzero(stored[n].any(0)) for n in range(subdomains))
    return max((int(found[-1]) + 1 for found in columns if len(found)), default=0)


def _place(file: h5py.File) -> tuple[str, int]:
    """The torch device and the threads of the CPU that are nearest to those of the run."""
    on_gpu = file["local/device"][0].decode() != CPU and torch.cuda.is_available()
    threads = min(int(file.attrs.get("threads", 1)), len(os.sched_getaffinity(0)))
    return "cuda" if on_gpu else "cpu", max(1, threads)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
