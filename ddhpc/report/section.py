"""One section of the report: a figure, words for it and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

OLD = "is not in this results file, which an older version wrote; it is left out."


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One figure of the report, or why there is none."""

    name: str
    """Of its files."""
    title: str
    caption: str
    """What it shows and how to read it, or why it is left out."""
    figure: Figure | None = None
    alt: str = ""
    """What it shows, for those who cannot see it."""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """The numbers behind the figure, a table as text; shown at once where there is no figure."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report shows beyond what every report does."""

    ablation: bool = False
    """What each input of the coarse DNN brought, which is solved again for it; see `ablation`."""
    positive: str | None = None
    """The class that counts as positive in the metrics; None for the last of two."""
    pool: Sequence[Path] = ()
    """Runs of all folds of a cross-validation, of which the run is one; see `pooled`."""


PLAIN = Asked()
"""Nothing beyond what every report shows."""
