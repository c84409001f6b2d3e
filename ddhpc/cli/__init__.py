"""The command line: `python -m ddhpc [VERB] ...`; without a verb it trains. One file for each verb."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ddhpc import __version__
from ddhpc.cli.output import say
from ddhpc.errors import InputError
from ddhpc.settings import closest

VERBS = ("train", "plan", "doctor", "prepare", "phantom", "inspect", "predict", "export", "coarse", "sweep", "report")

OVERVIEW = """\
ddhpc {version}: model-parallel training of image classifiers by domain decomposition

usage: mpirun -n RANKS python -m ddhpc [VERB] [options]

verbs:
  train     (also without a verb) train a local CNN on every subdomain, then the coarse DNN
  plan      print windows, ranks, networks and memory, without training
  doctor    check MPI, HDF5, GPUs, threads, disk and clocks of a job before anything expensive
  prepare   pack raw images into one HDF5 file that all ranks can read their windows from
  phantom   write synthetic chest CT, labelled, to try the 3D problem without patients
  inspect   verify the results of a run and print its table; compare several runs
  predict   apply what was trained to new images: class and probabilities of each
  export    write it as one network for programs without ddhpc: ONNX, or .pt2 for torch
  coarse    solve the second level of a finished run again, with other options, in seconds
  sweep     run a study: grids, overlaps, networks, seeds; what is finished is not run again
  report    write one HTML page with the figures of a run

examples:
  mpirun -n 16 python -m ddhpc                            # the default recipe: Fashion-MNIST on a 4x4 grid
  python -m ddhpc plan --decomposition.grid 2 2
  python -m ddhpc prepare images FOLDER --output x.h5 --size 64 64
  mpirun -n 4 python -m ddhpc --data.file x.h5 --decomposition.grid 2 2 --local.epochs 15
  python -m ddhpc --decomposition.grid 1 1                # the global CNN: the baseline is the same program
  mpirun -n 4 python -m ddhpc --decomposition.grid 1 1    # the same, data-parallel: more ranks than subdomains
  python -m ddhpc inspect runs/latest
  python -m ddhpc predict runs/latest photo.jpg scans/ --csv out.csv
  python -m ddhpc report runs/latest

`python -m ddhpc VERB --help` explains every option of a verb; `ddhpc --completion bash` prints a script
that lets the tabulator key complete them."""


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
        from ddhpc.results import git_commit

        commit = git_commit()
        say(f"ddhpc {__version__}{f' ({commit})' if commit else ''}")
    elif argv[:1] == ["--completion"]:
        from ddhpc.cli.completion import script

        say(script(" ".join(argv[1:]), VERBS))
    elif not argv or argv[0].startswith("-"):
        verb("train")(argv, started)
    elif argv[0] in VERBS:
        verb(argv[0])(argv[1:], started)
    else:
        raise InputError(f"{argv[0]}: unknown verb{closest(argv[0], VERBS)}; expected one of {', '.join(VERBS)}")


def verb(name: str) -> Callable[[list[str], float], None]:
    """What runs a verb, see `main` for its arguments; the module is imported here, so that no verb waits for others."""
    run: Callable[[list[str], float], None] = import_module(f"ddhpc.cli.{name}").run
    return run
