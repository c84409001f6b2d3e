"""Real time on this machine: ddhpc against the global CNN trained data-parallel on as many processes.

    python benchmarks/wall_clock.py flowers.h5 --recipe flowers --repeats 3 [--epochs 10] [--grids 2x2 4x4] [OPTION...]

One after the other, for each seed: the global CNN by `plain_ddp.py`, which uses nothing of ddhpc, and ddhpc with each
grid; with 1x1 its ranks form a team (DDP with synchronised batch normalisation). All have the same epochs, batch, rate
and augmentation; each OPTION is one of `ddhpc train`, for ddhpc alone. Times are those of whole processes, from the
start of Python to the end; nothing else may run beside.
Prints Markdown. What was measured stays in `--output`, with the runs: the same command goes on where it was stopped.
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
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import torch

from ddhpc.cli.options import configure, train_parser
from ddhpc.config import Config
from ddhpc.results.provenance import processor

PLAIN = Path(__file__).with_name("plain_ddp.py")
BASELINE = "global CNN, plain DDP"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One training."""

    wall: float
    cpu: float
    test: float


def timed(command: list[str], accuracy, log: Path) -> Measured:
    """Run a command to its end, unless the log has it; `accuracy` finds the accuracy on test from what it printed."""
    for entry in map(json.loads, log.read_text().splitlines() if log.exists() else []):
        if entry.pop("command") == command:
            return Measured(**entry)
    print(f"  {shlex.join(command)}", file=sys.stderr, flush=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measured = Measured(wall=wall, cpu=cpu, test=accuracy(printed))
    with log.open("a") as file:
        print(json.dumps({"command": command, **asdict(measured)}), file=file)
    return measured


def ddhpc(grid: str, arguments: list[str], ranks: int, directory: Path, log: Path) -> Measured:
    """A training by ddhpc, from its start even where an earlier one was stopped."""
    overlap = [] if grid != "1x1" else ["--decomposition.overlap", "0"]
    command = ["mpirun", "-n", str(ranks), sys.executable, "-m", "ddhpc", *arguments, "--run.threads", "1"]
    command += ["--run.report", "false"]
    command += ["--decomposition.grid", *grid.split("x"), *overlap, "--output", str(directory), "--overwrite"]

    def accuracy(printed: str) -> float:
        with h5py.File(directory / "results.h5") as file:
            return float(file["fusion/dnn"].attrs["test"])

    return timed(command, accuracy, log)


def plain(file: str, config: Config, processes: int, seed: int, log: Path) -> Measured:
    """A training by `plain_ddp.py`."""
    local = config.local
    options = {"epochs": local.epochs, "batch_size": local.batch_size, "learning_rate": local.rate}
    options |= {"shift": local.shift, "width": config.model.global_width, "seed": seed, "processes": processes}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(PLAIN), file, *words, *["--flip"] * local.flip]
    return timed(command, lambda printed: json.loads(printed.splitlines()[-1])["test"], log)


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
    parser.add_argument("--grids", nargs="+", default=["1x1", "2x2", "4x4"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="each with another seed")
    parser.add_argument("--output", type=Path, help="where runs and times stay; runs/wall_clock-FILE without it")
    given, options = parser.parse_known_args()
    arguments = ["--recipe", given.recipe, "--data.file", given.file, "--model.width", "auto"]
    arguments += ["--local.epochs", str(given.epochs)] if given.epochs else []
    arguments += ["--model.global_width", str(given.global_width)] if given.global_width else []
    config = configure(arguments, train_parser()).config
    arguments += options

    output = given.output or Path("runs") / f"wall_clock-{Path(given.file).stem}"
    output.mkdir(parents=True, exist_ok=True)
    log = output / "measured.jsonl"
    runs: dict[str, list[Measured]] = {}
    for seed in range(given.repeats):
        runs.setdefault(BASELINE, []).append(plain(given.file, config, given.ranks, seed, log))
        for grid in given.grids:
            name = f"ddhpc {grid}" if grid != "1x1" else "global CNN, ddhpc's team"
            directory = output / "-".join([grid, str(config.local.epochs), str(seed), *options]).replace("--", "")
            seeded = [*arguments, "--run.seed", str(seed)]
            runs.setdefault(name, []).append(ddhpc(grid, seeded, given.ranks, directory, log))

    local = config.local
    print(
        f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}; {given.ranks} processes of one thread; "
        f"{Path(given.file).name}, {local.epochs} epochs, batch {local.batch_size}, shift {local.shift}, "
        f"flip {local.flip}, global width {config.model.global_width}; ddhpc {shlex.join(options) or 'as the recipe'}; "
        f"n = {given.repeats}, seed 0 and up; "
        f"{time.strftime('%Y-%m-%d')}\n"
    )
    print("| training | wall, s | CPU, s | test, % | times faster than plain DDP | s to its accuracy |")
    print("|---|---|---|---|---|---|")
    for name, measured in runs.items():
        print(line(name, measured, runs[BASELINE]))


if __name__ == "__main__":
    main()
