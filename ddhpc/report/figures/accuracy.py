"""Figures of accuracy: the fusions side by side, and the confusion of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ddhpc.colours import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION
from ddhpc.report.figures.style import SHARES, ink, new_figure
from ddhpc.wording import shortened

WRITTEN_CLASSES = 12
NAMED_CLASSES = 40
ROW_OF_LETTERS = 45
"""Letters that fit below the matrix side by side."""
LOOKS = {"dnn": (VERMILLION, "D"), "mean": (BLUE, "s"), "vote": (GREEN, "^"), "global CNN": (BLACK, "*")}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Accuracy on test of one way to decide, with its 95 % interval."""

    name: str
    accuracy: float
    low: float
    high: float


def fusions(scored: Sequence[Scored]) -> Figure:
    """Accuracy on test of several ways to decide, with their intervals, one below the other."""
    figure = new_figure(0.8 + 0.42 * len(scored))
    axes = figure.subplots()
    for row, each in enumerate(scored):
        colour, marker = LOOKS.get(each.name, (ORANGE, "o"))
        value, low, high = 100 * each.accuracy, 100 * each.low, 100 * each.high
        axes.errorbar(
            value,
            row,
            xerr=[[max(value - low, 0)], [max(high - value, 0)]],
            fmt=marker,
            color=colour,
            markersize=12 if marker == "*" else 8,
            capsize=4,
            linewidth=1.6,
        )
        axes.annotate(f"{value:.1f}", (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(scored)), [each.name for each in scored])
    axes.set(ylim=(len(scored) - 0.5, -0.7), xlabel="accuracy on test in %, with 95 % interval")
    axes.grid(axis="x", color="#DDDDDD")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Counts [K, K] of true classes (rows) against decided ones (columns), coloured by share of the row."""
    figure = new_figure(4.9)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colours = matplotlib.colormaps[SHARES]
    drawn = axes.imshow(100 * shares, cmap=colours, vmin=0, vmax=100)
    figure.colorbar(drawn, ax=axes, label="share of the true class in %", fraction=0.046, pad=0.03)
    if len(classes) <= WRITTEN_CLASSES:
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]}",
                    ha="center",
                    va="center",
                    color=ink(colours, float(shares[row, column])),
                    fontsize=8 if len(classes) > 5 else 10,
                )
    if len(classes) <= NAMED_CLASSES:
        names = [shortened(name) for name in classes]
        size = 8 if len(classes) <= WRITTEN_CLASSES else 5.5
        crowded = len(names) * max(map(len, names)) > ROW_OF_LETTERS
        axes.set_xticks(range(len(names)), names, rotation=90 if crowded else 0, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("class of the final decision", color=GREY)
    axes.set_ylabel("true class", color=GREY)
    return figure
