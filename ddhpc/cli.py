"""The command line: `python -m ddhpc [VERB] ...`; without a verb it trains. Thin: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ddhpc import __version__, launcher, runtime
from ddhpc.errors import BAD_INPUT, InputError, Stopped
from ddhpc.options import Command, add_configuration, closest, configure, parse, parser, train_parser
from ddhpc.prepare import KINDS, add_common_options, load
from ddhpc.visible import tell

MPIRUN = "mpirun -n {ranks}"

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
  sweep     run a study: grids, overlaps, networks, seeds; what is finished is not run again
  report    write one HTML page with the figures of a run

examples:
  mpirun -n 16 python -m ddhpc                              the default recipe: Fashion-MNIST on a 4x4 grid
  python -m ddhpc plan --decomposition.grid 2 2
  python -m ddhpc prepare images FOLDER --output x.h5 --size 64 64
  mpirun -n 4 python -m ddhpc --data.file x.h5 --decomposition.grid 2 2 --local.epochs 15
  python -m ddhpc --decomposition.grid 1 1                  the global CNN: the baseline is the same program
  mpirun -n 4 python -m ddhpc --decomposition.grid 1 1      the same, data-parallel: more ranks than subdomains
  python -m ddhpc inspect runs/latest
  python -m ddhpc report runs/latest

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
        raise InputError(f"{argv[0]}: unknown verb{closest(argv[0], VERBS)}; expected one of {', '.join(VERBS)}")


def say(text: str) -> None:
    """Print once, not once a rank."""
    if launcher.rank() == 0:
        tell(text)


def alone(action: Callable[[], None]) -> None:
    """Run what one process does by itself, should it have been started on several ranks."""
    if not launcher.first():
        return
    try:
        action()
    except InputError as error:
        print(f"ddhpc: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


def train(argv: list[str], started: float) -> None:
    """Train: the method."""
    command = configure(argv, train_parser())
    if command.options.print_config:
        say(command.config.to_yaml().rstrip())
        return
    ranks = launcher.size()
    counted = f"{ranks} rank{'s' * (ranks > 1)} " if ranks else ""
    say(f"ddhpc {__version__}: {command.title}, starting {counted}(loading MPI and torch)")
    with runtime.StopRequest(command.config.run.stop_signal) as request:
        solve(command, request, started)


def solve(command: Command, request: runtime.StopRequest, started: float) -> None:
    """Train as configured, on all ranks or one subdomain alone, and print the table."""
    only = command.options.subdomain
    comm = runtime.world()
    if only is not None and (comm.size > 1 or command.options.output is None):
        raise InputError(f"--subdomain {only}: expected one process, without mpirun, and --output DIR that all share")
    if only is not None and command.options.overwrite:
        raise InputError(
            f"--subdomain {only}: expected it without --overwrite, which would remove what the tasks for other "
            "subdomains have trained; name a new --output"
        )
    from ddhpc.problem import open_problem

    if command.options.log_dir:
        runtime.together(
            comm, lambda: runtime.log_to(Path(command.options.log_dir), comm.rank if only is None else only)
        )
    problem = runtime.together(comm, partial(open_problem, command.config))
    if only is not None and not 0 <= only < problem.subdomains:
        raise InputError(f"--subdomain {only}: expected 0 to {problem.subdomains - 1}")

    # These load torch, for which wrong data or a wrong grid need not wait.
    from ddhpc import train as method
    from ddhpc.report.run import print_run, problem_line
    from ddhpc.results import begin, check_alike, counted, identity, lock, run_directory

    place = runtime.together(comm, partial(runtime.place, comm, command.config.run))

    runtime.together(comm, request.obey)
    request.defer()
    options, run = command.options, identity(problem.config, problem.packed.digest)
    check_alike(comm, place.host, problem.config, problem.packed.digest)

    def make_directory() -> str:
        return str(run_directory(command.name, options.output)) if comm.rank == 0 else ""

    directory = Path(runtime.broadcast_text(comm, runtime.together(comm, make_directory)))
    with ExitStack() as held:

        def enter() -> None:
            if comm.rank == 0:
                began = time.time() - (time.perf_counter() - started)
                held.enter_context(lock(directory, began, only, say))
                begin(directory, run, options.overwrite)
                held.enter_context(counted(directory, began, only))

        runtime.together(comm, enter)
        say(f"{problem_line(problem)}\n{place.line(comm.size)}\nrun directory {directory}")
        if before := len(list(directory.glob("checkpoints/*.pt"))):
            say(f"continuing: {before} of {problem.subdomains} subdomains have a checkpoint")
        try:
            if only is not None:
                method.train_subdomain(problem, only, directory, comm, place, request)
                say(f"subdomain {only} is done")
                return
            method.train(problem, directory, comm, place, request, startup=time.perf_counter() - started)
        except Stopped as stop:
            same = "the same command without --overwrite" if options.overwrite else "the same command"
            kept = any(directory.glob("checkpoints/*.pt"))
            done = "checkpoints are made" if kept else "nothing is trained yet"
            raise Stopped(f"{stop}; {done}, continue with {same}, --output {directory}") from stop
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
    if command.options.ranks is not None and command.options.ranks < 1:
        raise InputError(f"--ranks {command.options.ranks}: expected at least 1")
    ranks = command.options.ranks or (launcher.size() if launcher.size() != 1 else None)

    from ddhpc.problem import open_problem
    from ddhpc.report.plan import print_plan

    alone(lambda: print_plan(open_problem(command.config), ranks))


def doctor(argv: list[str], started: float) -> None:
    """Check that this job is fit to run."""
    options = parser("doctor", "Check MPI, HDF5, GPUs, threads, disk and clocks of this job; exit code 1 if unfit.")
    options.add_argument("--output", metavar="DIR", default="runs", help="where results would be written")
    add_configuration(options)
    command = configure(argv, options)
    comm = runtime.world()
    from ddhpc.data.packed import SPLITS
    from ddhpc.doctor import examine
    from ddhpc.problem import open_problem
    from ddhpc.provenance import layout
    from ddhpc.report.doctor import print_findings

    problem = runtime.together(comm, partial(open_problem, command.config))
    place = runtime.together(comm, partial(runtime.place, comm, command.config.run))
    output = Path(command.options.output).absolute()
    directory = next(parent for parent in (output, *output.parents) if parent.is_dir())
    labels = {split: problem.packed.labels(split) for split in SPLITS}
    findings = examine(comm, place, directory, 3 * layout(problem, labels, comm, place).size())
    if comm.rank == 0:
        print_findings(findings)
    unfit = comm.rank == 0 and any(finding.status == "error" for finding in findings)
    if runtime.broadcast_text(comm, "unfit" if unfit else ""):
        sys.exit(1)


def prepare(argv: list[str], started: float) -> None:
    """Pack raw images or volumes into one HDF5 file."""
    if argv[:1] in (["--help"], ["-h"], []):
        kinds = "\n".join(f"  {name:10}{kind.description}" for name, kind in KINDS.items())
        say(f"usage: python -m ddhpc prepare KIND SOURCE --output FILE.h5 [options]\n\nkinds:\n{kinds}\n")
        say("`python -m ddhpc prepare KIND --help` explains the options of a kind.")
        return
    name = argv[0]
    if name not in KINDS:
        raise InputError(f"prepare {name}: unknown kind{closest(name, KINDS)}; expected one of {', '.join(KINDS)}")
    kind = KINDS[name]
    options = parser(f"prepare {name}", kind.description)
    kind.add_options(options)
    add_common_options(options)
    given = vars(parse(options, argv[1:]))

    from ddhpc.crew import Ranks
    from ddhpc.data.crew import Crew
    from ddhpc.report.preparing import print_prepared, progress_of

    crew = Ranks(runtime.world(), say) if launcher.size() != 1 else Crew(say)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress_of(f"packing {name}", shown=crew.rank == 0) as progress:
            prepared = kind.pack(**given, progress=progress, crew=crew)
    except KeyboardInterrupt as interrupt:
        raise Stopped("interrupted; what is decoded is kept, the same command goes on from there") from interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    if prepared:
        print_prepared(prepared, Path(given["output"]))


def phantom(argv: list[str], started: float) -> None:
    """Write synthetic volumes in the folder layout that `prepare ct` reads."""
    if argv[:1] != ["ct"]:
        say("usage: python -m ddhpc phantom ct OUT [--patients 120] [--seed 0]")
        if argv[:1] not in (["--help"], ["-h"], []):
            raise InputError(f"phantom {argv[0]}: unknown kind; expected ct")
        return
    options = parser("phantom ct", "Write labelled phantoms of chest CT as NIfTI: synthetic, not patients.")
    options.add_argument("out", metavar="OUT", help="new directory: CT-0, CT-2, CT-3 and labels.csv")
    options.add_argument("--patients", type=int, default=120, help="volumes to write, half of them healthy")
    options.add_argument("--seed", type=int, default=0, help="of everything random")
    given = vars(parse(options, argv[1:]))
    write_phantoms = load("ddhpc.data.phantom:write_phantoms")

    from ddhpc.report.preparing import progress_of

    def write() -> None:
        with progress_of("phantoms") as progress:
            counts = write_phantoms(**given, progress=progress)
        tell(f"{given['out']}: {', '.join(f'{count} {label}' for label, count in counts.items())} (synthetic phantoms)")
        tell(f"pack them: python -m ddhpc prepare ct {given['out']} --output ct.h5 --groups CT-0 CT-2,CT-3")

    alone(write)


def inspect(argv: list[str], started: float) -> None:
    """Verify runs and print their table."""
    options = parser("inspect", "Verify the results of a run and print its table; compare several runs.")
    options.add_argument("runs", nargs="+", metavar="RUN", help="run directory or results file")
    options.add_argument("--write", metavar="STEM", help="write the comparison to STEM.txt, STEM.csv and STEM.tex")
    given = parse(options, argv)

    from ddhpc.report.comparison import compare
    from ddhpc.report.run import print_run

    paths, stem = [Path(run) for run in given.runs], given.write and Path(given.write)
    alone(lambda: print_run(paths[0], checkpoints=True) if len(paths) == 1 and not stem else compare(paths, stem))


def sweep(argv: list[str], started: float) -> None:
    """Run a study: training after training, and their table."""
    options = parser("sweep", "Run every training of a study, those that are not finished yet, and print their table.")
    options.add_argument("study", metavar="STUDY.yaml", help="what to vary; see the README")
    options.add_argument("--output", metavar="DIR", help="where the runs go; runs/ and the study's name without it")
    options.add_argument("--ranks", type=int, default=os.cpu_count(), help="at most so many at once")
    options.add_argument("--launcher", default=MPIRUN, help="starts a training on several ranks")
    options.add_argument(
        "--only", type=int, metavar="N", help="this training of the list alone, as a task of a job array"
    )
    options.add_argument(
        "--list", dest="list_only", action="store_true", help="print the commands, in order, and run nothing"
    )
    given = vars(parse(options, argv))

    from ddhpc.study import run_study

    alone(partial(run_study, **given))


def report(argv: list[str], started: float) -> None:
    """Write one HTML page with the figures of a run."""
    options = parser("report", "Write one HTML page with the figures of a run, and the figures as PNG and SVG.")
    options.add_argument("run", metavar="RUN", help="run directory or results file")
    options.add_argument("--baseline", metavar="RUN", help="run of the global CNN on the same data, to compare with")
    options.add_argument("--output", metavar="DIR", help="directory of the page (default: report in the run directory)")
    given = parse(options, argv)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"report draws with matplotlib ({error}); expected it: pip install 'ddhpc[report]'") from error

    from ddhpc.report.page import write_report

    baseline, output = (Path(path) if path else None for path in (given.baseline, given.output))
    alone(lambda: tell(str(write_report(Path(given.run), baseline, output))))


VERBS: dict[str, Callable[[list[str], float], None]] = {
    verb.__name__: verb for verb in (train, plan, doctor, prepare, phantom, inspect, sweep, report)
}
