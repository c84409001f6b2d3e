"""YAML of unknown origin: plain values, in bounded time and memory, every mistake in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from ddhpc.errors import InputError

YAML_LETTERS = 2**18
YAML_ITEMS = 20_000
"""That a file may hold once its aliases are followed; a few lines of them could stand for more than any memory."""
YAML_DIGITS = 40
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class _Loader(yaml.SafeLoader):
    """Plain values; a date is the text that it is written as."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(file: Path) -> Any:
    """Plain values of a YAML file, None for an empty one; InputError in one line where it is not such a file."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            text = stream.read(YAML_LETTERS + 1)
        return plain_values(text)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "its text is not UTF-8"
        raise InputError(f"{file}: cannot be read: {why}; expected a YAML file") from error
    except ValueError as error:
        raise InputError(f"{file}: cannot read it as YAML: {error}") from error


def plain_values(text: str) -> Any:
    """What YAML text holds, None if nothing; ValueError in one line for more or other than a configuration may hold."""
    if len(text) > YAML_LETTERS:
        raise ValueError(f"more than {YAML_LETTERS:,} letters; expected a configuration")
    try:
        # Looked at before it is built, which follows aliases.
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many items a node stands for with those of its aliases; ValueError where it is not plain, or too large."""
    if id(node) not in counted:
        if node.tag not in PLAIN:
            raise ValueError(f"{node.tag}: expected plain values, without tags")
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        elif not parts and node.tag.endswith(":int") and len(node.value) > YAML_DIGITS:
            raise ValueError(f"a number of {len(node.value):,} digits; expected a configuration")
        counted[id(node)] = 1 + sum(_count(part, counted) for part in parts)
        if counted[id(node)] > YAML_ITEMS:
            raise ValueError(f"more than {YAML_ITEMS:,} items; expected a configuration")
    return counted[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    """ValueError where a mapping has a key twice, of which YAML would take the last."""
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
    twice = [key for key in keys if keys.count(key) > 1] if len(set(keys)) < len(keys) else []
    if twice:
        raise ValueError(f"{twice[0]} is there twice; expected it once")


def with_lists(value: Any) -> Any:
    """Tuples as lists, for a YAML that any reader takes."""
    if isinstance(value, dict):
        return {key: with_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may stand for a field of this type."""
    kind, within = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in within
    if kind is tuple:
        return isinstance(value, list) and all(fits(each, within[0]) for each in value)
    if within:
        return any(fits(value, each) for each in within)
    return isinstance(value, bool) == (hint is bool) and isinstance(value, (int, float) if hint is float else hint)


def with_tuples(section: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, as the fields of a frozen dataclass have them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
