"""How the figures look: one width for desk and phone, colours that colour-blind readers tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import style
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

WIDTH = 5.4
"""Inches; a phone shows it at about its own width, so that 9 points stay readable there."""
SHARES = "cividis"
"""Colour map for shares, in order of lightness: Nunez, Anderton, Renslow, doi:10.1371/journal.pone.0199239."""

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.hashsalt": "ddhpc",
    # Names of classes are no formulas.
    "text.parse_math": False,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in this style, whatever the user's is.

    Letters that the font of the figures lacks are boxes there; the tables beside them have the names.
    """
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width, `height` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def ink(colours: Colormap, share: float) -> str:
    """Black or white, whichever reads better on the colour of a share from 0 to 1."""
    red, green, blue, _ = colours(share)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
