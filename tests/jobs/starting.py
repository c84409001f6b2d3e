"""The program as people start it, jobs that tests disturb, and whether results have the bits of an undisturbed one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import yaml

from ddhpc.results import checkpoint, fingerprint, verify

TRAINING = [
    *("--decomposition.grid", 2, 3, "--local.epochs", 40, "--local.batch_size", 16, "--coarse.epochs", 30),
    *("--model.global_width", 8, "--local.shift", 1, "--run.threads", 1, "--run.checkpoint_seconds", 1),
]
"""Long enough to be disturbed."""
WITHOUT_REPORT = ["--run.report", "false"]


def command(ranks: int, *arguments: object, through: tuple[str, ...] = ()) -> list[str]:
    """`mpirun -n RANKS python -m ddhpc ARGUMENTS`, each rank started through a command; without mpirun for 0 ranks.

    A training with options writes no report unless they say so: its seconds would add up.
    """
    launcher = ["mpirun", "-n", str(ranks)] if ranks else []
    words = [*map(str, arguments)]
    if words and words[0].startswith("--") and words[0] != "--help" and "--run.report" not in words:
        words += WITHOUT_REPORT
    return [*launcher, *through, sys.executable, "-m", "ddhpc", *words]


def environment() -> dict[str, str]:
    """That of a person who has one thread a rank; never that of this process, in which MPI may have left its own."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def mpirun(ranks: int, *arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The finished job of a `command` in a directory."""
    return subprocess.run(
        command(ranks, *arguments),
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )


def start(ranks: int, *arguments: object, cwd: Path, through: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """The running job of a `command`; what it says goes to the files stdout and stderr in its directory."""
    with (cwd / "stderr").open("w") as stderr, (cwd / "stdout").open("w") as stdout:
        return subprocess.Popen(
            command(ranks, *arguments, through=through),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(),
        )


def start_training(ranks, small, cwd, *arguments, through=()):
    """A running `TRAINING` on a packed file, into the run directory `run`."""
    options = ["--data.file", small, *TRAINING, "--output", "run", *arguments]
    return start(ranks, *options, cwd=cwd, through=through)


def ranks_of(job):
    """Process ids of the ranks of an mpirun on this machine, which some MPIs start by way of others."""
    ranks, others = [], [job.pid]
    while others:
        parent = str(others.pop())
        below = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True).stdout.split()
        python = ["pgrep", "-P", parent, "-f", r"^\S*python\S* -m ddhpc"]
        found = subprocess.run(python, capture_output=True, text=True).stdout.split()
        ranks += map(int, found)
        others += set(below) - set(found)
    return sorted(ranks)


def same_bits(directory, expected):
    assert verify(directory) == []
    found = decisions(directory)
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name


def wait_for_checkpoint(cwd, job, count=1):
    while job.poll() is None and len(list((cwd / "run").glob("checkpoints/*.pt"))) < count:
        time.sleep(0.05)


def decisions(directory):
    with h5py.File(directory / "results.h5") as file:
        names = [f"{level}/{split}/decision" for level in ("local", "coarse") for split in ("train", "val", "test")]
        names += ["local/history/loss", "local/history/val_loss", "coarse/history/loss"]
        # NaN, where there was no validation, is not itself
        return {name: np.nan_to_num(file[name][...], nan=-1) for name in names}


def modified(file):
    """When a checkpoint was made, 0 without one; a job that makes the next one leaves none for a moment."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0


def state(file):
    """What a checkpoint of any phase holds, None without one."""
    of_run = next((parent / "run.yaml" for parent in file.parents if (parent / "run.yaml").exists()), None)
    return checkpoint.load(file, fingerprint(yaml.safe_load(of_run.read_text())))[0] if of_run else None
