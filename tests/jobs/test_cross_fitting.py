"""Held-out and cross-fitted decisions in whole jobs, against trainings written out once more."""

import signal
import time

import h5py
import numpy as np
import pytest
import torch

from ddhpc.config import Config
from ddhpc.data.packed import SPLITS, Contents, Split, write_packed
from ddhpc.method.coarse import decide, train_dnn
from ddhpc.method.decomposition import grow
from ddhpc.method.local import LocalProblem, local_outputs, train_local
from ddhpc.method.problem import open_problem
from ddhpc.method.windows import channels_last, hold
from ddhpc.results import stored_outputs, verify
from tests.jobs import starting
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow


OPTIONS = [
    *("--decomposition.grid", 2, 2, "--local.epochs", 4, "--local.batch_size", 16, "--model.global_width", 8),
    *("--coarse.epochs", 5, "--local.shift", 1, "--run.threads", 1, "--run.checkpoint_seconds", 1),
]


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """Directory of a run for each kind of decisions."""
    cwd = tmp_path_factory.mktemp("runs")
    for kind in ("in_sample", "held_out", "cross_fitted"):
        completed = mpirun(2, "--data.file", small, *OPTIONS, "--coarse.decisions", kind, "--output", kind, cwd=cwd)
        assert completed.returncode == 0, completed.stderr
        assert (f"dnn trained on {kind} decisions" in completed.stdout) == (kind != "in_sample")
        assert verify(cwd / kind) == []
    return cwd


def test_the_cnns_that_decide_val_and_test_are_fitted_to_all_images_but_those_held_out(runs):
    plain, held_out, crossed = (starting.decisions(runs / kind) for kind in ("in_sample", "held_out", "cross_fitted"))
    for name in ("local/val/decision", "local/test/decision", "local/history/loss"):
        assert np.array_equal(plain[name], crossed[name])
        assert not np.array_equal(plain[name], held_out[name])


def test_the_decisions_of_a_fold_are_those_of_a_cnn_trained_on_the_rest(runs, small):
    """The same training once more, on a packed array of the rest alone."""
    config = Config.from_yaml(h5py.File(runs / "cross_fitted/results.h5").attrs["config"])
    problem, subdomain, number = open_problem(config), 2, 1
    grown, core = grow(problem.decomposition[subdomain], (1, 1), problem.packed.image_shape)
    pixels, labels = problem.packed.read("train", grown), problem.packed.labels["train"]
    with h5py.File(runs / "cross_fitted/results.h5") as file:
        fold = file["samples/train/fold"][...]
        found = file["local/train/decision"][subdomain]
    rest, kept = (
        hold([pixels[which]], which.sum(), core, problem.packed.mean, problem.packed.std, "cpu")
        for which in (fold != number, fold == number)
    )
    torch.set_num_threads(1)
    cnn = problem.local_cnn(subdomain, number).to(memory_format=channels_last(4))
    train_local(cnn, LocalProblem(images=rest, labels=labels[fold != number], config=config.local), lambda *step: None)
    assert np.allclose(local_outputs(cnn, kept, "float32"), found[fold == number], atol=1e-6)


@pytest.mark.parametrize("kind", ["held_out", "cross_fitted"])
def test_the_coarse_dnn_is_trained_on_the_decisions_with_a_fold_alone(kind, runs):
    with h5py.File(runs / kind / "results.h5") as file:
        local = stored_outputs(file)
        labels = {split: file[f"samples/{split}/label"][...] for split in SPLITS}
        config = Config.from_yaml(file.attrs["config"])
        learned = file["samples/train/fold"][...] >= 0
        final = file["coarse/test/decision"][...]
    open_problem(config).seed(4)
    seen = {"train": local["train"][:, learned], "val": local["val"]}
    network, _ = train_dnn(seen, {**labels, "train": labels["train"][learned]}, 3, config.coarse, "cpu")
    assert np.allclose(decide(network, local["test"]), final, atol=1e-6)
    assert learned.mean() == (1 if kind == "cross_fitted" else pytest.approx(0.2, abs=0.02))


@pytest.mark.parametrize("ranks", [0, 4])
def test_any_number_of_ranks_gives_the_same_bits(ranks, runs, small):
    arguments = ["--data.file", small, *OPTIONS, "--coarse.decisions", "cross_fitted", "--output", f"on-{ranks}"]
    assert mpirun(ranks, *arguments, cwd=runs).returncode == 0
    starting.same_bits(runs / f"on-{ranks}", starting.decisions(runs / "cross_fitted"))


def test_stopped_in_one_fold_after_the_other_the_bits_are_the_same(small, tmp_path):
    """By signals; continued with other ranks, the last time partly by a job array task."""
    # Long enough for a checkpoint in each fold on a fast machine too.
    long = ["--coarse.decisions", "cross_fitted", "--local.epochs", 40, "--decomposition.grid", 1, 2]
    long += ["--run.checkpoint_seconds", 0.1]
    options = ["--data.file", small, *starting.TRAINING, *long]
    assert mpirun(2, *options, "--output", "whole", cwd=tmp_path).returncode == 0
    seen = set()
    for ranks, fold in ((1, 0), (2, 1)):
        begun = time.time()
        job = starting.start_training(ranks, small, tmp_path, *long)
        while job.poll() is None and max(fits_under_way(tmp_path / "run", begun), default=-1) < fold:
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR2)
        assert job.wait(timeout=120) == 75, (tmp_path / "stderr").read_text()
        seen |= fits_under_way(tmp_path / "run")
    assert max(seen) > 0
    assert mpirun(0, *options, "--output", "run", "--subdomain", 1, cwd=tmp_path).returncode == 0
    assert mpirun(2, *options, "--output", "run", cwd=tmp_path).returncode == 0
    starting.same_bits(tmp_path / "run", starting.decisions(tmp_path / "whole"))


def fits_under_way(directory, since=0.0):
    """Numbers of the trainings that the checkpoints, those made `since` then, were made in."""
    files = [file for file in directory.glob("checkpoints/*.pt") if starting.modified(file) > since]
    states = [starting.state(file) for file in files]
    return {each["fit"] for each in states if each and "fit" in each}


def test_too_few_images_end_the_job_before_training(tmp_path, small):
    with h5py.File(small) as packed:
        labels = packed["train/label"][...]
        keep = np.sort(np.concatenate([np.flatnonzero(labels != 0), np.flatnonzero(labels == 0)[:2]]))
        splits = {
            split: Split(
                labels=packed[f"{split}/label"][...][which],
                ids=packed[f"{split}/id"].asstr()[...][which].tolist(),
                images=packed[f"{split}/image"][...][which],
            )
            for split, which in (("train", keep), ("val", slice(None)), ("test", slice(None)))
        }
    write_packed(
        tmp_path / "few.h5",
        Contents(
            classes=("rows", "columns", "none"),
            splits=splits,
            image_shape=(16, 14),
            channels=1,
            dtype="uint8",
            source="stripes for tests",
        ),
    )
    for ranks in (0, 2):
        completed = mpirun(ranks, "--data.file", "few.h5", *OPTIONS, "--coarse.decisions", "cross_fitted", cwd=tmp_path)
        assert completed.returncode == 2
        assert "--coarse.decisions cross_fitted: class 'rows' has 2 training samples" in completed.stderr
