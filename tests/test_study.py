"""Studies: what is read from their file, and what runs, is left out, fails and is written."""

import csv
import os
import signal
import subprocess
import sys
import time

import h5py
import pytest
import yaml

from ddhpc.cli.study import read_study
from ddhpc.errors import InputError

STUDY = {
    "options": {"local.epochs": 1, "coarse.epochs": 2, "model.global_width": 8, "run.threads": 1},
    "vary": [
        {"decomposition.grid": [[1, 1]]},
        {"decomposition.grid": [[2, 2]], "decomposition.overlap": [0], "run.seed": [0, 1]},
    ],
}


def write(folder, study):
    file = folder / "study.yaml"
    file.write_text(study if isinstance(study, str) else yaml.safe_dump(study))
    return file


def sweep(folder, *arguments):
    """The finished job; its environment is not that of this process, in which MPI may have left its own."""
    command = [sys.executable, "-m", "ddhpc", "sweep", "study.yaml", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=dict(os.environ))


def test_every_combination_of_a_block_is_a_training(tmp_path):
    trainings = read_study(write(tmp_path, STUDY), tmp_path)
    assert [training.directory.name for training in trainings] == [
        "grid-1x1",
        "grid-2x2_overlap-0_seed-0",
        "grid-2x2_overlap-0_seed-1",
    ]
    last = trainings[-1].config
    assert (last.decomposition.grid, last.decomposition.overlap, last.run.seed) == ((2, 2), 0, 1)
    assert last.local.epochs == 1


def test_a_training_starts_no_more_ranks_than_it_has_subdomains(tmp_path):
    one, four, _ = read_study(write(tmp_path, STUDY), tmp_path)
    assert one.command("mpirun -n {ranks}", 16)[0] == sys.executable
    assert four.command("srun --mpi=pmix -n {ranks}", 16)[:4] == ["srun", "--mpi=pmix", "-n", "4"]
    assert four.command("mpirun -n {ranks}", 3)[:3] == ["mpirun", "-n", "3"]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("vary: [", "cannot read it as YAML"),
        ({"options": {}}, "expected a mapping with vary"),
        ({"vary": {"run.seed": [0]}, "grids": 1}, "expected a mapping with vary"),
        ({"vary": {"run.seed": 0}}, "expected a mapping from options to lists of values"),
        ({"vary": {1: [0]}}, "vary: expected the name of an option, such as local.epochs, found 1"),
        ("options: {yes: 1}\nvary: {run.seed: [0]}", "options: expected the name of an option.*, found True"),
        ({"options": [1], "vary": {"run.seed": [0]}}, "options: expected a mapping from options to values"),
        ({"vary": {"data.memory_limit": ["null", 0, 0.0]}}, "twice; expected each training once"),
        ({"vary": [{"run.seed": [0]}, {"run.seed": [0]}]}, "vary: has {'run.seed': 0} twice"),
        ({"vary": "run.seed"}, "vary: expected a mapping"),
        ("vary: !!python/name:os.system ''", "cannot read it as YAML"),
        ("vary: {run.seed: &a [*a]}", "cannot read it as YAML: nested too deeply"),
        ({"vary": {"run.seed": []}}, "expected a mapping from options to lists of values"),
        ({"vary": {"run.sed": [0]}}, "--run.sed: unknown option, did you mean --run.seed?"),
        ({"vary": {"local.epochs": ["many"]}}, "local.epochs"),
        ({"recipe": "flower", "vary": {"run.seed": [0]}}, "no such recipe"),
    ],
)
def test_a_mistake_in_a_study_is_named_with_its_file(tmp_path, study, message):
    with pytest.raises(InputError, match=message) as error:
        read_study(write(tmp_path, study), tmp_path)
    assert "study.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_would_collide_get_their_sections(tmp_path):
    vary = [
        {f"{section}.{name}": [value]}
        for name, value in (("epochs", 5), ("learning_rate", 0.01))
        for section in ("local", "coarse")
    ]
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert [training.directory.name for training in trainings] == [
        *("local.epochs-5", "coarse.epochs-5", "local.learning_rate-0.01", "coarse.learning_rate-0.01")
    ]
    assert [training.config.local.epochs for training in trainings] == [5, 10, 10, 10]


def test_null_and_truth_are_values(tmp_path):
    vary = {"data.memory_limit": [None, 0], "local.flip": [True, False]}
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert [each.config.data.memory_limit for each in trainings] == [None, None, 0, 0]
    assert [each.config.local.flip for each in trainings] == [True, False, True, False]
    assert trainings[0].directory.name == "memory_limit-null_flip-true"


def test_values_that_make_the_same_name_make_two_directories(tmp_path):
    vary = {"model.name": ["a/b:c", "a-b:c", "a-b-c"]}
    trainings = read_study(write(tmp_path, {"vary": vary}), tmp_path)
    assert len({training.directory for training in trainings}) == 3


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["mpirun -n {ranks}", "./impatient -n {ranks}"])
def test_a_stopped_study_continues(launcher, small, tmp_path):
    """Also where the launcher ends with another code, as srun where ranks leave one after the other."""
    (tmp_path / "impatient").write_text(IMPATIENT)
    (tmp_path / "impatient").chmod(0o755)
    options = {**STUDY["options"], "data.file": str(small), "local.epochs": 9999, "run.checkpoint_seconds": 0.5}
    write(tmp_path, {"options": options, "vary": {"decomposition.grid": [[2, 2]]}})
    command = [sys.executable, "-m", "ddhpc", "sweep", "study.yaml", "--launcher", launcher]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), **pipes) as job:
        while job.poll() is None and not list(tmp_path.glob("runs/study/grid-2x2/checkpoints/*.pt")):
            time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=60)
    assert job.returncode == 75, errors
    assert "the same command continues" in errors
    assert list(tmp_path.glob("runs/study/grid-2x2/checkpoints/*.pt"))


def test_a_study_without_end_is_refused(tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text("vary: {" + ", ".join(f"local.x{n}: [1, 2]" for n in range(60)) + "}")
    with pytest.raises(InputError, match=r"vary: makes more than 1,000 trainings; expected several studies"):
        read_study(study, tmp_path)
