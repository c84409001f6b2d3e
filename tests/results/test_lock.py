"""One job at a time in a run directory, whatever ended the one before."""

import json
import subprocess
import sys
import threading
import time

import pytest

from ddhpc.errors import InputError
from ddhpc.results import earlier_jobs, lock
from ddhpc.results.directory import JOBS

locking = sys.modules["ddhpc.results.lock"]
HOLD = """
import sys, time
from pathlib import Path
from ddhpc.results import lock
sys.modules["ddhpc.results.lock"].GRACE_SECONDS = 0.5
with lock(Path(sys.argv[1]), time.time(), None if sys.argv[2] == "run" else int(sys.argv[2])):
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
    assert names(tmp_path) == [JOBS]


def test_another_job_is_refused_by_name(tmp_path, hold):
    job = hold()
    with pytest.raises(InputError, match=rf"^--output {tmp_path}: a job, process {job.pid} on .* is at work there; ex"):
        take(tmp_path)
    assert names(tmp_path) == ["run.lock"]
    job.communicate("")
    assert take(tmp_path) == [JOBS, "run.lock"]


def test_a_killed_job_is_no_hindrance_and_its_seconds_count(tmp_path, hold):
    job = hold()
    time.sleep(0.1)
    job.kill()
    assert take(tmp_path) == [JOBS, "run.lock"]
    seconds, jobs, alone = earlier_jobs(tmp_path)
    assert (jobs, alone) == (2, False)
    assert seconds > 0


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
    assert earlier_jobs(tmp_path)[1:] == (1, True)


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


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"host": 1}'])
def test_a_garbled_lock_is_watched_too(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    assert take(tmp_path) == ["run.lock"]


def test_a_process_of_the_same_number_is_another_one(tmp_path):
    elsewhere(tmp_path, machine=locking._machine(), born="12345")
    assert take(tmp_path) == [JOBS, "run.lock"]


def test_of_many_that_come_at_once_one_gets_it(tmp_path):
    """Over the lock of a killed job, which each of them finds and removes."""
    elsewhere(tmp_path, machine=locking._machine(), born="12345")
    command = [sys.executable, "-c", HOLD, str(tmp_path), "run"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    jobs = [subprocess.Popen(command, **pipes) for _ in range(5)]
    holding = [job for job in jobs if job.stdout.readline() == "held\n"]
    assert len(holding) == 1
    for job in jobs:
        job.communicate()
    assert sorted(job.returncode for job in jobs) == [0, 1, 1, 1, 1]
    assert names(tmp_path) == [JOBS]
