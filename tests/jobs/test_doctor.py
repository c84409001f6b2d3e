import pytest

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


def test_two_ranks_on_a_core_are_a_warning(small, tmp_path):
    completed = mpirun(1, "doctor", "--data.file", small, "--run.threads", 1000, cwd=tmp_path)
    assert completed.returncode == 0
    assert "│ threads  │ warning │" in completed.stdout
