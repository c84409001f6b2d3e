"""From what was typed to a configuration, and every mistake in one line."""

from __future__ import annotations

import difflib
import json
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from ddhpc import launcher
from ddhpc.config import DEFAULT_RECIPE, SECTIONS, Config, recipe_names, recipe_path
from ddhpc.errors import InputError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

LISTS = {
    f"--{name}.{field}"
    for name, section in SECTIONS.items()
    for field, kind in get_type_hints(section).items()
    if str(kind).startswith("tuple")
}

NUMBER = re.compile(r"-?\d+(\.\d*)?(e-?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What was typed for train or plan."""

    config: Config
    name: str
    """Of the recipe or configuration file."""
    options: Any


def parser(verb: str, description: str) -> ArgumentParser:
    """A parser that raises instead of leaving, so that all ranks leave together."""
    return ArgumentParser(
        prog=f"python -m ddhpc {verb}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
    )


def add_configuration(parser: ArgumentParser) -> None:
    """The options of `config.py`, one for each field of each section."""
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="YAML file with sections as below")
    parser.add_argument("--recipe", metavar="NAME", help=f"a configuration that ships: {', '.join(recipe_names())}")
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="print the resolved configuration as YAML and do nothing else",
    )
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    for action in parser._actions:
        if set(action.option_strings) & {f"--{name}" for name in SECTIONS}:
            action.help = SUPPRESS  # a section from a file of its own, which --config does as well


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


def parse(parser: ArgumentParser, argv: list[str], lists: Iterable[str] = ()) -> Any:
    """The namespace of the options in `argv`; InputError in one line for what argparse would explain in several.

    `lists` are options that take several values, as in `--size 64 64`.
    """
    argv = _join_lists(argv, set(lists))
    if {"--help", "-h"} & set(argv) and not launcher.first():
        sys.exit(0)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in argv:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option not in known:
            raise InputError(f"{option}: unknown option{closest(option, known)}; --help lists all options")
        if within := [each for each in known if each.startswith(f"{option}.")]:
            raise InputError(f"{option}: is a section; expected one of its options: {', '.join(within)}")
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise InputError(_one_line(str(error))) from error


def configure(argv: list[str], parser: ArgumentParser) -> Command:
    """Read recipe or configuration file first, then single options over it."""
    recipe, config_file = _value(argv, "--recipe"), _value(argv, "--config")
    if recipe and config_file:
        raise InputError(f"--recipe {recipe} and --config {config_file}: expected one of the two")
    file = config_file or str(recipe_path(recipe or DEFAULT_RECIPE))
    try:
        options = parse(parser, [f"--config={file}", *argv], LISTS)
    except InputError as error:
        raise InputError(
            str(error) if str(error).startswith(("--", "argument --")) else f"--config {file}: {error}"
        ) from error
    sections = parser.instantiate(options)
    config = Config(**{name: sections[name] for name in SECTIONS})
    return Command(config=config, name=Path(file).stem, options=options)


def closest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that was perhaps meant."""
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _value(argv: list[str], option: str) -> str | None:
    """The last value of a string option, before parsing."""
    found = None
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.split("=", 1)[1]
    return found


def _join_lists(argv: list[str], lists: set[str]) -> list[str]:
    """`--decomposition.grid 4 4` as the `--decomposition.grid=[4,4]` that jsonargparse reads."""
    joined: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word not in lists or (words and words[0].startswith("[")):
            joined.append(word)
            continue
        values = []
        while words and re.fullmatch(r"[^-].*|-\d.*", words[0]):
            value = words.pop(0)
            values.append(value if NUMBER.fullmatch(value) else json.dumps(value))
        joined.append(f"{word}=[{','.join(values)}]")
    return joined


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
    return re.sub(r"\.? Got value:", ", found", message.replace("Expected a ", "expected "))
