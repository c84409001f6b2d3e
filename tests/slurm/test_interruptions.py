"""The job files that ship, on a cluster: jobs that are stopped, requeued, preempted, or lose a process."""

import os
import random
import signal
import time

import h5py
import pytest

from tests.jobs.starting import same_bits
from tests.slurm.paced import OPTIONS, SLOW, completed, log, submit_script, wait_for_checkpoints, wait_for_tasks

pytestmark = pytest.mark.slow


def test_a_job_continues_after_its_time_limit(slurm, paced, undisturbed):
    """Slurm itself signals the batch shell ahead of a limit that is set when there is something to lose."""
    job = slurm.submit("--signal=B:USR2@15", "--ntasks=2", SLOW, "slurm/train.sbatch", *OPTIONS, cwd=paced)
    wait_for_checkpoints(slurm, job, paced / f"runs/ddhpc-{job}", 2)
    # whole minutes, which Slurm looks at twice in one of them
    minutes = (slurm.seconds(job) + 20) // 60 + 1
    slurm.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    slurm.until(lambda: slurm.show(job)["Restarts"] != "0", "requeue", job=job)
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    assert completed(slurm, job, paced)["Restarts"] == "1"
    text = log(paced, job)
    assert (
        f"stopped by SIGUSR2; checkpoints are made, continue with the same command, --output runs/ddhpc-{job}" in text
    )
    assert f"going back to the queue to continue in runs/ddhpc-{job}" in text
    assert "continuing: " in text
    same_bits(paced / f"runs/ddhpc-{job}", undisturbed)


def test_a_signal_before_the_first_step_requeues_as_well(slurm, paced, undisturbed):
    job = slurm.submit("--ntasks=2", SLOW, "slurm/train.sbatch", *OPTIONS, cwd=paced)
    wait_for_tasks(slurm, job, 2)
    slurm.run("scancel", "--batch", "--signal=USR2", job)
    assert completed(slurm, job, paced)["Restarts"] == "1"
    same_bits(paced / f"runs/ddhpc-{job}", undisturbed)


def test_a_requeued_job_moves_away_from_a_drained_node(slurm, paced, undisturbed):
    job = slurm.submit("--ntasks=4", "--nodes=2", SLOW, "slurm/train.sbatch", *OPTIONS, cwd=paced)
    wait_for_checkpoints(slurm, job, paced / f"runs/ddhpc-{job}", 4)
    node = slurm.show(job)["BatchHost"]
    slurm.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        slurm.run("scontrol", "requeue", job)
        ended = completed(slurm, job, paced)
    finally:
        slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert ended["Restarts"] == "1"
    with h5py.File(paced / f"runs/ddhpc-{job}/results.h5") as file:
        assert node.encode() not in file.attrs["hosts"]
    same_bits(paced / f"runs/ddhpc-{job}", undisturbed)


def test_a_preempted_job_continues_when_its_nodes_are_free_again(slurm, paced, undisturbed):
    everything = ["--nodes=4", "--ntasks=4", "--exclusive"]
    job = slurm.submit(*everything, SLOW, "slurm/train.sbatch", *OPTIONS, cwd=paced)
    wait_for_checkpoints(slurm, job, paced / f"runs/ddhpc-{job}", 4)
    urgent = slurm.submit(*everything, "--partition=urgent", "--wrap=sleep 1", cwd=paced)
    assert slurm.wait_for(urgent)["JobState"] == "COMPLETED"
    assert completed(slurm, job, paced)["Restarts"] == "1"
    assert "stopped by SIGTERM" in log(paced, job)
    same_bits(paced / f"runs/ddhpc-{job}", undisturbed)


@pytest.mark.parametrize("how", ["a rank is killed", "stopped by hand"])
def test_a_job_that_ended_early_continues_when_it_is_submitted_again(how, slurm, paced, undisturbed):
    arguments = ["slurm/train.sbatch", *OPTIONS, "--output", "runs/mine"]
    job = slurm.submit("--ntasks=4", "--nodes=2", SLOW, *arguments, cwd=paced)
    wait_for_checkpoints(slurm, job, paced / "runs/mine", 4)
    started = time.monotonic()
    if how == "stopped by hand":
        slurm.run("scancel", "--signal=USR2", job)
    else:
        os.kill(random.choice(list(slurm.tasks(job))), signal.SIGKILL)
    ended = slurm.wait_for(job)
    seconds = time.monotonic() - started
    print(f"{how}: job {ended['JobState']} {ended['ExitCode']} after {seconds:.1f} s")
    assert seconds < 30
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0")
    assert ended["ExitCode"] in (["75:0"] if how == "stopped by hand" else ["137:0", "143:0"])
    assert "to continue, submit the same again with --output runs/mine" in log(paced, job)
    assert slurm.tasks(job) == {}

    again = slurm.submit("--ntasks=2", *arguments, cwd=paced)
    completed(slurm, again, paced)
    assert "continuing: 4 of 4 subdomains have a checkpoint" in log(paced, again)
    same_bits(paced / "runs/mine", undisturbed)


def test_a_job_that_never_trains_anything_does_not_return_for_ever(slurm, desk):
    """As where the time limit is shorter than the start-up."""
    step = 'trap "exit 75" USR2; sleep 0.5; kill -USR2 $PPID; while :; do sleep 0.1; done'
    job = submit_script(slurm, desk, f"to_its_end 'runs/own/*' here 'the same again' bash -c '{step}'")
    slurm.until(lambda: slurm.show(job)["JobState"] == "FAILED", "end for good", job=job)
    assert (slurm.show(job)["ExitCode"], slurm.show(job)["Restarts"]) == ("75:0", "2")
    assert "stopped three times before its first checkpoint; expected a longer --time" in log(desk, job, "own")


def test_a_job_that_may_not_be_requeued_says_how_to_continue(slurm, desk):
    """What it runs asks the shell for its end, as Slurm does ahead of the time limit."""
    step = 'trap "exit 75" USR2; sleep 0.5; kill -USR2 $PPID; while :; do sleep 0.1; done'
    job = submit_script(slurm, desk, f"to_its_end '' here 'the same again' bash -c '{step}'", "--no-requeue")
    ended = slurm.wait_for(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "75:0", "0")
    assert "ended with exit code 75; to continue, submit the same again" in log(desk, job, "own")
