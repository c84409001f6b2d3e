"""A map as a picture: the image in grey, each block in the colour of what it said for the decision, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ddhpc.colours import BLUE, GREY, VERMILLION

SMALLEST, LARGEST = 480, 1024
"""Pixels of the longer edge of the image: smaller ones are enlarged by a whole factor, larger ones reduced."""
STRONGEST = 0.7
"""Opacity of the colour of the largest value."""
LEAST = 0.01
"""Of probability, that has this opacity where all values are smaller: colour is to mean something."""
FONT_SIZE, LINE, MARGIN = 14, 20, 8
"""Pixels."""
BAR = 200
"""Pixels of the colours in the legend."""
CELL = (34, 18)
"""Width and height of a block, in pixels, from which on its value is written into it."""
Box = tuple[int, int, int, int]
"""First column and row, last column and row, on the canvas."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image as its file has it."""

    image: Image.Image
    """All of it, upright, L or RGB."""
    seen: tuple[float, float, float, float]
    """Left, upper, right and lower edge of what becomes the prepared image, in pixels of `image`."""


def draw(picture: Picture, sides: Sequence[Sequence[slice]], values: np.ndarray, said: Sequence[str]) -> Image.Image:
    """The map, RGB.

    Args:
        picture: drawn on.
        sides: of the blocks, along the rows and the columns of the prepared image, which the decomposition cuts.
        values: [N], from -1 to 1, of the subdomains of the grid.
        said: lines above the colours of the legend.
    """
    longest = max(picture.image.size)
    factor = ceil(SMALLEST / longest) if longest < SMALLEST else min(1.0, LARGEST / longest)
    width, height = (max(1, round(size * factor)) for size in picture.image.size)
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    canvas = picture.image.convert("L").resize((width, height), how).convert("RGBA")  # the only colours are the map's
    most = max(float(np.abs(values).max()), LEAST)
    across, down = width / picture.image.width, height / picture.image.height
    left, upper, right, lower = picture.seen
    rows = _ends(sides[0], upper * down, lower * down)
    columns = _ends(sides[1], left * across, right * across)
    boxes = [(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]
    canvas = Image.alpha_composite(canvas, _coloured((width, height), boxes, values / most)).convert("RGB")
    _write_values(canvas, boxes, values)
    legend = _legend(max(width, SMALLEST), most, said)
    drawn = Image.new("RGB", (legend.width, height + legend.height), "white")
    drawn.paste(canvas, (0, 0))
    drawn.paste(legend, (0, height))
    return drawn


def _ends(sides: Sequence[slice], start: float, stop: float) -> list[tuple[int, int]]:
    """First and last pixel of each block along an axis of the image that lies between two places of the canvas."""
    size = sides[-1].stop
    places = [start + (stop - start) * edge / size for edge in range(size + 1)]
    found = []
    for side in sides:
        first, beyond = round(places[side.start]), round(places[side.stop])
        found.append((first, max(first, beyond - 1)))
    return found


def _coloured(size: tuple[int, int], boxes: Sequence[Box], shares: np.ndarray) -> Image.Image:
    """The colours of the blocks, transparent elsewhere; shares of the largest value, from -1 to 1."""
    overlay = Image.new("RGBA", size)
    pen = ImageDraw.Draw(overlay)
    for box, share in zip(boxes, shares.tolist(), strict=True):
        pen.rectangle(box, fill=_colour(share), outline=GREY)
    return overlay


def _colour(share: float) -> tuple[int, ...]:
    """Of a share of the largest value, from -1 to 1, with its opacity."""
    return (*ImageColor.getrgb(VERMILLION if share > 0 else BLUE), round(255 * STRONGEST * abs(share)))


def _write_values(canvas: Image.Image, boxes: Sequence[Box], values: np.ndarray) -> None:
    """Percentage points into the blocks that are large enough, as far as they are not 0."""
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for (x0, y0, x1, y1), value in zip(boxes, values.tolist(), strict=True):
        if x1 - x0 >= CELL[0] and y1 - y0 >= CELL[1] and abs(value) >= 0.005:
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            pen.text(middle, points(value), "black", font, "mm", stroke_width=2, stroke_fill="white")


def _legend(width: int, most: float, said: Sequence[str]) -> Image.Image:
    """Lines of text, and the colours from that against the decision to that for it."""
    strip = Image.new("RGBA", (width, 2 * MARGIN + LINE * (len(said) + 1)), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    for row, line in enumerate(said):
        pen.text((MARGIN, MARGIN + row * LINE), line, "black", font)
    top = MARGIN + len(said) * LINE
    bar = Image.new("RGBA", (BAR, LINE - 4))
    colours = ImageDraw.Draw(bar)
    for x in range(BAR):
        colours.line((x, 0, x, LINE), _colour(2 * x / (BAR - 1) - 1))
    against, spoke = f"against it {points(-most)}", f"{points(most)} for it"
    start = MARGIN + ceil(pen.textlength(against, font)) + MARGIN
    strip.alpha_composite(bar, (start, top + 2))
    pen.text((MARGIN, top), against, "black", font)
    pen.text((start + BAR + MARGIN, top), spoke, "black", font)
    return strip.convert("RGB")


def points(value: float) -> str:
    """A difference of probability in percentage points: +12."""
    return f"{round(100 * value):+d}"
