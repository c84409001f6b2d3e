"""What `doctor` shows: a table, or one JSON document."""

from __future__ import annotations

import json
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
    errors = unfit(findings)
    out.print(f"not fit to run: {', '.join(errors)}" if errors else "fit to run")


def unfit(findings: Sequence[Finding]) -> list[str]:
    """Checks that say that the job cannot run."""
    return [finding.check for finding in findings if finding.status == "error"]


def as_json(findings: Sequence[Finding]) -> str:
    """The same findings as one JSON document of ASCII: `fit`, and `checks` by name with `status`, `found`, facts."""
    checks = {each.check: {"status": each.status, "found": each.found, **each.facts} for each in findings}
    return json.dumps({"fit": not unfit(findings), "checks": checks}, indent=2)
