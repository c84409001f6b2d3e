"""`plan`: windows, ranks, networks and memory, without training."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from ddhpc.cli.options import add_configuration, configure, parser, print_config
from ddhpc.cli.output import alone
from ddhpc.errors import InputError
from ddhpc.parallel import launcher


def arguments() -> ArgumentParser:
    """What may be typed."""
    options = parser(
        "plan",
        "Print windows, ranks, networks and memory, without training.",
        "python -m ddhpc plan --data.file x.h5 --decomposition.grid 2 2 --ranks 2",
    )
    options.add_argument("--ranks", type=int, help="ranks to plan for (default: those started, else one a subdomain)")
    options.add_argument(
        "--device-memory",
        type=float,
        metavar="GIB",
        help="print which grids fit devices of so much memory, and what each needs, instead of one plan",
    )
    add_configuration(options)
    return options


def run(argv: list[str], started: float) -> None:
    """Print geometry, ownership, networks and memory, without training."""
    command = configure(argv, arguments())
    if print_config(command):
        return
    if command.options.ranks is not None and command.options.ranks < 1:
        raise InputError(f"--ranks {command.options.ranks}: expected at least 1")
    limit = command.options.device_memory
    if limit is not None and not 0 < limit < float("inf"):
        raise InputError(f"--device-memory {limit:g}: expected GiB above 0")
    ranks = command.options.ranks or (launcher.size() if launcher.size() != 1 else None)

    from ddhpc.method.problem import open_problem
    from ddhpc.tables.grids import print_grids
    from ddhpc.tables.plan import print_plan

    if limit is None:
        alone(lambda: print_plan(open_problem(command.config), ranks))
    else:
        alone(lambda: print_grids(command.config, limit))
