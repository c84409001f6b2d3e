"""What a results file has to hold before anything in it is believed."""

from __future__ import annotations

import h5py

from ddhpc.data.hdf5 import attribute, check_self_contained
from ddhpc.data.packed import SPLITS

ATTRIBUTES = {"config": str, "data_digest": str, "ddhpc_version": str, "git_commit": str, "ranks": int, "cores": int}
LOCAL = {"seconds": "f", "cpu_seconds": "f", "parameters": "i", "rank": "i", "peak_memory_bytes": "i", "device": "S"}
HISTORY = ("loss", "accuracy", "learning_rate", "seconds")
DATASETS: dict[str, tuple[str, str]] = {
    "classes": ("S", "K"),
    "subdomain": ("iu", "N"),
    "decomposition/lower": ("i", "Nd"),
    "decomposition/upper": ("i", "Nd"),
    **{f"samples/{split}/label": ("i", split) for split in SPLITS},
    **{f"samples/{split}/id": ("S", split) for split in SPLITS},
    **{f"local/{split}/decision": ("f", f"N,{split},K") for split in SPLITS},
    **{f"local/{split}/accuracy": ("f", "N") for split in SPLITS},
    **{f"local/{split}/sha256": ("S", "N") for split in SPLITS},
    **{f"local/{name}": (kind, "N") for name, kind in LOCAL.items()},
    **{f"local/history/{name}": ("f", "NE") for name in HISTORY},
    **{f"coarse/{split}/decision": ("f", f"{split},K") for split in SPLITS},
    **{f"fusion/dnn/{split}/confusion": ("i", "KK") for split in ("val", "test")},
}
"""Kinds of the elements and extents: N subdomains, K classes, E epochs, d dimensions, samples by their split."""


def check_schema(file: h5py.File) -> None:
    """ValueError in one line where a file cannot be a results file, whatever it says of itself."""
    check_self_contained(file)
    for name, kind in ATTRIBUTES.items():
        if attribute(file, name, kind) is None:
            raise ValueError(f"its attribute {name} is missing or no {kind.__name__}")
    sizes: dict[str, int] = {}
    for name, (kinds, extents) in DATASETS.items():
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"lacks the dataset {name}")
        axes = extents.split(",") if "," in extents or extents in SPLITS else list(extents)
        wanted = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, found.shape, strict=False))
        if found.dtype.kind not in kinds or found.shape != wanted or len(axes) != found.ndim:
            raise ValueError(f"its dataset {name} is {found.dtype} {found.shape}, which fits not to the others")
    for split in ("val", "test"):
        if attribute(file["fusion/dnn"], split, float) is None:
            raise ValueError(f"lacks the accuracy of fusion/dnn on {split}")
