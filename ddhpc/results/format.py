"""The results file before training: all its datasets, empty, and their space on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ddhpc.config import Balance
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.method.decomposition import Window, bounds
from ddhpc.parallel.stopwatch import PhaseSeconds
from ddhpc.results.run_directory import PART, file_system

FORMAT_VERSION = 1
ENRICHED_VERSION = 2
"""Of files with a coarse image, or with local features."""
FUSIONS = ("mean", "vote", "dnn")
"""Ways from the local decisions to the final one."""
COHERENT = "coherent"
"""Stands beside them where the CNN-DNN was trained end to end."""
FINAL = {"coarse": "dnn", COHERENT: COHERENT}
"""Groups that hold final decisions, and the fusions that these come from."""
SCORED = ("val", "test")
"""Splits whose final decisions are scored in detail; on train they would flatter."""
DEVICE_BYTES = 64
DIGEST_BYTES = 64
"""SHA-256 as hexadecimal digits."""
CHECKSUMS = {"decision": "sha256", "feature": "feature_sha256"}
"""Datasets of /local/{split}, and those that hold their checksums."""
METADATA_BYTES = 2**18
PHASES = ("startup", "read", "train", "wait", "write", "gather", "coarse")
"""What a rank does, in this order; it waits until the local CNNs of all ranks are trained."""


def phase_row(seconds: PhaseSeconds) -> np.ndarray:
    """Seconds of a rank in each of PHASES, [P] float64."""
    return np.array([getattr(seconds, phase) for phase in PHASES])


LOCAL_UNITS = {
    "parameters": "1",
    "seconds": "s",
    "cpu_seconds": "s",
    "path_seconds": "s",
    "rank": "1",
    "device": "",
    "peak_memory_bytes": "B",
    "history/loss": "nat",
    "history/accuracy": "1",
    "history/learning_rate": "1",
    "history/seconds": "s",
    "history/val_loss": "nat",
    "history/val_accuracy": "1",
}
HISTORY = ("loss", "accuracy", "learning_rate", "seconds", "val_loss", "val_accuracy")
"""What is known of each epoch of a local CNN."""
HISTORIES = {"local": HISTORY, "coarse": ("loss", "accuracy", "val_loss", "val_accuracy"), COHERENT: HISTORY[:4]}
"""By group; other networks than local CNNs are not validated."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is known of a results file before training: its metadata and the sizes of its datasets."""

    attributes: Mapping[str, Any]
    classes: tuple[str, ...]
    features: int
    """F, local features that are stored of each subdomain."""
    decomposition: list[Window]
    grid: tuple[int, ...]
    overlap: int
    balance: Balance
    image_shape: tuple[int, ...]
    coarse_shape: tuple[int, ...]
    """Pixels of the coarse image, which is the last subdomain; empty without one."""
    labels: Mapping[str, np.ndarray]
    """By split, [S] int64."""
    fold: np.ndarray
    """[S] int64 of `cross_fitting.folds`."""
    decisions: str
    """See `config.Coarse`."""
    ids: Mapping[str, list[str]]
    patients: Mapping[str, list[str]]
    """Pseudonyms by split, [S] each; [] where the packed file has none."""
    epochs: int
    coarse_epochs: int
    weights: Mapping[str, tuple[int, ...]]
    """Shapes of the weights of the coarse DNN, by name."""
    coherent_epochs: int
    """0 where the coherent CNN-DNN is not trained."""
    allow_missing: int
    ranks: int

    def size(self) -> int:
        """Bytes of the file, a little more than it will have."""
        subdomains, classes = len(self.decomposition), len(self.classes)
        samples = sum(map(len, self.labels.values()))
        decisions = 4 * samples * (classes * (subdomains + 2) + self.features * subdomains)
        names = samples * (32 + max((len(name.encode()) for ids in self.ids.values() for name in ids), default=0))
        weights = 4 * sum(prod(shape) + 256 for shape in self.weights.values())
        rows = subdomains * (self.epochs + 4) + self.coarse_epochs + self.coherent_epochs + self.ranks
        return decisions + names + weights + 64 * rows + METADATA_BYTES


def create(directory: Path, layout: Layout) -> None:
    """Create the unfinished results file with all datasets and reserve its space on the disk.

    Raises:
        InputError: the directory cannot be written or has too little space.
    """
    path = directory / PART
    with file_system(path):
        path.unlink(missing_ok=True)  # a job that still has it open must not write into the new one
        path.touch()
        # Before HDF5 writes anything: HDF5 1.10 may crash, not fail, on a full disk.
        _reserve(path, layout.size())
        with h5py.File(path, "w", locking=False) as file:
            _create(file, layout)
        _reserve(path, path.stat().st_size)


def _reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk for a file; OSError where there are too few, or too few are allowed."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _create(file: h5py.File, layout: Layout) -> None:
    version = ENRICHED_VERSION if layout.coarse_shape or layout.features else FORMAT_VERSION
    file.attrs.update(format_version=version, complete=False, **layout.attributes)
    file.attrs["NX_class"] = "NXroot"
    class_scale = file.create_dataset("classes", data=text(layout.classes))
    subdomain_scale = file.create_dataset("subdomain", data=np.arange(len(layout.decomposition)))
    class_scale.make_scale("class")
    subdomain_scale.make_scale("subdomain")
    _create_decomposition(file, layout)
    for split in SPLITS:
        _create_split(file, layout, split)
    fold = file.create_dataset("samples/train/fold", data=layout.fold)
    fold.attrs["decisions"] = layout.decisions
    fold.attrs["description"] = "the coarse DNN is trained on the local decisions for images of fold 0 and above"
    _create_local(file)
    _create_histories(file, layout)
    _create_fusions(file, layout)
    weights = file.create_group("coarse/weights")
    weights.attrs["description"] = (
        "state dictionary of the coarse DNN: of local decisions less 1/K and standardised features; dense layers with "
        "ReLU between; plus average times the mean logarithm of the local decisions; softmax at the end"
    )
    for name, shape in layout.weights.items():
        _dataset(weights, name, shape, np.float32, "1", [])
    _create_timing(file, layout)


def _final_groups(layout: Layout) -> list[str]:
    """Groups with final decisions."""
    return list(FINAL)[: 2 if layout.coherent_epochs else 1]


def _create_decomposition(file: h5py.File, layout: Layout) -> None:
    lower, upper = bounds(layout.decomposition)
    decomposition = file.create_group("decomposition")
    decomposition.attrs.update(grid=layout.grid, overlap=layout.overlap, image_shape=layout.image_shape)
    decomposition.attrs.update(balance=layout.balance, coarse_image=bool(layout.coarse_shape))
    if layout.coarse_shape:
        decomposition.attrs["coarse_shape"] = layout.coarse_shape
        decomposition.attrs["description"] = "the last subdomain is the whole image, restricted to coarse_shape pixels"
    for name, values in (("lower", lower), ("upper", upper)):
        dataset = _dataset(decomposition, name, values.shape, np.int64, "pixel", [file["subdomain"], None])
        dataset[...] = values


def _create_split(file: h5py.File, layout: Layout, split: str) -> None:
    """What is known and what is decided of the samples of a split."""
    subdomains, samples, classes = len(layout.decomposition), len(layout.labels[split]), len(layout.classes)
    subdomain_scale, class_scale = file["subdomain"], file["classes"]
    label = file.create_dataset(f"samples/{split}/label", data=layout.labels[split])
    file.create_dataset(f"samples/{split}/id", data=text(layout.ids[split]))
    label.attrs["units"] = "index of /classes"
    if layout.patients[split]:
        patient = file.create_dataset(f"samples/{split}/patient", data=text(layout.patients[split]))
        patient.attrs["description"] = "pseudonyms, empty where nobody knows; intervals are over whole patients"
    local = file.create_group(f"local/{split}")
    scales = [subdomain_scale, None, class_scale]
    _dataset(local, "decision", (subdomains, samples, classes), np.float32, "1", scales)
    _dataset(local, "accuracy", (subdomains,), np.float64, "1", [subdomain_scale])
    checksum = h5py.string_dtype("utf-8", DIGEST_BYTES)
    _dataset(local, "sha256", (subdomains,), checksum, "", [subdomain_scale])
    if layout.features:
        shape = (subdomains, samples, layout.features)
        feature = _dataset(local, "feature", shape, np.float32, "1", [subdomain_scale, None, None])
        feature.attrs["description"] = "what the last layer of the local CNN takes; zeros where it takes fewer"
        _dataset(local, "feature_sha256", (subdomains,), checksum, "", [subdomain_scale])
    _plot(local, "accuracy", ["../../subdomain"])
    for group in _final_groups(layout):
        final = file.create_group(f"{group}/{split}")
        _dataset(final, "decision", (samples, classes), np.float32, "1", [None, class_scale])
        _plot(final, "decision", [".", "../../classes"])


def _create_local(file: h5py.File) -> None:
    """What is known of each subdomain's training."""
    local, scale = file["local"], file["subdomain"]
    for name, dtype in (
        ("parameters", np.int64),
        ("seconds", np.float64),
        ("cpu_seconds", np.float64),
        ("path_seconds", np.float64),
        ("rank", np.int64),
        ("device", h5py.string_dtype("utf-8", DEVICE_BYTES)),
        ("peak_memory_bytes", np.int64),
    ):
        _dataset(local, name, scale.shape, dtype, LOCAL_UNITS[name], [scale])
    local["cpu_seconds"].attrs["description"] = "of all ranks that trained the subdomain"
    local["path_seconds"].attrs["description"] = "CPU seconds of one of the ranks that trained it together, all jobs"


def _create_histories(file: h5py.File, layout: Layout) -> None:
    epochs_of = {"local": layout.epochs, "coarse": layout.coarse_epochs, COHERENT: layout.coherent_epochs}
    for group in ("local", *_final_groups(layout)):
        scales = [file["subdomain"]] if group == "local" else []
        history = file.create_group(f"{group}/history")
        epoch = history.create_dataset("epoch", data=np.arange(1, epochs_of[group] + 1))
        epoch.make_scale("epoch")
        shape = tuple(len(scale) for scale in (*scales, epoch))
        for name in HISTORIES[group]:
            _dataset(history, name, shape, np.float64, LOCAL_UNITS[f"history/{name}"], [*scales, epoch])
        history["accuracy"].attrs["description"] = "on the training images, in the steps as they were made"
        _plot(history, "loss", ["../../subdomain", "epoch"] if scales else ["epoch"])
    for level in ("local", "coarse"):
        history = file[f"{level}/history"]
        history.attrs["description"] = f"NaN from where a training stopped early, see {level}.patience"
        for name in HISTORIES[level]:
            history[name][...] = np.nan
        for name in ("val_loss", "val_accuracy"):
            history[name].attrs["description"] = "after the epoch; NaN where there was no validation"


def _create_fusions(file: h5py.File, layout: Layout) -> None:
    for fusion in (*FUSIONS, *_final_groups(layout)[1:]):
        for split in SCORED:
            group = file.create_group(f"fusion/{fusion}/{split}")
            scales = [file["classes"], file["classes"]]
            confusion = _dataset(group, "confusion", (len(layout.classes),) * 2, np.int64, "samples", scales)
            confusion.attrs["description"] = "rows: true class; columns: class of the final decision"
    absent = file.create_group("fusion/absent")
    absent.attrs["description"] = (
        "accuracy on test by the number of subdomains that are taken away, beside those (attribute) that were absent; "
        "means over random choices"
    )
    more = absent.create_dataset("more", data=np.arange(layout.allow_missing + 1))
    more.make_scale("subdomains taken away")
    for fusion in FUSIONS:
        _dataset(absent, fusion, more.shape, np.float64, "1", [more])
    _plot(absent, "dnn", ["more"])


def _create_timing(file: h5py.File, layout: Layout) -> None:
    timing = file.create_group("timing")
    rank = timing.create_dataset("rank", data=np.arange(layout.ranks))
    phase = timing.create_dataset("phase", data=text(PHASES))
    rank.make_scale("rank")
    phase.make_scale("phase")
    seconds = _dataset(timing, "seconds", (layout.ranks, len(PHASES)), np.float64, "s", [rank, phase])
    seconds.attrs["description"] = "of each rank in each phase of the job that finished the run"


def _dataset(
    group: h5py.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    units: str,
    scales: list[h5py.Dataset | None],
) -> h5py.Dataset:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dataset = group.create_dataset(name, shape, dtype, dcpl=properties)
    if units:
        dataset.attrs["units"] = units
    for axis, scale in enumerate(scales):
        if scale is not None:
            dataset.dims[axis].attach_scale(scale)
    return dataset


def _plot(group: h5py.Group, signal: str, axes: list[str]) -> None:
    """Attributes by which NeXus viewers plot a group (NXdata)."""
    group.attrs.update(NX_class="NXdata", signal=signal, axes=text(axes))
