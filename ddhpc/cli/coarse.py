"""`coarse`: solve the second level of a finished run again, with other options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser

from ddhpc.cli.options import add_section, parse, parser
from ddhpc.config import Coarse, Config
from ddhpc.errors import InputError


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "coarse",
        "Solve the second level of a finished run again, from its local outputs, in seconds; options not given are "
        "those of the run. `inspect RUN DIR` compares them.",
        "python -m ddhpc coarse runs/latest --output again --coarse.hidden 256 128",
    )
    options.add_argument("run", metavar="RUN", help="run directory or results file")
    options.add_argument("--output", metavar="DIR", required=True, help="new directory for the results")
    options.usage = "%(prog)s RUN --output DIR [options]"
    add_section(options, "coarse", Coarse)
    return options


def run(argv: list[str], started: float) -> None:
    """Train the coarse DNN of a finished run again, and print the table."""
    options = arguments()
    source, output = (Path(getattr(parse(options, argv), name)) for name in ("run", "output"))

    from ddhpc.parallel.communicator import world
    from ddhpc.parallel.placement import asked_threads, place
    from ddhpc.results import is_finished, open_results
    from ddhpc.solver.second_level import solve_again
    from ddhpc.tables.run import print_run

    comm = world()
    own = comm.split(comm.rank)

    def again() -> None:
        with open_results(source) as file:
            before = Config.from_yaml(file.attrs["config"])
        options.set_defaults({f"coarse.{name}": value for name, value in before.to_dict()["coarse"].items()})
        config = options.instantiate(parse(options, argv)).coarse
        if is_finished(output):
            raise InputError(f"--output {output}: holds a finished run; expected a new directory")
        # one thread unless the run had more: a coarse DNN is small, and more slow it down where cores are shared
        here = replace(before.run, device="auto", threads=before.run.threads or asked_threads() or 1)
        solve_again(source, config, output, place(own, here))
        print_run(output)

    comm.on_root(again)
