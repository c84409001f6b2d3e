"""What thousands of subdomains cost besides training: the whole program on tiny windows and a tiny network.

    python benchmarks/many_subdomains.py [--jobs 2x32 2x64 64x32]      # ranks x parts of the grid along each side

159 images of 128x128 pixels, overlap 1, one dense layer, one epoch. Each job starts without a report, which is written
and timed afterwards. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from ddhpc.data.packed import SPLITS
from ddhpc.data.packed.writer import Contents, Split, write_packed
from ddhpc.results.provenance import processor

TINY = """
from torch import nn

def tiny(*, channels, classes, dimensions, width, depth):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""
OPTIONS = [
    *("--data.file", "noise.h5", "--decomposition.overlap", 1, "--model.name", "tiny:tiny", "--local.epochs", 1),
    *("--local.batch_size", 32, "--coarse.epochs", 1, "--coarse.inputs", "decisions", "--run.threads", 1),
    *("--run.report", "false"),
]
SAMPLES = (96, 30, 33)


def seconds(command: Sequence[object], work: Path) -> float:
    """In which a command succeeds."""
    began = time.perf_counter()
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in command], cwd=work, check=True, stdout=subprocess.DEVNULL, env=variables)
    return time.perf_counter() - began


def job(ranks: int, parts: int, work: Path) -> None:
    """Train, report, and print a row."""
    python, run = [sys.executable, "-m", "ddhpc"], f"{ranks}x{parts}"
    options = [*OPTIONS, "--decomposition.grid", parts, parts, "--output", run]
    whole = seconds(["mpirun", "-n", ranks, *python, *options], work)
    with h5py.File(work / run / "results.h5") as file:
        phases = file["timing/seconds"][...].max(axis=0).tolist()
    size = sum(path.stat().st_size for path in (work / run).rglob("*")) / 2**20
    report = seconds([*python, "report", run], work)
    cells = [
        f"{parts**2:,}",
        ranks,
        *(f"{phase:.1f}" for phase in phases),
        f"{whole:.0f}",
        f"{size:.0f}",
        f"{report:.0f}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=["2x32", "2x64", "64x32"])
    given = parser.parse_args()
    work, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    (work / "tiny.py").write_text(TINY)
    splits = {
        split: Split(
            labels=np.arange(count) % 3,
            ids=[f"{n}" for n in range(count)],
            images=rng.integers(0, 256, (count, 1, 128, 128), np.uint8),
        )
        for split, count in zip(SPLITS, SAMPLES, strict=True)
    }
    about = {"classes": tuple("abc"), "image_shape": (128, 128), "channels": 1, "dtype": "uint8", "source": "noise"}
    write_packed(work / "noise.h5", Contents(splits=splits, **about))
    print(f"{processor()}, torch {torch.__version__}; slowest rank of each phase\n")
    heads = "subdomains | ranks | start-up | read | train | wait | write | gather | coarse | whole, s | MiB | report, s"
    print(f"| {heads} |\n|{'---|' * 12}")
    for each in given.jobs:
        job(*map(int, each.split("x")), work)


if __name__ == "__main__":
    main()
