"""A small training that takes its time under Slurm, and what tests ask of its job."""

# A job that has not been requeued takes PACE seconds a step, so that there is time to disturb it.
PACED = """
import os, time
from torch import nn

class Paced(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.dense = nn.LazyLinear(classes)
        self.pace = 0 if "SLURM_RESTART_COUNT" in os.environ else float(os.environ.get("PACE", 0))

    def forward(self, x):
        time.sleep(self.pace)
        return self.dense(x.flatten(1))

def paced(*, channels, classes, dimensions, width, depth):
    return Paced(classes)
"""
SETTINGS = {
    "data.file": "small.h5",
    "decomposition.grid": [2, 2],
    "model.name": "paced:paced",
    "local.epochs": 40,
    "local.batch_size": 16,
    "coarse.epochs": 5,
    "run.threads": 1,
    "run.checkpoint_seconds": 1,
    "run.report": "false",
}
OPTIONS = [
    word
    for option, value in SETTINGS.items()
    for word in (f"--{option}", *(value if isinstance(value, list) else [value]))
]
SLOW = "--export=ALL,PACE=0.3"


def submit_script(slurm, desk, line, *arguments):
    """Submit a line of bash that calls what job.sh defines."""
    (desk / "own.sbatch").write_text(f"#!/usr/bin/env bash\n. slurm/job.sh\n{line}\n")
    return slurm.submit("--job-name=own", "--output=slurm-%x-%j.out", *arguments, "own.sbatch", cwd=desk)


def log(desk, job, name="ddhpc"):
    return (desk / f"slurm-{name}-{job}.out").read_text()


def completed(slurm, job, desk, **limits):
    """Wait for a job that succeeds; its log is shown where it does not."""
    ended = slurm.wait_for(job, **limits)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log(desk, job, ended["JobName"])
    return ended


def wait_for_tasks(slurm, job, count):
    slurm.until(lambda: len(slurm.tasks(job)) == count, f"{count} tasks", job=job)


def wait_for_checkpoints(slurm, job, directory, count):
    found = directory / "checkpoints"
    slurm.until(lambda: len(list(found.glob("*.pt"))) >= count, f"{count} checkpoints in {found}", job=job)
