"""What a rank does before its first step: 16 ranks that start do what they need not 16 times."""

import subprocess
import sys

import pytest

from tests.jobs.starting import environment

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from ddhpc.cli import main
main(sys.argv[1:], 0)
from mpi4py import MPI
unneeded = {"torch._dynamo", "matplotlib", "sympy", "PIL", "onnx", "tensorboard", "monai", "torchvision", "pandas"}
if MPI.COMM_WORLD.rank != 0:
    unneeded |= {"rich", "scipy"}
assert "torch.optim" in sys.modules
found = sorted(unneeded & set(sys.modules))
assert not found, f"rank {MPI.COMM_WORLD.rank} imported {found}"
"""


def test_a_training_does_not_import_what_it_does_not_need(small, tmp_path):
    """Checked where the ranks end. Rank 0 alone prints tables and looks for a temperature."""
    options = ["--decomposition.grid", "2", "2", "--local.epochs", "1", "--coarse.epochs", "1"]
    options += ["--model.global_width", "8", "--run.report", "false"]
    completed = subprocess.run(
        ["mpirun", "-n", "2", sys.executable, "-c", PROGRAM, "--data.file", str(small), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert completed.returncode == 0, completed.stderr
