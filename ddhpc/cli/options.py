"""From what was typed to a configuration, and every mistake in one line."""

from __future__ import annotations

import json
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from ddhpc.cli.help import EXAMPLES, HelpFormatter
from ddhpc.cli.output import say
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


def parser(verb: str, description: str, *examples: str) -> ArgumentParser:
    """A parser that raises instead of leaving, so that all ranks leave together.

    Args:
        verb: and the kind of what it makes, where it has kinds.
        description: one paragraph.
        examples: whole commands, and perhaps what they do after `# `.
    """
    return ArgumentParser(
        prog=f"python -m ddhpc {verb}",
        description=description,
        epilog="\n  ".join([EXAMPLES, *examples]),
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
        "--print-config",
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


def train_parser() -> ArgumentParser:
    """The options of the verb train."""
    options = parser(
        "train",
        "Train a local CNN on the subdomain of each rank, then the coarse DNN on rank 0.",
        "mpirun -n 4 python -m ddhpc --data.file x.h5 --decomposition.grid 2 2 --local.epochs 15",
        "mpirun -n 16 python -m ddhpc --recipe flowers --output runs/mine   # the same again continues it",
        "python -m ddhpc --recipe flowers --print-config > mine.yaml       # every option with its value",
        "mpirun -n 16 python -m ddhpc --config mine.yaml --run.seed 1",
    )
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


def print_config(command: Command) -> bool:
    """Whether --print-config was given; then it is done."""
    if command.options.print_config:
        say(command.config.to_yaml().rstrip())
    return bool(command.options.print_config)


def parse(parser: ArgumentParser, argv: list[str]) -> Any:
    """The namespace of the options in `argv`; InputError in one line for what argparse would explain in several.

    Options of lists and tuples take several words, as in `--size 64 64`. A name may have `_` for `-`, or the reverse.
    """
    known = [option for action in parser._actions for option in action.option_strings]
    argv = _join_lists([_spelt(word, known) for word in argv], _lists(parser))
    if {"--help", "-h"} & set(argv) and not launcher.first():
        sys.exit(0)
    for word in argv:
        option = word.split("=", 1)[0]
        if option.startswith("--"):
            check_name(option, known)
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise InputError(_missing(str(error), known) or _one_line(str(error), known)) from error


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


def _spelt(word: str, known: Sequence[str]) -> str:
    """An option as it is known, where only `-` and `_` differ; other words as they are."""
    option, equals, value = word.partition("=")
    if option in known or not option.startswith("--"):
        return word
    alike = (each for each in known if each.replace("-", "_") == option.replace("-", "_"))
    return next(alike, option) + equals + value


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


def _one_line(message: str, options: Sequence[str]) -> str:
    """An error of jsonargparse in the words of this command line."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)":', lambda found: f"{_spelt(f'--{found[1]}', options)}:", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message)
    message = re.sub(r"typing\.Literal\[([^\]]*)\]", r"one of \1", message)
    message = re.sub(
        r"Does not validate against .*? Errors: - (.*) - (.*) Given value type: .*? Given value:",
        r"\1 or \2. Got value:",
        message,
    )
    message = message.replace("Expected a ", "expected ").replace(" or expected ", " or ").replace("NoneType", "null")
    return re.sub(r"\.? Got value:", ", found", message)
