"""An environment packed into one file, which jobs unpack on the disk of each node."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ddhpc
from tests.slurm.paced import completed, log, submit_script

pytestmark = pytest.mark.slow

WHERE = """
import os, sys, ddhpc, yaml
files = [sys.executable, os.__file__, os.path.realpath(sys.executable), ddhpc.__file__, yaml.__file__]
print("rank", os.environ["SLURMD_NODENAME"], *files)
"""
# after the first start back to the queue, as at a time limit
TWICE = """on_all_tasks_here() { find_launcher "$SLURM_NTASKS"; "${launcher[@]}" "$@"; }
on_all_tasks_here python -m where
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then scontrol requeue "$SLURM_JOB_ID"; sleep 60; fi"""


@pytest.fixture
def packed(desk: Path) -> Path:
    """A small environment with ddhpc as `make run` installs it, packed; `where.py` and the sources lie beside it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=desk, check=True)
    (site,) = (desk / ".venv/lib").glob("python*/site-packages")
    shutil.copytree(Path(yaml.__file__).parent, site / "yaml")
    (site / "__editable__.ddhpc-0.pth").write_text(f"{Path(ddhpc.__file__).parents[1]}\n")
    (desk / "where.py").write_text(WHERE)
    said = subprocess.run(["slurm/environment.sh", "env.tar"], cwd=desk, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    (desk / "local").mkdir()
    if sys.version_info >= (3, 11):  # where Python can leave out the directory it is started in
        (desk / "ddhpc").symlink_to(Path(ddhpc.__file__).parent)
    (desk / "slurm/site.env").write_text(f"DDHPC_ENVIRONMENT=env.tar DDHPC_LOCAL={desk}/local\n")
    return desk


def test_ranks_take_all_from_the_disk_of_their_node(slurm, packed):
    """Also when the job is requeued, and a directory that a cancelled job left is removed."""
    (packed / "local/ddhpc-environment-root-999999/n0").mkdir(parents=True)
    (packed / "local/ddhpc-environment-root-999999/n0/file").touch()
    shutil.rmtree(packed / ".venv")
    limits = ["--ntasks=4", "--nodes=2", "--ntasks-per-node=2", "--requeue", "--open-mode=append"]
    job = submit_script(slurm, packed, TWICE, *limits)
    completed(slurm, job, packed)
    lines = [line.split() for line in log(packed, job, "own").splitlines() if line.startswith("rank ")]
    assert sorted(line[1] for line in lines) == ["n0"] * 4 + ["n1"] * 4
    for _, node, *files in lines:
        for file in files:
            assert file.startswith(f"{packed}/local/ddhpc-environment-root-{job}/{node}/")
    assert list((packed / "local").iterdir()) == []


@pytest.mark.parametrize("broken", ["absent", "no room"])
def test_what_cannot_be_unpacked_ends_the_job_with_one_line(broken, slurm, packed):
    if broken == "absent":
        (packed / "env.tar").unlink()
    else:
        with (packed / "env.tar").open("ab") as file:
            file.truncate(1 << 43)  # holds no blocks, but says that it needs 8 TiB
    job = submit_script(slurm, packed, "on_all_tasks python -m where", "--ntasks=1")
    assert slurm.wait_for(job)["ExitCode"] == "2:0"
    said = [line for line in log(packed, job, "own").splitlines() if "expected" in line]
    assert len(said) == 1
    assert ("no such file" if broken == "absent" else "MiB free, env.tar needs 8388608") in said[0]
    assert list((packed / "local").iterdir()) == []


def test_an_environment_that_would_not_be_whole_is_refused(packed):
    """In the names of the packages beside ddhpc."""
    (site,) = (packed / ".venv/lib").glob("python*/site-packages")
    (site / "__editable__.other-1.pth").touch()
    said = subprocess.run(["slurm/environment.sh", "other.tar"], cwd=packed, capture_output=True, text=True)
    assert said.returncode == 2
    assert "__editable__.other-1.pth: installed as editable; expected a plain pip install" in said.stderr
    assert not list(packed.glob("other.tar*"))
