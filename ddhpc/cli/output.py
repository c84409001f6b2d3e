"""What the command line prints, and by which process."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ddhpc.errors import BAD_INPUT, InputError
from ddhpc.parallel import launcher
from ddhpc.visible import tell


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
