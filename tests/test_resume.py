"""Faults in real jobs: killed, stopped, continued with other ranks; the results have the bits of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from mpi4py import MPI

from ddhpc import runtime
from ddhpc.data.packed import SPLITS
from ddhpc.errors import Stopped
from ddhpc.options import configure, train_parser
from ddhpc.problem import open_problem
from ddhpc.results import verify
from ddhpc.subdomain import Job, solve_local
from ddhpc.team import ALONE
from tests.conftest import mpirun
from tests.test_train import decisions

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DDHPC_KILLS", "4"))
OPTIONS = [
    *("--decomposition.grid", 2, 3, "--local.epochs", 40, "--local.batch_size", 16, "--coarse.epochs", 30),
    *("--model.global_width", 8, "--local.shift", 1, "--run.threads", 1, "--run.checkpoint_seconds", 1),
]


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """Decisions and losses of a run that nothing happened to, and the seconds that it took."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    return decisions(cwd / "run"), time.monotonic() - started


def start(ranks, small, cwd, *arguments):
    """The job, running; its standard error goes to a file."""
    command = ["mpirun", "-n", ranks, sys.executable, "-m", "ddhpc", "--data.file", small, *OPTIONS]
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
    """Process ids of the ranks of an mpirun on this machine."""
    found = subprocess.run(["pgrep", "-P", str(job.pid), "-f", "ddhpc"], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def same_bits(directory, expected):
    assert verify(directory) == []
    found = decisions(directory)
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name


def wait_for_checkpoint(cwd, job, count=1):
    while job.poll() is None and len(list((cwd / "run").glob("checkpoints/*.pt"))) < count:
        time.sleep(0.05)


def test_kills_at_random_moments(small, tmp_path, undisturbed):
    """SIGKILL of a random rank at a random moment of the job, again and again, until all kills are used up."""
    expected, seconds = undisturbed
    draw = random.Random(0)
    kills, finished, slowest_end = 0, 0, 0.0
    while kills < KILLS or finished == 0:
        ranks = draw.choice((2, 3))
        job = start(ranks, small, tmp_path)
        moment = draw.uniform(0.3, 1.1 * seconds)
        try:
            job.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            victims = ranks_of(job)
            if victims and kills < KILLS:
                killed = time.monotonic()
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
                assert job.wait(timeout=60) != 0
                slowest_end = max(slowest_end, time.monotonic() - killed)
                if not (tmp_path / "run/results.h5").exists():
                    continue
            else:
                assert job.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
        # Finished in spite of a kill means that it came after the results had got their name.
        same_bits(tmp_path / "run", expected)
        finished += 1
        subprocess.run(["rm", "-r", tmp_path / "run"], check=True)
    print(f"{kills} kills, {finished} runs finished, job ended {slowest_end:.1f} s after a kill at most")
    assert slowest_end < 30


@pytest.mark.parametrize("name", ["SIGUSR2", "SIGTERM", "SIGINT"])
def test_a_stopped_job_continues_with_other_ranks(name, small, tmp_path, undisturbed):
    job = start(3, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    for pid in ranks_of(job):
        os.kill(pid, getattr(signal, name))
    assert job.wait(timeout=60) == 75
    errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
    assert errors == [f"ddhpc: stopped by {name}; checkpoints are made, continue with the same command, --output run"]
    assert len(list((tmp_path / "run").glob("checkpoints/*.pt"))) >= 3
    assert not (tmp_path / "run/results.h5").exists()
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "of 6 subdomains have a checkpoint" in completed.stdout
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_signal_to_one_rank_stops_all(small, tmp_path):
    job = start(3, small, tmp_path, "--local.epochs", 5000)
    wait_for_checkpoint(tmp_path, job)
    os.kill(ranks_of(job)[-1], signal.SIGUSR2)
    assert job.wait(timeout=60) == 75


def test_mpirun_passes_the_signal_on(small, tmp_path, undisturbed):
    job = start(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(timeout=60) == 75


def test_finished_subdomains_are_not_touched_again(small, tmp_path, undisturbed):
    job = start(1, small, tmp_path)
    wait_for_checkpoint(tmp_path, job, count=3)
    for pid in ranks_of(job):
        os.kill(pid, signal.SIGKILL)
    job.wait(timeout=60)
    finished = tmp_path / "run/checkpoints/00000.pt"
    before = finished.stat().st_mtime_ns
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert finished.stat().st_mtime_ns == before
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_damaged_checkpoint_is_named_and_replaced_by_the_one_before(small, tmp_path, undisturbed):
    job = start(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    for pid in ranks_of(job):
        os.kill(pid, signal.SIGKILL)
    job.wait(timeout=60)
    file = next((tmp_path / "run").glob("checkpoints/*.pt"))
    file.with_suffix(".previous").write_bytes(file.read_bytes())
    os.truncate(file, 1000)
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert f"warning: run/checkpoints/{file.name}: damaged, its checksum differs" in completed.stderr
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_checkpoint_of_the_very_last_step(small, tmp_path, undisturbed):
    """No step is left to report; rank 0 must not wait for one."""
    command = configure(["--data.file", str(small), *map(str, OPTIONS)], train_parser())
    problem = open_problem(command.config)
    request = runtime.StopRequest("USR2")

    class StopAtTheEnd:
        def step(self, subdomain, fraction, accuracy):
            request.signal = "SIGTERM" if fraction == 1 else ""

        def stopped(self):
            return False

        def stop(self):
            pass

    (tmp_path / "run").mkdir()
    job = Job(
        problem=problem,
        labels={split: problem.packed.labels(split) for split in SPLITS},
        directory=tmp_path / "run",
        place=runtime.place(MPI.COMM_SELF, command.config.run),
        team=ALONE,
        clock=runtime.Clock(),
        progress=StopAtTheEnd(),
        request=request,
    )
    for subdomain in (0, 4):
        with pytest.raises(Stopped):
            solve_local(job, subdomain)
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=tmp_path, timeout=90)
    assert completed.returncode == 0, completed.stderr
    same_bits(tmp_path / "run", undisturbed[0])


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (["--local.learning_rate", 0.05], "local.learning_rate was 0.1 and is now 0.05"),
        (["--run.seed", 3], "run.seed was 0 and is now 3"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(change, shown, small, tmp_path):
    job = start(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    for pid in ranks_of(job):
        os.kill(pid, signal.SIGKILL)
    job.wait(timeout=60)
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("*.pt"))
    again = mpirun(2, "--data.file", small, *OPTIONS, *change, "--output", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert f"holds an unfinished run that is not this one: {shown}; expected the same" in again.stderr
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").glob("*.pt")) == kept
    anew = mpirun(2, "--data.file", small, *OPTIONS, *change, "--output", "run", "--overwrite", cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert "have a checkpoint" not in anew.stdout


def test_another_data_file_or_version_is_refused(small, small_volumes, tmp_path):
    job = start(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    for pid in ranks_of(job):
        os.kill(pid, signal.SIGKILL)
    job.wait(timeout=60)
    identity = tmp_path / "run/run.yaml"
    for key, value in (("data_digest", "0" * 64), ("ddhpc_version", "0.0.1")):
        original = identity.read_text()
        identity.write_text(yaml.safe_dump({**yaml.safe_load(original), key: value}, sort_keys=False))
        again = mpirun(2, "--data.file", small, *OPTIONS, "--output", "run", cwd=tmp_path)
        assert again.returncode == 2
        assert f"{key} was {value} and is now " in again.stderr
        identity.write_text(original)


def test_single_tasks_train_and_a_last_job_gathers(small, tmp_path, undisturbed):
    """What a job array does: a process for each subdomain, without MPI; then the same command finishes."""
    arguments = ["--data.file", small, *OPTIONS, "--output", "run"]
    tasks = []
    for subdomain in range(6):
        command = [sys.executable, "-m", "ddhpc", *map(str, arguments), "--subdomain", str(subdomain)]
        tasks.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    for subdomain, task in enumerate(tasks):
        out, _ = task.communicate(timeout=120)
        assert task.returncode == 0
        assert f"subdomain {subdomain} is done" in out
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/checkpoints").glob("*.pt")}
    assert len(before) == 6
    completed = mpirun(2, *arguments, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "6 of 6 subdomains have a checkpoint" in completed.stdout
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/checkpoints").glob("*.pt")}
    same_bits(tmp_path / "run", undisturbed[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subdomain", 6, "--output", "run"], "--subdomain 6: expected 0 to 5"),
        (["--subdomain", 0], "--subdomain 0: expected one process, without mpirun, and --output DIR"),
    ],
)
def test_a_wrong_task_is_refused(arguments, message, small, tmp_path):
    completed = mpirun(0, "--data.file", small, *OPTIONS, *arguments, cwd=tmp_path)
    assert completed.returncode == 2
    assert message in completed.stderr


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
