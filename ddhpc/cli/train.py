"""`train`, also without a verb: the method."""

from __future__ import annotations

from pathlib import Path

from ddhpc import __version__
from ddhpc.cli.options import configure, print_config, train_parser
from ddhpc.cli.output import say
from ddhpc.job import Asked, solve
from ddhpc.parallel import launcher, signals
from ddhpc.parallel.communicator import world

arguments = train_parser
"""What may be typed."""


def run(argv: list[str], started: float) -> None:
    """Train: the method."""
    command = configure(argv, arguments())
    if print_config(command):
        return
    ranks, given = launcher.size(), command.options
    counted = f"{ranks} rank{'s' * (ranks > 1)} " if ranks else ""
    say(f"ddhpc {__version__}: {command.title}, starting {counted}(loading MPI and torch)")
    asked = Asked(
        config=command.config,
        name=command.name,
        output=given.output,
        overwrite=given.overwrite,
        subdomain=given.subdomain,
        log_dir=given.log_dir,
    )
    with signals.StopRequest(command.config.run.stop_signal) as request:
        solve(asked, world(), request, started, show)


def show(directory: Path) -> None:
    """Print the table of a finished run."""
    from ddhpc.tables.run import print_run

    print_run(directory)
