"""One job at a time in a run directory, whatever ended the one before."""

import errno
import json
import math
import os
import subprocess
import sys
import threading
import time

import pytest

from ddhpc.errors import InputError
from ddhpc.results import counted, earlier_jobs, lock
from ddhpc.results.run_directory import JOBS

locking = sys.modules["ddhpc.results.lock"]
HOLD = """
import sys, time
from pathlib import Path
from ddhpc.results import counted, lock
locking = sys.modules["ddhpc.results.lock"]
locking.GRACE_SECONDS, locking.BEAT_SECONDS = 0.5, 0.02
job = Path(sys.argv[1]), time.time(), None if sys.argv[2] == "run" else int(sys.argv[2])
with lock(*job), counted(*job):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds a lock until it is told to end."""
    jobs = []

    def start(which="run"):
        command = [sys.executable, "-c", HOLD, str(tmp_path), which]
        jobs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert jobs[-1].stdout.readline() == "held\n"
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(locking, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(locking, "WATCH_SECONDS", 1.0)


def take(directory, subdomain=None, said=None):
    with lock(directory, time.time(), subdomain, (said if said is not None else []).append):
        return sorted(path.name for path in directory.iterdir())


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_lock_is_there_while_the_job_is(tmp_path):
    assert take(tmp_path) == ["run.lock"]
    assert names(tmp_path) == []


def test_another_job_is_refused_by_name(tmp_path, hold):
    job = hold()
    with pytest.raises(InputError, match=rf"^--output {tmp_path}: a job, process {job.pid} on .* is at work there; ex"):
        take(tmp_path)
    assert names(tmp_path) == ["run.lock"]
    job.communicate("")
    assert take(tmp_path) == [JOBS, "run.lock"]


def test_a_killed_job_is_no_hindrance_and_its_seconds_count(tmp_path, hold):
    job = hold()
    time.sleep(0.3)
    job.kill()
    assert take(tmp_path) == [JOBS, "run.lock"]
    seconds, jobs = earlier_jobs(tmp_path)
    assert jobs == 1
    assert 0.1 <= seconds < 60


def test_a_job_that_was_refused_counts_for_nothing(tmp_path):
    with pytest.raises(InputError), lock(tmp_path, time.time(), None):
        raise InputError("another run")
    assert earlier_jobs(tmp_path) == (0, 0)
    with pytest.raises(InputError), lock(tmp_path, time.time(), None), counted(tmp_path, time.time() - 3, None):
        raise InputError("no space left")
    seconds, jobs = earlier_jobs(tmp_path)
    assert jobs == 1
    assert 3 <= seconds < 60


def test_a_job_that_is_about_to_end_is_waited_for(tmp_path, hold):
    job = hold()
    threading.Timer(0.2, job.kill).start()
    assert take(tmp_path) == [JOBS, "run.lock"]


def test_subdomains_share_a_directory_but_not_with_the_whole_run(tmp_path, hold):
    three = hold("3")
    assert take(tmp_path, 4) == ["00003.lock", "00004.lock"]
    for subdomain in (3, None):
        with pytest.raises(InputError, match="a job for subdomain 3, process"):
            take(tmp_path, subdomain)
    three.communicate("")
    whole = hold("run")
    with pytest.raises(InputError, match="a job, process"):
        take(tmp_path, 4)
    whole.communicate("")
    assert math.isnan(earlier_jobs(tmp_path)[0])  # nobody can tell how the jobs for subdomains overlapped


def elsewhere(directory, **change):
    """The lock of a job on another machine."""
    holder = {"host": "n7", "machine": "other", "pid": 1, "born": "1", "started": time.time() - 5, "subdomain": None}
    (directory / "run.lock").write_text(json.dumps(holder | change))


def test_a_lock_of_another_machine_is_watched(tmp_path):
    elsewhere(tmp_path)
    said = []
    assert take(tmp_path, said=said) == [JOBS, "run.lock"]

    elsewhere(tmp_path)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.1):
            (tmp_path / "run.lock").touch()

    job = threading.Thread(target=beat)
    job.start()
    try:
        with pytest.raises(InputError, match="a job, process 1 on n7, since .* is at work there"):
            take(tmp_path)
    finally:
        ended.set()
        job.join()
    assert (tmp_path / "run.lock").exists()


def test_a_lock_that_a_crash_of_the_machine_emptied_is_watched_too(tmp_path):
    (tmp_path / "run.lock").touch()
    assert take(tmp_path) == ["run.lock"]


def test_a_process_of_the_same_number_is_another_one(tmp_path):
    elsewhere(tmp_path, machine=locking.machine_id(), born="12345")
    assert take(tmp_path) == [JOBS, "run.lock"]


def test_of_many_that_come_at_once_one_gets_it(tmp_path):
    """Over the lock of a killed job, which each of them finds and removes."""
    elsewhere(tmp_path, machine=locking.machine_id(), born="12345")
    command = [sys.executable, "-c", HOLD, str(tmp_path), "run"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    jobs = [subprocess.Popen(command, **pipes) for _ in range(5)]
    holding = [job for job in jobs if job.stdout.readline() == "held\n"]
    assert len(holding) == 1
    for job in jobs:
        job.communicate()
    assert sorted(job.returncode for job in jobs) == [0, 1, 1, 1, 1]
    assert names(tmp_path) == [JOBS]


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "12.lock"])
def test_locks_of_other_programs_are_no_concern(name, tmp_path):
    (tmp_path / name).write_text("mine")
    assert take(tmp_path) == sorted([name, "run.lock"])
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_lock_of_another_program_is_refused(tmp_path):
    (tmp_path / "run.lock").write_text("mine")
    with pytest.raises(InputError, match=r"run.lock is not of a job of ddhpc; expected another directory"):
        take(tmp_path)
    assert (tmp_path / "run.lock").read_text() == "mine"


@pytest.mark.parametrize("change", [{"started": "x"}, {"started": 1e300}, {"pid": "1\0"}, {"host": 1}, {"more": 1}])
def test_a_lock_of_unlikely_content_is_refused_in_one_line(change, tmp_path):
    elsewhere(tmp_path, **change)
    with pytest.raises(InputError, match=r"^[^\n]*run.lock is not of a job of ddhpc[^\n]*$"):
        take(tmp_path)


def test_a_job_whose_lock_was_taken_over_leaves_it_alone(tmp_path, monkeypatch):
    """As after it was suspended for long: neither kept fresh nor removed."""
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.05)
    with lock(tmp_path, time.time(), None):
        elsewhere(tmp_path)
        os.utime(tmp_path / "run.lock", (1, 1))
        time.sleep(0.3)
        assert (tmp_path / "run.lock").stat().st_mtime == 1
    assert json.loads((tmp_path / "run.lock").read_text())["host"] == "n7"


def test_file_systems_without_hard_links(tmp_path, hold, monkeypatch):
    def refuse(*names):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    job = hold()
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(InputError, match="is at work there"):
        take(tmp_path)
    job.kill()
    assert "run.lock" in take(tmp_path)
    assert names(tmp_path) == [JOBS]


def test_a_link_that_was_made_though_its_reply_was_lost(tmp_path, monkeypatch):
    """NFS sends the request again then, and finds the name taken."""
    link = os.link

    def twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert take(tmp_path) == ["run.lock"]


def test_processes_of_others_may_be_hidden(tmp_path, hold, monkeypatch):
    """Where /proc hides them a live job looks gone; its lock is of another user and is watched."""
    hold()
    monkeypatch.setattr(locking, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(locking, "WATCH_SECONDS", 7.0)
    monkeypatch.setattr(locking, "_born", lambda pid: "" if pid != os.getpid() else "1")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match="is at work there"):
        take(tmp_path)


LINE = '{"seconds": 5.0, "subdomain": null, "host": "a"}\n'


@pytest.mark.parametrize(
    "damage", ['{"sec', "3\n", '{"a": 1}\n', LINE.replace("5.0", '"x"'), LINE.replace("5.0", "-1")]
)
def test_seconds_of_jobs_that_are_lost_are_not_guessed(damage, tmp_path):
    assert earlier_jobs(tmp_path) == (0, 0)
    (tmp_path / JOBS).write_text(LINE)
    assert earlier_jobs(tmp_path) == (5, 1)
    (tmp_path / JOBS).write_text(LINE + damage)
    assert math.isnan(earlier_jobs(tmp_path)[0])
