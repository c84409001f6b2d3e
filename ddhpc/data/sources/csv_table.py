"""CSV tables of files, as people and spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ddhpc.errors import InputError

COLUMNS = ("path", "label")
OPTIONAL = ("patient", "split")
SEPARATORS = ",;\t"
"""Of tables; spreadsheets of many countries write semicolons."""


def rows(source: Path, needed: Sequence[str] = COLUMNS) -> list[tuple[int, dict[str, str]]]:
    """Line number and stripped cells by column; InputError, naming the source, where a needed column is missing."""
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            table = csv.DictReader(file, restval="", delimiter=max(SEPARATORS, key=header.count))
            columns = tuple(name.strip() for name in table.fieldnames or ())
            table.fieldnames = columns
            lines = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read: {error}; expected a CSV table in UTF-8") from error
    if not set(needed) <= set(columns):
        found = ",".join(columns)
        optional = [name for name in (*COLUMNS, *OPTIONAL) if name not in needed]
        raise InputError(
            f"{source}: has columns {found!r}; expected {','.join(needed)} and, as you like, {','.join(optional)}"
        )
    return [(line, {name: row[name].strip() for name in columns}) for line, row in lines]
