"""Faults in real jobs: killed, stopped, continued with other ranks; the results have the bits of an undisturbed run."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import h5py
import pytest
import yaml
from mpi4py import MPI

from ddhpc.cli.options import configure, train_parser
from ddhpc.errors import Stopped
from ddhpc.method.problem import open_problem
from ddhpc.method.team import ALONE
from ddhpc.parallel import logs, placement, signals
from ddhpc.parallel.communicator import Communicator
from ddhpc.parallel.stopwatch import Stopwatch
from ddhpc.results import earlier_jobs, fingerprint, identity
from ddhpc.results.checkpoint import path
from ddhpc.solver.subdomain import Job, solve_local
from tests.jobs.starting import TRAINING, modified, mpirun, ranks_of, same_bits, start_training, wait_for_checkpoint

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DDHPC_KILLS", "2"))


@pytest.fixture(scope="module")
def unfinished(small, tmp_path_factory):
    """What a job left that was killed: two subdomains are finished, the third is under way."""
    cwd = tmp_path_factory.mktemp("unfinished")
    job = start_training(1, small, cwd)
    wait_for_checkpoint(cwd, job, count=3)
    for pid in ranks_of(job):
        os.kill(pid, signal.SIGKILL)
    job.wait(timeout=60)
    return cwd / "run"


def test_kills_at_random_moments(small, tmp_path, undisturbed):
    """SIGKILL of a random rank at a random moment of the job, again and again, until all kills are used up."""
    expected, seconds = undisturbed
    draw = random.Random(0)
    kills, finished, slowest_end = 0, 0, 0.0
    while kills < KILLS or finished == 0:
        ranks = draw.choice((2, 3))
        job = start_training(ranks, small, tmp_path)
        moment = draw.uniform(0.3, 1.1 * seconds)
        try:
            job.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            victims = ranks_of(job)
            if victims and kills < KILLS:
                killed = time.monotonic()
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
                code = job.wait(timeout=60)
                slowest_end = max(slowest_end, time.monotonic() - killed)
                if not (tmp_path / "run/results.h5").exists():
                    assert code != 0
                    continue
            else:
                assert job.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
        # Finished in spite of a kill means that it came after the results had got their name.
        same_bits(tmp_path / "run", expected)
        finished += 1
        subprocess.run(["rm", "-r", tmp_path / "run"], check=True)
    print(f"{kills} kills, {finished} runs finished, job ended {slowest_end:.1f} s after a kill at most")
    assert slowest_end < 30


def test_a_stopped_job_continues_with_other_ranks(small, tmp_path, undisturbed):
    """Stopped by two signals, one after the other; other tests send SIGUSR2."""
    for name, ranks in (("SIGINT", 3), ("SIGTERM", 1)):
        begun = time.time()
        job = start_training(ranks, small, tmp_path)
        while job.poll() is None and not any(modified(file) > begun for file in tmp_path.glob("run/checkpoints/*.pt")):
            time.sleep(0.05)
        for pid in ranks_of(job):
            os.kill(pid, getattr(signal, name))
        assert job.wait(timeout=60) == 75
        errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
        stopped = f"ddhpc: stopped by {name}; checkpoints are made, continue with the same command, --output run"
        assert errors == [stopped]
        assert not (tmp_path / "run/results.h5").exists()
    completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "of 6 subdomains have a checkpoint" in completed.stdout
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_signal_to_one_rank_stops_all(small, tmp_path):
    job = start_training(3, small, tmp_path, "--local.epochs", 5000, "--overwrite")
    wait_for_checkpoint(tmp_path, job)
    os.kill(ranks_of(job)[-1], signal.SIGUSR2)
    assert job.wait(timeout=60) == 75
    # the same command would begin anew once more
    assert "continue with the same command without --overwrite, --output run" in (tmp_path / "stderr").read_text()


def test_mpirun_passes_the_signal_on(small, tmp_path, undisturbed):
    job = start_training(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(timeout=60) == 75


def test_finished_subdomains_are_not_touched_again(small, tmp_path, unfinished, undisturbed):
    shutil.copytree(unfinished, tmp_path / "run")
    finished = tmp_path / "run/checkpoints/00000.pt"
    before = finished.stat().st_mtime_ns
    completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert finished.stat().st_mtime_ns == before
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_damaged_checkpoint_is_named_and_replaced_by_the_one_before(small, tmp_path, unfinished, undisturbed):
    shutil.copytree(unfinished, tmp_path / "run")
    file = tmp_path / "run/checkpoints/00002.pt"
    file.with_suffix(".previous").write_bytes(file.read_bytes())
    os.truncate(file, 1000)
    completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert f"warning: run/checkpoints/{file.name}: damaged, its checksum differs" in completed.stderr
    same_bits(tmp_path / "run", undisturbed[0])


def test_a_checkpoint_of_the_very_last_step(small, tmp_path, undisturbed, monkeypatch):
    """No step is left to report; rank 0 must not wait for one. The log tells of each validation once."""
    told = []
    monkeypatch.setattr(logs.log, "info", lambda message, *values: told.append(message % values))
    command = configure(["--data.file", str(small), *map(str, TRAINING)], train_parser())
    problem = open_problem(command.config)
    request = signals.StopRequest("USR2")

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
        directory=tmp_path / "run",
        run=fingerprint(identity(command.config, problem.packed.digest)),
        place=placement.place(Communicator(MPI.COMM_SELF), command.config.run),
        team=ALONE,
        stopwatch=Stopwatch(),
        progress=StopAtTheEnd(),
        request=request,
    )
    for subdomain in (0, 4):
        request.signal = ""
        with pytest.raises(Stopped):
            solve_local(job, subdomain)
        assert path(tmp_path / "run", subdomain).exists()
    request.signal = ""
    solve_local(job, 4)
    validated = [line for line in told if re.search(r"subdomain 4: epoch \d+, .* on val", line)]
    assert len(validated) == len(set(validated)) == 8, "of 40 epochs"
    with pytest.raises(Stopped):  # the signal is still there, and obeyed while windows are read
        solve_local(job, 1)
    assert not path(tmp_path / "run", 1).exists()
    completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path, timeout=90)
    assert completed.returncode == 0, completed.stderr
    same_bits(tmp_path / "run", undisturbed[0])


@pytest.mark.parametrize(
    ("options", "recorded", "shown"),
    [
        (["--local.learning_rate", 0.05], {}, "local.learning_rate was auto and is now 0.05"),
        (["--run.seed", 3], {}, "run.seed was 0 and is now 3"),
        ([], {"data_digest": "0" * 64}, f"data_digest was {'0' * 12} and is now "),
        ([], {"ddhpc_version": "0.0.1"}, "ddhpc_version was 0.0.1 and is now "),
    ],
    ids=["configuration", "seed", "data file", "code version"],
)
def test_another_run_is_refused_with_the_difference(options, recorded, shown, small, tmp_path, unfinished):
    shutil.copytree(unfinished, tmp_path / "run")
    kept = tmp_path / "run/run.yaml"
    kept.write_text(yaml.safe_dump({**yaml.safe_load(kept.read_text()), **recorded}, sort_keys=False))
    (tmp_path / "run/run.lock").unlink(missing_ok=True)

    def contents():
        files = (path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "jobs.jsonl")
        return {path: path.read_bytes() for path in files}

    before = contents()
    again = mpirun(2, "--data.file", small, *TRAINING, *options, "--output", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert f"holds an unfinished run that is not this one: {shown}" in again.stderr
    assert before == contents()


def test_another_run_starts_anew_where_asked(small, tmp_path, unfinished):
    shutil.copytree(unfinished, tmp_path / "run")
    options = ["--data.file", small, *TRAINING, "--run.seed", 3, "--output", "run", "--overwrite"]
    anew = mpirun(2, *options, cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert "have a checkpoint" not in anew.stdout


def test_single_tasks_train_and_a_last_job_gathers(small, tmp_path, undisturbed):
    """What a job array does: a process for each subdomain, without MPI; then the same command finishes."""
    arguments = ["--data.file", small, *TRAINING, "--output", "run"]
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
        (["--subdomain", 0, "--output", "run", "--overwrite"], "--subdomain 0: expected it without --overwrite"),
    ],
)
def test_a_wrong_task_is_refused(arguments, message, small, tmp_path):
    completed = mpirun(0, "--data.file", small, *TRAINING, *arguments, cwd=tmp_path)
    assert completed.returncode == 2
    assert message in completed.stderr


def test_ranks_with_another_copy_of_the_data_train_nothing(small, tmp_path):
    for n in range(2):
        (tmp_path / f"rank{n}").mkdir()
        shutil.copy(small, tmp_path / f"rank{n}/small.h5")
    with h5py.File(tmp_path / "rank1/small.h5", "r+") as file:
        file["test/image"].attrs["sha256"] = "0" * 64
    own = 'cd rank${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; exec "$0" "$@" --output ../run'
    job = start_training(2, "small.h5", tmp_path, through=("bash", "-c", own))
    assert job.wait(timeout=60) == 2
    said = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
    assert len(said) == 1
    assert "does not see what rank 0 sees: data_digest is" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_second_job_in_the_directory_is_refused_and_harms_nothing(small, tmp_path, undisturbed):
    job = start_training(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    ranks = ranks_of(job)
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    other = mpirun(1, "--data.file", small, *TRAINING, "--output", "run", "--overwrite", "--run.seed", 9, cwd=tmp_path)
    assert other.returncode == 2
    assert int(re.search(r"--output run: a job, process (\d+) on ", other.stderr)[1]) in ranks
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    assert job.wait(timeout=120) == 0
    same_bits(tmp_path / "run", undisturbed[0])
    assert not (tmp_path / "run/run.lock").exists()
    assert earlier_jobs(tmp_path / "run")[1] == 1


def test_a_job_whose_run_was_taken_over_ends_without_results(small, tmp_path):
    """As after it was suspended for long: what it has trained is not written into the other one's file."""
    job = start_training(2, small, tmp_path)
    wait_for_checkpoint(tmp_path, job)
    part = tmp_path / "run/results.h5.part"
    shutil.copy(part, tmp_path / "theirs")
    with h5py.File(tmp_path / "theirs", "r+", locking=False) as file:
        file.attrs["job"] = "theirs"
    (tmp_path / "theirs").replace(part)
    before = part.read_bytes()
    assert job.wait(timeout=120) == 2
    said = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
    assert said == [
        "ddhpc: run/results.h5.part: another job has taken the run over; expected one job at a time in a run directory"
    ]
    assert part.read_bytes() == before
    assert not (tmp_path / "run/results.h5").exists()


def test_the_seconds_of_a_run_are_those_of_all_its_jobs(small, tmp_path, unfinished):
    shutil.copytree(unfinished, tmp_path / "run")
    before = earlier_jobs(tmp_path / "run")
    assert before == (0, 0)  # its lock still stands
    completed = mpirun(2, "--data.file", small, *TRAINING, "--output", "run", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "2 jobs: local CNNs and the whole run count all of them" in " ".join(completed.stdout.split())
    with h5py.File(tmp_path / "run/results.h5") as file:
        timing = file["timing"].attrs
        assert timing["jobs"] == 2
        assert timing["total"] >= file["local/seconds"][...].max() == timing["local_max"]
        assert timing["total"] > file["timing/seconds"][...].sum(axis=1).max()
