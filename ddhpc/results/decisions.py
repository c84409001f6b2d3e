"""The decisions that a results file holds, checked as they are read."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np

from ddhpc.data.hdf5 import decoded, reason
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method.fusions import by_blocks, mean, vote
from ddhpc.results.format import COHERENT, FINAL, FUSIONS
from ddhpc.results.reader import digest


def fusions(file: h5py.File) -> tuple[str, ...]:
    """The fusions that a results file holds, and the coherent CNN-DNN where it was trained."""
    return tuple(name for name in (*FUSIONS, COHERENT) if name in file["fusion"])


def labels(file: h5py.File, split: str) -> np.ndarray:
    """[S] int64."""
    return np.asarray(_read(file, f"samples/{_split(split)}/label"))


def ids(file: h5py.File, split: str) -> list[str]:
    """Of the samples of a split."""
    return decoded(file[f"samples/{_split(split)}/id"])


def local_decisions(file: h5py.File, split: str) -> np.ndarray:
    """[N, S, K] float32, zeros where a subdomain is absent; InputError where they differ from their checksums."""
    local = f"local/{_split(split)}"
    found, checksums = np.asarray(_read(file, f"{local}/decision")), decoded(file[f"{local}/sha256"])
    for subdomain, (decisions, checksum) in enumerate(zip(found, checksums, strict=True)):
        _check(file, f"{local}/decision of subdomain {subdomain}", decisions, checksum)
    return found


def final_decisions(file: h5py.File, split: str, fusion: str) -> np.ndarray:
    """[S, K] float32 of a fusion, those of mean and vote from the local decisions, as in the training.

    Raises:
        InputError: the file does not hold such a fusion, or decisions that differ from their checksums.
    """
    check_word("fusion", fusion, fusions(file))
    alone = len(file["subdomain"]) == 1 and fusion in FUSIONS
    group = next((group for group, name in FINAL.items() if name == ("dnn" if alone else fusion)), None)
    if group is None:
        return by_blocks(mean if fusion == "mean" else vote, local_decisions(file, split))
    name = f"{group}/{_split(split)}/decision"
    found = np.asarray(_read(file, name))
    _check(file, name, found, file[name].attrs.get("sha256"))
    return found


def check_word(what: str, word: str, known: Sequence[str]) -> None:
    """InputError unless a word, such as the name of a split, is known."""
    if word not in known:
        raise InputError(f"{what} {word}: expected one of {', '.join(known)}")


def _split(split: str) -> str:
    check_word("split", split, SPLITS)
    return split


def _read(file: h5py.File, name: str) -> np.ndarray:
    try:
        return np.asarray(file[name][...])
    except (OSError, RuntimeError) as error:
        raise InputError(f"{file.filename}: damaged: {name} cannot be read: {reason(error)}") from error


def _check(file: h5py.File, name: str, values: np.ndarray, checksum: str | None) -> None:
    if digest(values) != checksum:
        raise InputError(f"{file.filename}: damaged: {name} differs from its checksum")
