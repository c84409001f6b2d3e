"""YAML files of unknown origin: plain values, in bounded time and memory, every mistake in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddhpc.errors import InputError

YAML_LETTERS = 2**20
YAML_ITEMS = 100_000
"""That a file may hold once its aliases are followed; a few lines of them could stand for more than any memory."""


def read_yaml(file: Path) -> Any:
    """Plain values of a YAML file, None for an empty one; InputError in one line where it is not such a file."""
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(YAML_LETTERS + 1)
        if len(text) > YAML_LETTERS:
            raise ValueError(f"more than {YAML_LETTERS:,} letters; expected a configuration")
        content = yaml.safe_load(text)
        _count(content, YAML_ITEMS)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "its text is not UTF-8"
        raise InputError(f"{file}: cannot be read: {why}; expected a YAML file") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{file}: cannot read it as YAML: {why}") from error
    return content


def _count(value: Any, left: int) -> int:
    """How many of `left` items remain after those of a value; ValueError where it has more."""
    if left <= 0:
        raise ValueError(f"more than {YAML_ITEMS:,} items; expected a configuration")
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    for part in parts:
        left = _count(part, left - 1)
    return left
