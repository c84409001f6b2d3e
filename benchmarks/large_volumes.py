"""From large scans to a trained network on two cores: seconds, disk, bytes read and peak memory of every process.

    python benchmarks/large_volumes.py OUT [--patients 60] [--shape 384 384 192] [--grids 4x4x2 8x8x4] [--epochs 2]

Draws phantoms as NIfTI, reads them in a bare loop of nibabel, packs them by two ranks and trains on each grid by two,
windows streamed. Network, overlap and augmentation are those of the recipe `ct`. What is there already, of as many
patients and this shape, is not drawn or packed again. Prints tables.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import row, seconds, size

from ddhpc.parallel.launcher import launched
from ddhpc.wording import by

# torch, h5py and nibabel where they are used: the peak memory of a rank begins with that of the process that starts it

RANKS = 2
MIB = 2**20


def measured(ranks: int, arguments: Sequence[object], work: Path) -> tuple[float, list[str]]:
    """Wall seconds of a job of ddhpc; and of each rank peak memory and the bytes that it read, MiB."""
    for old in work.glob("rank-*"):
        old.unlink()
    rank = [sys.executable, __file__, "--rank", work, sys.executable, "-m", "ddhpc", *arguments]
    launcher = ["mpirun", "-n", ranks] if ranks > 1 else []
    took = seconds([*launcher, *rank])
    found = (map(int, file.read_text().split()) for file in sorted(work.glob("rank-*")))
    return took, [f"{peak / MIB:,.0f} and {read / MIB:,.0f}" for peak, read in found]


def watched(work: Path, command: Sequence[str]) -> None:
    """Run a rank, and leave its peak memory and the bytes that it asked files for in a file."""
    before = bytes_read()
    code = subprocess.call(command)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    (work / f"rank-{launched().rank:05}").write_text(f"{peak} {bytes_read() - before}")
    sys.exit(code)


def bytes_read() -> int:
    """By this process and those that it has waited for, from files, the page cache included."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def bare_loop(scans: Path) -> tuple[float, int]:
    """Seconds in which nibabel reads all volumes one after the other, and their voxels."""
    import nibabel
    import numpy as np

    began, voxels = time.perf_counter(), 0
    for path in sorted(scans.rglob("*.nii.gz")):
        voxels += np.asarray(nibabel.load(path).dataobj).size
    return time.perf_counter() - began, voxels


def run(work: Path, patients: int, shape: Sequence[int], grids: Sequence[str], epochs: int) -> None:
    """The whole way, a row for each part."""
    import h5py
    import torch

    from ddhpc.results.provenance import processor

    scans, packed = work / f"scans-{patients}-{by(shape)}", work / f"{patients}-{by(shape)}.h5"
    work.mkdir(parents=True, exist_ok=True)
    print(f"{processor()}, torch {torch.__version__}; {patients} phantoms of {by(shape)}, {RANKS} ranks\n")
    row("part", "s", "MiB/s of voxels (int16)", "each rank: peak memory and read, MiB", "on disk, MiB")
    row(*["---"] * 5)
    if not scans.exists():
        drawn = measured(1, ["phantom", "ct", scans, "--patients", patients, "--shape", *shape], work)
        row("phantom", f"{drawn[0]:.0f}", "", drawn[1][0], f"{size(scans) / MIB:,.0f}")
    took, voxels = bare_loop(scans)
    row("bare loop of nibabel", f"{took:.0f}", f"{2 * voxels / MIB / took:.1f}", "", "")
    if not packed.exists():
        groups = ["--groups", "CT-0", "CT-2,CT-3"]
        took, ranks = measured(RANKS, ["prepare", "ct", scans, "--output", packed, "--shape", *shape, *groups], work)
        row(
            "prepare",
            f"{took:.0f}",
            f"{2 * voxels / MIB / took:.1f}",
            "; ".join(ranks),
            f"{size(packed) / MIB:,.0f}",
        )
    for grid in grids:
        options = ["--recipe", "ct", "--data.file", packed, "--decomposition.grid", *grid.split("x"), "--overwrite"]
        options += ["--local.epochs", epochs, "--data.memory_limit", 0.25, "--run.threads", 1, "--run.report", "false"]
        took, ranks = measured(RANKS, [*options, "--output", work / grid], work)
        with h5py.File(work / grid / "results.h5") as file:
            share = float(file["fusion/dnn"].attrs["test"])
        row(
            f"train {grid}, dnn {100 * share:.0f} % on test",
            f"{took:.0f}",
            "",
            "; ".join(ranks),
            f"{size(work / grid) / MIB:,.0f}",
        )


def main() -> None:
    """Print the tables."""
    if sys.argv[1:2] == ["--rank"]:
        watched(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--shape", type=int, nargs=3, default=[384, 384, 192])
    parser.add_argument("--grids", nargs="+", default=["4x4x2", "8x8x4"])
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    run(given.out, given.patients, given.shape, given.grids, given.epochs)


if __name__ == "__main__":
    main()
