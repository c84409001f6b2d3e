"""`prepare` as a job: the same file from any number of ranks, interrupted ones, bad input."""

import os
import re
import signal
import time

import h5py
import numpy as np
import pytest

from ddhpc.data.packed import open_packed
from ddhpc.phantoms.ct import write_phantoms
from tests.data.sources.packing import photographs
from tests.jobs.starting import mpirun, start

pytestmark = pytest.mark.slow

SIDE = 250
"""Pixels of the photographs that an interrupted job packs."""


def contents(file):
    """All datasets of a file, and the text that says what was done."""
    found = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda name, item: found.update({name: item[...]} if isinstance(item, h5py.Dataset) else {}))
        return found, opened.attrs["source"]


def same(file, expected):
    found, source = contents(file)
    assert source == expected[1]
    assert found.keys() == expected[0].keys()
    for name, values in expected[0].items():
        assert np.array_equal(found[name], values), name


@pytest.mark.parametrize("kind", ["images", "ct"])
def test_any_number_of_ranks_writes_the_same_file(kind, tmp_path):
    if kind == "images":
        photographs(tmp_path / "in")
        options = ["--size", 16, 16]
    else:
        write_phantoms(tmp_path / "in", patients=12, seed=0)
        (tmp_path / "in/CT-0/bad.nii.gz").write_text("no volume")
        options = ["--shape", 32, 32, 16, "--groups", "CT-0", "CT-2,CT-3"]
    command = ["prepare", kind, "in", *options, "--output"]
    outs = {}
    for ranks in (0, 1, 3, 4):
        completed = mpirun(ranks, *command, f"{ranks}.h5", cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        outs[ranks] = completed.stdout.replace(f"{ranks}.h5", "x.h5").splitlines()
        same(tmp_path / f"{ranks}.h5", contents(tmp_path / "0.h5"))
    progress = re.compile(r"  packing \w+: (\d+)%")
    assert progress.findall("\n".join(outs[4]))[-1] == "100"
    said = {tuple(line for line in out if not progress.fullmatch(line)) for out in outs.values()}
    assert len(said) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "1.h5", "3.h5", "4.h5", "in"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder of many photographs, and what packing it takes and gives."""
    home = tmp_path_factory.mktemp("undisturbed")
    photographs(home / "in", count=150, side=300)
    command = ["prepare", "images", home / "in", "--size", SIDE, SIDE, "--output"]
    whole = mpirun(0, *command, "whole.h5", cwd=home)
    assert whole.returncode == 0, whole.stderr
    return command, contents(home / "whole.h5")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_continues_with_other_ranks(number, undisturbed, tmp_path):
    """Stopped when some images are decoded; with another number of ranks it goes on, and ends with the same file."""
    command, expected = undisturbed
    job = start(3, *command, "x.h5", cwd=tmp_path)
    pixels, deadline = "x.h5.partial/*-pixels-*.data", time.monotonic() + 60
    while sum(path.stat().st_size for path in tmp_path.glob(pixels)) < 2e6:
        assert job.poll() is None, (tmp_path / "stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(number)
    assert job.wait(timeout=60) != 0, (tmp_path / "stdout").read_text()
    assert not (tmp_path / "x.h5").exists()
    continued = mpirun(2, *command, "x.h5", cwd=tmp_path)
    assert continued.returncode == 0, continued.stderr
    kept = re.search(r"x.h5.partial: continuing; 302 facts, (\d+) pixels are there", continued.stdout)
    assert kept, continued.stdout
    # On a busy machine all may be decoded before the signal arrives.
    assert 2e6 / (3 * SIDE**2) - 3 <= int(kept[1]) <= 300
    assert not (tmp_path / "x.h5.partial").exists()
    same(tmp_path / "x.h5", expected)


def test_a_source_that_cannot_be_read_on_some_rank_is_one_line(tmp_path):
    photographs(tmp_path / "in")
    options = ["--size", 16, 16, "--on-error", "stop", "--output", "x.h5"]
    completed = mpirun(3, "prepare", "images", "in", *options, cwd=tmp_path)
    assert completed.returncode == 2
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(lines) == 1
    assert re.search(r"in: (rose|tulip)/z.png: .*; --on-error skip", lines[0])
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "x.h5").exists()


def test_another_option_starts_anew_and_says_so(tmp_path):
    photographs(tmp_path / "in")
    command = ["prepare", "images", "in", "--output", "x.h5", "--size"]
    assert mpirun(2, *command, 16, 16, "--on-error", "stop", cwd=tmp_path).returncode == 2
    again = mpirun(2, *command, 12, 12, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "x.h5.partial: options changed since; starting anew" in again.stdout


def test_an_interrupted_process_says_how_to_go_on(tmp_path):
    photographs(tmp_path / "in", count=150, side=300)
    job = start(0, "prepare", "images", "in", "--size", 200, 200, "--output", "x.h5", cwd=tmp_path)
    while job.poll() is None and not list(tmp_path.glob("x.h5.partial/*-pixels-*.index")):
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=60) == 75, (tmp_path / "stdout").read_text()
    said = "ddhpc: interrupted; what is decoded is kept, the same command goes on from there\n"
    assert (tmp_path / "stderr").read_text() == said


def test_an_output_whose_name_is_not_utf8(tmp_path):
    photographs(tmp_path / "in", count=10, side=20)
    name = os.fsdecode(b"bad\xff.h5")
    done = mpirun(0, "prepare", "images", "in", "--size", 8, 8, "--output", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^bad\\udcff.h5: \d+ train", done.stdout, re.MULTILINE)
    assert open_packed(tmp_path / name).samples["train"] > 0
