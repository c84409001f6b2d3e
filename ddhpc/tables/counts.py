"""How many images each class has in each split, as the terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from ddhpc.method.metrics import UNEQUAL
from ddhpc.wording import listed, percent

SHOWN_CLASSES = 16
"""Up to which all have a row."""
ENDS = 3
"""Smallest and largest classes that have a row where not all have."""


def count_classes(labels: Mapping[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
    """Images of each class by split, [K] int64 each, from the labels [S]."""
    return {split: np.bincount(found, minlength=classes) for split, found in labels.items()}


def print_counts(
    out: Console,
    counts: Mapping[str, np.ndarray],
    classes: Sequence[str],
    noun: str,
    more: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Print images by class and split: a line where all classes have as many, else a table.

    Of many classes the table has the smallest and the largest in train, and the range of the others.

    Args:
        out: where to.
        counts: of `count_classes`.
        classes: K names.
        noun: "images" or "volumes".
        more: further columns, each with K cells, which are shown in a table alone.
    """
    if not more and all(len(set(found.tolist())) == 1 for found in counts.values()):
        sizes = ", ".join(f"{found[0]:,} {split}" for split, found in counts.items())
        out.print(f"each class has {sizes} {noun}")
        return
    out.print(counts_table(counts, classes, noun, more or {}))


def counts_table(
    counts: Mapping[str, np.ndarray], classes: Sequence[str], noun: str, more: Mapping[str, Sequence[str]]
) -> Table:
    """The table of `print_counts`."""
    train = counts["train"]
    title = f"{noun[0].upper()}{noun[1:]} by class and split"
    table = Table(title=title, title_justify="left", caption=_caption(counts, classes, noun), caption_justify="left")
    for column in ("class", *counts, "of train", *more):
        table.add_column(column, justify="left" if column == "class" else "right")

    def add(kind: int) -> None:
        sizes = (f"{found[kind]:,}" for found in counts.values())
        share = percent(train[kind] / train.sum())
        table.add_row(classes[kind], *sizes, share, *(cells[kind] for cells in more.values()))

    if len(classes) <= SHOWN_CLASSES:
        for kind in range(len(classes)):
            add(kind)
        return table
    by_size = np.argsort(train, kind="stable").tolist()
    others = by_size[ENDS:-ENDS]
    for kind in by_size[:ENDS]:
        add(kind)
    table.add_row(f"{len(others)} others", *(_range(found[others]) for found in counts.values()), "", *[""] * len(more))
    for kind in by_size[-ENDS:]:
        add(kind)
    return table


def _range(sizes: np.ndarray) -> str:
    low, high = sizes.min(), sizes.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _caption(counts: Mapping[str, np.ndarray], classes: Sequence[str], noun: str) -> str | None:
    """What a person should know of the counts before training."""
    train, said = counts["train"], []
    if train.max() >= UNEQUAL * train.min():
        said.append(
            f"the largest class has {train.max() / train.min():.3g} times the training {noun} of the smallest: see "
            "--local.class_weight, --local.sampling"
        )
    for split, found in counts.items():
        if not found.all():
            said.append(f"none in {split}: {listed([classes[kind] for kind in np.flatnonzero(found == 0).tolist()])}")
    return "; ".join(said) or None
