"""What --help says: values as they are typed, and examples."""

from __future__ import annotations

import json
import re
from argparse import SUPPRESS, Action
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import DefaultHelpFormatter

EXAMPLES = "examples:"
NUMBERS = {int: "N", float: "X"}
"""How help shows a number that is to be typed."""


class HelpFormatter(DefaultHelpFormatter):
    """Shows values as they are typed, without the types of Python."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        numbers = [NUMBERS[kind] for kind in _kinds(action) if kind in NUMBERS]
        if not numbers:
            return super()._get_default_metavar_for_optional(action)
        shown = [*numbers, *words(action)]
        return f"{{{','.join(shown)}}}" if len(shown) > 1 else shown[0]

    def _format_action_invocation(self, action: Action) -> str:
        return re.sub(r", --[\w-]+\+ .*", "", super()._format_action_invocation(action))  # that appends to a list

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        if action.required:
            return f"{text} (required)" if action.option_strings else text
        unset = default in (SUPPRESS, (), []) or (default is None and "." not in action.dest)
        if unset or action.nargs == 0 or action.dest == "config":
            return text
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else yaml_word(default)
        return f"{text} (default: {shown})"


def yaml_word(value: Any) -> str:
    """A value as it is typed: null, true, false, or what it is."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def words(action: Action) -> list[str]:
    """What an option takes as it stands, perhaps beside numbers and names: choices, true and false, null."""
    found = [*map(str, action.choices or ())]
    for kind in _kinds(action):
        if get_origin(kind) is Literal:
            found += map(str, get_args(kind))
        elif kind is bool:
            found += ["true", "false"]
        elif kind is NoneType:
            found.append("null")
    return found


def _kinds(action: Action) -> tuple[Any, ...]:
    """The types of which a value may be."""
    hint = getattr(action, "_typehint", None) or action.type
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
