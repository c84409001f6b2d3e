"""What benchmarks of whole jobs share: a job with one thread a rank and its seconds, bytes on the disk, rows of tables.

Not called by itself; `large_volumes.py` and `many_subdomains.py` do.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def seconds(command: Sequence[object], **how: Any) -> float:
    """In which a command succeeds; `how` is that of `subprocess.run`."""
    began = time.perf_counter()
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in command], check=True, env=variables, **how)
    return time.perf_counter() - began


def size(path: Path) -> int:
    """Bytes of a file, or of all in a directory."""
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def row(*cells: object) -> None:
    """A row of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
