"""`prepare`: pack raw images or volumes into one HDF5 file."""

from __future__ import annotations

import signal
from pathlib import Path

from jsonargparse import ArgumentParser

from ddhpc.cli.options import parse, parser
from ddhpc.cli.output import say
from ddhpc.cli.sources import KINDS, add_common_options
from ddhpc.errors import InputError, Stopped
from ddhpc.parallel import launcher
from ddhpc.parallel.communicator import world
from ddhpc.settings import closest


def arguments(name: str) -> ArgumentParser:
    """What may be typed for a kind; InputError where packages that it needs are not installed."""
    kind = KINDS[name]
    options = parser(f"prepare {name}", kind.description, f"python -m ddhpc prepare {name} {kind.example}")
    kind.add_options(options)
    add_common_options(options)
    return options


def run(argv: list[str], started: float) -> None:
    """Pack raw images or volumes into one HDF5 file."""
    if argv[:1] in (["--help"], ["-h"], []):
        kinds = "\n".join(f"  {name:10}{kind.description}" for name, kind in KINDS.items())
        say(f"usage: python -m ddhpc prepare KIND SOURCE --output FILE.h5 [options]\n\nkinds:\n{kinds}\n")
        say("`python -m ddhpc prepare KIND --help` explains the options of a kind.")
        return
    name = argv[0]
    if name not in KINDS:
        raise InputError(f"prepare {name}: unknown kind{closest(name, KINDS)}; expected one of {', '.join(KINDS)}")
    given = vars(parse(arguments(name), argv[1:]))
    output = Path(given.pop("output"))

    from ddhpc.data.sources.source import Packing
    from ddhpc.data.sources.workers import Workers
    from ddhpc.parallel.work_sharing import WorkingRanks
    from ddhpc.tables.preparing import print_prepared, progress_of

    workers = WorkingRanks(world(), say) if launcher.size() != 1 else Workers(say=say)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress_of(f"packing {name}", shown=workers.rank == 0) as progress:
            packing = Packing(output=output, overwrite=given.pop("overwrite"), progress=progress, workers=workers)
            prepared = KINDS[name].pack(given.pop("source"), packing, **given)
    except KeyboardInterrupt as interrupt:
        raise Stopped("interrupted; what is decoded is kept, the same command goes on from there") from interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    if prepared:
        print_prepared(prepared, output)
