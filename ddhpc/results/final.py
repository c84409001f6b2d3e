"""The final decisions that a results file holds, or that follow from its local ones, and their metrics."""

from __future__ import annotations

import h5py
import numpy as np

from ddhpc.errors import InputError
from ddhpc.method.evaluation import Decided, Evaluation, evaluate
from ddhpc.method.fusions import by_blocks, mean, vote
from ddhpc.results.format import FINAL, SCORED
from ddhpc.results.reader import names, patients


def unchecked_decisions(file: h5py.File, split: str, fusion: str) -> np.ndarray:
    """Final decisions [S, K] float32 of a fusion for the samples of a split; of one subdomain all are its own.

    They are not compared with their checksums, as those of `decisions.final_decisions` are: for those who verify the
    file, and show what a damaged one holds before they say so.

    Raises:
        InputError: names the option --fusion, where the run has no coherent CNN-DNN.
    """
    if fusion in ("mean", "vote") and len(file["local/val/decision"]) == 1:
        fusion = "dnn"
    if fusion in ("mean", "vote"):
        return by_blocks({"mean": mean, "vote": vote}[fusion], file[f"local/{split}/decision"])
    group = next(group for group, name in FINAL.items() if name == fusion)
    if group not in file:
        raise InputError(f"--fusion {fusion}: {file.filename} has none; expected a run with --coherent.start")
    return np.asarray(file[f"{group}/{split}/decision"][...])


def evaluated(file: h5py.File, fusion: str = "dnn", positive: str | None = None) -> Evaluation:
    """The metrics of the final decisions of a run, computed from its decisions, so that older files have them too.

    Args:
        file: results of the run.
        fusion: see `unchecked_decisions`.
        positive: name of the class that counts as positive; see `evaluation.evaluate` for None.

    Raises:
        InputError: names the option, --fusion or --positive, where the run has no such thing.
    """
    decided = {
        split: Decided(
            decisions=unchecked_decisions(file, split, fusion),
            labels=file[f"samples/{split}/label"][...].astype(np.int64),
            patients=patients(file, split),
        )
        for split in SCORED
    }
    return evaluate(decided, positive_class(file, positive))


def positive_class(file: h5py.File, positive: str | None) -> int | None:
    """The index of the class of the option --positive, None without it; InputError where the run has no such class."""
    classes = names(file["classes"])
    if positive is not None and positive not in classes:
        raise InputError(f"--positive {positive}: no class of {file.filename}; expected one of {', '.join(classes)}")
    return None if positive is None else classes.index(positive)
