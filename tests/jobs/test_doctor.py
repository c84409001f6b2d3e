import json

import h5py
import pytest

from ddhpc.results import code
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_job_that_is_fit(ranks, small, tmp_path):
    completed = mpirun(ranks, "doctor", "--data.file", small, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    out = completed.stdout
    for check in ("MPI", "versions", "GPUs", "threads", "HDF5", "disk", "clocks"):
        assert out.count(f"│ {check} ") == 1
    assert f"{max(ranks, 1)} rank{'s' * (ranks > 1)}, " in out
    assert out.rstrip().endswith("fit to run")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(small, tmp_path):
    completed = mpirun(2, "doctor", "--data.file", small, "--output", "/proc/run", cwd=tmp_path)
    assert completed.returncode == 1
    assert "not fit to run: HDF5" in completed.stdout


def test_the_same_for_a_program(small, tmp_path):
    """One document on standard output, also of two ranks; two ranks on a core are a warning."""
    completed = mpirun(2, "doctor", "--json", "--data.file", small, "--run.threads", 1000, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    found = json.loads(completed.stdout)
    assert found["fit"]
    checks = found["checks"]
    assert [*checks] == ["MPI", "versions", "GPUs", "threads", "HDF5", "disk", "clocks"]
    assert (checks["threads"]["status"], checks["HDF5"]["status"]) == ("warning", "ok")
    assert (checks["MPI"]["ranks"], [*checks["MPI"]["ranks_on_hosts"].values()]) == (2, [2])
    assert checks["versions"]["ddhpc"] == code()
    assert (checks["threads"]["threads_a_rank"], checks["threads"]["ranks_a_node"]) == (1000, 2)
    assert checks["HDF5"]["parallel"] == h5py.get_config().mpi
    assert checks["disk"]["directory"] == str(tmp_path)
    assert checks["disk"]["free_bytes"] > checks["disk"]["needed_bytes"] > 0
    assert checks["clocks"]["spread_seconds"] < 1
