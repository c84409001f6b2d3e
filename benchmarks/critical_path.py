"""The critical path against the global CNN on one core, part by part, on the runs of studies.

    python -m ddhpc sweep benchmarks/studies/ct_phantoms.yaml --ranks 1
    python benchmarks/critical_path.py runs/ct_phantoms [STUDY ...]

One rank trained all subdomains of a run, one after the other, each alone on a core. The path is projected: what a
machine takes that has such a core for each subdomain, and a file system that does not slow down. "read" is that of all
subdomains divided by N, "write" and "gather" are those of all, "train" is CPU time of the slowest local CNN. Prints
Markdown: medians over the seeds, in brackets the range.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from ddhpc.config import Config
from ddhpc.results import FILE, open_results
from ddhpc.results.cost import critical_path, machine
from ddhpc.wording import by

PARTS = ("read", "train", "write", "gather", "coarse")


class Run(NamedTuple):
    """What is told of a run."""

    grid: tuple[int, ...]
    epochs: int
    seed: int
    published: bool
    """Whether trained by the method as published, with no other coarse decisions and no coherent training."""
    seconds: dict[str, float]
    """Of each of PARTS."""
    test: float
    """Accuracy."""
    where: str


def read(directory: Path) -> Run:
    """The run in a directory."""
    with open_results(directory) as file:
        config = Config.from_yaml(file.attrs["config"])
        if file.attrs["ranks"] > 1:
            raise SystemExit(f"{directory}: was trained by {file.attrs['ranks']} ranks; expected sweep --ranks 1")
        grid, path = config.decomposition.grid, critical_path(file)
        timing = {part: float(file["timing"].attrs[part]) for part in ("read", "write", "gather")}
        seconds = timing | {"read": timing["read"] / prod(grid), "train": path.local, "coarse": path.coarse}
        test = float(file["fusion/dnn"].attrs["test"])
        published = config.coarse.decisions == "in_sample" and config.coherent.start == "none"
        where = f"{file.attrs['processor']}, {machine(file)}"
        return Run(grid, config.local.epochs, config.run.seed, published, seconds, test, where)


def told(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def line(problem: str, runs: Sequence[Run], baseline: dict[int, Run]) -> str:
    """A row of the table."""
    totals = [sum(run.seconds.values()) for run in runs]
    ratios = [sum(baseline[run.seed].seconds.values()) / total for run, total in zip(runs, totals, strict=True)]
    cells = [
        problem,
        by(runs[0].grid),
        str(runs[0].epochs),
        *(f"{median(run.seconds[part] for run in runs):.2f}" for part in PARTS),
        told(totals, 1),
        told(ratios, 1),
        told([100 * run.test for run in runs], 1),
        str(len(runs)),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table of all studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="directories of runs that differ in grid and seed")
    given = parser.parse_args()
    studies = {study.name: [read(file.parent) for file in study.glob(f"*/{FILE}")] for study in given.studies}
    where = {run.where for runs in studies.values() for run in runs}
    print(f"{'; '.join(sorted(where))}, torch {torch.__version__}; seconds, median (range) over n seeds\n")
    print("| problem | grid | epochs | read | train | write | gather | coarse | path | times shorter | test, % | n |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for problem, found in studies.items():
        runs = [run for run in found if run.published]
        baseline = {run.seed: run for run in runs if prod(run.grid) == 1}
        alike: dict[tuple[int, int], list[Run]] = {}
        for run in runs:
            if run.seed in baseline:
                alike.setdefault((prod(run.grid), run.epochs), []).append(run)
        for _, group in sorted(alike.items()):
            print(line(problem, group, baseline))


if __name__ == "__main__":
    main()
