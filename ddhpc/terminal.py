"""Where tables and progress are shown: a person's terminal, or a log."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from ddhpc.visible import visible


def is_terminal() -> bool:
    """Whether a person watches standard output.

    Open MPI gives every rank a pseudo-terminal, even into a file, but only a real one has a width.
    """
    return sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0


class PlainConsole(Console):
    """Shows text as it is: no markup, no emoji codes, and no hidden characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich; called for each text that is printed, also in tables."""
        return super().render_str(visible(text), **options)


def console() -> Console:
    """Where tables go: in colour on a terminal, plain text of 120 columns elsewhere."""
    return PlainConsole() if is_terminal() else PlainConsole(width=120, color_system=None)
