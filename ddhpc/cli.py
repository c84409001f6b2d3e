"""The command line: `python -m ddhpc [VERB] ...`; without a verb it trains. Thin: parse, call, print."""

from __future__ import annotations

import difflib
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from ddhpc import __version__, runtime
from ddhpc.config import DEFAULT_RECIPE, SECTIONS, Config, recipe_names, recipe_path
from ddhpc.errors import BAD_INPUT, InputError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

OVERVIEW = """\
ddhpc {version}: model-parallel training of image classifiers by domain decomposition

usage: mpirun -n RANKS python -m ddhpc [VERB] [options]

verbs:
  train     (also without a verb) train a local CNN on every subdomain, then the coarse DNN
  plan      print windows, ranks, networks and memory, without training
  prepare   pack raw images into one HDF5 file that all ranks can read their windows from
  inspect   verify the results of a run and print its table; compare several runs

examples:
  mpirun -n 16 python -m ddhpc                              the default recipe: Fashion-MNIST on a 4x4 grid
  python -m ddhpc plan --decomposition.grid 2 2
  python -m ddhpc prepare images FOLDER --output x.h5 --size 64 64
  mpirun -n 4 python -m ddhpc --data.file x.h5 --decomposition.grid 2 2 --local.epochs 15
  mpirun -n 1 python -m ddhpc --decomposition.grid 1 1      the global CNN: the baseline is the same program
  python -m ddhpc inspect runs/latest

`python -m ddhpc VERB --help` explains every option of a verb."""


def main(argv: list[str], started: float) -> None:
    """Run one command.

    Args:
        argv: arguments after the program's name.
        started: `time.perf_counter()` when this process began.

    Raises:
        InputError: bad input, on the ranks that found it.
    """
    if argv[:1] in (["--help"], ["-h"], ["help"]):
        say(OVERVIEW.format(version=__version__))
    elif argv[:1] == ["--version"]:
        say(f"ddhpc {__version__}")
    elif not argv or argv[0].startswith("-"):
        train(argv, started)
    elif argv[0] in VERBS:
        VERBS[argv[0]](argv[1:], started)
    else:
        raise InputError(f"{argv[0]}: unknown verb{_closest(argv[0], VERBS)}; expected one of {', '.join(VERBS)}")


def say(text: str) -> None:
    """Print once, not once a rank."""
    if runtime.launched_rank() == 0:
        print(text, flush=True)


def alone(action: Callable[[], None]) -> None:
    """Run what one process does by itself, should it have been started on several ranks."""
    if runtime.launched_rank() != 0:
        return
    try:
        action()
    except InputError as error:
        print(f"ddhpc: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


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


def parse(parser: ArgumentParser, argv: list[str]) -> Any:
    """Parse; InputError in one line for what argparse would explain in several."""
    if runtime.launched_rank() != 0 and {"--help", "-h"} & set(argv):
        sys.exit(0)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in argv:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option not in known:
            raise InputError(f"{option}: unknown option{_closest(option, known)}; --help lists all options")
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise InputError(_one_line(str(error))) from error


def configure(argv: list[str], parser: ArgumentParser) -> Command:
    """Read recipe or configuration file first, then single options over it."""
    argv = _join_lists(argv)
    recipe, config_file = _value(argv, "--recipe"), _value(argv, "--config")
    if recipe and config_file:
        raise InputError(f"--recipe {recipe} and --config {config_file}: expected one of the two")
    file = config_file or str(recipe_path(recipe or DEFAULT_RECIPE))
    try:
        options = parse(parser, [f"--config={file}", *argv])
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("--") else f"--config {file}: {error}") from error
    sections = parser.instantiate(options)
    config = Config(**{name: sections[name] for name in SECTIONS})
    return Command(config=config, name=Path(file).stem, options=options)


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
    add_configuration(options)
    return options


def train(argv: list[str], started: float) -> None:
    """Train: the method."""
    command = configure(argv, train_parser())
    if command.options.print_config:
        say(command.config.to_yaml().rstrip())
        return
    ranks = runtime.launched_size()
    say(f"ddhpc {__version__}: recipe {command.name}, starting {ranks} rank{'s' * (ranks > 1)} (loading MPI and torch)")

    comm = runtime.world()
    from ddhpc.problem import open_problem
    from ddhpc.report.run import print_run, problem_line
    from ddhpc.results import run_directory
    from ddhpc.train import train as solve

    problem = runtime.together(comm, partial(open_problem, command.config))
    place = runtime.together(comm, partial(runtime.place, comm, command.config.run))
    output = runtime.together(
        comm,
        lambda: run_directory(command.name, command.options.output, command.options.overwrite, comm.rank),
    )
    directory = Path(runtime.broadcast_text(comm, output))
    say(f"{problem_line(problem)}\n{place.line(comm.size)}\nrun directory {directory}")
    solve(problem, directory, comm, place, startup=time.perf_counter() - started)
    if comm.rank == 0:
        print_run(directory)


def plan(argv: list[str], started: float) -> None:
    """Print geometry, ownership, networks and memory, without training."""
    options = parser("plan", "Print windows, ranks, networks and memory, without training.")
    options.add_argument("--ranks", type=int, help="ranks to plan for (default: those started, else one a subdomain)")
    add_configuration(options)
    command = configure(argv, options)
    if command.options.print_config:
        say(command.config.to_yaml().rstrip())
        return
    ranks = command.options.ranks or (runtime.launched_size() if runtime.launched_size() > 1 else None)

    from ddhpc.problem import open_problem
    from ddhpc.report.plan import print_plan

    alone(lambda: print_plan(open_problem(command.config), ranks))


def prepare(argv: list[str], started: float) -> None:
    """Pack raw images into one HDF5 file."""
    kinds = {"images": prepare_images}
    if argv[:1] in (["--help"], ["-h"], []):
        say(f"usage: python -m ddhpc prepare KIND SOURCE --output FILE [options]\nkinds: {', '.join(kinds)}")
        say("`python -m ddhpc prepare KIND --help` explains the options of a kind.")
    elif argv[0] not in kinds:
        raise InputError(f"prepare {argv[0]}: unknown kind{_closest(argv[0], kinds)}; expected {', '.join(kinds)}")
    else:
        kinds[argv[0]](argv[1:])


def prepare_images(argv: list[str]) -> None:
    """Pack a folder of images."""
    options = parser(
        "prepare images",
        "Pack a folder of images, train|val|test/<class>/* or <class>/*, into a packed file. A split that the "
        "folder lacks is drawn from the training images, by class.",
    )
    options.add_argument("source", metavar="FOLDER", help="folder with one folder a class, or one a split")
    options.add_argument("--output", required=True, metavar="FILE.h5", help="packed file to write")
    options.add_argument("--size", type=tuple[int, int], required=True, metavar="H W", help="pixels of a packed image")
    options.add_argument(
        "--resize",
        choices=("crop", "stretch"),
        default="crop",
        help="crop: shorter side to size, centre cut out",
    )
    options.add_argument("--val-fraction", type=float, default=0.15, help="share drawn as val where there is none")
    options.add_argument("--test-fraction", type=float, default=0.15, help="share drawn as test where there is none")
    options.add_argument("--seed", type=int, default=0, help="of the drawn splits")
    options.add_argument("--overwrite", action="store_true", help="replace an existing packed file")
    given = parse(options, _join_lists(argv, {"--size"}))

    from ddhpc.data.images import prepare_images as pack
    from ddhpc.report.preparing import packing, print_prepared

    def run() -> None:
        with packing(given.source) as progress:
            prepared = pack(
                given.source,
                given.output,
                size=given.size,
                resize=given.resize,
                val_fraction=given.val_fraction,
                test_fraction=given.test_fraction,
                seed=given.seed,
                overwrite=given.overwrite,
                progress=progress,
            )
        print_prepared(prepared, Path(given.output))

    alone(run)


def inspect(argv: list[str], started: float) -> None:
    """Verify runs and print their table."""
    options = parser("inspect", "Verify the results of a run and print its table; compare several runs.")
    options.add_argument("runs", nargs="+", metavar="RUN", help="run directory or results file")
    given = parse(options, argv)

    from ddhpc.report.run import print_comparison, print_run

    paths = [Path(run) for run in given.runs]
    alone(lambda: print_run(paths[0]) if len(paths) == 1 else print_comparison(paths))


VERBS: dict[str, Callable[[list[str], float], None]] = {
    "train": train,
    "plan": plan,
    "prepare": prepare,
    "inspect": inspect,
}


def _closest(word: str, known: Any) -> str:
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


def _list_options() -> set[str]:
    return {
        f"--{name}.{field}"
        for name, section in SECTIONS.items()
        for field, kind in get_type_hints(section).items()
        if str(kind).startswith("tuple")
    }


def _join_lists(argv: list[str], lists: set[str] | None = None) -> list[str]:
    """`--decomposition.grid 4 4` as the `--decomposition.grid=[4,4]` that jsonargparse reads."""
    lists = _list_options() if lists is None else lists
    joined: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word not in lists or (words and words[0].startswith("[")):
            joined.append(word)
            continue
        values = []
        while words and re.fullmatch(r"[^-].*|-\d.*", words[0]):
            values.append(words.pop(0))
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
    return message.replace("Expected a ", "expected ").replace("Got value:", "found")
