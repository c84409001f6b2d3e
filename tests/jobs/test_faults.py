"""What a job meets on a real machine: no space, slow and late ranks, a subdomain that cannot be trained."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ddhpc
from ddhpc.results import verify
from ddhpc.results.lock import WATCH_SECONDS
from ddhpc.train import PATIENCE_SECONDS
from tests.jobs.disks import REFUSALS, disk
from tests.jobs.starting import TRAINING, decisions, mpirun, ranks_of, same_bits, start_training, wait_for_checkpoint

pytestmark = pytest.mark.slow


def test_a_rank_that_starts_long_after_the_other(small, tmp_path, undisturbed):
    """Later than any time for which ranks or jobs wait for each other."""
    late = f'sleep $(({WATCH_SECONDS:.0f} * ${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} * 4 / 3)); exec "$0" "$@"'
    job = start_training(2, small, tmp_path, through=("bash", "-c", late))
    assert job.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    same_bits(tmp_path / "run", undisturbed[0])


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_disk_that_takes_no_more_ends_the_job_and_loses_nothing(kind, small, tmp_path, undisturbed):
    with disk(kind, tmp_path / "run") as broken:
        job = start_training(2, small, tmp_path)
        wait_for_checkpoint(tmp_path, job)
        broken.fail()
        assert job.wait(timeout=60) == 2
        again = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
        assert again.returncode == 2
        errors = [line for line in again.stderr.splitlines() if line.startswith("ddhpc: ")]
        assert len(errors) == 1
        assert re.fullmatch(rf"ddhpc: cannot write run/.*: {broken.refusal}; expected .*", errors[0])
        broken.heal()
        completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        assert re.search("[1-6] of 6 subdomains have a checkpoint", completed.stdout)
        same_bits(tmp_path / "run", undisturbed[0])


def test_a_rank_that_stands_still_is_waited_for(small, tmp_path, undisturbed):
    """Three times as long as ranks wait for one that has failed, training and then gathering without it."""
    job = start_training(3, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    slow = ranks_of(job)[-1]
    os.kill(slow, signal.SIGSTOP)
    time.sleep(undisturbed[1] + 3 * PATIENCE_SECONDS)
    assert job.poll() is None
    os.kill(slow, signal.SIGCONT)
    assert job.wait(timeout=120) == 0, (tmp_path / "stderr").read_text()
    same_bits(tmp_path / "run", undisturbed[0])


UNTRAINABLE = """
import torch
from ddhpc.models import FAMILIES

def untrainable(**options):
    return Picky(FAMILIES["resnet"](**options))

class Picky(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        if x.shape[0] > 2 and x.shape[-1] == {width}:
            raise RuntimeError("uncorrectable\\nmemory error")
        return self.net(x)
"""


def test_a_subdomain_that_cannot_be_trained_may_be_absent(small, tmp_path):
    """Grid 1x3 on 14 columns without overlap has windows 5, 5 and 4 wide; the last one's network always fails."""
    (tmp_path / "net.py").write_text(UNTRAINABLE.format(width=4))
    options = ["--decomposition.grid", 1, 3, "--decomposition.overlap", 0, "--local.epochs", 5, "--coarse.epochs", 60]
    options = ["--data.file", small, *options, "--model.name", "net:untrainable", "--model.global_width", 8]
    refused = mpirun(2, *options, "--output", "without", cwd=tmp_path)
    assert refused.returncode not in (0, 2)
    assert "uncorrectable" in refused.stderr
    completed = mpirun(2, *options, "--coarse.allow_missing", 1, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "warning: subdomain 2 is absent: RuntimeError: uncorrectable memory error" in completed.stderr
    assert "1 of 3 subdomains are absent" in completed.stdout
    assert "Accuracy on test with fewer subdomains" in completed.stdout
    assert verify(tmp_path / "run") == []
    found = decisions(tmp_path / "run")
    assert not found["local/test/decision"][2].any()
    assert found["local/test/decision"][:2].any(axis=(1, 2)).all()
    (tmp_path / "net.py").write_text(UNTRAINABLE.format(width=5))
    too_many = mpirun(2, *options, "--coarse.allow_missing", 1, "--output", "many", cwd=tmp_path)
    assert too_many.returncode == 2
    assert "--coarse.allow_missing 1: 2 of 3 subdomains could not be trained" in too_many.stderr


UNKNOWN_LAUNCHER = """
from ddhpc.parallel import launcher
from ddhpc.__main__ import main
launcher.launched = launcher.Launch
main()
"""
"""The program where no variable of the launcher is known."""

BROKEN_ON_ONE_RANK = """
from mpi4py import MPI
from ddhpc.models import FAMILIES

def broken(**options):
    if MPI.COMM_WORLD.rank == 1:
        raise RuntimeError("broken here")
    return FAMILIES["resnet"](**options)
"""


def test_an_error_on_one_rank_ends_all_under_an_unknown_launcher(small, tmp_path):
    (tmp_path / "net.py").write_text(BROKEN_ON_ONE_RANK)
    options = [
        *("--data.file", small),
        "--decomposition.grid",
        1,
        2,
        "--model.name",
        "net:broken",
        "--local.epochs",
        500,
    ]
    ended = subprocess.run(
        ["mpirun", "-n", "2", sys.executable, "-c", UNKNOWN_LAUNCHER, *map(str, options)],
        cwd=tmp_path,
        timeout=120,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{Path(ddhpc.__file__).parents[1]}:{tmp_path}"},
    )
    assert ended.returncode == 1, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert lines == ["ddhpc: error on rank 1:"]
    assert "broken here" in ended.stderr


SLOW_TORCH = """
import os, time
from mpi4py import MPI
open(f"importing-{MPI.COMM_WORLD.rank}", "w").close()
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("name", "victims"), [("SIGTERM", 3), ("SIGINT", 3), ("SIGUSR2", 1)])
def test_a_signal_in_the_start_up_does_not_wait_for_the_first_step(name, victims, small, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(SLOW_TORCH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(ddhpc.__file__).parents[1]}")
    job = start_training(3, small, tmp_path)
    while len(list(tmp_path.glob("importing-*"))) < 3 and job.poll() is None:
        time.sleep(0.05)
    for pid in ranks_of(job)[-victims:]:
        os.kill(pid, getattr(signal, name))
    assert job.wait(timeout=30) == 75
    errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
    stopped = f"ddhpc: stopped by {name} in the start-up; continue with the same command"
    if victims == 1:  # the launcher then sends the others SIGTERM, of which rank 0 may speak as well
        assert f"{stopped} (on rank 2)" in errors
    else:
        assert errors == [stopped]
    assert not (tmp_path / "run").exists()
