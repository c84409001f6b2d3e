"""Reading a results file, and telling whether it is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np

from ddhpc.data.hdf5 import attribute, check_regular, decoded, reason, shown_attribute
from ddhpc.data.packed.checks import FORMAT, SPLITS
from ddhpc.errors import InputError
from ddhpc.method.metrics import accuracy
from ddhpc.results.format import ENRICHED_VERSION, FINAL, FORMAT_VERSION
from ddhpc.results.model_directory import MODEL, verify_model
from ddhpc.results.run_directory import FILE, PART
from ddhpc.results.schema import check_schema
from ddhpc.visible import visible


def open_results(run: Path) -> h5py.File:
    """The results file of a run directory (or the file itself), open for reading; InputError if there is none."""
    path = run / FILE if run.is_dir() else run
    if run.is_dir() and not path.exists() and (run / PART).exists():
        raise InputError(
            f"{run}: the run is not finished (there is only {PART}); start the same command again, with --output {run}"
        )
    if not path.exists():
        raise InputError(f"{run}: expected a run directory with {FILE}, or a results file")
    check_regular(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path}: truncated, or not HDF5 ({error})") from error
    try:
        if attribute(file, "format", str) == FORMAT:
            raise ValueError(f"is a packed file, not a run; `plan --data.file {path}` describes it")
        if attribute(file, "format_version", int) not in (FORMAT_VERSION, ENRICHED_VERSION):
            version = shown_attribute(file, "format_version")
            raise ValueError(
                f"expected a results file of format version {FORMAT_VERSION} or {ENRICHED_VERSION}, found {version}"
            )
        check_schema(file)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        file.close()
        raise InputError(f"{path}: {reason(error)}") from error
    return file


def has_coarse_image(file: h5py.File) -> bool:
    """Whether the last subdomain of a results file is the coarse image."""
    return bool(file["decomposition"].attrs.get("coarse_image", False))


def names(stored: h5py.Dataset) -> list[str]:
    """Texts of a results file [n], such as its classes, fit to be shown."""
    return [visible(name, kept="") for name in decoded(stored)]


def patients(file: h5py.File, split: str) -> list[str]:
    """Pseudonym [S] of the patient of each sample, empty where nobody knows; [] where a results file has none."""
    name = f"samples/{split}/patient"
    return decoded(file[name]) if name in file else []


def digest(values: np.ndarray) -> str:
    """SHA-256 of the bytes of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def verify(path: Path) -> list[str]:
    """What is wrong with a run, one line each; empty if it is whole and agrees with itself.

    Args:
        path: run directory, or a results file alone.
    """
    with open_results(path) as file:
        model = attribute(file, "model_sha256", str)
        problems = [] if attribute(file, "complete", int) else ["the attribute complete is not set"]
        for split in SPLITS:
            labels = file[f"samples/{split}/label"][...]
            local = file[f"local/{split}"]
            kept = (local["decision"], decoded(local["sha256"]), local["accuracy"][...])
            for subdomain, (decisions, checksum, share) in enumerate(zip(*kept, strict=True)):
                name = f"{local.name}/decision of subdomain {subdomain}"
                problems += _problems(name, decisions, checksum, labels, share)
            if "feature" in local:
                pairs = zip(local["feature"], decoded(local["feature_sha256"]), strict=True)
                problems += [
                    f"{local.name}/feature of subdomain {subdomain}: differs from its checksum"
                    for subdomain, (values, checksum) in enumerate(pairs)
                    if digest(values) != checksum
                ]
            for group, fusion in FINAL.items():
                if group in file:
                    final, share = file[f"{group}/{split}/decision"], file[f"fusion/{fusion}"].attrs.get(split)
                    problems += _problems(final.name, final[...], final.attrs.get("sha256"), labels, share)
    if model is not None and path.is_dir():
        problems += verify_model(path / MODEL, model)
    return problems


def _problems(
    name: str, decisions: np.ndarray, checksum: str | None, labels: np.ndarray, share: float | None
) -> list[str]:
    """What is wrong with decisions [S, K]; those of an absent subdomain are zeros and have the accuracy NaN."""
    if digest(decisions) != checksum:
        return [f"{name}: differs from its checksum"]
    if not decisions.any():
        return [] if share is not None and np.isnan(share) else [f"{name}: absent, but has an accuracy"]
    if not np.allclose(decisions.sum(-1), 1, atol=1e-3) or decisions.min() < 0:
        return [f"{name}: holds rows that are not probabilities"]
    return [] if accuracy(decisions, labels) == share else [f"{name}: the stored accuracy does not match it"]
