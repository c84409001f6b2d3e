"""A run in words and in a few main figures."""

from __future__ import annotations

from math import prod
from pathlib import Path

import h5py
import numpy as np

from ddhpc.config import Config
from ddhpc.method.decomposition import extent
from ddhpc.method.metrics import scores
from ddhpc.results import has_coarse_image, names, patients
from ddhpc.results.cost import critical_path, differences, machine
from ddhpc.results.epochs import epochs
from ddhpc.tables.run import shortfall, unchosen
from ddhpc.wording import by, duration, percent, plural


def _interval(file: h5py.File) -> str:
    found = file["fusion/dnn"].get("test")
    found = (
        scores(file["coarse/test/decision"][...], file["samples/test/label"][...], patients(file, "test"))
        if found is None
        else found.attrs
    )
    return f"{percent(found['accuracy_low'])} to {percent(found['accuracy_high'])}"


def main_figures(file: h5py.File, baseline: h5py.File | None) -> list[tuple[str, str, str]]:
    """What one looks for first: name, value, and what to know of it."""
    path, timing = critical_path(file), file["timing"].attrs
    shown = [
        ("accuracy on test", percent(file["fusion/dnn"].attrs["test"]), f"95 % interval {_interval(file)}"),
        ("critical path", duration(path.seconds), f"{path.clock} time, {path.kind}"),
        ("whole run", duration(timing["total"]), machine(file)),
    ]
    if baseline is None:
        return shown
    other = critical_path(baseline)
    return [
        *shown,
        ("global CNN on test", percent(baseline["fusion/dnn"].attrs["test"]), f"95 % interval {_interval(baseline)}"),
        ("critical path", f"{other.seconds / path.seconds:.1f} times faster", f"than the global CNN, {path.kind}"),
    ]


def summary(file: h5py.File, baseline: h5py.File | None) -> list[str]:
    """The run in words, sentence by sentence."""
    config, path, attributes = Config.from_yaml(file.attrs["config"]), critical_path(file), file.attrs
    shares = {fusion: percent(file[f"fusion/{fusion}"].attrs["test"]) for fusion in ("dnn", "mean", "vote")}
    counts = {split: len(file[f"samples/{split}/label"]) for split in ("train", "val", "test")}
    classes, subdomains = names(file["classes"]), len(file["subdomain"])
    shape = file["decomposition"].attrs["image_shape"]
    parts = prod(config.decomposition.grid)
    lower, upper = (file[f"decomposition/{name}"][:parts].tolist() for name in ("lower", "upper"))
    sizes = sorted({extent(tuple(map(slice, low, high))) for low, high in zip(lower, upper, strict=True)})
    windows = by(sizes[0]) if len(sizes) == 1 else f"{by(sizes[0])} to {by(sizes[-1])}"
    parameters, seed = file["local/parameters"][...], attributes["seed"]
    ran = epochs(file)
    most = f"{'up to ' * bool((ran.trained < ran.planned).any())}{plural(ran.planned, 'epoch')}"
    noun = "volumes" if len(shape) == 3 else "images"
    data = (
        f"{Path(config.data.file).name} holds {counts['train']:,} train, {counts['val']:,} val and "
        f"{counts['test']:,} test {noun} of {by(shape)} in {len(classes)} classes."
    )
    said = []
    told = [f"{line[0].upper()}{line[1:]}." for line in (*shortfall(file), *unchosen(file))]
    if subdomains > 1:
        best = int(np.nanargmax(file["local/val/accuracy"][...]))
        said += [
            f"The coarse DNN decides {shares['dnn']} of the test {noun} rightly (95 % interval {_interval(file)}); the "
            f"average probability of the local CNNs {shares['mean']}, their majority vote {shares['vote']}, and the "
            f"best of them alone (subdomain {best}, best on val) {percent(file['local/test/accuracy'][best])}.",
            *told,
            data,
            f"A grid of {by(config.decomposition.grid)} with overlap {config.decomposition.overlap} makes {parts} "
            f"subdomains with windows of {windows}{_coarse_image(file)}. On each a {config.model.name} of "
            f"{parameters.max():,} parameters ({parameters.sum():,} on all) was trained for "
            f"{most}, with seed {seed}.",
            f"The slowest local CNN (subdomain {path.slowest}) took {duration(path.local)} of {path.clock} time and "
            f"the coarse DNN {duration(path.coarse)}: a critical path of {duration(path.seconds)}"
            + (
                ", projected, since subdomains shared ranks or cores, or several jobs trained them."
                if path.shared
                else ", with a rank and a core or GPU for each subdomain."
            ),
        ]
    else:
        said += [
            f"The global CNN decides {shares['dnn']} of the test {noun} rightly (95 % interval {_interval(file)}).",
            *told,
            data,
            f"A {config.model.name} of {parameters.max():,} parameters was trained on whole {noun} for "
            f"{most}, with seed {seed}, in {duration(path.local)} of {path.clock} time.",
        ]
    absent = int(np.isnan(file["local/val/accuracy"][...]).sum())
    if absent:
        said.append(f"{plural(absent, 'subdomain')} could not be trained and {'are' if absent > 1 else 'is'} absent.")
    said.append(
        f"The whole run {_took(file)} on {machine(file)} ({attributes['processor']}), device "
        f"{file['local/device'][0].decode()}."
    )
    if baseline is not None:
        other = critical_path(baseline)
        said.append(
            f"The global CNN decides {percent(baseline['fusion/dnn'].attrs['test'])} rightly (95 % interval "
            f"{_interval(baseline)}) and took {duration(other.seconds)} of {other.clock} time, so that the "
            f"{path.kind} critical path is {other.seconds / path.seconds:.1f} times faster."
        )
        if unequal := differences(file, baseline):
            said.append(f"They differ in more than the decomposition: {'; '.join(unequal)}.")
    return said


def _took(file: h5py.File) -> str:
    total = float(file["timing"].attrs["total"])
    if np.isnan(total):
        return (
            "was not timed, for jobs trained single subdomains, its second level was solved again, or times are lost,"
        )
    return f"took {duration(total)} of real time"


def _coarse_image(file: h5py.File) -> str:
    if not has_coarse_image(file):
        return ""
    share = percent(file["local/test/accuracy"][-1])
    return f"; the coarse image, {by(file['decomposition'].attrs['coarse_shape'])}, is one more and has {share} alone"


def facts(file: h5py.File) -> list[tuple[str, str]]:
    """Where the run comes from: what one needs to repeat it."""
    names = (
        "created",
        "ddhpc_version",
        "git_commit",
        "second_level_code",
        "seed",
        "python",
        "torch",
        "h5py",
        "hdf5",
        "mpi",
        "ranks",
        "cores",
    )
    found = [(name.replace("_", " "), str(file.attrs[name])) for name in names if str(file.attrs.get(name, ""))]
    hosts = ", ".join(sorted({host.decode() for host in file.attrs["hosts"].tolist()}))
    return [*found, ("processor", str(file.attrs["processor"])), ("hosts", hosts)]
