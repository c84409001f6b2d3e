"""The second level of a finished run once more, with other options, from its local outputs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ddhpc import results
from ddhpc.config import Coarse, Config
from ddhpc.data.hdf5 import decoded
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method import coarse
from ddhpc.method.fusions import present
from ddhpc.method.problem import seed_process
from ddhpc.parallel.placement import Place
from ddhpc.results.format import HISTORY
from ddhpc.results.model import open_model
from ddhpc.results.model_directory import MODEL
from ddhpc.solver.model import keep_with_coarse

WRITTEN_ANEW = ("format_version", "complete", "NX_class", "model_sha256")
LOCAL = ("parameters", "seconds", "cpu_seconds", "path_seconds", "rank", "device", "peak_memory_bytes")


def solve_again(run: Path, config: Coarse, directory: Path, place: Place) -> None:
    """Solve the coarse problem of a finished run again, and write complete results into another directory.

    With the options of the run, on the same kind of device and as many threads, the final decisions have its bits.
    Where the run has its model, so have the results, with the new coarse DNN.

    Args:
        run: run directory or results file.
        config: section `coarse`.
        directory: where the results go; made where it is not there.
        place: of this process.

    Raises:
        InputError: the run is damaged or does not hold what is asked for, or the results cannot be written.
    """
    path = run / results.FILE if run.is_dir() else run
    kept = (path.parent / MODEL).is_dir() and path.name == results.FILE
    if problems := results.verify(path.parent if kept else path):
        raise InputError(f"{run}: damaged: {'; '.join(problems)}")
    with results.open_results(run) as file:
        model = open_model(path.parent) if kept and "model_sha256" in file.attrs else None
        before = Config.from_yaml(file.attrs["config"])
        _check(file, run, config, before.coarse)
        after = replace(before, coarse=config)
        features = _features(file, run, config)
        results.run_directory("", str(directory))
        local = results.stored_outputs(file, features=features, memory_limit=config.memory_limit)
        labels = {split: file[f"samples/{split}/label"][...].astype(np.int64) for split in SPLITS}
        fold = file["samples/train/fold"][...]
        subdomains, classes = len(file["subdomain"]), len(file["classes"])
        started = time.perf_counter()
        seed_process(after.run.seed, subdomains)
        solution = coarse.solve(local, labels, classes, config, place.device, np.flatnonzero(fold >= 0))
        seconds = time.perf_counter() - started
        layout = _layout(file, after, features)
        outcome = results.Outcome(
            job=layout.attributes["job"],
            labels=labels,
            present=present(local["val"]),
            coarse=solution,
            coherent=None,
            timing=_timing(file["timing"].attrs, seconds),
            rank_seconds=file["timing/seconds"][...],
            model_sha256=None,
        )
        results.create(directory, layout)
        _copy_local(file, directory / results.PART, features)
        if model:
            digest = keep_with_coarse(model, directory, config, features, solution, labels["val"])
            outcome = replace(outcome, model_sha256=digest)
    results.finish(directory, outcome)


def _check(file: h5py.File, run: Path, config: Coarse, before: Coarse) -> None:
    """InputError where the run cannot be solved again like this."""
    if len(file["subdomain"]) == 1:
        raise InputError(f"{run}: is a run of the global CNN; expected one with a coarse problem")
    if "timing/seconds" not in file or "samples/train/fold" not in file or "local/path_seconds" not in file:
        raise InputError(f"{run}: an older version wrote it; expected a run of this one")
    if config.decisions != before.decisions:
        raise InputError(
            f"--coarse.decisions {config.decisions}: the local CNNs of {run} were trained for {before.decisions}; "
            "expected the same"
        )


def _features(file: h5py.File, run: Path, config: Coarse) -> int:
    """Local features of each subdomain that the coarse DNN takes."""
    stored = file["local/train/feature"].shape[2] if "feature" in file["local/train"] else 0
    if config.inputs == "both" and not stored:
        raise InputError(
            f"--coarse.inputs both: {run} holds local decisions alone; expected a run that was trained with "
            "--coarse.inputs both"
        )
    return 0 if config.inputs == "decisions" else int(stored)


def _layout(file: h5py.File, config: Config, features: int) -> results.Layout:
    """Layout of the results of the run with another coarse problem."""
    attributes = {name: value for name, value in file.attrs.items() if name not in WRITTEN_ANEW}
    attributes |= {
        "job": uuid.uuid4().hex,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": config.to_yaml(),
        "second_level_code": results.code(),
    }
    decomposition, fold = file["decomposition"], file["samples/train/fold"]
    lower, upper = (decomposition[name][...].tolist() for name in ("lower", "upper"))
    classes, subdomains = tuple(decoded(file["classes"])), len(file["subdomain"])
    learned = int((fold[...] >= 0).sum())
    return results.Layout(
        attributes=attributes,
        classes=classes,
        features=features,
        decomposition=[tuple(map(slice, low, high)) for low, high in zip(lower, upper, strict=True)],
        grid=tuple(decomposition.attrs["grid"].tolist()),
        overlap=int(decomposition.attrs["overlap"]),
        balance=results.balance(file),
        image_shape=tuple(decomposition.attrs["image_shape"].tolist()),
        coarse_shape=tuple(decomposition.attrs["coarse_shape"].tolist()) if results.has_coarse_image(file) else (),
        labels={split: file[f"samples/{split}/label"][...] for split in SPLITS},
        fold=fold[...],
        decisions=str(fold.attrs["decisions"]),
        ids={split: decoded(file[f"samples/{split}/id"]) for split in SPLITS},
        patients={split: results.patients(file, split) for split in SPLITS},
        epochs=file["local/history/loss"].shape[1],
        coarse_epochs=coarse.epochs(config.coarse, learned),
        weights=coarse.weight_shapes(subdomains, len(classes), features, config.coarse),
        ranks=len(file["timing/seconds"]),
        coherent_epochs=0,
        allow_missing=config.coarse.allow_missing,
    )


def _copy_local(file: h5py.File, path: Path, features: int) -> None:
    """Copy what is known of the subdomains, one dataset after the other."""
    names = [*LOCAL, *(f"history/{name}" for name in HISTORY if name in file["local/history"])]
    for split in SPLITS:
        kinds = ("decision", "sha256", "accuracy", *(("feature", "feature_sha256") if features else ()))
        names += [f"{split}/{kind}" for kind in kinds]
    with results.file_system(path), h5py.File(path, "r+", locking=False) as copy:
        for name in names:
            copy[f"local/{name}"][...] = file[f"local/{name}"][...]


def _timing(before: Mapping[str, Any], seconds: float) -> results.Timing:
    """Seconds of the run, and of its new coarse problem; no clock showed those of both together."""
    kept = ("startup", "read", "local_max", "local_sum", "write", "gather")
    return results.Timing(
        **{name: float(before[name]) for name in kept},
        coarse=seconds,
        coherent=None,
        total=float("nan"),
        jobs=int(before.get("jobs", 1)) + 1,
    )
