"""The job files that ship, on a cluster: what a user gets, also when jobs are stopped, requeued, or lose a process."""

import os
import re
import signal
from collections import Counter, defaultdict

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from ddhpc.config import Config
from ddhpc.recipes import recipe_names
from ddhpc.results import verify
from tests.conftest import pack_small
from tests.jobs.starting import same_bits
from tests.slurm.paced import (
    OPTIONS,
    SETTINGS,
    SLOW,
    completed,
    log,
    submit_script,
    wait_for_checkpoints,
    wait_for_tasks,
)

pytestmark = pytest.mark.slow


def test_sixteen_ranks_on_four_nodes(slurm, desk):
    """As the file asks for; options after it are passed on. A requeue after the end changes nothing."""
    pack_small(desk / "larger.h5", (32, 28))
    options = ["--data.file", "larger.h5", "--local.epochs", 1, "--coarse.epochs", 2]
    job = slurm.submit("slurm/train.sbatch", *options, cwd=desk)
    wait_for_tasks(slurm, job, 16)
    gpus = defaultdict(set)
    for task in slurm.tasks(job).values():
        gpus[task["SLURMD_NODENAME"]].add(task["CUDA_VISIBLE_DEVICES"])
        assert task["SLURM_CPUS_PER_TASK"] == "4"
    assert gpus == {f"n{node}": {"0", "1", "2", "3"} for node in range(4)}

    completed(slurm, job, desk)
    run = desk / f"runs/ddhpc-{job}"
    assert verify(run) == []
    with h5py.File(run / "results.h5") as file:
        assert file.attrs["ranks"] == 16
        hosts = [host.decode() for host in file.attrs["hosts"]]
        assert Counter(hosts) == {f"n{node}": 4 for node in range(4)}
        assert file["local/rank"][...].tolist() == list(range(16))
        assert file.attrs["SLURM_JOB_ID"] == str(job)
        config = Config.from_yaml(file.attrs["config"])
        assert (config.local.epochs, config.coarse.epochs, config.data.file) == (1, 2, "larger.h5")
    assert "Accuracy of the final decision" in log(desk, job)

    before = (run / "results.h5").read_bytes()
    slurm.run("scontrol", "requeue", job)
    assert completed(slurm, job, desk)["Restarts"] == "1"
    assert f"runs/ddhpc-{job} was finished when this job was requeued" in log(desk, job)
    assert (run / "results.h5").read_bytes() == before


LATE = """
import time
from mpi4py import MPI
time.sleep(0.5 * (MPI.COMM_WORLD.rank == 0))
came = time.time()
MPI.Finalize()
print("came", came, "left", time.time())
"""


def test_ranks_of_several_nodes_wait_for_each_other_where_mpi_ends(slurm, desk):
    """MPI starts with the same barrier, and a rank that is late crashes where it is none; here it is seen each time."""
    (desk / "late.py").write_text(LATE)
    job = submit_script(slurm, desk, "on_all_tasks python late.py", "--ntasks=4", "--nodes=4")
    completed(slurm, job, desk)
    came, left = np.array(re.findall(r"came (\S+) left (\S+)", log(desk, job, "own")), float).T
    assert len(came) == 4
    assert left.min() >= came.max() > came.min() + 0.4


def test_an_array_of_single_tasks_and_a_job_that_gathers(slurm, paced, undisturbed):
    """One task is lost: the gathering job does not start, and the task is rerun alone."""
    options = ["--output", "runs/array", *OPTIONS]
    array = slurm.submit("--array=0-3", "--export=ALL,PACE=0.1", "slurm/array.sbatch", *options, cwd=paced)
    after = ["--ntasks=1", "--kill-on-invalid-dep=yes", f"--dependency=afterok:{array}"]
    gathering = slurm.submit(*after, "slurm/train.sbatch", *options, cwd=paced)
    wait_for_checkpoints(slurm, array, paced / "runs/array", 4)
    for task in range(4):
        job = slurm.show(f"{array}_{task}")["JobId"]
        (pid, environment), *others = slurm.tasks(job).items()
        assert others == []
        assert len(environment["CUDA_VISIBLE_DEVICES"]) == 1
        if task == 2:
            os.kill(pid, signal.SIGKILL)
    assert slurm.wait_for(gathering)["JobState"] == "CANCELLED"
    states = [slurm.wait_for(f"{array}_{task}")["JobState"] for task in range(4)]
    assert states == ["COMPLETED", "COMPLETED", "FAILED", "COMPLETED"]

    lost = slurm.submit("--array=2", "slurm/array.sbatch", *options, cwd=paced)
    gathering = slurm.submit("--ntasks=1", f"--dependency=afterok:{lost}", "slurm/train.sbatch", *options, cwd=paced)
    completed(slurm, gathering, paced)
    assert "subdomain 2 is done" in log(paced, f"{lost}_2", "ddhpc-array")
    assert "continuing: 4 of 4 subdomains have a checkpoint" in log(paced, gathering)
    same_bits(paced / "runs/array", undisturbed)


def test_a_study_as_an_array(slurm, paced, undisturbed):
    """A training of it on several nodes is stopped ahead of its time limit, say, and goes on by itself."""
    vary = [{"decomposition.grid": [[2, 2]]}, {"decomposition.grid": [[1, 1]], "local.epochs": [2]}]
    study = {"options": SETTINGS, "vary": vary}
    (paced / "study.yaml").write_text(yaml.safe_dump(study))
    arguments = ["--array=1-2", "--ntasks=4", "--nodes=2", SLOW, "slurm/sweep.sbatch", "study.yaml"]
    array = slurm.submit(*arguments, cwd=paced)
    wait_for_checkpoints(slurm, f"{array}_1", paced / "runs/study/grid-2x2", 4)
    slurm.run("scancel", "--batch", "--signal=USR2", f"{array}_1")
    ended = [slurm.wait_for(f"{array}_{task}") for task in (1, 2)]
    logs = [log(paced, f"{array}_{task}", "ddhpc-sweep") for task in (1, 2)]
    assert [each["JobState"] for each in ended] == ["COMPLETED", "COMPLETED"], logs
    assert [each["Restarts"] for each in ended] == ["1", "0"]
    assert "going back to the queue to continue training 1" in logs[0]
    assert "4 ranks, " in logs[0]
    same_bits(paced / "runs/study/grid-2x2", undisturbed)
    assert verify(paced / "runs/study/grid-1x1_epochs-2") == []

    without = slurm.submit("--ntasks=1", "slurm/sweep.sbatch", "study.yaml", cwd=paced)
    assert slurm.wait_for(without)["ExitCode"] == "2:0"


def test_without_pmix_mpirun_starts_the_ranks(slurm, paced, undisturbed):
    """What site.env says holds in the job: here a srun like one that was built without PMIx."""
    pretend = 'srun() { if [ "$1" = --mpi=list ]; then echo none pmi2; else command srun "$@"; fi; }\n'
    (paced / "slurm/site.env").write_text(pretend)
    job = slurm.submit("--ntasks=4", "--ntasks-per-node=2", "slurm/train.sbatch", *OPTIONS, cwd=paced)
    wait_for_tasks(slurm, job, 4)
    tasks = list(slurm.tasks(job).values())
    assert all("OMPI_COMM_WORLD_RANK" in task or "PMI_RANK" in task for task in tasks)
    assert Counter(task["SLURMD_NODENAME"] for task in tasks) == {"n0": 2, "n1": 2}
    assert {task["CUDA_VISIBLE_DEVICES"] for task in tasks} == {"0,1"}
    completed(slurm, job, paced)
    with h5py.File(paced / f"runs/ddhpc-{job}/results.h5") as file:
        assert len(set(file.attrs["hosts"])) == 2
    same_bits(paced / f"runs/ddhpc-{job}", undisturbed)


@pytest.mark.skipif("ct" not in recipe_names(), reason="there is no recipe ct")
def test_ct3d(slurm, desk):
    """Eight subdomains on two nodes: the last of two options with one name holds."""
    pack_small(desk / "volumes.h5", (32, 32, 32))
    smaller = ["--decomposition.grid", 2, 2, 2, "--decomposition.overlap", 1, "--model.global_width", 8]
    options = [*smaller, "--local.epochs", 1, "--coarse.epochs", 2]
    arguments = ["slurm/ct3d.sbatch", "--data.file", "volumes.h5", *options]
    job = slurm.submit("--ntasks=4", "--nodes=2", *arguments, cwd=desk)
    completed(slurm, job, desk)
    assert "recipe ct on volumes.h5" in log(desk, job, "ct3d")
    with h5py.File(desk / f"runs/ct3d-{job}/results.h5") as file:
        assert file["local/test/decision"].shape[0] == 8
        assert len(set(file.attrs["hosts"])) == 2


def test_prepare(slurm, desk):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (desk / "raw" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(desk / f"raw/{name}/{number}.png")
    job = slurm.submit("slurm/prepare.sbatch", "images", "raw", "--output", "x.h5", "--size", 8, 8, cwd=desk)
    completed(slurm, job, desk)
    with h5py.File(desk / "x.h5") as file:
        assert sum(len(file[f"{split}/label"]) for split in ("train", "val", "test")) == 20


def test_doctor_in_the_place_of_training(slurm, desk):
    job = slurm.submit("--ntasks=2", "--nodes=2", "slurm/train.sbatch", "doctor", cwd=desk)
    completed(slurm, job, desk)
    assert "2 ranks, 1 on n0, 1 on n1" in log(desk, job)
    assert not (desk / "runs").exists()


def test_overwrite_is_refused(slurm, desk):
    job = slurm.submit("--ntasks=1", "slurm/train.sbatch", "--overwrite", cwd=desk)
    assert slurm.wait_for(job)["ExitCode"] == "2:0"
    assert "--overwrite: a requeued job would start anew each time" in log(desk, job)
