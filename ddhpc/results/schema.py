"""What a results file has to hold before anything in it is believed."""

from __future__ import annotations

from math import prod
from typing import cast, get_args

import h5py
import numpy as np

from ddhpc.config import Balance, Config
from ddhpc.data.hdf5 import attribute, check_self_contained, decoded
from ddhpc.data.packed import SPLITS
from ddhpc.method.decomposition import bounds, whole, windows
from ddhpc.method.metrics import BINARY
from ddhpc.results.format import COHERENT, FINAL, FUSIONS, PHASES, SCORED

FLOAT, WHOLE, TEXT = "f", "iu", "S"

DATASETS: dict[str, tuple[str, str]] = {
    "classes": (TEXT, "K"),
    "subdomain": (WHOLE, "N"),
    "decomposition/lower": (WHOLE, "N d"),
    "decomposition/upper": (WHOLE, "N d"),
    **{f"samples/{split}/label": (WHOLE, split) for split in SPLITS},
    **{f"samples/{split}/id": (TEXT, split) for split in SPLITS},
    **{f"local/{split}/decision": (FLOAT, f"N {split} K") for split in SPLITS},
    **{f"local/{split}/accuracy": (FLOAT, "N") for split in SPLITS},
    **{f"local/{split}/sha256": (TEXT, "N") for split in SPLITS},
    **{f"local/{name}": (FLOAT, "N") for name in ("seconds", "cpu_seconds")},
    **{f"local/{name}": (WHOLE, "N") for name in ("parameters", "rank", "peak_memory_bytes")},
    "local/device": (TEXT, "N"),
    **{f"local/history/{name}": (FLOAT, "N E") for name in ("loss", "accuracy", "learning_rate", "seconds")},
    **{f"coarse/{split}/decision": (FLOAT, f"{split} K") for split in SPLITS},
    **{f"coarse/history/{name}": (FLOAT, "C") for name in ("loss", "accuracy")},
}
"""Kinds of the elements, and extents: N subdomains, K classes, E epochs, C of the coarse DNN (0 of a single subdomain),
d dimensions, samples by their split."""

_VALIDATED = ("local/history/val_loss", "local/history/val_accuracy")
_COARSE_VALIDATED = ("coarse/history/val_loss", "coarse/history/val_accuracy")
NOT_ALWAYS: dict[str, tuple[str, str]] = {
    "samples/train/fold": (WHOLE, "train"),
    **{f"samples/{split}/patient": (TEXT, split) for split in SPLITS},
    "local/path_seconds": (FLOAT, "N"),
    **dict.fromkeys(_VALIDATED, (FLOAT, "N E")),
    **dict.fromkeys(_COARSE_VALIDATED, (FLOAT, "C")),
    **{f"local/{split}/feature": (FLOAT, f"N {split} F") for split in SPLITS},
    **{f"local/{split}/feature_sha256": (TEXT, "N") for split in SPLITS},
    **{f"{COHERENT}/{split}/decision": (FLOAT, f"{split} K") for split in SPLITS},
    **{f"fusion/{fusion}/{split}/confusion": (WHOLE, "K K") for fusion in (*FUSIONS, COHERENT) for split in SCORED},
    "fusion/absent/more": (WHOLE, "A"),
    **{f"fusion/absent/{fusion}": (FLOAT, "A") for fusion in FUSIONS},
    "timing/seconds": (FLOAT, "R P"),
    "timing/phase": (TEXT, "P"),
}
"""What older files, or those of other configurations, lack: R ranks, P phases, A numbers of absent subdomains, F
local features."""

_COHERENT = (f"fusion/{COHERENT}/test", *(f"{COHERENT}/{split}/decision" for split in SPLITS))
_FEATURES = tuple(f"local/{split}/{name}" for split in SPLITS for name in ("feature", "feature_sha256"))
TOGETHER: dict[str, tuple[str, ...]] = {
    **{f"samples/{split}/patient": tuple(f"samples/{other}/patient" for other in SPLITS) for split in SPLITS},
    "timing/seconds": ("timing/phase",),
    **dict.fromkeys(_VALIDATED, _VALIDATED),
    **dict.fromkeys(_COARSE_VALIDATED, _COARSE_VALIDATED),
    **{f"local/{split}/feature": _FEATURES for split in SPLITS},
    "fusion/absent": tuple(f"fusion/absent/{name}" for name in ("more", *FUSIONS)),
    "fusion/dnn/test": tuple(f"fusion/{fusion}/{split}/confusion" for fusion in FUSIONS for split in SCORED),
    COHERENT: (f"fusion/{COHERENT}", *_COHERENT),
    f"fusion/{COHERENT}": _COHERENT,
}
"""What has to be there as well, where something is."""

ATTRIBUTES: dict[str, dict[str, type]] = {
    "/": {
        **dict.fromkeys(("config", "data_digest", "ddhpc_version", "git_commit", "created", "processor"), str),
        **dict.fromkeys(("ranks", "cores", "seed"), int),
    },
    "decomposition": {"overlap": int},
    "timing": dict.fromkeys(("startup", "read", "local_max", "local_sum", "write", "gather", "coarse", "total"), float),
    **{f"fusion/{fusion}": dict.fromkeys(SPLITS, float) for fusion in FUSIONS},
    **{f"{group}/{split}/decision": {"sha256": str} for group in FINAL for split in SPLITS},
    f"fusion/{COHERENT}": dict.fromkeys(SPLITS, float),
    "fusion/absent": {"subdomains": int},
    **{
        f"fusion/{fusion}/{split}": dict.fromkeys(("accuracy_low", "accuracy_high", "balanced_accuracy"), float)
        for fusion in (*FUSIONS, COHERENT)
        for split in SCORED
    },
    "samples/train/fold": {"decisions": str},
}
"""By what they belong to, where it is there; attributes of these kinds have to be."""

KNOWN: dict[str, dict[str, type]] = {
    "/": {
        **dict.fromkeys(("python", "torch", "h5py", "hdf5", "mpi", "second_level_code", "model_sha256"), str),
        "weights_digest": str,
        **dict.fromkeys(("threads", "folds"), int),
    },
    "decomposition": {"coarse_image": int, "balance": str},
    "timing": {"coherent": float, "jobs": int},
    "fusion/dnn/val": dict.fromkeys(("above_mean", "above_mean_error"), float),
    **{f"fusion/{fusion}": {"temperature": float} for fusion in FINAL.values()},
    **{f"fusion/{fusion}/test": {"resamples": int} for fusion in (*FUSIONS, COHERENT)},
}
"""Attributes that may lack, but not be of another kind."""


def check_schema(file: h5py.File) -> None:
    """ValueError in one line where a file cannot be a results file, whatever it says of itself."""
    try:
        _check(file)
    except ValueError as error:
        raise ValueError(f"is no sound results file: {error}") from error


def _check(file: h5py.File) -> None:
    check_self_contained(file)
    sizes = _check_datasets(file)
    needed = ["timing", *(f"fusion/{fusion}" for fusion in FUSIONS)]
    needed += [other for name, others in TOGETHER.items() if name in file for other in others]
    for name in needed:
        if name not in file:
            raise ValueError(f"lacks {name}")
    for item, named in ATTRIBUTES.items():
        for name, kind in named.items() if item in file else ():
            if attribute(file[item], name, kind) is None:
                raise ValueError(f"its attribute {name} of {item} is missing or no {kind.__name__}")
    for item, named in KNOWN.items():
        for name, kind in named.items() if item in file else ():
            if name in file[item].attrs and attribute(file[item], name, kind) is None:
                raise ValueError(f"its attribute {name} of {item} is no {kind.__name__}")
    if sizes["K"] == 2:
        _check_binary(file)
    Config.from_yaml(file.attrs["config"])
    for name, weights in file["coarse/weights"].items() if "coarse/weights" in file else ():
        if not isinstance(weights, h5py.Dataset) or weights.shape is None or weights.dtype.kind != FLOAT:
            raise ValueError(f"its coarse/weights/{name} are no floating point numbers")
    _check_decomposition(file, sizes["d"])
    _check_values(file, sizes)


def _check_datasets(file: h5py.File) -> dict[str, int]:
    """The size of each extent."""
    sizes: dict[str, int] = {}
    for name, (kinds, extents) in {**DATASETS, **NOT_ALWAYS}.items():
        found, axes = file.get(name), extents.split()
        if found is None and name in NOT_ALWAYS:
            continue
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise ValueError(f"lacks the dataset {name}")
        wanted = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, found.shape, strict=False))
        sound = found.dtype.kind in kinds and found.shape == wanted and len(axes) == found.ndim
        if not sound or not (found.size or extents == "C"):
            raise ValueError(
                f"its dataset {name} is {found.dtype} {found.shape}; expected {_shown(kinds)} and a shape ({extents}) "
                "that fits to the others"
            )
        if kinds == TEXT:
            try:
                decoded(found)
            except UnicodeDecodeError as error:
                raise ValueError(f"its dataset {name} is no text in UTF-8") from error
    return sizes


def _shown(kinds: str) -> str:
    return {FLOAT: "floating point", WHOLE: "whole numbers", TEXT: "text of fixed length"}[kinds]


def _check_binary(file: h5py.File) -> None:
    """What is scored of two classes alone."""
    for fusion in (*FUSIONS, COHERENT):
        scored = file.get(f"fusion/{fusion}/test")
        for name in BINARY if scored else ():
            for each in (name, f"{name}_low", f"{name}_high"):
                if attribute(scored, each, float) is None:
                    raise ValueError(f"its attribute {each} of {scored.name} is missing or no float")


def _check_decomposition(file: h5py.File, dimensions: int) -> None:
    grid, shape = (_vector(file["decomposition"], name, WHOLE) for name in ("grid", "image_shape"))
    parts, size = grid.tolist(), shape.tolist()
    lower, upper = (file[f"decomposition/{name}"][...] for name in ("lower", "upper"))
    coarse = bool(attribute(file["decomposition"], "coarse_image", int))
    if dimensions not in (2, 3) or not len(parts) == len(size) == dimensions or prod(parts) + coarse != len(lower):
        raise ValueError(f"its grid {parts} does not fit to {len(lower)} windows in {dimensions} dimensions")
    if coarse and len(_vector(file["decomposition"], "coarse_shape", WHOLE)) != dimensions:
        raise ValueError(f"its coarse image does not have {dimensions} dimensions")
    subdomains = windows(size, parts, int(file["decomposition"].attrs["overlap"]), balance(file))
    found = bounds([*subdomains, *[whole(size)] * coarse])
    if not (np.array_equal(found[0], lower) and np.array_equal(found[1], upper)):
        raise ValueError(f"its windows are not those of the grid {parts} on images of {size}")


def balance(file: h5py.File) -> Balance:
    """What is of equal extent in a results file; equal blocks in older ones, which do not tell."""
    found = attribute(file["decomposition"], "balance", str) or "blocks"
    if found not in get_args(Balance):
        raise ValueError(f"its balance {found[:20]} is none of {', '.join(get_args(Balance))}")
    return cast(Balance, found)


def _vector(item: h5py.HLObject, name: str, kinds: str) -> np.ndarray:
    """An attribute [n] with elements of these kinds."""
    found = item.attrs.get(name)
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in kinds or not found.size:
        raise ValueError(f"its attribute {name} of {item.name} is missing or no row of {_shown(kinds)}")
    return found


def _check_values(file: h5py.File, sizes: dict[str, int]) -> None:
    """What tables and figures count on, beyond kinds and shapes."""
    for host in _vector(file, "hosts", TEXT).tolist():
        host.decode()
    for split in SPLITS:
        labels = file[f"samples/{split}/label"][...]
        if labels.min() < 0 or labels.max() >= sizes["K"]:
            raise ValueError(f"its labels of {split} are {labels.min()} to {labels.max()}, of {sizes['K']} classes")
    for name in ("val/accuracy", "seconds", "cpu_seconds", "path_seconds"):
        values = file[f"local/{name}"][...] if name in file["local"] else np.ones(1)
        if not np.isfinite(values).any() or (np.nanmax(values) <= 0 and name != "val/accuracy"):
            raise ValueError(f"its dataset local/{name} holds no number of any subdomain")
    if file["timing"].attrs["total"] <= 0 or min(file.attrs["ranks"], file.attrs["cores"]) < 1:
        raise ValueError("its seconds, ranks or cores are not above 0")
    if "timing/phase" in file and not set(decoded(file["timing/phase"])) <= set(PHASES):
        raise ValueError(f"its phases are not among {', '.join(PHASES)}")
