"""How long the local CNNs and the coarse DNN of a run were trained, and of which epoch their weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import h5py
import numpy as np

from ddhpc.config import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class Epochs:
    """Of the subdomains that are present, or of the coarse DNN, n = 1."""

    planned: int
    trained: np.ndarray
    """[n] int64; fewer than planned where a training stopped early."""
    kept: np.ndarray
    """[n] int64, the epoch that the weights are of, counted from 1."""


def epochs(file: h5py.File, level: Literal["local", "coarse"] = "local") -> Epochs:
    """The epochs of a run; those of its last fold where each local CNN was trained several times."""
    history = file[f"{level}/history"]
    known = np.atleast_2d(np.isfinite(history["loss"][...]))
    present, trained = known.any(axis=1), known.sum(axis=1)
    if not known.size:  # the coarse DNN of a single subdomain
        return Epochs(planned=0, trained=trained[present], kept=trained[present])
    kept = trained
    if getattr(Config.from_yaml(file.attrs["config"]), level).keep == "best" and "val_loss" in history:
        loss = np.atleast_2d(history["val_loss"][...])
        validated = np.isfinite(loss)
        kept = np.where(validated.any(axis=1), np.where(validated, loss, np.inf).argmin(axis=1) + 1, trained)
    return Epochs(planned=known.shape[1], trained=trained[present], kept=kept[present])
