"""Figures of training: learning curves, what the ranks did, and how much faster it was than the global CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from ddhpc.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW
from ddhpc.report.figures.style import new_figure

LOOKS: Mapping[str, Mapping[str, Any]] = {
    "startup": {"color": "#BBBBBB", "label": "start-up"},
    "read": {"color": BLUE, "label": "reading windows", "hatch": "..."},
    "train": {"color": GREEN, "label": "local CNNs"},
    "wait": {"color": "white", "label": "waiting for the slowest", "hatch": "///"},
    "write": {"color": VERMILLION, "label": "writing", "hatch": "\\\\\\"},
    "gather": {"color": YELLOW, "label": "gathering"},
    "coarse": {"color": PURPLE, "label": "coarse DNN", "hatch": "xxx"},
}
"""Colour and hatch of each of the phases of a results file."""


MARKED: Mapping[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 4}
"""The line of the slowest local CNN."""


def curves(history: Mapping[str, np.ndarray], slowest: int) -> Figure:
    """Loss and accuracy of all local CNNs by epoch, those of the slowest one marked.

    Args:
        history: [N, E] by name, `loss` and `accuracy` on train, and on val, where it is known, `val_loss` and
            `val_accuracy`, NaN after epochs without validation.
        slowest: number of a subdomain.
    """
    figure = new_figure(5.2)
    epochs = np.arange(1, history["loss"].shape[1] + 1)
    loss, accuracy = figure.subplots(2, sharex=True)
    for axes, name, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for split, style in (("train", "-"), ("val", "--")):
            values = history.get(name if split == "train" else f"val_{name}")
            if values is not None:
                _lines(axes, scale * values, slowest, style)
                axes.plot([], [], style, color=GREY, label=f"on {split}")
        axes.plot([], [], color=SKY, label="each of the others")
        axes.plot([], [], color=VERMILLION, label=f"slowest (subdomain {slowest})", **MARKED)
        axes.grid(color="#E5E5E5")
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    loss.set_ylabel("loss (mean cross entropy)")
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    accuracy.set(xlabel="epoch", ylabel="accuracy in %")
    return figure


def _lines(axes: Axes, values: np.ndarray, slowest: int, style: str) -> None:
    """One line a subdomain through what is known of [N, E], the slowest last and marked."""
    for n in (*(n for n in range(len(values)) if n != slowest), slowest):
        epochs = np.flatnonzero(np.isfinite(values[n]))
        look: dict[str, Any] = {"color": SKY, "linewidth": 1, "alpha": 0.8, "marker": "." if len(epochs) == 1 else None}
        if n == slowest:
            look = {"color": VERMILLION, "markevery": max(1, len(epochs) // 12), **MARKED}
        axes.plot(epochs + 1, values[n, epochs], style, **look)


def time_bars(seconds: np.ndarray, phases: Sequence[str]) -> Figure:
    """What each rank did, one bar a rank, from seconds [R, P] in the phases in their order."""
    ranks = len(seconds)
    figure = new_figure(min(1.2 + 0.22 * ranks, 9))
    axes = figure.subplots()
    start = np.zeros(ranks)
    for phase, spent in zip(phases, seconds.T, strict=True):
        look = {"edgecolor": GREY, "linewidth": 0.4, **LOOKS[phase]}
        axes.barh(np.arange(ranks), spent, left=start, height=0.8, **look)
        start += spent
    axes.set(ylim=(ranks - 0.4, -0.6), xlabel="seconds since the job started", ylabel="rank")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, steps=[1, 2, 4, 5, 8, 10]))
    figure.legend(loc="outside upper center", ncols=3, handlelength=1.6)
    return figure


def speedup(subdomains: int, measured: Sequence[tuple[str, float]]) -> Figure:
    """Speed-up against the global CNN over the number of subdomains, with the ideal line.

    Args:
        subdomains: N.
        measured: name and speed-up of each way to count.
    """
    figure = new_figure(4.4)
    axes = figure.subplots()
    values = [value for _, value in measured]
    top, bottom = max(subdomains, *values), min(1.0, *values)
    axes.plot([1, subdomains], [1, subdomains], color=GREY, linestyle="--", label="ideal: as many times as subdomains")
    axes.plot(1, 1, "*", color=BLACK, markersize=11, label="global CNN", linestyle="none")
    for (name, value), colour, marker in zip(measured, (VERMILLION, BLUE, ORANGE), ("D", "s", "o"), strict=False):
        axes.plot(subdomains, value, marker, color=colour, markersize=9, label=f"{name}: {value:.1f} times")
    axes.set(xscale="log", yscale="log", xlabel="subdomains", ylabel="times faster than the global CNN")
    for axis, low, high in ((axes.xaxis, 1.0, subdomains), (axes.yaxis, bottom / 2, top)):
        axis.set_ticks([2.0**power for power in range(-10, 20) if low <= 2.0**power <= high])
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.grid(color="#E5E5E5")
    figure.legend(loc="outside upper left")
    return figure
