"""Real time on this machine: ddhpc against the global CNN trained data-parallel on as many processes.

    python benchmarks/wall_clock.py flowers.h5 --recipe flowers [--epochs 10] [--grids 2x2 4x4] [--repeats 1]

One after the other: ddhpc with each grid; the global CNN by ddhpc, whose ranks then form a team (DDP with synchronised
batch normalisation); and by `plain_ddp.py`, which uses nothing of ddhpc. All have the same epochs, batch, rate and
augmentation. Times are those of whole processes, from the start of Python to the end; nothing else may run beside.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch

from ddhpc.config import Config
from ddhpc.options import configure, train_parser
from ddhpc.provenance import processor

PLAIN = Path(__file__).with_name("plain_ddp.py")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training."""

    wall: float
    cpu: float
    test: float


def timed(command: list[str], accuracy) -> Measured:
    """Run a command to its end; `accuracy` finds the accuracy on test from what it printed."""
    print(f"  {shlex.join(command)}", file=sys.stderr, flush=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall=wall, cpu=cpu, test=accuracy(printed))


def ddhpc(grid: tuple[int, ...], arguments: list[str], ranks: int) -> Measured:
    """A training by ddhpc."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        overlap = [] if max(grid) > 1 else ["--decomposition.overlap", "0"]
        command = ["mpirun", "-n", str(ranks), sys.executable, "-m", "ddhpc", *arguments, "--run.threads", "1"]
        command += ["--decomposition.grid", *map(str, grid), *overlap, "--output", str(directory)]

        def accuracy(printed: str) -> float:
            with h5py.File(directory / "results.h5") as file:
                return float(file["fusion/dnn"].attrs["test"])

        return timed(command, accuracy)


def plain(file: str, config: Config, processes: int, seed: int) -> Measured:
    """A training by `plain_ddp.py`."""
    local = config.local
    options = {"epochs": local.epochs, "batch_size": local.batch_size, "learning_rate": local.learning_rate}
    options |= {"shift": local.shift, "width": config.model.global_width, "seed": seed, "processes": processes}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(PLAIN), file, *words, *["--flip"] * local.flip]
    return timed(command, lambda printed: json.loads(printed.splitlines()[-1])["test"])


def line(name: str, runs: list[Measured], baseline: list[Measured]) -> str:
    """A row of the table."""

    def told(values: list[float], digits: int = 0) -> str:
        span = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
        return f"{statistics.median(values):.{digits}f}{span}"

    times = statistics.median(run.wall for run in baseline) / statistics.median(run.wall for run in runs)
    reached = [run.wall for run in runs if run.test >= statistics.median(other.test for other in baseline)]
    cells = [
        name,
        told([run.wall for run in runs]),
        told([run.cpu for run in runs]),
        told([100 * run.test for run in runs], 1),
        f"{times:.1f}",
        f"{told(reached)} in {len(reached)} of {len(runs)}" if reached else "not reached",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="packed file of images")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--epochs", type=int, help="those of the recipe without it")
    parser.add_argument("--global-width", type=int, help="likewise")
    parser.add_argument("--grids", nargs="+", default=["2x2", "4x4"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="each with another seed")
    given = parser.parse_args()
    arguments = ["--recipe", given.recipe, "--data.file", given.file]
    arguments += ["--local.epochs", str(given.epochs)] if given.epochs else []
    arguments += ["--model.global_width", str(given.global_width)] if given.global_width else []
    config = configure(arguments, train_parser()).config

    runs: dict[str, list[Measured]] = {}
    for seed in range(given.repeats):
        seeded = [*arguments, "--run.seed", str(seed)]
        runs.setdefault("global CNN, plain DDP", []).append(plain(given.file, config, given.ranks, seed))
        runs.setdefault("global CNN, ddhpc's team", []).append(ddhpc((1, 1), seeded, given.ranks))
        for grid in given.grids:
            parts = tuple(map(int, grid.split("x")))
            runs.setdefault(f"ddhpc {grid}, dnn", []).append(ddhpc(parts, seeded, given.ranks))

    local = config.local
    print(
        f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}; {given.ranks} processes of one thread; "
        f"{Path(given.file).name}, {local.epochs} epochs, batch {local.batch_size}, shift {local.shift}, "
        f"flip {local.flip}, global width {config.model.global_width}; n = {given.repeats}, seed 0 and up; "
        f"{time.strftime('%Y-%m-%d')}\n"
    )
    print("| training | wall, s | CPU, s | test, % | times faster than plain DDP | s to its accuracy |")
    print("|---|---|---|---|---|---|")
    for name, measured in runs.items():
        print(line(name, measured, runs["global CNN, plain DDP"]))


if __name__ == "__main__":
    main()
