"""Bad input through the real command line: one line from rank 0, exit code 2, all ranks end, nothing is damaged."""

import os
import re
import time

import h5py
import numpy as np
import pytest

from tests.conftest import mpirun, pack_small

pytestmark = pytest.mark.slow  # many jobs under mpirun

RANKS = pytest.mark.parametrize("ranks", [1, 4])


def refused(completed, message):
    """Exactly one line of ours on standard error, and exit code 2."""
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(lines) == 1, completed.stderr
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in completed.stderr
    assert completed.returncode == 2


@RANKS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--decomposition.gird", "2", "2"],
            "--decomposition.gird: unknown option, did you mean --decomposition.grid",
        ),
        (["--data", "x.h5"], "--data: is a section; expected one of its options: --data.file, --data.memory_limit"),
        (["--recipe", "nix"], "--recipe nix: no such recipe; there are .*fashion_mnist"),
        (["--model.name", "resnett"], "resnett.*resnet"),
        (["--config", "bad.yaml"], r"--config bad.yaml: .*overlp"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--decomposition.grid", "2"], "--decomposition.grid 2: expected 2 numbers for images of 16x14"),
        (["--decomposition.grid", "17", "1"], "--decomposition.grid 17 1: .*as many subdomains as pixels"),
        (["--decomposition.grid", "0", "2"], "--decomposition.grid 0 2: expected numbers of at least 1"),
        (["--decomposition.grid", "-2", "2"], "--decomposition.grid -2 2: expected numbers of at least 1"),
        (["--decomposition.overlap", "-1"], "--decomposition.overlap -1: expected 0 or more pixels"),
        (["--decomposition.overlap", "8"], "--decomposition.overlap 8: expected 0 to 7 pixels"),
        (["--model.name", "vgg", "--model.depth", "19"], "too small.*smallest"),
        (["--data.file", "absent.h5"], "--data.file absent.h5: no such file"),
        (["--output", "/proc/run"], "cannot write /proc/run"),
        (["--local.epochs", "many"], "--local.epochs: expected int, found many"),
        (["stray"], "stray: unknown verb"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_line(arguments, message, ranks, small, tmp_path):
    (tmp_path / "bad.yaml").write_text("decomposition: {grid: [2, 2], overlp: 3}\n")
    given = arguments if "--config" in arguments or "--recipe" in arguments else ["--data.file", small, *arguments]
    given = arguments if "--data.file" in arguments or arguments == ["stray"] else given
    defaults = [] if {"--decomposition.grid", "stray"} & set(arguments) else ["--decomposition.grid", 2, 2]
    refused(mpirun(ranks, *given, *defaults, cwd=tmp_path), message)
    assert not (tmp_path / "runs").exists()


def damaged(path, damage):
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "not HDF5":
        path.write_text("label,pixel\n")
    else:
        with h5py.File(path, "r+") as file:
            if damage == "version":
                file.attrs["format_version"] = 99
            elif damage == "label out of range":
                file["val/label"][3] = 7
            elif damage == "class missing in train":
                file["train/label"][...] = np.maximum(file["train/label"][...], 1)
            elif damage == "one class":
                del file["classes"]
                file["classes"] = np.array([b"only"])
                for split in ("train", "val", "test"):
                    file[f"{split}/label"][...] = 0
            elif damage == "NaN":
                file["train/image"][5, 0, 15, 13] = np.nan


@RANKS
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "truncated"),
        ("not HDF5", "HDF5"),
        ("version", "99"),
        ("label out of range", "7"),
        ("class missing in train", "rows"),
        ("one class", "class"),
        ("NaN", "train/5"),
    ],
)
def test_packed_file(damage, message, ranks, tmp_path):
    file = pack_small(tmp_path / "x.h5", dtype="float32")
    damaged(file, damage)
    before = file.read_bytes()
    completed = mpirun(ranks, "--data.file", file, "--decomposition.grid", 2, 2, "--local.epochs", 1, cwd=tmp_path)
    refused(completed, rf"x\.h5.*{message}")
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("runs/*/results.h5"))


def test_what_one_rank_finds_ends_all_within_seconds(tmp_path):
    """The last rank finds a NaN in its window while the others have hours to train."""
    file = pack_small(tmp_path / "x.h5", dtype="float32")
    damaged(file, "NaN")
    options = ["--decomposition.grid", 2, 2, "--local.epochs", 100_000]
    started = time.monotonic()
    completed = mpirun(4, "--data.file", file, *options, cwd=tmp_path)
    assert time.monotonic() - started < 60
    assert completed.returncode == 2
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert re.search(r"x\.h5.*train/5.*\(on rank 3\)", lines[0])
    # The others are ended by SIGTERM, which makes a checkpoint first.
    assert all("stopped by SIGTERM" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coarse.allow_missing", 1], "--coarse.allow_missing 1: expected at most 2 ranks with it, found 5"),
        (["--local.batch_size", 2], "5 ranks for 2 subdomains: expected at most 4, one for each image of a batch of 2"),
    ],
)
def test_what_ranks_that_train_a_subdomain_together_cannot_do(options, message, small, tmp_path):
    refused(mpirun(5, "--data.file", small, "--decomposition.grid", 2, 1, *options, cwd=tmp_path), message)


def test_a_finished_run_is_not_overwritten_unless_asked(small, tmp_path):
    command = ["--data.file", small, "--decomposition.grid", 2, 2, "--local.epochs", 1, "--output", "run"]
    assert mpirun(1, *command, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run/results.h5").read_bytes()
    for ranks in (1, 4):
        refused(mpirun(ranks, *command, cwd=tmp_path), "--output run: holds a finished run.*--overwrite")
        assert (tmp_path / "run/results.h5").read_bytes() == before
    assert mpirun(4, *command, "--overwrite", "--run.seed", 1, cwd=tmp_path).returncode == 0
    assert (tmp_path / "run/results.h5").read_bytes() != before
