"""Trainings that TensorBoard watches: it sees what the results file holds, and the training has the same bits."""

import signal
import sys
import time

import h5py
import numpy as np
import pytest

import ddhpc
from ddhpc.config import Config
from ddhpc.errors import InputError
from tests.jobs.starting import TRAINING, mpirun, same_bits, start_training, wait_for_checkpoint

pytest.importorskip("tensorboard")
from tests.results.test_scalars import read

TAGS = {"loss", "accuracy", "learning_rate", "seconds", "val_loss", "val_accuracy"}
SHORT = {
    **{"decomposition.grid": (1, 2), "decomposition.coarse_image": True, "model.global_width": 8, "run.threads": 1},
    **{"local.epochs": 3, "local.batch_size": 16, "local.validate_every": 2, "coarse.epochs": 5, "run.report": False},
}


def config(small, **more):
    return Config.from_recipe("faces", {**SHORT, "data.file": str(small), "run.tensorboard": True, **more})


def test_it_sees_what_the_results_file_holds(small, tmp_path):
    ddhpc.train(config(small), str(tmp_path / "run"))
    shown = {folder.name: read(folder) for folder in (tmp_path / "run/tensorboard").iterdir()}
    with h5py.File(tmp_path / "run/results.h5") as file:
        expected = {f"subdomain-{n:05}": {k: v[n] for k, v in file["local/history"].items()} for n in range(3)}
        expected["coarse-dnn"] = {name: values[...] for name, values in file["coarse/history"].items()}
    assert shown.keys() == expected.keys()
    for name, histories in expected.items():
        assert shown[name].keys() == TAGS
        for tag in shown[name].keys() & histories.keys():
            values = histories[tag]
            there = np.isfinite(values)
            assert shown[name][tag]["steps"] == (1 + np.flatnonzero(there)).tolist()
            assert np.allclose(shown[name][tag]["values"], values[there], rtol=1e-6)
    assert len(shown["coarse-dnn"]["loss"]["steps"]) == 5
    assert shown["subdomain-00002"]["val_loss"]["steps"] == [2, 3]


def test_with_cross_fitting_each_training_is_shown(small, tmp_path):
    options = {"coarse.decisions": "cross_fitted", "decomposition.coarse_image": False, "local.epochs": 1}
    ddhpc.train(config(small, **options), str(tmp_path / "run"))
    parts = [f"subdomain-{n:05}{fold}" for n in range(2) for fold in ("", "-fold-0", "-fold-1", "-fold-2")]
    folders = {folder.name: read(folder) for folder in (tmp_path / "run/tensorboard").iterdir()}
    assert sorted(folders) == sorted([*parts, "coarse-dnn"])
    assert all(folders[name]["loss"]["steps"] == [1] for name in parts)


def test_without_tensorboard_nothing_is_trained(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match="--run.tensorboard true: needs tensorboard .*; expected it: pip install"):
        ddhpc.train(config(small), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_reads_while_a_job_trains_and_a_continued_one_has_each_step_once(small, tmp_path, undisturbed):
    job = start_training(2, small, tmp_path, "--run.tensorboard", "true")
    wait_for_checkpoint(tmp_path, job)
    folders = tmp_path / "run/tensorboard"
    while job.poll() is None and not any(read(folder) for folder in folders.glob("*")):
        time.sleep(0.2)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(timeout=60) == 75, "it was read before the end"
    # which takes part in no identity, and so may be asked for or not
    completed = mpirun(3, "--data.file", small, *TRAINING, "--output", "run", "--run.tensorboard", "true", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    same_bits(tmp_path / "run", undisturbed[0])
    with h5py.File(tmp_path / "run/results.h5") as file:
        losses = file["local/history/loss"][...]
    for n, expected in enumerate(losses):
        shown = read(folders / f"subdomain-{n:05}")["loss"]
        assert shown["steps"] == list(range(1, 41))
        assert np.allclose(shown["values"], expected, rtol=1e-6)
