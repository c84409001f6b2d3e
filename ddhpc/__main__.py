"""`python -m ddhpc`: any uncaught error on any rank ends all ranks, bad input with one line and exit code 2."""

from __future__ import annotations

import gc
import io
import os
import sys
import time
import traceback

from ddhpc.errors import InputError, Stopped
from ddhpc.parallel import launcher
from ddhpc.visible import visible


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
        launcher.end_together(error)
    except BrokenPipeError:
        # what is left in the buffer would raise once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        launcher.abort(1)
    except Exception:
        print(
            visible(f"ddhpc: error on rank {launcher.rank()}:\n{traceback.format_exc()}"),
            file=sys.stderr,
            flush=True,
        )
        launcher.abort(1)
    except KeyboardInterrupt:
        print(f"ddhpc: rank {launcher.rank()} was interrupted", file=sys.stderr, flush=True)
        launcher.abort(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
