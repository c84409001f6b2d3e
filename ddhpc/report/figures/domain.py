"""Figures over the image domain: the decomposition, a number for each subdomain, what drove single decisions.

Volumes are shown layer by layer along their last axis, images as the only layer; see `view`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from ddhpc.colours import BLUE, GREY, ORANGE, PALE, SKY, VERMILLION
from ddhpc.method.decomposition import Window
from ddhpc.report.figures.style import SHARES, ink, new_figure
from ddhpc.report.figures.view import Domain, Panel, panels

WRITTEN_CELLS = 100
"""Subdomains of a layer up to which numbers are written into them."""
NARROWEST = 0.3
"""Inches of a cell with a signed percentage in it."""
PANELS = 4
"""Layers side by side."""
COARSE_WIDTH = 0.4
"""Of the coarse image beside an image, as a share of it."""


def decomposition(domain: Domain, image: np.ndarray | None, chosen: int) -> Figure:
    """The decomposition drawn over an image, with the overlap and the window of one subdomain.

    Args:
        domain: to be drawn.
        image: [*shape] or [*shape, 3] to draw over, None for an empty canvas.
        chosen: the subdomain whose window is drawn.
    """
    drawn, shape = panels(domain, image), domain.shown_shape
    columns = min(len(drawn), 2)
    rows = -(-len(drawn) // columns)
    aspects = [shape[panel.sides[0]] / shape[panel.sides[1]] for panel in drawn]
    heights = [
        0.25 + 5.2 / columns * min(max(aspects[row * columns : (row + 1) * columns]), 1.5) for row in range(rows)
    ]
    figure = new_figure(min(0.5 + sum(heights), 16))
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel()
    for axes in grid[len(drawn) :]:
        axes.axis("off")
    for axes, panel in zip(grid, drawn, strict=False):
        axes.set_title(panel.title)
        _canvas(axes, panel.picture, (shape[panel.sides[0]], shape[panel.sides[1]]))
        _draw_windows(axes, domain, panel, chosen)
        if panel.upward:
            axes.invert_yaxis()
        _mark(axes, panel.marks)
    legend = [Patch(fill=False, edgecolor=ORANGE, linewidth=2, label="blocks")]
    if domain.overlap and len(domain.blocks) > 1:
        legend += [Patch(color=SKY, alpha=0.6, label=f"overlap ({domain.overlap} on each side)")]
    legend += [Patch(fill=False, edgecolor=VERMILLION, linewidth=2, ls="--", label=f"window of subdomain {chosen}")]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, handlelength=1.4, columnspacing=1)
    return figure


def _canvas(axes: Axes, picture: np.ndarray | None, shape: tuple[int, int]) -> None:
    """A picture in pixel coordinates, corners at whole numbers; a pale field where there is none."""
    extent = (0, shape[1], shape[0], 0)
    if picture is None:
        axes.imshow(np.zeros((1, 1)), cmap="Greys", extent=extent, vmin=-0.2, vmax=1)
    else:
        axes.imshow(picture, cmap="gray", extent=extent, interpolation="nearest")
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _grey(picture: np.ndarray) -> np.ndarray:
    """A picture without colours, so that those over it mean one thing: [H, W] as it is, [H, W, 3] as its luminance.

    The luminance (ITU-R BT.601) is uint8 [H, W, 3], whose range matplotlib does not stretch.
    """
    if picture.ndim == 2:
        return picture
    luminance = np.rint(255 * picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luminance[..., None], 3, axis=2)


def _mark(axes: Axes, letters: str) -> None:
    """Letters at the left, right, top and bottom edge of a picture."""
    places = ((0.01, 0.5, "left", "center"), (0.99, 0.5, "right", "center"), (0.5, 0.99, "center", "top"))
    for letter, (x, y, ha, va) in zip(letters, (*places, (0.5, 0.01, "center", "bottom")), strict=False):
        outline = [withStroke(linewidth=2.5, foreground="black")]
        axes.text(x, y, letter, ha=ha, va=va, color="white", fontsize=9, transform=axes.transAxes, path_effects=outline)


def _draw_windows(axes: Axes, domain: Domain, panel: Panel, chosen: int) -> None:
    sides, members = panel.sides, panel.members
    height, width = (domain.shown_shape[side] for side in sides)
    cover = np.zeros((height, width))
    for n in members:
        cover[domain.windows[n][sides[0]], domain.windows[n][sides[1]]] += 1
    tint = np.zeros((height, width, 4))
    tint[cover > 1] = to_rgba(SKY, 0.42)
    axes.imshow(tint, extent=(0, width, height, 0), interpolation="nearest")
    blocks = [domain.blocks[n] for n in members]
    for colour, linewidth in (("white", 3.0), (ORANGE, 1.4)):
        _draw_rectangles(axes, blocks, sides, facecolors="none", edgecolors=colour, linewidths=linewidth)
    for n in members if len(members) <= WRITTEN_CELLS else ():
        row, column = ((domain.blocks[n][side].start + domain.blocks[n][side].stop) / 2 for side in sides)
        axes.text(
            column,
            row,
            str(n),
            ha="center",
            va="center",
            color="black",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    if chosen in members:
        for colour, linewidth, dashes in (("white", 4.0, "-"), (VERMILLION, 2.2, "--")):
            window = domain.windows[chosen]
            axes.add_patch(
                _rectangle(window, sides, fill=False, edgecolor=colour, linewidth=linewidth, linestyle=dashes)
            )


def _draw_rectangles(axes: Axes, windows: Sequence[Window], sides: tuple[int, int], **look: Any) -> None:
    """All at once: thousands of single ones would take a minute."""
    drawn = PatchCollection([_rectangle(window, sides) for window in windows], clip_on=False, **look)
    axes.add_collection(drawn, autolim=False)


def _rectangle(window: Window, sides: tuple[int, int], **look: object) -> Rectangle:
    down, right = window[sides[0]], window[sides[1]]
    return Rectangle(
        (right.start, down.start),
        right.stop - right.start,
        down.stop - down.start,
        clip_on=False,
        **look,  # type: ignore[arg-type]
    )


def heat_map(domain: Domain, shares: np.ndarray, label: str) -> Figure:
    """A share for each subdomain as colour and number, laid out as the grid.

    Args:
        domain: whose grid it is.
        shares: [N], NaN where a subdomain is absent.
        label: of the colours.
    """
    columns = min(domain.layers, 2)
    rows = -(-domain.layers // columns)
    aspect = domain.shown_grid[0] / domain.shown_grid[1]
    figure = new_figure(min(0.4 + rows * (0.3 + 4.6 / columns * min(max(aspect, 0.3), 1.2)), 16))
    subplots = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in subplots[domain.layers :]:
        axes.axis("off")
    norm = Normalize(float(np.nanmin(100 * shares)), float(np.nanmax(100 * shares)))
    colours = matplotlib.colormaps[SHARES]
    for layer in range(domain.layers):
        axes, values = subplots[layer], 100 * domain.cells(layer, shares)
        numbers = domain.cells(layer, np.arange(len(shares)))
        axes.imshow(values, cmap=colours, norm=norm)
        axes.set(xticks=[], yticks=[], title=f"layer {layer}" if len(domain.grid) == 3 else "")
        axes.spines[:].set_visible(False)
        for row, column in np.ndindex(values.shape):
            value, n = values[row, column], numbers[row, column]
            if np.isnan(value):
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=PALE, edgecolor=GREY, hatch="//"))
            if values.size > WRITTEN_CELLS:
                continue
            colour = "black" if np.isnan(value) else ink(colours, float(norm(value)))
            shown = "absent" if np.isnan(value) else f"{value:.1f}"
            size = min(10.0, 70 / columns / max(values.shape))
            axes.text(column, row, shown, ha="center", va="center", color=colour, fontsize=size)
            axes.text(column - 0.45, row - 0.42, str(n), ha="left", va="top", color=colour, fontsize=0.65 * size)
    figure.colorbar(ScalarMappable(norm, colours), ax=subplots.tolist(), label=label, fraction=0.046, pad=0.03)
    return figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Driven:
    """A final decision and what drove it."""

    title: str
    image: np.ndarray | None
    """[*shape] or [*shape, 3], None for an empty canvas."""
    coarse_image: np.ndarray | None
    """[*coarse_shape] likewise."""
    drops: np.ndarray
    """[N] in percentage points of probability; the last is that of the coarse image where there is one."""


def dependence(domain: Domain, decisions: Sequence[Driven]) -> Figure:
    """How much each subdomain spoke for some final decisions, drawn over their images, and the coarse image beside."""
    coarse = bool(domain.coarse_shape)
    needed = domain.layers + coarse
    if domain.layers == 1:
        columns, each, widths = 2 * needed, needed, [1, COARSE_WIDTH][:needed] * 2
    else:
        columns = min(needed, PANELS)
        each, widths = -(-needed // columns) * columns, [1] * columns
    rows = -(-len(decisions) * each // columns)
    shape = domain.shown_shape
    aspect = min(shape[0] / shape[1], 1.5)
    width = 5.2 / sum(widths)
    figure = new_figure(0.5 + rows * (0.5 + width * aspect))
    subplots = figure.subplots(rows, columns, squeeze=False, width_ratios=widths).ravel()
    for axes in subplots:
        axes.axis("off")
        axes.set_anchor("N")
    written = width / domain.shown_grid[1] > NARROWEST
    largest = max(float(np.abs([decision.drops for decision in decisions]).max()), 1e-6)
    for sample, decision in enumerate(decisions):
        for layer in range(domain.layers):
            axes = subplots[sample * each + layer]
            axes.axis("on")
            image = decision.image
            _canvas(axes, None if image is None else _grey(domain.cut(image, layer)), (shape[0], shape[1]))
            _mark(axes, domain.marks if layer == 0 else "")
            # Not in the layout, where a long title would push the next column away.
            title = axes.set_title(decision.title if layer == 0 else "\n", loc="left", fontsize=8)
            title.set_in_layout(layer > 0 or each == 1)
            if len(domain.grid) == 3:
                axes.set_xlabel(domain.title(layer), fontsize=8)
            members = domain.members(layer)
            _draw_drops(axes, [domain.blocks[n] for n in members], decision.drops[list(members)], largest, written)
        if coarse:
            _draw_coarse_image(subplots[sample * each + domain.layers], domain, decision, largest)
    handles = [Patch(color=VERMILLION, label="spoke for the decision"), Patch(color=BLUE, label="against it")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw_coarse_image(axes: Axes, domain: Domain, decision: Driven, largest: float) -> None:
    """The coarse image, of a volume the slice amid it, and how much it spoke for the decision."""
    image, shape = decision.coarse_image, domain.turned(domain.coarse_shape)
    if image is not None:
        image = domain.seen(image)[:, :, shape[2] // 2] if len(shape) == 3 else image
    axes.axis("on")
    axes.set_title("\n", fontsize=8)
    _canvas(axes, None if image is None else _grey(image), (shape[0], shape[1]))
    axes.set_xlabel("coarse image", fontsize=8 if domain.layers > 1 else 7)
    _draw_drops(axes, [(slice(0, shape[0]), slice(0, shape[1]))], decision.drops[-1:], largest, True)


def _draw_drops(axes: Axes, blocks: Sequence[Window], drops: np.ndarray, largest: float, written: bool) -> None:
    """Blocks coloured by what is lost without them, `drops` [n] in percentage points, with the number where wanted."""
    colours = [to_rgba(VERMILLION if drop > 0 else BLUE, 0.7 * abs(drop) / largest) for drop in drops.tolist()]
    _draw_rectangles(axes, blocks, (0, 1), facecolors=colours, edgecolors=GREY, linewidths=0.5)
    for block, drop in zip(blocks, drops.tolist(), strict=True):
        if not written or abs(drop) < 0.5:
            continue
        axes.text(
            (block[1].start + block[1].stop) / 2,
            (block[0].start + block[0].stop) / 2,
            f"{drop:+.0f}",
            ha="center",
            va="center",
            fontsize=7,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
