"""What a person looks at: the report of a run, an HTML page. Needs matplotlib and jinja2, of the extra `report`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ddhpc.errors import InputError

FOLDER = "report"
"""Of the report in a run directory."""
PAGE = "index.html"
GENERATOR = '<meta name="generator" content="ddhpc report">'


def check_needs() -> None:
    """InputError where what the report draws and writes with is not installed; imports it."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the report needs matplotlib and jinja2 ({error}); expected them: pip install 'ddhpc[report]'"
        ) from error


def remove_page(run: Path) -> None:
    """Remove the page of an earlier run from a run directory, so that it is not taken for that of the new one."""
    page = run / FOLDER / PAGE
    with suppress(OSError):
        if GENERATOR in page.read_text(errors="replace"):
            page.unlink()
