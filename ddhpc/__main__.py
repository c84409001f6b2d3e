"""`python -m ddhpc`: any uncaught error on any rank ends all ranks, bad input with one line and exit code 2."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import time
import traceback

from ddhpc import runtime
from ddhpc.errors import InputError, Stopped
from ddhpc.visible import visible

AGREE_SECONDS = 5.0


def main() -> None:
    """Run the command line of this process; the entry point of `ddhpc` and `python -m ddhpc`."""
    started = time.perf_counter()
    # The garbage collector would look at all that torch makes and keeps, while it is loaded and once more at the end:
    # a quarter of the time of a process that does little.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files are bytes, which need not be text
    try:
        from ddhpc import cli

        cli.main(sys.argv[1:], started)
    except (InputError, Stopped) as error:
        end_together(error)
    except BrokenPipeError:
        os._exit(1)
    except Exception:
        print(
            visible(f"ddhpc: error on rank {runtime.launched_rank()}:\n{traceback.format_exc()}"),
            file=sys.stderr,
            flush=True,
        )
        abort(1)
    except KeyboardInterrupt:
        print(f"ddhpc: rank {runtime.launched_rank()} was interrupted", file=sys.stderr, flush=True)
        abort(130)
    finally:
        gc.freeze()


def end_together(error: InputError | Stopped) -> None:
    """End all ranks with the exit code of the error, its message once, from rank 0 where it has failed too.

    Nearly always all ranks fail alike and meet at the barrier. If one fails alone the others do not come; it then says
    itself what is wrong. After bad input the job is aborted either way: leaving in order would close files that other
    ranks may hold.
    """
    message = f"ddhpc: {error}"
    if isinstance(error, Stopped):
        # srun --kill-on-bad-exit=1 sends SIGTERM to the others as soon as the first rank has left.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if runtime.launched_size() == 1:
        print(message, file=sys.stderr, flush=True)
        sys.exit(error.code)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.rank == 0:
        print(message, file=sys.stderr, flush=True)
    together, deadline = world.Ibarrier(), time.monotonic() + AGREE_SECONDS
    while not together.Test():
        if time.monotonic() > deadline:
            if world.rank != 0:
                print(f"{message} (on rank {world.rank})", file=sys.stderr, flush=True)
            world.Abort(error.code)
        time.sleep(runtime.POLL_SECONDS)
    if isinstance(error, Stopped):
        sys.exit(error.code)
    world.Abort(error.code)


def abort(code: int) -> None:
    """End all ranks at once: a rank that left on its own would keep the others waiting for ever."""
    if runtime.launched_size() > 1:
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
