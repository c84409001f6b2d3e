"""What to say of trainings that stopped early, and of weights that are not those of the last epoch."""

from __future__ import annotations

import h5py
import numpy as np

from ddhpc.results.epochs import epochs


def stopping(file: h5py.File) -> list[str]:
    """What to say where trainings stopped early, or weights are not those of the last epoch; else nothing."""
    found, told = epochs(file), []
    stopped = found.trained[found.trained < found.planned]
    if len(stopped):
        told.append(
            f"{len(stopped)} of {len(found.trained)} local CNNs stopped after {_range(stopped)} of {found.planned} "
            "epochs, since their loss on val fell no more"
        )
    earlier = found.kept[found.kept < found.trained]
    if len(earlier):
        told.append(
            f"{len(earlier)} of {len(found.kept)} local CNNs have the weights of epoch {_range(earlier)}, after which "
            "their loss on val was lowest: what is said of val is slightly optimistic"
        )
    return told + _coarse_stopping(file)


def _coarse_stopping(file: h5py.File) -> list[str]:
    """`stopping` of the coarse DNN."""
    found = epochs(file, "coarse")
    told = [
        f"the coarse DNN stopped after {trained} of {found.planned} epochs, since its loss on val fell no more"
        for trained in found.trained[found.trained < found.planned]
    ]
    return told + [
        f"the coarse DNN has the weights of epoch {kept}, after which its loss on val was lowest: what is said of val "
        "is slightly optimistic"
        for kept in found.kept[found.kept < found.trained]
    ]


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} to {high}" if low < high else str(low)
