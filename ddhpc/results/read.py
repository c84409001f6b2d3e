"""Reading a results file, and telling whether it is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np

from ddhpc.coarse import present
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.metrics import accuracy
from ddhpc.results.directory import FILE, PART
from ddhpc.results.layout import FINAL, FORMAT_VERSION


def open_results(run: Path) -> h5py.File:
    """The results file of a run directory (or the file itself), open for reading; InputError if there is none."""
    path = run / FILE if run.is_dir() else run
    if run.is_dir() and not path.exists() and (run / PART).exists():
        raise InputError(
            f"{run}: the run is not finished (there is only {PART}); start the same command again, with --output {run}"
        )
    if not path.exists():
        raise InputError(f"{run}: expected a run directory with {FILE}, or a results file")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path}: truncated, or not HDF5 ({error})") from error
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION or "fusion" not in file:
        raise InputError(f"{path}: expected a results file of format version {FORMAT_VERSION}, found {version}")
    return file


def digest(values: np.ndarray) -> str:
    """SHA-256 of the bytes of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def verify(path: Path) -> list[str]:
    """What is wrong with a results file, one line each; empty if it is whole and agrees with itself."""
    with open_results(path) as file:
        problems = [] if file.attrs.get("complete") else ["the attribute complete is not set"]
        for split in SPLITS:
            labels = file[f"samples/{split}/label"][...]
            for level in ("local", *(group for group in FINAL if group in file)):
                dataset = file[f"{level}/{split}/decision"]
                decisions = dataset[...]
                if digest(decisions) != dataset.attrs.get("sha256"):
                    problems.append(f"{dataset.name} differs from its checksum")
                elif not np.allclose(decisions[decisions.any(axis=(-2, -1))].sum(-1), 1, atol=1e-3):
                    problems.append(f"{dataset.name} holds rows that are not probabilities")
                elif level == "local":
                    found = file[f"local/{split}/accuracy"][...]
                    there = present(decisions)
                    if not np.array_equal(np.where(there, accuracy(decisions, labels), np.nan), found, equal_nan=True):
                        problems.append(f"/local/{split}/accuracy does not follow from the decisions")
                elif accuracy(decisions, labels) != file[f"fusion/{FINAL[level]}"].attrs.get(split):
                    problems.append(f"/fusion/{FINAL[level]} {split} accuracy does not follow from the final decisions")
    return problems
