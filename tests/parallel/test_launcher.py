"""Rank and number of ranks by the variables of launchers, as these set them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddhpc.parallel.launcher import Launch, launched

STEP = {"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "1"}
"""The shell of an interactive allocation."""
INHERITED = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch(0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, Launch(3, 4)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "9"}, Launch(3, 4)),
        ({"PMI_ID": "3", "PMI_PORT": "n0:38869"}, Launch(3, None)),
        ({"PMIX_RANK": "3", "PMIX_NAMESPACE": "prterun-n0-16644@1"}, Launch(3, None)),
        ({"PALS_RANKID": "3", "PALS_APID": "x"}, Launch(3, None)),
        ({"FLUX_TASK_RANK": "3", "FLUX_JOB_SIZE": "4"}, Launch(3, 4, "FLUX_TASK_RANK")),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, Launch(3, 4, "SLURM_PROCID")),
        (
            {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.pmix.7.0"},
            Launch(3, 4, "SLURM_PROCID"),
        ),
    ],
)
def test_a_launcher_is_understood(environment, expected):
    assert launched(environment) == expected


@pytest.mark.parametrize("inherited", [STEP, INHERITED, {**STEP, "PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.7.0"}])
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, Launch(2, 3)),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, Launch(2, 3)),
        ({"PMI_ID": "2", "PMI_PORT": "n0:38869"}, Launch(2, None)),
        ({"PMIX_RANK": "2", "PMIX_NAMESPACE": "prterun-n0-16644@1"}, Launch(2, None)),
    ],
)
def test_a_launcher_in_a_shell_of_a_job_counts_and_not_the_shell(inherited, own, expected):
    assert launched({**inherited, **own}) == expected


@pytest.mark.parametrize(
    "environment",
    [
        STEP,
        {**STEP, "PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.7.0"},
        {"SLURM_PROCID": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
        {"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "4"},
        {"SLURM_PROCID": "", "SLURM_STEP_NUM_TASKS": "4"},
        {"PMIX_RANK": "x"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
    ],
)
def test_a_shell_of_a_job_and_what_makes_no_sense_are_one_process(environment):
    found = launched(environment)
    assert (found.rank, found.size) == (0, 1)


def ddhpc(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_COMM", "PMI", "SLURM"))}
    command = [sys.executable, "-m", "ddhpc", *arguments]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["inspect", "nowhere"], ["plan", "--help"]])
def test_a_stale_rank_is_not_silent(arguments):
    expected = ddhpc(*arguments)
    assert expected.stdout + expected.stderr
    alone = ddhpc(*arguments, SLURM_PROCID="1")
    assert (alone.returncode, alone.stdout, alone.stderr) == (expected.returncode, expected.stdout, expected.stderr)
    perhaps = ddhpc(*arguments, **INHERITED)
    assert perhaps.stdout == ""
    assert perhaps.stderr == "ddhpc: SLURM_PROCID=1: left to rank 0 of 4; to run it here: env -u SLURM_PROCID ...\n"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("mpirun (Open MPI) 4.1.4", "mpirun -n 4"), ("Intel(R) MPI Library for Linux* OS", "mpiexec.hydra -n 4")],
)
def test_jobs_start_intel_mpi_by_what_passes_signals_on(version, expected, tmp_path):
    for name, says in {"srun": "none", "mpirun": version}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    job = Path(__file__).parents[2] / "slurm/job.sh"
    script = f'. {job}; find_launcher 4; echo "${{launcher[@]}}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout == f"{expected}\n"
