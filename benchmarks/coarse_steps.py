"""How many steps the coarse DNN needs: solve the coarse problem of finished runs again, with other numbers of them.

    python benchmarks/coarse_steps.py --problem faces runs/faces-0 runs/faces-1 --problem flowers runs/flowers-0 ...

Each problem names its runs, which differ in seed alone. Prints Markdown: the accuracy of `dnn` less that of `mean` in
percentage points, on val and on test, means over the runs, and the standard error over them on test.
"""

from __future__ import annotations

import argparse
import os
import time
from math import ceil
from pathlib import Path

import numpy as np
import torch

from ddhpc.config import Coarse
from ddhpc.method import coarse
from ddhpc.method.fusions import mean
from ddhpc.method.metrics import margin
from ddhpc.results import SCORED, open_results
from ddhpc.results.provenance import processor

REPEATS = 2
"""Coarse trainings of each run, from other seeds."""


def solved(run: Path, steps: int) -> list[float]:
    """By how much dnn is above mean on val and on test.

    Args:
        run: directory.
        steps: that the coarse DNN makes at least, and 30 epochs at least; these alone for 0.
    """
    with open_results(run) as file:
        local = {split: file[f"local/{split}/decision"][...] for split in ("train", *SCORED)}
        labels = {split: file[f"samples/{split}/label"][...] for split in local}
        learned = np.flatnonzero(file["samples/train/fold"][...] >= 0)
    batches = ceil(len(learned) / Coarse().batch_size)
    config = Coarse(epochs=max(coarse.LEAST_EPOCHS, ceil(steps / batches)))
    above = []
    for seed in range(REPEATS):
        torch.manual_seed(seed)
        network, _ = coarse.train_dnn(local, labels, local["train"].shape[2], config, "cpu", learned)
        above.append(
            [margin(coarse.decide(network, local[split]), mean(local[split]), labels[split])[0] for split in SCORED]
        )
    return [float(each) for each in np.mean(above, axis=0)]


def row(name: str, runs: list[Path], rules: list[int]) -> str:
    """The row of a problem."""
    with open_results(runs[0]) as file:
        subdomains, images, classes = file["local/train/decision"].shape
    means = []
    for run in runs:
        with open_results(run) as file:
            means.append(file["fusion/mean"].attrs["test"])
    cells = [name, f"{images:,}", str(classes), str(subdomains), f"{100 * np.mean(means):.1f}"]
    for steps in rules:
        val, test = 100 * np.array([solved(run, steps) for run in runs]).T
        error = f" ± {test.std(ddof=1) / len(runs) ** 0.5:.1f}" if len(runs) > 1 else ""
        cells.append(f"{val.mean():+.1f} / {test.mean():+.1f}{error}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """One row a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", action="append", required=True, metavar=("NAME", "RUN"))
    parser.add_argument("--steps", type=int, nargs="+", default=[600, 1000, 2000])
    given = parser.parse_args()
    torch.set_num_threads(1)
    rules = [0, *given.steps]
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}\n")
    names = ["problem", "images", "K", "N", "mean, test", "30 epochs", *(f"{steps:,} steps" for steps in given.steps)]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for name, *runs in given.problem:
        print(row(name, [Path(run) for run in runs], rules), flush=True)


if __name__ == "__main__":
    main()
