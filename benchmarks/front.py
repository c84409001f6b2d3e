"""Accuracy against critical path: local width, overlap, and what the coarse DNN takes, on the runs of studies.

    python -m ddhpc sweep benchmarks/studies/front_cifar10.yaml --ranks 1   # and others
    python benchmarks/front.py runs/front_cifar10 runs/front_brain --output front

Each directory is the study of a problem: finished runs with a coarse image and local features, and the global CNN of
each seed. The coarse DNN is solved again without each of them, so that a run gives four points. The path is projected:
CPU seconds of the slowest local CNN that counts, and of the coarse DNN. Which points are on the front is found on val;
what is shown is the accuracy on test less that of the global CNN, the mean over the seeds. Writes OUTPUT.md and
OUTPUT.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.figure import Figure

from ddhpc import results
from ddhpc.config import Config
from ddhpc.method import coarse
from ddhpc.method.fusions import by_blocks
from ddhpc.method.metrics import accuracy
from ddhpc.method.problem import seed_process
from ddhpc.results.cost import critical_path, machine, path_seconds
from ddhpc.wording import by

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
HEAD = (
    "| problem | grid | overlap | width | the coarse DNN takes | seeds | val, points | test, points | times shorter | "
    "front |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the points of a problem differ in, beside the seed."""

    grid: tuple[int, ...]
    overlap: int
    width: str
    """Channels of the local CNNs, and of the coarse image's where it is another number."""
    features: bool
    coarse_image: bool

    @property
    def inputs(self) -> str:
        """What the coarse DNN takes, in words."""
        extra = [name for name, there in (("features", self.features), ("coarse image", self.coarse_image)) if there]
        return " + ".join(["decisions", *extra])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Accuracies, shares, and seconds of the critical path."""

    val: float
    test: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """Settings against the global CNN, means over the seeds; accuracies in points."""

    settings: Settings
    seeds: int
    val: float
    test: float
    shorter: float


def solved(directory: Path) -> Iterator[tuple[int, Settings, Outcome]]:
    """Seed, settings and outcome of a run, with and without its features and its coarse image."""
    with results.open_results(directory) as file:
        config = Config.from_yaml(file.attrs["config"])
        local, seconds = results.stored_outputs(file), path_seconds(file)
        labels = {split: file[f"samples/{split}/label"][...].astype(np.int64) for split in local}
        learned = np.flatnonzero(file["samples/train/fold"][...] >= 0)
        classes, parts = len(file["classes"]), prod(config.decomposition.grid)
        if parts == 1:
            final = {split: accuracy(local[split][0], labels[split]) for split in ("val", "test")}
            alone = Settings(grid=config.decomposition.grid, overlap=0, width="", features=False, coarse_image=False)
            yield config.run.seed, alone, Outcome(**final, seconds=critical_path(file).seconds)
            return
    chosen = config.model
    width = f"{chosen.width}" + (f" and {chosen.coarse_width}" if chosen.coarse_width != "auto" else "")
    for coarse_image in {False, len(seconds) > parts}:
        for features in {False, local["train"].shape[2] > classes}:
            subdomains = parts + coarse_image
            taken = {split: each[:subdomains, :, : None if features else classes] for split, each in local.items()}
            taken = {split: np.ascontiguousarray(each) for split, each in taken.items()}
            seed_process(config.run.seed, subdomains)
            started = time.process_time()
            network, _ = coarse.train_dnn(taken, labels, classes, config.coarse, "cpu", learned)
            fusion = partial(coarse.decide, network)
            final = {split: accuracy(by_blocks(fusion, taken[split]), labels[split]) for split in ("val", "test")}
            path = float(np.max(seconds[:subdomains])) + time.process_time() - started
            settings = Settings(
                grid=config.decomposition.grid,
                overlap=config.decomposition.overlap,
                width=width,
                features=features,
                coarse_image=coarse_image,
            )
            yield config.run.seed, settings, Outcome(**final, seconds=path)


def points(study: Path) -> list[Point]:
    """The points of a problem, the shortest path first."""
    found: dict[Settings, dict[int, Outcome]] = {}
    baseline: dict[int, Outcome] = {}
    for path in sorted(study.glob(f"*/{results.FILE}")):
        print(f"{path.parent}", flush=True)
        for seed, settings, outcome in solved(path.parent):
            (found.setdefault(settings, {}) if prod(settings.grid) > 1 else baseline)[seed] = outcome
    made = []
    for settings, outcomes in found.items():
        pairs = [(outcome, baseline[seed]) for seed, outcome in outcomes.items() if seed in baseline]
        if pairs:
            made.append(
                Point(
                    settings=settings,
                    seeds=len(pairs),
                    val=100 * mean(mine.val - its.val for mine, its in pairs),
                    test=100 * mean(mine.test - its.test for mine, its in pairs),
                    shorter=mean(its.seconds / mine.seconds for mine, its in pairs),
                )
            )
    return sorted(made, key=lambda point: -point.shorter)


def front(of: Sequence[Point]) -> list[Point]:
    """The points, ordered as `points` gives them, that none with a shorter path equals on val."""
    best, kept = -np.inf, []
    for point in of:
        if point.val > best:
            best = point.val
            kept.append(point)
    return kept


def table(problems: dict[str, list[Point]]) -> str:
    """All points as Markdown."""
    lines = [HEAD]
    for problem, found in problems.items():
        for point in found:
            settings, on_front = point.settings, "yes" if point in front(found) else ""
            cells = (problem, by(settings.grid), settings.overlap, settings.width, settings.inputs, point.seeds)
            shown = (f"{point.val:+.1f}", f"{point.test:+.1f}", f"{point.shorter:.1f}", on_front)
            lines.append(f"| {' | '.join(map(str, (*cells, *shown)))} |")
    return "\n".join(lines)


def figure(problems: dict[str, list[Point]]) -> Figure:
    """The fronts, one curve a problem, over the faint points that are not on them."""
    drawn = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = drawn.subplots()
    for colour, (problem, found) in zip(COLOURS, problems.items(), strict=False):
        name = problem.removeprefix("front_")
        axes.scatter([p.shorter for p in found], [p.test for p in found], s=10, color=colour, alpha=0.25, linewidths=0)
        best = front(found)
        axes.plot([p.shorter for p in best], [p.test for p in best], color=colour, marker="o", markersize=4, label=name)
    axes.axhline(0, color="#767676", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:g}"[0] in "235" else "")
    axes.set_xlabel("times shorter than training the global CNN (critical path, projected)")
    axes.set_ylabel("points more accurate on test")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn


def main() -> None:
    """Write table and figure of all studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="directories of runs, each of one problem")
    parser.add_argument("--output", type=Path, default=Path("front"), help="name of the table and the figure")
    given = parser.parse_args()
    problems = {study.name: points(study) for study in given.studies}
    where = set()
    for study in given.studies:
        for path in study.glob(f"*/{results.FILE}"):
            with results.open_results(path.parent) as file:
                where.add(f"{file.attrs['processor']}, {machine(file)}, commit {file.attrs['git_commit'][:7]}")
    made = f"{'; '.join(sorted(where))}, torch {torch.__version__}"
    given.output.with_suffix(".md").write_text(f"{made}\n\n{table(problems)}\n")
    figure(problems).savefig(given.output.with_suffix(".png"), dpi=160)


if __name__ == "__main__":
    main()
