"""What thousands of subdomains cost besides training: the whole program on tiny windows and a tiny network.

    python benchmarks/many_subdomains.py [--jobs 2x32 2x64 64x32]      # ranks x parts of the grid along each side

159 images of 128x128 pixels, overlap 1, one dense layer, one epoch. Each job starts without a report, which is written
and timed afterwards. Prints a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import torch
from jobs import row, seconds, size

from ddhpc.data.packed import SPLITS
from ddhpc.data.packed.writer import Contents, Split, write_packed
from ddhpc.results.format import PHASES
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


def job(ranks: int, parts: int, work: Path) -> None:
    """Train, report, and print a row."""
    python, run = [sys.executable, "-m", "ddhpc"], f"{ranks}x{parts}"
    options = [*OPTIONS, "--decomposition.grid", parts, parts, "--output", run]
    whole = seconds(["mpirun", "-n", ranks, *python, *options], cwd=work, stdout=DEVNULL)
    with h5py.File(work / run / "results.h5") as file:
        phases = [f"{phase:.1f}" for phase in file["timing/seconds"][...].max(axis=0)]
    kept = size(work / run) / 2**20
    report = seconds([*python, "report", run], cwd=work, stdout=DEVNULL)
    row(f"{parts**2:,}", ranks, *phases, f"{whole:.0f}", f"{kept:.0f}", f"{report:.0f}")


def pack_noise(work: Path) -> None:
    """Write `noise.h5`, and the network `tiny`."""
    rng = np.random.default_rng(0)
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=["2x32", "2x64", "64x32"])
    given = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}; slowest rank of each phase\n")
    heads = ["subdomains", "ranks", *PHASES, "whole, s", "MiB", "report, s"]
    row(*heads)
    row(*["---"] * len(heads))
    with TemporaryDirectory() as folder:
        work = Path(folder)
        pack_noise(work)
        for each in given.jobs:
            job(*map(int, each.split("x")), work)


if __name__ == "__main__":
    main()
