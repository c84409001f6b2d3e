"""Studies: what runs, is left out, fails and is written."""

import csv
import signal
import sys
import time

import h5py
import pytest

from tests.cli.test_study import STUDY, write
from tests.jobs.starting import mpirun, start

pytestmark = pytest.mark.slow


def sweep(folder, *arguments):
    """The finished study."""
    return mpirun(0, "sweep", "study.yaml", *arguments, cwd=folder)


def test_a_study_runs_what_is_missing_and_compares_all(small, tmp_path):
    study = {**STUDY, "options": {**STUDY["options"], "data.file": str(small)}}
    write(tmp_path, study)
    first = sweep(tmp_path, "--output", "s", "--only", 2)
    assert first.returncode == 0, first.stderr
    assert not (tmp_path / "s/table.csv").exists()

    listed = sweep(tmp_path, "--output", "s", "--list").stdout.splitlines()
    assert [line.split(": ")[1].split()[0] for line in listed] == [sys.executable, "finished", "mpirun"]

    second = sweep(tmp_path, "--output", "s", "--ranks", 2)
    assert second.returncode == 0, second.stderr
    assert "[2/3] grid-2x2_overlap-0_seed-0: finished before" in second.stdout
    with (tmp_path / "s/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == ["grid-1x1", "grid-2x2_overlap-0_seed-0", "grid-2x2_overlap-0_seed-1"]
    for row in rows:
        with h5py.File(tmp_path / "s" / row["run"] / "results.h5") as file:
            assert float(row["dnn"]) == file["fusion/dnn"].attrs["test"]
            cpu = file["local/cpu_seconds"][...]
            coarse = file["timing"].attrs["coarse"] if len(cpu) > 1 else 0
            assert float(row["critical_path"]) == pytest.approx(cpu.max() + coarse)
            assert int(row["parameters"]) == file["local/parameters"][...].sum()
    assert "2 seeds" in (tmp_path / "s/table.txt").read_text()
    write(tmp_path, {**study, "options": {**study["options"], "local.epochs": 2}})
    changed = sweep(tmp_path, "--output", "s")
    assert changed.returncode == 2
    assert "finished before" not in changed.stdout
    (said,) = changed.stderr.splitlines()
    for name in ("grid-1x1", "grid-2x2_overlap-0_seed-0", "grid-2x2_overlap-0_seed-1"):
        assert f"s/{name} is another run: local.epochs was 1 and is now 2" in said
    latex = (tmp_path / "s/table.tex").read_text()
    assert latex.count(r"\\") == 3
    assert all(
        line.count(" & ") == latex.splitlines()[3].count(" & ") for line in latex.splitlines()[3:6] if "&" in line
    )


def test_a_failed_training_is_named_and_the_others_run(small, tmp_path):
    write(tmp_path, {"options": {**STUDY["options"], "data.file": str(small)}, "vary": {"model.depth": [7, 8]}})
    done = sweep(tmp_path, "--ranks", 1)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == ("ddhpc: study.yaml: 1 of 2 trainings failed: depth-7 (exit code 2)")
    assert (tmp_path / "runs/study/depth-8/results.h5").exists()


IMPATIENT = """#!/bin/bash
trap 'kill -USR2 "$job"' USR2
mpirun "$@" &
job=$!
wait "$job"
wait "$job"
exit 143
"""


@pytest.mark.parametrize("launcher", ["mpirun -n {ranks}", "./impatient -n {ranks}"])
def test_a_stopped_study_continues(launcher, small, tmp_path):
    """Also where the launcher ends with another code, as srun where ranks leave one after the other."""
    (tmp_path / "impatient").write_text(IMPATIENT)
    (tmp_path / "impatient").chmod(0o755)
    options = {**STUDY["options"], "data.file": str(small), "local.epochs": 9999, "run.checkpoint_seconds": 0.5}
    write(tmp_path, {"options": options, "vary": {"decomposition.grid": [[2, 2]]}})
    job = start(0, "sweep", "study.yaml", "--launcher", launcher, cwd=tmp_path)
    while job.poll() is None and not list(tmp_path.glob("runs/study/grid-2x2/checkpoints/*.pt")):
        time.sleep(0.1)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=60) == 75, (tmp_path / "stderr").read_text()
    assert "the same command continues" in (tmp_path / "stderr").read_text()
    assert list(tmp_path.glob("runs/study/grid-2x2/checkpoints/*.pt"))
