"""Curves of decisions: ROC, precision against recall, and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddhpc.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from ddhpc.method.calibration import BINS, Reliability
from ddhpc.method.diagnostics import Curve
from ddhpc.report.figures.style import new_figure

LOOKS = tuple(
    zip((BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK), ("-", "--", "-.", "-", "--", "-.", ":"), strict=True)
)
"""Colour and line of the curves, told apart by both; yellow is too pale for a line."""
NAMED_CURVES = 7
"""Beyond so many only the lowest are named and coloured."""
HEIGHT = 4.6


@dataclass(frozen=True, kw_only=True, eq=False)
class Named:
    """The curve of a class against the rest."""

    name: str
    curve: Curve
    value: float
    """Area or average precision, by which the curves are ordered."""
    label: str
    """Value and interval, for a person."""
    chosen: tuple[float, float] | None = None
    """Sensitivity and specificity at the threshold of val."""


def roc(curves: Sequence[Named]) -> Figure:
    """Sensitivity against 1 - specificity, with a mark at the threshold that was chosen on val."""
    figure = new_figure(HEIGHT + _rows(curves) * 0.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for each, look in _looks(curves):
        wrong, right = each.curve.roc()
        axes.plot(wrong, right, **look)
        if each.chosen and look["zorder"] > 2:
            sensitivity, specificity = each.chosen
            axes.plot(1 - specificity, sensitivity, "o", color=look["color"], markersize=6, zorder=4, clip_on=False)
    _square(axes, "1 - specificity", "sensitivity")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def precision_recall(curves: Sequence[Named]) -> Figure:
    """Precision against recall, without interpolation; of a single curve also the share of positive samples."""
    figure = new_figure(HEIGHT + _rows(curves) * 0.2)
    axes = figure.subplots()
    for each, look in _looks(curves):
        recall, precision = each.curve.precision_recall()
        steps = {"x": np.append(0, recall), "y": np.append(precision[:1], precision)}
        axes.step(steps["x"], steps["y"], where="pre", **look)
    if len(curves) == 1:
        only = curves[0].curve
        share = only.positive / (only.positive + only.rest)
        axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":", label=f"by chance, {share:.3f}")
    _square(axes, "recall (sensitivity)", "precision (PPV)")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def reliability(found: Mapping[str, Reliability], said: str, came: str) -> Figure:
    """How often came true what was said with a probability, and below how many samples each bin holds.

    Args:
        found: by what the legend calls it; the first is drawn in front, and its samples are counted.
        said: what the probability is of.
        came: what came true.
    """
    figure = new_figure(HEIGHT + 1.1 + 0.2 * len(found))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    looks = ((BLUE, "o", "-"), (VERMILLION, "^", "--"))
    for order, ((name, each), (colour, marker, line)) in enumerate(zip(found.items(), looks, strict=False)):
        axes.plot(
            each.said,
            each.found,
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=5,
            label=name,
            zorder=4 - order,
            clip_on=False,
        )
    _square(axes, "", came)
    first = next(iter(found.values()))
    below.bar(first.said, first.samples, width=0.6 / BINS, color=BLUE)
    below.set(xlabel=said, ylabel="samples")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _rows(curves: Sequence[Named]) -> int:
    return min(len(curves), NAMED_CURVES)


def _looks(curves: Sequence[Named]) -> list[tuple[Named, dict[str, Any]]]:
    """How each curve is drawn; where there are many, the lowest in colour over all the others in grey."""
    if len(curves) <= NAMED_CURVES:
        lowest = list(curves)
    else:
        lowest = sorted(curves, key=lambda each: each.value)[: NAMED_CURVES - 1]
    others = [each for each in curves if each not in lowest]
    drawn: list[tuple[Named, dict[str, Any]]] = [
        (
            each,
            {
                "color": GREY,
                "linewidth": 0.6,
                "alpha": 0.6,
                "zorder": 2,
                "label": "" if n else f"the other {len(others)} classes",
            },
        )
        for n, each in enumerate(others)
    ]
    for each, (colour, line) in zip(lowest, LOOKS, strict=False):
        look = {
            "color": colour,
            "linestyle": line,
            "linewidth": 1.6,
            "zorder": 3,
            "label": f"{each.name}: {each.label}",
        }
        drawn.append((each, look))
    return drawn


def _square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)
    axes.grid(color="#DDDDDD", linewidth=0.6)
