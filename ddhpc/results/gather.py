"""Bringing the local outputs of all ranks to rank 0, which has the memory for them or a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import reason
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.parallel.communicator import Communicator
from ddhpc.results.run_directory import PART

BLOCK_BYTES = 2**26
"""Of outputs that are copied at once from the results file."""


def gather_local(
    directory: Path, comm: Communicator, slabs: Mapping[str, np.ndarray], subdomains: int, memory_limit: float | None
) -> dict[str, np.ndarray]:
    """The local outputs by split, [N, S, K + F] float32 on rank 0, no rows elsewhere; collective, after `write_local`.

    Args:
        directory: of the run.
        comm: all ranks; they own consecutive subdomains in their order.
        slabs: see `write_local`.
        subdomains: N.
        memory_limit: GiB of rank 0's memory for the outputs of all splits; None for any. Where they take more, rank 0
            reads them from the results file into a temporary one that is mapped into memory, image by image.

    Raises:
        InputError: on all ranks, if there is no room for the temporary file.
    """
    parts = [name for name in ("decision", "feature") if f"train/{name}" in slabs]
    outputs = {split: np.concatenate([slabs[f"{split}/{name}"] for name in parts], axis=2) for split in SPLITS}
    size = subdomains * sum(each.itemsize * prod(each.shape[1:]) for each in outputs.values())
    if memory_limit is None or size <= memory_limit * 2**30:
        return {split: comm.gather(each, subdomains) for split, each in outputs.items()}

    def mapped() -> dict[str, np.ndarray]:
        if comm.rank != 0:
            return {split: each[:0] for split, each in outputs.items()}
        with h5py.File(directory / PART, "r", locking=False) as file:
            return stored_outputs(file, memory_limit=0)

    return comm.together(mapped)


def stored_outputs(
    file: h5py.File,
    *,
    subdomains: int | None = None,
    features: int | None = None,
    memory_limit: float | None = None,
) -> dict[str, np.ndarray]:
    """The local outputs that a results file holds, by split, [N, S, K + F] float32.

    Args:
        file: open for reading.
        subdomains: N, the first so many; None for all.
        features: F of each subdomain, the first so many; None for all that are stored.
        memory_limit: see `gather_local`.

    Raises:
        InputError: there is no room for the temporary file.
    """
    parts: dict[str, list[tuple[h5py.Dataset, int]]] = {}
    for split in SPLITS:
        local = file[f"local/{split}"]
        parts[split] = [(local["decision"], local["decision"].shape[2])]
        if "feature" in local and features != 0:
            parts[split].append((local["feature"], features or local["feature"].shape[2]))
    count = subdomains or len(file["subdomain"])
    size = sum(4 * count * stored.shape[1] * width for each in parts.values() for stored, width in each)
    if memory_limit is not None and size > memory_limit * 2**30:
        return {split: _mapped(each, count) for split, each in parts.items()}
    return {
        split: np.concatenate([stored[:count, :, :width] for stored, width in each], axis=2)
        for split, each in parts.items()
    }


def mean_outputs(file: h5py.File) -> np.ndarray:
    """The mean local outputs over the training images that a results file holds, [N, K + F] float32."""
    stored = [file[f"local/train/{name}"] for name in ("decision", "feature") if name in file["local/train"]]
    means = [np.stack([rows.mean(0, dtype=np.float64) for rows in dataset]) for dataset in stored]
    return np.concatenate(means, axis=1).astype(np.float32)


def _mapped(parts: Sequence[tuple[h5py.Dataset, int]], subdomains: int) -> np.ndarray:
    """Datasets [N, S, W], one beside the other in a temporary file without a name, in which a sample's are together.

    Of each the first so many subdomains and columns.
    """
    samples, width = parts[0][0].shape[1], sum(columns for _, columns in parts)
    size = 4 * subdomains * samples * width
    try:
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)
            rows = np.memmap(file, np.float32, "r+", shape=(samples, subdomains, width))
    except OSError as error:
        raise InputError(
            f"--coarse.memory_limit: no temporary file in {tempfile.gettempdir()}: {reason(error)}; expected room for "
            f"{size / 2**30:.2f} GiB of local outputs; TMPDIR names another directory"
        ) from error
    block = max(1, BLOCK_BYTES // (4 * subdomains * width))
    for start in range(0, samples, block):
        read = [stored[:subdomains, start : start + block, :columns] for stored, columns in parts]
        rows[start : start + block] = np.concatenate(read, axis=2).swapaxes(0, 1)
    return rows.swapaxes(0, 1)
