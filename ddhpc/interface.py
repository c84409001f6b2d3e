"""The Python interface: what the command line does, as functions, in this process or on all ranks under mpirun."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ddhpc.config import Config
from ddhpc.errors import InputError, Stopped
from ddhpc.job import Asked, solve
from ddhpc.parallel import launcher, signals
from ddhpc.parallel.communicator import world
from ddhpc.run import Run, open_run
from ddhpc.settings import from_options
from ddhpc.visible import visible

if TYPE_CHECKING:
    from ddhpc.method.solutions import Predictions


def train(config: Config, output: str | Path | None = None, overwrite: bool = False) -> Run:
    """Train as `python -m ddhpc` does, with the same files and progress, and open the finished run.

    In a script under `mpirun -n N python script.py` all ranks call it; each trains its subdomains and gets the run. An
    unfinished run is continued. Ctrl-C, or stopping a cell of a notebook, makes checkpoints first.

    Args:
        config: what is trained.
        output: run directory; None for a new one under `runs`.
        overwrite: replace a finished run in `output`.

    Raises:
        InputError: bad input, or `output` holds a finished run.
        Stopped: the training was asked to stop; the same call continues it.

    Example:
        >>> import ddhpc
        >>> options = {"data.file": "small.h5", "decomposition.grid": [1, 2], "local.epochs": 1, "run.report": False}
        >>> run = ddhpc.train(ddhpc.Config.from_recipe("faces", options), "runs/faces")  # doctest: +ELLIPSIS
        small.h5: 96 train, 30 val, 33 test images of 16x14, 1 channel, 3 classes...
        >>> run.local_decisions("test").shape
        (2, 33, 3)
    """
    started = time.perf_counter()
    with _ending_together():
        checked = from_options(Config, _options(config))
        directory = None if output is None else str(output)
        asked = Asked(config=checked, name=Path(checked.data.file).stem, output=directory, overwrite=overwrite)
        comm = world()
        leave = _raise if comm.size == 1 else launcher.leave
        with signals.StopRequest(checked.run.stop_signal, leave) as request:
            trained = solve(asked, comm, request, started, lambda _: None)
        return comm.together(lambda: open_run(trained))


def predict(run: str | Path, sources: Sequence[str | Path]) -> Predictions | None:
    """Apply the model of a finished run to new images as `python -m ddhpc predict` does.

    Under mpirun all ranks call it and share the images out, with fewer images than ranks the subdomains of each. Rank 0
    gets the decisions, the others None.

    Args:
        run: run directory, its results file, or its directory `model`.
        sources: images, volumes, directories of them, CSV tables, packed files.

    Raises:
        InputError: a source does not exist or does not fit to the model, or none can be used.

    Example:
        >>> import ddhpc
        >>> found = ddhpc.predict("runs/mine", ["small.h5"])
        >>> found.classes, found.decisions.shape, len(found.ids)
        (('rows', 'columns', 'none'), (159, 3), 159)
    """
    from ddhpc.config import Run as RunOptions
    from ddhpc.parallel.placement import place
    from ddhpc.predict import Settings
    from ddhpc.predict import predict as apply
    from ddhpc.results.model import open_model

    with _ending_together():
        comm = world()
        model = comm.together(lambda: open_model(Path(run)))
        here = comm.together(lambda: place(comm, RunOptions()))
        return apply(model, [Path(each) for each in sources], comm, here.device, Settings())


def _options(config: Config) -> dict[str, object]:
    """The options of a configuration by name, which may have been made of anything."""
    return {
        f"{section}.{name}": value for section, options in config.to_dict().items() for name, value in options.items()
    }


@contextmanager
def _ending_together() -> Iterator[None]:
    """An error on all ranks is raised on all; one of a single rank ends all, since they would wait for it for ever."""
    try:
        yield
    except (InputError, Stopped) as error:
        launcher.raise_together(error)
    except Exception:
        if launcher.several():
            where = f"ddhpc: error on rank {launcher.rank()}:"
            print(visible(f"{where}\n{traceback.format_exc()}"), file=sys.stderr, flush=True)
            launcher.abort(1)
        raise


def _raise(stop: Stopped) -> NoReturn:
    raise stop
