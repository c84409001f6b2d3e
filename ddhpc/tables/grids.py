"""Which grids fit a device, and what each needs, without training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from math import prod

from rich.console import Console
from rich.table import Table

from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method.memory import Memory, device_kind, subdomain_memory
from ddhpc.method.network_memory import in_bfloat16
from ddhpc.method.problem import Problem, open_problem
from ddhpc.tables.plan import CONTEXT_BYTES, PROGRAM_BYTES
from ddhpc.terminal import console
from ddhpc.wording import by

MOST_SUBDOMAINS = 4096
SHOWN_FITTING = 3
"""Grids that fit, after which finer ones are left out."""


@dataclass(frozen=True, kw_only=True)
class GridPlan:
    """A grid, and what those of its subdomains that need most need on their devices."""

    problem: Problem
    memory: Memory | None
    """None where the training step cannot be followed."""
    program: int
    """Bytes that a process takes on its device for itself."""

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return self.program + self.memory.device if self.memory else 0

    def verdict(self, limit: float) -> str:
        """Whether it fits so many bytes."""
        if self.memory is None:
            return "unknown"
        streamed = self.program + self.memory.computing + self.memory.streamed
        return "yes" if self.total <= limit else "if streamed" if streamed <= limit else "no"


def candidates(image_shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Grids of ever smaller blocks, from that of ones on: the longest block side is halved, of equal ones the least
    divided.

    Example:
        >>> [grid for grid, _ in zip(candidates((512, 512, 256)), range(6))]
        [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 2), (4, 4, 2)]
    """
    grid, axes = [1] * len(image_shape), range(len(image_shape))
    while all(parts <= size for parts, size in zip(grid, image_shape, strict=True)):
        yield tuple(grid)
        grid[max(axes, key=lambda axis: (image_shape[axis] / grid[axis], -grid[axis], -axis))] *= 2


def with_grid(config: Config, grid: tuple[int, ...]) -> Config:
    """The configuration on another grid; on that of ones it is the global CNN, without a coarse problem."""
    if max(grid) > 1:
        return replace(config, decomposition=replace(config.decomposition, grid=grid))
    return replace(
        config,
        decomposition=replace(config.decomposition, grid=grid, coarse_image=False, coarse_shape=None),
        model=replace(config.model, width="auto"),
        coherent=replace(config.coherent, start="none"),
    )


def plan_grid(config: Config, kind: str) -> GridPlan:
    """What a grid needs; InputError where the image or the network does not allow it."""
    problem = open_problem(config)
    needed = subdomain_memory(problem, kind)
    return GridPlan(
        problem=problem,
        memory=max(needed, key=lambda memory: memory.device) if needed else None,
        program=CONTEXT_BYTES if kind == "cuda" else PROGRAM_BYTES,
    )


def print_grids(config: Config, device_memory: float) -> None:
    """Print which grids fit devices of so many GiB, the configured one among them."""
    given, kind, out = config.decomposition.grid, device_kind(config.run.device), console()
    chosen = open_problem(config)
    shape = chosen.packed.image_shape
    half = in_bfloat16(config.local.precision, kind)
    out.print(
        f"{chosen.packed.path.name}: {sum(chosen.packed.samples.values()):,} {chosen.packed.noun} of {by(shape)}; "
        f"{config.model.name}, {config.local.batch_size} images a step, {'bfloat16' if half else 'float32'}"
    )
    title = f"Memory of a subdomain on a {'GPU' if kind == 'cuda' else 'CPU'} of {device_memory:g} GiB, predicted, GiB"
    table = Table(title=title, title_justify="left")
    for column in ("grid", "window", "width", "training step", "windows", "with the program", "fits"):
        table.add_column(column, justify="right")
    fitting = 0
    for grid in sorted({given, *takewhile(_few, candidates(shape))}, key=prod):
        if fitting >= SHOWN_FITTING and prod(grid) > prod(given):
            break
        try:
            planned = plan_grid(with_grid(config, grid), kind)
        except InputError:
            continue  # blocks smaller than the overlap, windows too small for the network, weights that do not fit
        table.add_row(*_row(planned, device_memory))
        fitting += planned.verdict(device_memory * 2**30) == "yes"
    out.print(table)
    print_notes(kind, out)


def _few(grid: tuple[int, ...]) -> bool:
    return prod(grid) <= MOST_SUBDOMAINS


def _row(planned: GridPlan, device_memory: float) -> list[str]:
    problem, memory = planned.problem, planned.memory
    window = max((problem.extent(n) for n in range(problem.subdomains)), key=prod)
    grid = by(problem.config.decomposition.grid)
    named = f"global CNN {grid}" if problem.subdomains == 1 else grid
    parts = [memory.computing, memory.windows, planned.total] if memory else []
    shown = [f"{part / 2**30:,.2f}" for part in parts] or ["-"] * 3
    return [named, by(window), str(problem.width), *shown, planned.verdict(device_memory * 2**30)]


def print_notes(kind: str, out: Console) -> None:
    """What the figures are of, and how sure they are."""
    out.print(
        "training step: weights, gradients, what the optimizer keeps, activations; or a batch of decisions where that "
        "needs more. windows: those of all images; where they are streamed, of the batches read ahead. if streamed: it "
        "fits with a smaller --data.memory_limit"
    )
    if kind == "cuda":
        out.print("without the workspaces of cuDNN; not compared with a real GPU")
    else:
        out.print("for a GPU: --run.device cuda")
