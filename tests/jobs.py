"""Jobs that tests disturb, and what tells that their results have the bits of an undisturbed one."""

import os
import subprocess
import sys
import time

import h5py
import numpy as np
import yaml

from ddhpc.results import checkpoint, fingerprint, verify

OPTIONS = [
    *("--decomposition.grid", 2, 3, "--local.epochs", 40, "--local.batch_size", 16, "--coarse.epochs", 30),
    *("--model.global_width", 8, "--local.shift", 1, "--run.threads", 1, "--run.checkpoint_seconds", 1),
]


def start(ranks, small, cwd, *arguments, through=()):
    """The job, running, each rank started through a command; its standard error goes to a file."""
    command = ["mpirun", "-n", ranks, *through, sys.executable, "-m", "ddhpc", "--data.file", small, *OPTIONS]
    with (cwd / "stderr").open("w") as stderr, (cwd / "stdout").open("w") as stdout:
        return subprocess.Popen(
            [*map(str, command), "--output", "run", *map(str, arguments)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


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
        return {name: file[name][...] for name in [*names, "local/history/loss", "coarse/history/loss"]}


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
