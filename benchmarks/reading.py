"""What a rank reads as the grid gets finer: bytes and seconds for the windows of one subdomain.

    python benchmarks/reading.py data/fashion_mnist.h5 [FILE ...] [--overlap 2] [--subdomains 8]

For grids of 1, 2, 4, ... along every dimension, reads the windows of all images of all splits of some subdomains, one
after the other, each as its rank would. Bytes are those that the process asks the system for, from the disk or its
cache; they are compressed, so that they may be fewer than those of the windows. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from math import prod
from pathlib import Path
from statistics import median

import numpy as np

from ddhpc.data.packed import SPLITS, Packed, find, open_packed
from ddhpc.data.packed.chunks import read_amplification
from ddhpc.method.decomposition import Window, windows
from ddhpc.results.provenance import processor


def bytes_read() -> int:
    """That this process has asked the system for so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def read(packed: Packed, window: Window) -> tuple[float, int, int]:
    """Seconds, bytes read, and bytes of the windows of all splits of a subdomain."""
    before, started = bytes_read(), time.perf_counter()
    held = sum(packed.read(split, window).nbytes for split in SPLITS)
    return time.perf_counter() - started, bytes_read() - before, held


def line(packed: Packed, parts: int, overlap: int, subdomains: int) -> str:
    """The row of the table for a grid of `parts` along every dimension."""
    grid = (parts,) * packed.dimensions
    every = windows(packed.image_shape, grid, overlap if parts > 1 else 0)
    chosen = [every[n] for n in np.unique(np.linspace(0, len(every) - 1, subdomains, dtype=int))]
    seconds, asked, held = zip(*(read(packed, window) for window in chosen), strict=True)
    amplification = median(read_amplification(window, packed.chunk_shape, packed.image_shape) for window in chosen)
    cells = [
        "x".join(map(str, grid)),
        f"{prod(grid):,}",
        f"{median(held) / 2**20:,.2f}",
        f"{median(asked) / 2**20:,.2f}",
        f"{amplification:.2f}",
        f"{median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})",
        str(len(chosen)),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="packed files")
    parser.add_argument("--overlap", type=int, default=2)
    parser.add_argument("--subdomains", type=int, default=8, help="how many of each grid are read")
    given = parser.parse_args()
    print(f"{processor()}; overlap {given.overlap}; median and range over n subdomains")
    for name in given.data:
        packed = open_packed(find(name))
        read(packed, windows(packed.image_shape, (1,) * packed.dimensions)[0])  # into the system's cache
        shape = "x".join(map(str, packed.image_shape))
        print(f"\n**{Path(name).name}**: {sum(packed.samples.values()):,} {packed.noun} of {shape}\n")
        print("| grid | N | window, MiB | read, MiB | pixels unpacked / pixels of the window | seconds | n |")
        print("|---|---|---|---|---|---|---|")
        parts = 1
        while min(packed.image_shape) // parts >= max(2, given.overlap):
            print(line(packed, parts, given.overlap, given.subdomains), flush=True)
            parts *= 2


if __name__ == "__main__":
    main()
