"""The results file: create, write in parallel, finish atomically, open and verify. Format version 1.

Rank 0 creates the file with all its datasets before any training starts, so that a full disk shows then; the ranks
write their subdomains' slabs after it, all at once where h5py has MPI, through rank 0 where it has not: the same
values in the same file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ddhpc import runtime
from ddhpc.decomposition import Window, bounds
from ddhpc.errors import InputError
from ddhpc.metrics import accuracy

if TYPE_CHECKING:
    from mpi4py import MPI

FORMAT_VERSION = 1
FILE = "results.h5"
PART = "results.h5.part"
RUNS = Path("runs")
DEVICE_BYTES = 64
METADATA_BYTES = 2**18
FUSIONS = ("mean", "vote", "dnn")
SPLITS = ("train", "val", "test")
PARALLEL = h5py.get_config().mpi

LOCAL_UNITS = {
    "parameters": "1",
    "seconds": "s",
    "cpu_seconds": "s",
    "rank": "1",
    "device": "",
    "peak_memory_bytes": "B",
    "history/loss": "nat",
    "history/accuracy": "1",
    "history/learning_rate": "1",
    "history/seconds": "s",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is known of a results file before training: its metadata and the sizes of its datasets."""

    attributes: Mapping[str, Any]
    classes: tuple[str, ...]
    decomposition: list[Window]
    grid: tuple[int, ...]
    overlap: int
    image_shape: tuple[int, ...]
    labels: Mapping[str, np.ndarray]
    """By split, [S] int64."""
    ids: Mapping[str, list[str]]
    epochs: int
    coarse_epochs: int

    def size(self) -> int:
        """Bytes of the file, a little more than it will have."""
        subdomains, classes = len(self.decomposition), len(self.classes)
        samples = sum(map(len, self.labels.values()))
        decisions = 4 * samples * classes * (subdomains + 1)
        names = samples * (8 + max(len(name.encode()) for ids in self.ids.values() for name in ids))
        return decisions + names + 64 * subdomains * (self.epochs + 4) + METADATA_BYTES


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn failures of the file system, which h5py raises as OSError or RuntimeError, into one clear line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(
            f"cannot write {path}: {' '.join(reason.split())}; expected a writable directory with space"
        ) from error


def text(values: Sequence[str], length: int = 0) -> np.ndarray:
    """Strings as fixed-length UTF-8, the only kind that can be written in parallel: [n] of dtype S.

    Args:
        values: n strings.
        length: bytes of a string, longer ones are cut; 0 is the length of the longest.
    """
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length or max(map(len, encoded), default=0) or 1))


def create(directory: Path, layout: Layout) -> None:
    """Create the unfinished results file with all datasets and reserve its space on the disk.

    Raises:
        InputError: the directory cannot be written or has too little space.
    """
    path = directory / PART
    with _writing(path):
        path.touch()
        # Before HDF5 writes anything: HDF5 1.10 may crash, not fail, on a full disk.
        _reserve(path, layout.size())
        with h5py.File(path, "w") as file:
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
    subdomains, classes = len(layout.decomposition), len(layout.classes)
    file.attrs.update(format_version=FORMAT_VERSION, complete=False, **layout.attributes)
    file.attrs["NX_class"] = "NXroot"

    class_scale = file.create_dataset("classes", data=text(layout.classes))
    subdomain_scale = file.create_dataset("subdomain", data=np.arange(subdomains))
    class_scale.make_scale("class")
    subdomain_scale.make_scale("subdomain")

    lower, upper = bounds(layout.decomposition)
    decomposition = file.create_group("decomposition")
    decomposition.attrs.update(grid=layout.grid, overlap=layout.overlap, image_shape=layout.image_shape)
    for name, values in (("lower", lower), ("upper", upper)):
        dataset = _dataset(decomposition, name, values.shape, np.int64, "pixel", [subdomain_scale, None])
        dataset[...] = values

    for split in SPLITS:
        samples = len(layout.labels[split])
        label = file.create_dataset(f"samples/{split}/label", data=layout.labels[split])
        file.create_dataset(f"samples/{split}/id", data=text(layout.ids[split]))
        label.attrs["units"] = "index of /classes"
        local = file.create_group(f"local/{split}")
        _dataset(
            local,
            "decision",
            (subdomains, samples, classes),
            np.float32,
            "1",
            [subdomain_scale, None, class_scale],
        )
        _dataset(local, "accuracy", (subdomains,), np.float64, "1", [subdomain_scale])
        _plot(local, "accuracy", ["../../subdomain"])
        coarse = file.create_group(f"coarse/{split}")
        _dataset(coarse, "decision", (samples, classes), np.float32, "1", [None, class_scale])
        _plot(coarse, "decision", [".", "../../classes"])

    local = file["local"]
    for name, dtype in (
        ("parameters", np.int64),
        ("seconds", np.float64),
        ("cpu_seconds", np.float64),
        ("rank", np.int64),
        ("device", h5py.string_dtype("utf-8", DEVICE_BYTES)),
        ("peak_memory_bytes", np.int64),
    ):
        _dataset(local, name, (subdomains,), dtype, LOCAL_UNITS[name], [subdomain_scale])
    for group, rows, epochs in (
        ("local", (subdomains,), layout.epochs),
        ("coarse", (), layout.coarse_epochs),
    ):
        history = file.create_group(f"{group}/history")
        epoch = history.create_dataset("epoch", data=np.arange(1, epochs + 1))
        epoch.make_scale("epoch")
        names = ("loss", "accuracy", "learning_rate", "seconds") if rows else ("loss", "accuracy")
        for name in names:
            scales = [subdomain_scale, epoch] if rows else [epoch]
            _dataset(history, name, (*rows, epochs), np.float64, LOCAL_UNITS[f"history/{name}"], scales)
        history["accuracy"].attrs["description"] = "on the training images, in the steps as they were made"
        _plot(history, "loss", ["../../subdomain", "epoch"] if rows else ["epoch"])
    for fusion in FUSIONS:
        file.create_group(f"fusion/{fusion}")
    file.create_group("timing")


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


def write_local(
    directory: Path, comm: MPI.Comm, owned: range, subdomains: int, slabs: Mapping[str, np.ndarray]
) -> None:
    """Write what the ranks know of their subdomains, collectively.

    Args:
        directory: of the run.
        comm: all ranks; they own consecutive subdomains in their order.
        owned: the subdomains of this rank.
        subdomains: N.
        slabs: by dataset name below /local, [n, ...] for the n owned subdomains.

    Raises:
        InputError: this rank cannot write; perhaps not on the other ranks, which then must be ended.
    """
    path = directory / PART
    if PARALLEL:
        with _writing(path):
            # Not closed when a write fails: closing waits for ranks that still wait for this one's write.
            file = h5py.File(path, "r+", driver="mpio", comm=comm)
            for name, slab in slabs.items():
                dataset = file[f"local/{name}"]
                with dataset.collective:
                    dataset[owned.start : owned.stop] = slab
            file.flush()
            file.close()
        return
    for name, slab in slabs.items():
        everything = runtime.gather(comm, slab, subdomains)
        if comm.rank == 0:
            with _writing(path), h5py.File(path, "r+") as file:
                file[f"local/{name}"][...] = everything


def finish(
    directory: Path,
    *,
    local: Mapping[str, np.ndarray],
    fusions: Mapping[str, Mapping[str, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    coarse_history: Mapping[str, list[float]],
    timing: Mapping[str, float],
) -> None:
    """On rank 0: write the coarse problem, check the file by reading it back, and give it its final name.

    Args:
        directory: of the run.
        local: by split, the gathered local decisions [N, S, K] that the file must hold.
        fusions: by fusion and split, final decisions [S, K].
        labels: by split, [S].
        coarse_history: by name, one number an epoch.
        timing: seconds by phase.
    """
    path = directory / PART
    with _writing(path):
        with h5py.File(path, "r+") as file:
            for split in SPLITS:
                file[f"coarse/{split}/decision"][...] = fusions["dnn"][split]
                file[f"local/{split}/decision"].attrs["sha256"] = digest(local[split])
                file[f"coarse/{split}/decision"].attrs["sha256"] = digest(fusions["dnn"][split])
                for fusion in FUSIONS:
                    file[f"fusion/{fusion}"].attrs[split] = accuracy(fusions[fusion][split], labels[split])
            for name, values in coarse_history.items():
                file[f"coarse/history/{name}"][...] = values
            file["timing"].attrs.update(timing)
            file["timing"].attrs["units"] = "s"
            file.attrs["complete"] = True
        problems = verify(path)
        if problems:
            raise InputError(f"{path} does not read back as written ({problems[0]}); expected a sound file system")
        replace(path, directory / FILE)


def digest(values: np.ndarray) -> str:
    """SHA-256 of the bytes of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def replace(path: Path, final: Path) -> None:
    """Give a closed file its final name so that after a crash the name holds the old file or the new one, whole."""
    for target, then in ((path, lambda: os.replace(path, final)), (final.parent, lambda: None)):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        then()


def run_directory(name: str, output: str | None, overwrite: bool, rank: int) -> str:
    """Make the run directory on rank 0 and give its path; an empty text on other ranks.

    Args:
        name: of the recipe.
        output: what the user named, or None for a new directory `runs/NAME-DATE-TIME`, to which `runs/latest` points.
        overwrite: whether a finished run in `output` may be replaced.

    Raises:
        InputError: `output` holds a finished run, or the directory cannot be made.
    """
    if rank != 0:
        return ""
    if output is not None:
        directory = Path(output)
        with _writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        if is_finished(directory) and not overwrite:
            raise InputError(f"--output {output}: holds a finished run; expected another directory, or --overwrite")
        return output
    with _writing(RUNS):
        RUNS.mkdir(exist_ok=True)
        stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        for number in count():
            directory = RUNS / (f"{stem}-{number}" if number else stem)
            try:
                directory.mkdir()
                break
            except FileExistsError:
                continue
        # Made beside and renamed, so that `latest` is never absent while another run starts.
        link = RUNS / f".latest-{os.getpid()}"
        link.symlink_to(directory.name)
        link.replace(RUNS / "latest")
    return str(directory)


def is_finished(directory: Path) -> bool:
    """Whether the directory holds the results of a finished run."""
    return (directory / FILE).exists()


def open_results(run: Path) -> h5py.File:
    """The results file of a run directory (or the file itself), open for reading; InputError if there is none."""
    path = run / FILE if run.is_dir() else run
    if run.is_dir() and not path.exists() and (run / PART).exists():
        raise InputError(f"{run}: the run is not finished (there is only {PART}); start the same command again")
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


def verify(path: Path) -> list[str]:
    """What is wrong with a results file, one line each; empty if it is whole and agrees with itself."""
    with open_results(path) as file:
        problems = [] if file.attrs.get("complete") else ["the attribute complete is not set"]
        for split in SPLITS:
            labels = file[f"samples/{split}/label"][...]
            for level in ("local", "coarse"):
                dataset = file[f"{level}/{split}/decision"]
                decisions = dataset[...]
                if digest(decisions) != dataset.attrs.get("sha256"):
                    problems.append(f"{dataset.name} differs from its checksum")
                elif not np.allclose(decisions.sum(-1), 1, atol=1e-3):
                    problems.append(f"{dataset.name} holds rows that are not probabilities")
                elif level == "local":
                    found = file[f"local/{split}/accuracy"][...]
                    if not np.array_equal(accuracy(decisions, labels), found):
                        problems.append(f"/local/{split}/accuracy does not follow from the decisions")
                elif accuracy(decisions, labels) != file["fusion/dnn"].attrs.get(split):
                    problems.append(f"/fusion/dnn {split} accuracy does not follow from the final decisions")
    return problems
