"""Bringing the local decisions of all ranks to rank 0, which has the memory for them or a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
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
"""Of decisions that are copied at once from the results file."""


def gather_local(
    directory: Path, comm: Communicator, slabs: Mapping[str, np.ndarray], subdomains: int, memory_limit: float | None
) -> dict[str, np.ndarray]:
    """The local decisions by split, [N, S, K] float32 on rank 0, no rows elsewhere; collective, after `write_local`.

    Args:
        directory: of the run.
        comm: all ranks; they own consecutive subdomains in their order.
        slabs: see `write_local`.
        subdomains: N.
        memory_limit: GiB of rank 0's memory for the decisions of all splits; None for any. Where they take more, rank 0
            reads them from the results file into a temporary one that is mapped into memory, image by image.

    Raises:
        InputError: on all ranks, if there is no room for the temporary file.
    """
    decisions = {split: slabs[f"{split}/decision"] for split in SPLITS}
    size = subdomains * sum(each.itemsize * prod(each.shape[1:]) for each in decisions.values())
    if memory_limit is None or size <= memory_limit * 2**30:
        return {split: comm.gather(each, subdomains) for split, each in decisions.items()}

    def mapped() -> dict[str, np.ndarray]:
        if comm.rank != 0:
            return {split: each[:0] for split, each in decisions.items()}
        with h5py.File(directory / PART, "r", locking=False) as file:
            return {split: _mapped(file[f"local/{split}/decision"]) for split in SPLITS}

    return comm.together(mapped)


def _mapped(stored: h5py.Dataset) -> np.ndarray:
    """A dataset [N, S, K] in a temporary file without a name, in which each sample's N x K numbers are consecutive."""
    subdomains, samples, classes = stored.shape
    size = 4 * prod(stored.shape)
    try:
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)
            rows = np.memmap(file, np.float32, "r+", shape=(samples, subdomains, classes))
    except OSError as error:
        raise InputError(
            f"--coarse.memory_limit: no temporary file in {tempfile.gettempdir()}: {reason(error)}; expected room for "
            f"{size / 2**30:.2f} GiB of local decisions; TMPDIR names another directory"
        ) from error
    block = max(1, BLOCK_BYTES // (4 * subdomains * classes))
    for start in range(0, samples, block):
        rows[start : start + block] = stored[:, start : start + block].swapaxes(0, 1)
    return rows.swapaxes(0, 1)
