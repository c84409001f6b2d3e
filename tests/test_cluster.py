"""What jobs of PBS, Flux and Slurm do that asks nobody's queue, in a real shell."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOB = """
. cluster/job.sh
launcher=(bash -c 'exit {code}')
again() {{ echo "submitted: $*"; }}
train_or_again ddhpc-7 --local.epochs 3
"""


@pytest.fixture
def ended(tmp_path):
    """Ends a job whose ranks end with a code; its log, and its own code."""
    for folder in ("cluster", "slurm"):
        (tmp_path / folder).symlink_to(ROOT / folder)

    def end(code):
        job = subprocess.run(["bash", "-c", JOB.format(code=code)], cwd=tmp_path, capture_output=True, text=True)
        return job.stdout + job.stderr, job.returncode

    return end


def leave(file):
    """As a rank does."""
    file.parent.mkdir(parents=True)
    file.touch()


@pytest.mark.parametrize("code", [75, 137])
def test_a_stopped_job_submits_what_is_left(tmp_path, ended, code):
    leave(tmp_path / "runs/ddhpc-7/checkpoints/00000.pt")
    assert ended(code) == (
        "back to the queue to continue\nsubmitted: --local.epochs 3 --output runs/ddhpc-7\n",
        code,
    )


def test_a_job_without_a_checkpoint_is_not_submitted_for_ever(ended):
    assert ended(75) == ("stopped before its first checkpoint; expected a longer time limit\n", 75)


def test_bad_input_is_not_submitted_again(tmp_path, ended):
    leave(tmp_path / "runs/ddhpc-7/checkpoints/00000.pt")
    assert ended(2) == ("", 2)


def test_a_finished_job_that_is_run_again_has_nothing_to_do(tmp_path, ended):
    leave(tmp_path / "runs/ddhpc-7/results.h5")
    assert ended(2) == ("runs/ddhpc-7 was finished when this job was run again: nothing is left to do\n", 0)


@pytest.mark.parametrize(
    ("options", "checkpoints"),
    [
        ("", "run/checkpoints/*"),
        ("--subdomain 3", "run/checkpoints/00003*"),
        ("--subdomain=08", "run/checkpoints/00008*"),
        ("--subdomain 3 --local.epochs 2 --subdomain 12", "run/checkpoints/00012*"),
    ],
)
def test_a_job_of_one_subdomain_looks_for_its_checkpoint_alone(options, checkpoints):
    """In an array or not, and whatever else the options say."""
    script = f'. slurm/job.sh; to_its_end() {{ echo "$1"; }}; train exec {options} --output run'
    job = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (job.stdout, job.stderr) == (f"{checkpoints}\n", "")
