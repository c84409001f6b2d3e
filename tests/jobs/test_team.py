"""More ranks than subdomains, in whole jobs."""

import subprocess

import numpy as np
import pytest

from ddhpc.results import open_results, verify
from tests.jobs import starting
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.grid", 1, 2, "--local.epochs", 4, "--local.batch_size", 16, "--model.global_width", 8),
    *("--local.shift", 1, "--coarse.epochs", 5, "--run.threads", 1, "--coherent.start", "transfer"),
]


def test_teams_train_as_one_rank_a_subdomain_does(small, tmp_path):
    found = {}
    for ranks in (2, 5):
        completed = mpirun(ranks, "--data.file", small, *OPTIONS, "--output", f"on-{ranks}", cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        assert "Warning" not in completed.stderr
        assert verify(tmp_path / f"on-{ranks}") == []
        with open_results(tmp_path / f"on-{ranks}") as file:
            found[ranks] = {name: file[f"local/{name}"][...] for name in ("history/loss", "test/decision", "rank")}
            assert file["timing/seconds"].shape[0] == ranks
            assert (file["local/cpu_seconds"][...] > 0).all()
    assert found[2]["rank"].tolist() == [0, 1]
    assert found[5]["rank"].tolist() == [0, 3]
    assert np.allclose(found[2]["history/loss"], found[5]["history/loss"], rtol=0.01, atol=1e-3)
    assert np.allclose(found[2]["test/decision"], found[5]["test/decision"], atol=0.05)
    planned = mpirun(0, "plan", "--ranks", 5, "--data.file", small, *OPTIONS, cwd=tmp_path)
    assert planned.stdout.count("helps with 0") == 2
    assert planned.stdout.count("helps with 1") == 1


def test_a_stopped_team_continues_with_the_same_bits(small, tmp_path):
    """Of two ranks; sums over more depend on how DDP has packed the gradients, which it learns in the first step."""
    one = ["--decomposition.grid", 1, 1, "--decomposition.overlap", 0, "--local.epochs", 30]
    one += ["--run.checkpoint_seconds", 0.3]
    job = starting.start_training(2, small, tmp_path, *one)
    starting.wait_for_checkpoint(tmp_path, job)
    # To one rank alone, which does not own the subdomain.
    subprocess.run(["kill", "-USR2", str(starting.ranks_of(job)[-1])], check=True)
    assert job.wait(timeout=60) == 75, (tmp_path / "stderr").read_text()
    for output in ("run", "whole"):
        options = ["--data.file", small, *starting.TRAINING, *one, "--output", output]
        completed = mpirun(2, *options, cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        assert ("continuing" in completed.stdout) == (output == "run")
    starting.same_bits(tmp_path / "run", starting.decisions(tmp_path / "whole"))
