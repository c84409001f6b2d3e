"""The whole program under mpirun: the same bits for any number of ranks, and what a run leaves behind."""

import os
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from ddhpc.method.metrics import accuracy
from ddhpc.results import verify
from tests.jobs.disks import mounted
from tests.jobs.starting import decisions, mpirun

pytestmark = pytest.mark.slow  # many jobs under mpirun

OPTIONS = ["--local.epochs", 2, "--local.batch_size", 16, "--coarse.epochs", 5, "--model.global_width", 8]


def run(ranks, file, cwd, *arguments, output="run"):
    """A finished run's directory."""
    completed = mpirun(ranks, "--data.file", file, *OPTIONS, "--output", output, *arguments, cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    return cwd / output


def test_any_number_of_ranks_gives_the_same_bits(small, tmp_path):
    arguments = ["--decomposition.grid", 2, 3, "--local.shift", 1, "--local.flip", "true", "--run.threads", 1]
    expected = decisions(run(0, small, tmp_path, *arguments, output="run-0"))
    for ranks in (2, 4):  # other tests start three ranks, and more ranks than subdomains
        found = decisions(run(ranks, small, tmp_path, *arguments, output=f"run-{ranks}"))
        for name, values in expected.items():
            assert np.array_equal(values, found[name]), f"{name} with {ranks} ranks"


def test_streamed_windows_give_the_same_bits(small_volumes, tmp_path):
    """Of images they are those of tests/method/test_windows.py."""
    arguments = ["--decomposition.grid", 2, 1, 2, "--local.shift", 1, "--local.rotate", 5, "--run.threads", 1]
    expected = decisions(run(0, small_volumes, tmp_path, *arguments, output="held"))
    arguments += ["--data.memory_limit", 0, "--coarse.memory_limit", 0, "--log-dir", "logs"]
    found = decisions(run(2, small_volumes, tmp_path, *arguments, output="streamed"))
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name
    assert "streamed to cpu" in (tmp_path / "logs/rank-00001.log").read_text()


def test_any_number_of_ranks_gives_the_same_bits_in_3d(small_volumes, tmp_path):
    arguments = [
        "--decomposition.grid",
        2,
        1,
        2,
        "--decomposition.overlap",
        1,
        "--local.shift",
        1,
        "--run.threads",
        1,
    ]
    expected = decisions(run(1, small_volumes, tmp_path, *arguments, output="run-1"))
    found = decisions(run(3, small_volumes, tmp_path, *arguments, output="run-3"))
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name


def test_another_seed_gives_other_bits(small, tmp_path):
    seeds = [
        decisions(run(1, small, tmp_path, "--run.seed", seed, "--decomposition.grid", 2, 2, output=f"{seed}"))
        for seed in (0, 1)
    ]
    assert not np.array_equal(seeds[0]["local/val/decision"], seeds[1]["local/val/decision"])
    local = seeds[0]["local/val/decision"]
    assert not np.array_equal(local[0], local[1])


def test_the_results_file_agrees_with_itself_and_the_data(small, tmp_path):
    directory = run(2, small, tmp_path, "--decomposition.grid", 2, 2)
    assert verify(directory) == []
    with h5py.File(directory / "results.h5") as file, h5py.File(small) as packed:
        for split in ("train", "val", "test"):
            labels = packed[f"{split}/label"][...]
            assert np.array_equal(file[f"samples/{split}/label"][...], labels)
            assert np.array_equal(file[f"samples/{split}/id"].asstr()[...], packed[f"{split}/id"].asstr()[...])
            local = file[f"local/{split}/decision"][...]
            assert np.allclose(local.sum(axis=-1), 1, atol=1e-5)
            assert np.array_equal(file[f"local/{split}/accuracy"][...], accuracy(local, labels))
            assert file["fusion/mean"].attrs[split] == accuracy(local.mean(axis=0), labels)
            assert file["fusion/dnn"].attrs[split] == accuracy(file[f"coarse/{split}/decision"][...], labels)
        assert file.attrs["complete"]
        assert file.attrs["ranks"] == 2
        assert file["local/rank"][...].tolist() == [0, 0, 1, 1]
        history = {name: file[f"local/history/{name}"][:, -1] for name in ("val_loss", "val_accuracy")}
        assert np.array_equal(history["val_accuracy"], file["local/val/accuracy"][...])
        own = file["local/val/decision"][...][:, range(30), file["samples/val/label"][...]]
        assert history["val_loss"] == pytest.approx(-np.log(own).mean(axis=1), rel=1e-6)
        assert (file["local/history/seconds"][...] > 0).all()
        assert (file["local/seconds"][...] >= file["local/history/seconds"][...].sum(axis=1)).all()
        timing = file["timing"].attrs
        assert timing["local_max"] == file["local/seconds"][...].max()
        assert timing["total"] > timing["startup"] + timing["local_sum"] / 2
        assert len(set(file["local/parameters"][...])) == 1


def test_local_outputs_are_right_where_the_window_tells(small, tmp_path):
    """Long enough training makes each subdomain tell the stripes apart on images it has not seen."""
    directory = run(2, small, tmp_path, "--decomposition.grid", 2, 1, "--local.epochs", 12, "--coarse.epochs", 80)
    with h5py.File(directory / "results.h5") as file:
        assert file["local/test/accuracy"][...].min() > 0.9
        assert file["fusion/dnn"].attrs["test"] > 0.9


def test_the_global_cnn_is_the_same_program(small, tmp_path):
    directory = run(0, small, tmp_path, "--decomposition.grid", 1, 1, "--coarse.keep", "best")
    with h5py.File(directory / "results.h5") as file:
        assert file["local/val/decision"].shape == (1, 30, 3)
        assert file["decomposition/upper"][0].tolist() == [16, 14]
        for fusion in ("mean", "vote", "dnn"):
            assert file[f"fusion/{fusion}"].attrs["test"] == file["local/test/accuracy"][0]
        assert file["coarse/history/loss"].shape == (0,)


def test_each_run_gets_its_own_directory(small, tmp_path):
    arguments = ["--data.file", small, *OPTIONS, "--decomposition.grid", 1, 2]
    for _ in range(2):
        completed = mpirun(0, *arguments, cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
    with h5py.File(tmp_path / "runs/latest/results.h5") as file:
        found = file["fusion/dnn/val"].attrs
        assert found["above_mean"] == pytest.approx(file["fusion/dnn"].attrs["val"] - file["fusion/mean"].attrs["val"])
        assert ("below mean" in completed.stderr) == (found["above_mean"] < -found["above_mean_error"])
    directories = sorted(path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    assert len(directories) == 2
    assert all(verify(directory) == [] for directory in directories)
    assert (tmp_path / "runs/latest").resolve() == directories[-1].resolve()
    assert str((tmp_path / "runs/latest").readlink()) == directories[-1].name


def test_the_table_is_printed_once_and_again_by_inspect(small, tmp_path):
    completed = mpirun(2, "--data.file", small, *OPTIONS, "--decomposition.grid", 2, 2, "--output", "run", cwd=tmp_path)
    out = completed.stdout
    for text in (
        "Accuracy of the local CNNs",
        "mean",
        "vote",
        "dnn",
        "slowest local CNN",
        "gather",
        "coarse",
        "run directory run",
    ):
        assert text in out
    assert out.count("Accuracy of the final decision") == 1
    again = mpirun(0, "inspect", "run", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.strip() in out
    assert mpirun(3, "inspect", "run", cwd=tmp_path).stdout.count("Accuracy of the final decision") == 1
    compared = mpirun(0, "inspect", "run", "run", cwd=tmp_path)
    assert compared.stdout.count("2x2") == 2


def test_inspect_finds_damage(small, tmp_path):
    directory = run(1, small, tmp_path, "--decomposition.grid", 1, 2)
    with h5py.File(directory / "results.h5", "r+") as file:
        file["local/test/decision"][0, 0, 0] = 0.123
    completed = mpirun(0, "inspect", "run", cwd=tmp_path)
    assert completed.returncode == 2
    assert "/local/test/decision of subdomain 0: differs from its checksum" in completed.stderr


def test_each_rank_can_have_a_log_of_its_own(small, tmp_path):
    run(3, small, tmp_path, "--decomposition.grid", 2, 2, "--log-dir", "logs")
    logs = sorted((tmp_path / "logs").iterdir())
    assert [log.name for log in logs] == ["rank-00000.log", "rank-00001.log", "rank-00002.log"]
    text = [log.read_text() for log in logs]
    for rank, subdomains in ((0, (0, 1)), (1, (2,)), (2, (3,))):
        for subdomain in range(4):
            assert (f"subdomain {subdomain}: finished, loss" in text[rank]) == (subdomain in subdomains)
    completed = mpirun(2, "--data.file", small, "--log-dir", "/proc/logs", "--decomposition.grid", 2, 2, cwd=tmp_path)
    assert completed.returncode == 2
    assert "--log-dir /proc/logs: " in completed.stderr


FAULTY = """
import os, time
from torch import nn

class Faulty(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.dense, self.steps = nn.LazyLinear(classes), 0

    def forward(self, x):
        self.steps += 1
        if self.steps > 3 and os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
            {fault}
        return self.dense(x.flatten(1))

def faulty(*, channels, classes, dimensions, width, depth):
    return Faulty(classes)
"""


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("raise RuntimeError('the GPU fell off')", "RuntimeError: the GPU fell off"),
        ("os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
def test_a_rank_that_raises_or_is_killed_ends_the_job(fault, shown, small, tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault=fault))
    arguments = ["--decomposition.grid", 2, 2, "--local.epochs", 500, "--model.name", "faulty:faulty"]
    started = time.monotonic()
    completed = mpirun(4, "--data.file", small, *OPTIONS[2:], *arguments, "--output", "run", cwd=tmp_path, timeout=60)
    assert time.monotonic() - started < 45
    assert completed.returncode not in (0, 2)
    assert shown in completed.stderr
    if "raise" in fault:
        assert completed.stderr.count("error on rank 1") == 1
    assert not (tmp_path / "run/results.h5").exists()


def test_a_disk_too_small_for_the_results_is_noticed_before_training(small, tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24k", "tmpfs"):
        completed = mpirun(
            2, "--data.file", small, *OPTIONS, "--decomposition.grid", 2, 2, "--output", "disk/run", cwd=tmp_path
        )
        assert completed.returncode == 2
        assert "results.h5.part: No space left on device" in completed.stderr
        assert not os.path.exists(tmp_path / "disk/run/results.h5")


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], ["torch", "mpi4py"]),
        (["--data.file", "absent.h5"], ["torch"]),
        (["inspect", "absent"], ["torch"]),
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(arguments, unneeded, tmp_path):
    code = (
        "import contextlib, sys, ddhpc.cli, ddhpc.errors\n"
        "with contextlib.suppress(ddhpc.errors.InputError, SystemExit):\n"
        f"    ddhpc.cli.main({arguments}, 0)\n"
        f"sys.exit(bool(set({unneeded}) & set(sys.modules)))"
    )
    completed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert ("usage: mpirun -n RANKS python -m ddhpc" in completed.stdout) == (arguments == ["--help"])
