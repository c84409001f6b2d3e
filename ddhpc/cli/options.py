"""From what was typed to a configuration, and every mistake in one line."""

from __future__ import annotations

import json
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from ddhpc.config import DIGESTS, IDENTITY, SECTIONS, Config, Data, with_older
from ddhpc.errors import InputError
from ddhpc.parallel import launcher
from ddhpc.recipes import DEFAULT_RECIPE, recipe_names, recipe_path
from ddhpc.settings import check_name, closest
from ddhpc.yaml_file import read_yaml

set_parsing_settings(docstring_parse_attribute_docstrings=True)

OPTION = re.compile(r"--?[A-Za-z].*")
"""A word that is an option, not a value, be it a negative number."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What was typed for train or plan."""

    config: Config
    name: str
    """For the run directory: of the data, or of the configuration file."""
    title: str
    """What is trained, for a person: the recipe or configuration file, and the data where they are others."""
    options: Any


class HelpFormatter(DefaultHelpFormatter):
    """Shows defaults as they are typed, without the types of Python."""

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


def parser(verb: str, description: str) -> ArgumentParser:
    """A parser that raises instead of leaving, so that all ranks leave together."""
    return ArgumentParser(
        prog=f"python -m ddhpc {verb}",
        description=description,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
    )


def add_configuration(parser: ArgumentParser) -> None:
    """The options of the configuration, one for each field of each section."""
    parser.usage = "%(prog)s [options]"
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="YAML file with sections as below")
    parser.add_argument("--recipe", metavar="NAME", help=f"a configuration that ships: {', '.join(recipe_names())}")
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="print the resolved configuration as YAML and do nothing else",
    )
    for name, section in SECTIONS.items():
        add_section(parser, name, section)


def add_section(parser: ArgumentParser, name: str, section: type) -> None:
    """The options of one section of the configuration, as `--name.field`."""
    parser.add_class_arguments(section, name)
    lists = _lists(parser)
    for action in parser._actions:
        if set(action.option_strings) & set(lists):
            action.metavar = "N N ..."
        if f"--{name}" in action.option_strings:
            action.help = SUPPRESS  # a section from a file of its own, which --config does as well


def words(action: Action) -> list[str]:
    """What an option takes as it stands, perhaps beside numbers and names: choices, true and false, null."""
    hint, found = getattr(action, "_typehint", None), [*map(str, action.choices or ())]
    for kind in (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,):
        if get_origin(kind) is Literal:
            found += map(str, get_args(kind))
        elif kind is bool:
            found += ["true", "false"]
        elif kind is NoneType:
            found.append("null")
    return found


def train_parser() -> ArgumentParser:
    """The options of the verb train."""
    options = parser("train", "Train a local CNN on the subdomain of each rank, then the coarse DNN on rank 0.")
    options.add_argument(
        "--output",
        metavar="DIR",
        default=None,
        help="run directory; without it each run gets a new one under runs/",
    )
    options.add_argument("--overwrite", action="store_true", help="replace the finished run in --output")
    options.add_argument("--log-dir", metavar="DIR", default=None, help="also log what each rank does, a file a rank")
    options.add_argument(
        "--subdomain",
        type=int,
        metavar="N",
        help="train this subdomain alone in one process; when all are done, the same command without it finishes",
    )
    add_configuration(options)
    return options


def parse(parser: ArgumentParser, argv: list[str]) -> Any:
    """The namespace of the options in `argv`; InputError in one line for what argparse would explain in several.

    Options of lists and tuples take several words, as in `--size 64 64`.
    """
    argv = _join_lists(argv, _lists(parser))
    if {"--help", "-h"} & set(argv) and not launcher.first():
        sys.exit(0)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in argv:
        option = word.split("=", 1)[0]
        if option.startswith("--"):
            check_name(option, known)
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise InputError(_missing(str(error), known) or _one_line(str(error))) from error


def configure(argv: list[str], parser: ArgumentParser) -> Command:
    """Read recipe or configuration file first, then single options over it."""
    recipe, config_file = _value(argv, "--recipe"), _value(argv, "--config")
    if recipe and config_file:
        raise InputError(f"--recipe {recipe} and --config {config_file}: expected one of the two")
    chosen = _read(Path(config_file)) if config_file else _recipe(recipe or DEFAULT_RECIPE)
    try:
        options = parse(parser, [f"--config={json.dumps(chosen)}", *_without(argv, "--config")])
    except InputError as error:
        named = str(error).startswith(("--", "argument --")) or not config_file
        raise InputError(str(error) if named else f"--config {config_file}: {error}") from error
    for name, section in SECTIONS.items():
        for option, hint in get_type_hints(section).items():
            if options[name][option] is None and type(None) not in get_args(hint):
                raise InputError(f"--{name}.{option} null: expected a value")
    sections = parser.instantiate(options)
    config = Config(**{name: sections[name] for name in SECTIONS})
    title = f"configuration {config_file}" if config_file else f"recipe {recipe or DEFAULT_RECIPE}"
    if config.data.file != chosen.get("data", {}).get("file", Data.file):
        title = f"{title if recipe or config_file else 'default options'} on {config.data.file}"
    name = Path(config_file).stem if config_file else Path(config.data.file).stem
    return Command(config=config, name=name, title=title, options=options)


def _recipe(name: str) -> dict[str, Any]:
    return _read(recipe_path(name))


def _read(file: Path) -> dict[str, Any]:
    """The sections of a configuration file, over those of a recipe where it names one.

    Takes `run.yaml` of a run directory as well, without what it says of the run's data and code.
    """
    option = f"--config {file}"
    try:
        content = read_yaml(file)
    except InputError as error:
        raise InputError(f"--config {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"{option}: expected sections such as data and local, found {found}")
    if set(IDENTITY) <= set(content):
        content = with_older({name: section for name, section in content.items() if name not in (*IDENTITY, *DIGESTS)})
    recipe = content.pop("recipe", None)
    sections = _recipe(str(recipe)) if recipe is not None else {}
    for name, section in content.items():
        if name not in SECTIONS:
            raise InputError(
                f"{option}: {name}: no section{closest(str(name), SECTIONS)}; there are {', '.join(SECTIONS)}"
            )
        if section is not None and not isinstance(section, dict):
            raise InputError(f"{option}: {name}: expected options and their values, found {section}")
        sections[name] = {**sections.get(name, {}), **(section or {})}
    return sections


def _value(argv: list[str], option: str) -> str | None:
    """The last value of a string option, before parsing."""
    found = None
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.split("=", 1)[1]
    return found


def _without(argv: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, words = [], list(argv)
    while words:
        word = words.pop(0)
        if word == option:
            del words[:1]
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _lists(parser: ArgumentParser) -> dict[str, type]:
    """The type of one value of each option that takes several."""
    found: dict[str, type] = {}
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        for kind in (hint, *get_args(hint)):
            if get_origin(kind) in (list, tuple):
                found |= dict.fromkeys(action.option_strings, get_args(kind)[0])
    return found


def _join_lists(argv: list[str], lists: Mapping[str, type]) -> list[str]:
    """`--decomposition.grid 4 4` as the `--decomposition.grid=[4,4]` that jsonargparse reads."""
    joined: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word not in lists or (words and words[0].startswith("[")):
            joined.append(word)
            continue
        values = []
        while words and not OPTION.fullmatch(words[0]):
            values.append(_as_json(words.pop(0), lists[word]))
        joined.append(f"{word}=null" if values == ['"null"'] else f"{word}=[{','.join(values)}]")
    return joined


def _as_json(word: str, kind: type) -> str:
    """A value as it is meant: a number for options of numbers, else a text, such as 010 and 1,2."""
    for number in (int, float):
        if kind in (int, float):
            with suppress(ValueError):
                return json.dumps(number(word))
    return json.dumps(word)


def _missing(message: str, options: Iterable[str]) -> str:
    """That arguments are missing, where the error of jsonargparse says so; else empty."""
    found = re.search("the following arguments are required: (.*)", " ".join(message.split()))
    if not found:
        return ""
    names = [f"--{name}" if f"--{name}" in options else name.upper() for name in found[1].split(", ")]
    return f"{', '.join(names)}: missing; expected it, --help explains it"


def _one_line(message: str) -> str:
    """An error of jsonargparse in the words of this command line."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)":', r"--\1:", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message)
    message = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", message)
    message = re.sub(
        r"Does not validate against .*? Errors: - (.*) - (.*) Given value type: .*? Given value:",
        r"\1 or \2. Got value:",
        message,
    )
    message = message.replace("Expected a ", "expected ").replace(" or expected ", " or ").replace("NoneType", "null")
    return re.sub(r"\.? Got value:", ", found", message)
