"""Bad input to a job: one line from rank 0, exit code 2, all ranks end, nothing is damaged."""

import os
import re
import time

import h5py
import numpy as np
import pytest

from ddhpc.cli.options import configure, train_parser
from ddhpc.errors import InputError
from ddhpc.method.problem import open_problem
from ddhpc.train import check_teams
from tests.conftest import pack_small
from tests.jobs.starting import mpirun, start


def refused(completed, message):
    """Exactly one line of ours on standard error, and exit code 2."""
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(lines) == 1, completed.stderr
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in completed.stderr
    assert completed.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decomposition.gird", 2, 2], "--decomposition.gird: unknown option"),
        (["--decomposition.grid", 17, 1], "--decomposition.grid 17 1: .*as many subdomains as pixels"),
        (["--output", "/proc/run", "--decomposition.grid", 2, 2], "cannot write /proc/run"),
    ],
    ids=["command line", "problem", "run directory"],
)
def test_four_ranks_say_it_once(arguments, message, small, tmp_path):
    refused(mpirun(4, "--data.file", small, *arguments, cwd=tmp_path), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data x.h5", "--data: is a section; expected one of its options: --data.file, --data.fold, "),
        ("--recipe nix", "--recipe nix: no such recipe; there are .*fashion_mnist"),
        ("--model.name resnett", "resnett.*resnet"),
        ("--config absent.yaml", "absent.yaml"),
        ("--decomposition.grid 2", "--decomposition.grid 2: expected 2 numbers for images of 16x14"),
        ("--decomposition.grid 0 2", "--decomposition.grid 0 2: expected numbers of at least 1"),
        ("--decomposition.grid -2 2", "--decomposition.grid -2 2: expected numbers of at least 1"),
        ("--decomposition.overlap -1", "--decomposition.overlap -1: expected 0 or more pixels"),
        ("--decomposition.overlap 8", "--decomposition.overlap 8: expected 0 to 7 pixels"),
        ("--model.name vgg --model.depth 19", "too small.*smallest"),
        ("--data.file absent.h5", "--data.file absent.h5: no such file"),
        ("--local.epochs many", "--local.epochs: expected int, found many"),
    ],
)
def test_what_is_found_before_a_job_needs_its_ranks(arguments, message, small):
    argv = ["--data.file", str(small), "--decomposition.grid", "2", "2", *arguments.split()]
    argv = argv[2:] if "--config" in argv else argv
    with pytest.raises(InputError, match=message) as raised:
        open_problem(configure(argv, train_parser()).config)
    assert "\n" not in str(raised.value)


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "truncated"),
        ("not HDF5", "HDF5"),
        ("version", "99"),
        ("label out of range", "7"),
        ("class missing in train", "rows"),
        ("one class", "class"),
    ],
)
def test_a_packed_file_that_is_none(damage, message, tmp_path):
    file = pack_small(tmp_path / "x.h5", dtype="float32")
    damaged(file, damage)
    before = file.read_bytes()
    argv = ["--data.file", str(file), "--decomposition.grid", "2", "2"]
    with pytest.raises(InputError, match=rf"x\.h5.*{message}"):
        open_problem(configure(argv, train_parser()).config)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_what_one_rank_finds_ends_all_within_seconds(tmp_path):
    """The last rank finds a NaN in its window while the others have hours to train."""
    file = pack_small(tmp_path / "x.h5", dtype="float32")
    damaged(file, "NaN")
    before = file.read_bytes()
    options = ["--decomposition.grid", 2, 2, "--local.epochs", 100_000]
    started = time.monotonic()
    completed = mpirun(4, "--data.file", file, *options, cwd=tmp_path)
    assert time.monotonic() - started < 60
    assert completed.returncode == 2
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert re.search(r"x\.h5.*train/5.*\(on rank 3\)", lines[0])
    # The others are ended by SIGTERM, which makes a checkpoint first.
    assert all("stopped by SIGTERM" in line for line in lines[1:])
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("runs/*/results.h5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coarse.allow_missing", "1"], "--coarse.allow_missing 1: expected at most 2 ranks with it, found 5"),
        (
            ["--local.batch_size", "2"],
            "5 ranks for 2 subdomains: expected at most 4, one for each image of a batch of 2",
        ),
    ],
)
def test_what_ranks_that_train_a_subdomain_together_cannot_do(options, message, small):
    argv = ["--data.file", str(small), "--decomposition.grid", "2", "1", *options]
    with pytest.raises(InputError, match=message):
        check_teams(open_problem(configure(argv, train_parser()).config), 5)


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_unless_asked(small, tmp_path):
    command = ["--data.file", small, "--decomposition.grid", 2, 2, "--local.epochs", 1, "--output", "run"]
    assert mpirun(1, *command, cwd=tmp_path).returncode == 0
    before = (tmp_path / "run/results.h5").read_bytes()
    refused(mpirun(4, *command, cwd=tmp_path), "--output run: holds a finished run.*--overwrite")
    assert (tmp_path / "run/results.h5").read_bytes() == before
    assert mpirun(4, *command, "--overwrite", "--run.seed", 1, cwd=tmp_path).returncode == 0
    assert (tmp_path / "run/results.h5").read_bytes() != before


@pytest.mark.slow
def test_a_rank_whose_options_alone_are_wrong_ends_the_job(small, tmp_path):
    """As where a configuration file differs between nodes: the others are then starting MPI."""
    (tmp_path / "mine.yaml").write_text("local: {epochs: 1}")
    wrong = 'if [ "${OMPI_COMM_WORLD_RANK-$PMI_RANK}" = 1 ]; then exec "$@" --local.epochs x; else exec "$@"; fi'
    job = start(2, "--config", "mine.yaml", "--data.file", small, cwd=tmp_path, through=("bash", "-c", wrong, "bash"))
    assert job.wait(timeout=60) == 2
    said = (tmp_path / "stderr").read_text()
    assert "ddhpc: --local.epochs: expected int, found x (on rank 1)" in said
