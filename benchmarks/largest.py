"""Peak memory and seconds of a training step as volumes grow, global and on grids, against what `plan` predicts.

    python benchmarks/largest.py [--shapes 128x128x64 256x256x128] [--grids 1x1x1 4x4x2] [--limit 14] [--device cuda]
    python benchmarks/largest.py --fits 16 24 80                     # largest volume by memory of a device, predicted

Network, overlap, width, augmentation and batch size are those of the recipe `ct`. The window
is the largest of the grid.
Each is measured in a process of its own, which may take no more than the limit beyond the program; one that asks for
more is told so. `--device cuda` measures what torch allocates on a GPU. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from bisect import bisect
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch

from ddhpc import models
from ddhpc.config import Config
from ddhpc.method.cuda_graph import EAGER_CALLS, CudaGraph
from ddhpc.method.decomposition import extent, grow, rotation_margins, windows
from ddhpc.method.local import LocalProblem, LocalTraining
from ddhpc.method.network_memory import Work, network_memory
from ddhpc.method.windows import AHEAD, Held, channels_last
from ddhpc.results.provenance import processor
from ddhpc.tables.plan import CONTEXT_BYTES, PROGRAM_BYTES
from ddhpc.wording import by

SHAPES = ("128x128x64", "256x256x128", "512x512x256")
GRIDS = ("1x1x1", "2x2x1", "4x4x2", "8x8x4")
STEPS = {"cpu": 2, "cuda": EAGER_CALLS + 2}
"""Of which the last is timed: the first makes the momentum, on a GPU one captures the graph that the last replays."""
GIB = 2**30
LARGEST_EDGE = 2048
WARM_WIDTH = 4
"""Of the network that is trained first, so that what the program itself takes does not count."""


def sizes(word: str) -> tuple[int, ...]:
    """4x4x2 as numbers."""
    return tuple(map(int, word.split("x")))


def problem(shape: tuple[int, ...], grid: tuple[int, ...], batch: int) -> tuple[Work, int]:
    """What the largest window of a grid is worked on with, and the width of its network."""
    config = Config.from_recipe("ct")
    local, parts = replace(config.local, batch_size=batch), windows(shape, grid, config.decomposition.overlap)
    window = max(parts, key=lambda part: prod(extent(part)))
    margins = [local.shift + margin for margin in rotation_margins(extent(window), local.rotate)]
    padded, core = grow(window, margins, shape)
    dtype = np.dtype(np.int16)
    work = Work(padded=extent(padded), core=core, channels=1, dtype=dtype, classes=2, config=local)
    return work, models.local_width(config.model.global_width, len(parts))


def network(work: Work, width: int) -> torch.nn.Module:
    """The local CNN."""
    return models.build("cnn3d", channels=1, classes=work.classes, window=extent(work.core), width=width)


def step(work: Work, width: int, device: str, steps: int) -> tuple[float, float]:
    """Seconds of the last of so many steps, of the wall and of the processor."""
    order = channels_last(2 + len(work.padded))
    cnn = network(work, width).to(device=device, memory_format=order)
    one = torch.ones([1] * 4, device=device)
    batch = work.config.batch_size
    held = torch.zeros((batch, 1, *work.padded), dtype=torch.int16, device=device).to(memory_format=order)
    images = Held(core=work.core, mean=0 * one, std=one, pixels=held)
    labels = np.arange(batch) % work.classes
    training = LocalTraining(cnn, LocalProblem(images=images, labels=labels, config=work.config))
    update = CudaGraph(training.update) if device == "cuda" else training.update
    for _ in range(steps):
        began, used = time.perf_counter(), time.process_time()
        update(held, training.target, training.draw_step())
        if device == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - used


def measured(work: Work, width: int, device: str, limit: float, steps: int) -> dict[str, float | str]:
    """Peak and seconds of this process, or why there are none."""
    torch.set_num_threads(1)
    small = replace(work, padded=(16,) * 3, core=(slice(0, 16),) * 3)
    step(small, WARM_WIDTH, device, steps)
    network(work, width)  # its check imports torch's compiler
    before = memory("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, limit * GIB / torch.cuda.get_device_properties(0).total_memory)
        )
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + round(limit * GIB),) * 2)
    try:
        seconds, used = step(work, width, device, steps)
    except torch.OutOfMemoryError as error:
        return {"error": first_line(error)}
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        return {"error": first_line(error)}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else memory("VmHWM") - before
    return {"peak": peak, "seconds": seconds, "cpu": used, "program": before}


def first_line(error: Exception) -> str:
    """Of a message."""
    return str(error).strip().splitlines()[0]


def memory(name: str) -> int:
    """Bytes that the system tells of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def row(shape: str, grid: str, given: argparse.Namespace) -> str:
    """A row of the table, measured in another process."""
    work, width = problem(sizes(shape), sizes(grid), given.batch)
    predicted = network_memory(network(work, width), work, given.device).step
    told = f"| {shape} | {'global' if max(sizes(grid)) == 1 else grid} | {by(extent(work.core))} | {width} "
    told += f"| {predicted / GIB:.2f} "
    command = [sys.executable, __file__, "--one", shape, grid, "--batch", given.batch, "--limit", given.limit]
    command += ["--device", given.device, "--steps", given.steps or STEPS[given.device]]
    ended = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True)
    found = json.loads(ended.stdout) if ended.returncode == 0 else {"error": f"ended with status {ended.returncode}"}
    if "error" in found:
        print(f"{shape} {grid}: {found['error']}", file=sys.stderr)
        return f"{told}| more than {given.limit:g} | - | - | - |"
    error = 100 * (predicted / found["peak"] - 1)
    return f"{told}| {found['peak'] / GIB:.2f} | {error:+.0f} % | {found['seconds']:.1f} | {found['cpu']:.1f} |"


def largest(grid: tuple[int, ...], device: str, memory: float, batch: int) -> str:
    """The largest volume of 2n x 2n x n voxels, n a multiple of 16, whose windows fit a device of so many GiB."""
    limit = memory * GIB - (CONTEXT_BYTES if device == "cuda" else PROGRAM_BYTES)

    def need(edge: int) -> int:
        work, width = problem((2 * edge, 2 * edge, edge), grid, batch)
        ahead = (AHEAD + 1) * work.batch_bytes * (device == "cpu")  # streamed; a GPU leaves them in main memory
        return network_memory(network(work, width), work, device).step + ahead

    edge = 16 * (bisect(range(1, LARGEST_EDGE // 16 + 1), limit, key=lambda n: need(16 * n)))
    return by((2 * edge, 2 * edge, edge))


def print_largest(memories: list[float], grids: list[str], batch: int) -> None:
    """Predicted, for devices of so many GiB."""
    print("| device | " + " | ".join("global" if max(sizes(grid)) == 1 else grid for grid in grids) + " |")
    print("|---" * (1 + len(grids)) + "|")
    for device, name in (("cpu", "CPU, float32"), ("cuda", "GPU, bfloat16")):
        for each in memories:
            found = [largest(sizes(grid), device, each, batch) for grid in grids]
            print(f"| {name}, {each:g} GiB | " + " | ".join(found) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--batch", type=int, default=Config.from_recipe("ct").local.batch_size)
    parser.add_argument("--limit", type=float, default=14.0, help="GiB beyond the program")
    parser.add_argument("--device", choices=STEPS, default="cpu")
    parser.add_argument("--steps", type=int, help="of which the last is timed")
    parser.add_argument("--fits", nargs="+", type=float, metavar="GIB", help="predict the largest volumes")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fits:
        print_largest(given.fits, given.grids, given.batch)
        return
    if given.one:
        work, width = problem(*map(sizes, given.one), given.batch)
        print(json.dumps(measured(work, width, given.device, given.limit, given.steps)))
        return
    where = processor() if given.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}, Python {platform.python_version()}, one thread, n = 1; ", end="")
    print(f"{given.batch} volumes a step, limit {given.limit:g} GiB\n")
    print("| volume | grid | window | width | predicted, GiB | measured, GiB | difference | s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape in given.shapes:
        for grid in given.grids:
            print(row(shape, grid, given), flush=True)


if __name__ == "__main__":
    main()
