"""Options by name, as in "local.epochs", checked against the fields of the sections that they set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from ddhpc.errors import InputError
from ddhpc.yaml_file import fits

SIMILAR = 0.75
"""From which on a word is taken for another one mistyped."""
Sections = TypeVar("Sections")


def from_options(kind: type[Sections], options: Mapping[str, Any]) -> Sections:
    """A configuration from options, with the defaults of all others.

    Args:
        kind: dataclass of sections, which are dataclasses.
        options: by name, as in "local.epochs"; lists and tuples are the same.

    Raises:
        InputError: an option is unknown, or its value of another type; as for the same option on the command line.
    """
    sections = get_type_hints(kind)
    hints = {f"{name}.{option}": hint for name in sections for option, hint in get_type_hints(sections[name]).items()}
    given: dict[str, dict[str, Any]] = {name: {} for name in sections}
    for name, value in options.items():
        check_name(f"--{name}", [f"--{option}" for option in hints])
        section, _, option = name.partition(".")
        given[section][option] = _value(name, _plain(value), hints[name])
    return kind(**{name: sections[name](**values) for name, values in given.items()})


def check_name(option: str, known: Iterable[str]) -> None:
    """InputError unless an option such as --local.epochs is known."""
    known = list(known)
    if within := [each for each in known if each.startswith(f"{option}.")]:
        raise InputError(f"{option}: is a section; expected one of its options: {', '.join(within)}")
    if option not in known:
        raise InputError(f"{option}: unknown option{closest(option, known)}; --help lists all options")


def closest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that was perhaps meant: of the same end after a dot, or a few letters off."""
    known = list(known)
    close = [each for each in known if each.rpartition(".")[2] == word.lstrip("-")]
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=SIMILAR)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, tuples and arrays as lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _value(name: str, value: Any, hint: Any) -> Any:
    """A value as its field has it; InputError where it is of another type."""
    if not fits(value, hint):
        expected, found = _described(hint), value
        if get_origin(hint) is tuple and isinstance(value, list):
            within = get_args(hint)[0]
            expected, found = _described(within), next(each for each in value if not fits(each, within))
        raise InputError(f"--{name}: expected {expected}, found {found}")
    if isinstance(value, list):
        return tuple(value)
    whole = type(value) is int and not any(
        fits(value, each) for each in (get_args(hint) or (hint,)) if each is not float
    )
    return float(value) if whole else value


def _described(hint: Any) -> str:
    """A type in a message."""
    kind, within = get_origin(hint), get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(repr, within))}"
    if kind is tuple:
        return "tuple"
    if within:
        return " or ".join(map(_described, within))
    return "null" if hint is NoneType else str(hint.__name__)
