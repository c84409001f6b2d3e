"""All decisions of a run as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ddhpc.data.hdf5 import replace
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.results import names, open_results
from ddhpc.results.decisions import final_decisions, fusions, ids, labels
from ddhpc.visible import visible


def write_decisions(run: Path, path: Path) -> int:
    """Write a row for each sample of all splits, and give their number; the file is whole or absent.

    The columns are split, id, label, decision (of dnn), and for each fusion the probability of each class, as
    dnn_CLASS. Probabilities have as many digits as float32 has, so that a reader gets the same numbers.

    Raises:
        InputError: the run is not finished or damaged, or the file cannot be written.
    """
    part, rows = path.with_name(path.name + ".part"), 0
    with open_results(run) as file:
        classes, found = names(file["classes"]), ("dnn", *(each for each in fusions(file) if each != "dnn"))
        try:
            with part.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(
                    ["split", "id", "label", "decision", *(f"{fusion}_{name}" for fusion in found for name in classes)]
                )
                for split in SPLITS:
                    finals = [final_decisions(file, split, fusion) for fusion in found]
                    table = zip(ids(file, split), labels(file, split), np.concatenate(finals, 1), strict=True)
                    for (name, label, row), decided in zip(table, finals[0].argmax(1), strict=True):
                        writer.writerow(
                            [split, visible(name, kept=""), classes[label], classes[decided], *map(str, row)]
                        )
                        rows += 1
            replace(part, path)
        except OSError as error:
            raise InputError(
                f"--decisions {path}: cannot be written: {error.strerror}; expected a writable directory with space"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    return rows
