"""The table of `doctor`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ddhpc.parallel.doctor import Finding
from ddhpc.terminal import console

COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def print_findings(findings: Sequence[Finding]) -> None:
    """One row a check, and what follows from them."""
    table = Table()
    for column in ("check", "status", "found"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.check, Text(finding.status, COLOURS[finding.status]), finding.found)
    out = console()
    out.print(table)
    errors = [finding.check for finding in findings if finding.status == "error"]
    out.print(f"not fit to run: {', '.join(errors)}" if errors else "fit to run")
