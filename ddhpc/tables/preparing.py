"""What `prepare` says: progress while it packs, and what became of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ddhpc.data.sources.source import Prepared
from ddhpc.tables.counts import count_classes, print_counts
from ddhpc.terminal import console, is_terminal
from ddhpc.visible import tell
from ddhpc.wording import by, mebibytes

SHOWN_FILES = 20


@contextmanager
def progress_of(task: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that moves a progress bar on a terminal, and prints every tenth in a log.

    Not `shown` on ranks above 0.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), disable=not (shown and is_terminal()), transient=True) as bar:
        row = bar.add_task(task)
        printed = 0

        def advance(done: int, total: int) -> None:
            nonlocal printed
            bar.update(row, completed=done, total=total)
            if shown and bar.disable and 10 * done // total > printed:
                printed = 10 * done // total
                print(f"  {task}: {done / total:.0%}", flush=True)

        yield advance


def print_prepared(prepared: Prepared, output: Path) -> None:
    """Counts, also by class, what was done, what was left out and why, and how to go on."""
    packed = prepared.packed
    counts = ", ".join(f"{count:,} {split}" for split, count in packed.samples.items())
    tell(
        f"{output}: {counts} {packed.noun} of {by(packed.image_shape)}, {packed.channels} "
        f"channel{'s' * (packed.channels > 1)} {packed.dtype}, {len(packed.classes)} classes, "
        f"{mebibytes(output.stat().st_size)}"
    )
    print_counts(console(), count_classes(packed.labels, len(packed.classes)), packed.classes, packed.noun)
    for note in prepared.notes:
        tell(f"  {note}")
    if prepared.skipped:
        print(f"  {len(prepared.skipped):,} left out, each named in /skipped of the packed file:")
        for name, reason in list(prepared.skipped.items())[:SHOWN_FILES]:
            tell(f"    {name}: {reason}")
        if len(prepared.skipped) > SHOWN_FILES:
            print(f"    and {len(prepared.skipped) - SHOWN_FILES} more")
    grid, ranks = " ".join(["2"] * packed.dimensions), 2**packed.dimensions
    recipe = " --recipe volumes" if packed.dimensions == 3 else ""
    tell(f"train on it: mpirun -n {ranks} python -m ddhpc{recipe} --data.file {output} --decomposition.grid {grid}")
