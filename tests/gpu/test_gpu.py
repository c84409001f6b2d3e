"""Whole jobs on a GPU: pinning, precision, streaming, ranks that share one, stop and continue, teams."""

import signal
import time

import h5py
import numpy as np
import pytest
import torch

from ddhpc.results import verify
from tests.jobs.starting import mpirun, start

GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(GPUS == 0, reason="no GPU is visible: torch.cuda.device_count() is 0"),
]
OPTIONS = ["--decomposition.grid", 2, 2, "--local.epochs", 3, "--coarse.epochs", 20, "--run.threads", 1]
MARGIN = 0.03
"""Accuracy on 1,000 + 1,500 images has a standard error of 0.8 points here; trainings differ in rounding and more."""


def results(run):
    """Accuracy of each fusion on val and test, and what is known of the subdomains."""
    assert verify(run) == []
    with h5py.File(run / "results.h5") as file:
        accuracy = {
            (fusion, split): float(file[f"fusion/{fusion}"].attrs[split])
            for fusion in file["fusion"]
            if fusion != "absent"
            for split in ("val", "test")
        }
        local = {name: file[f"local/{name}"][...] for name in ("rank", "device", "peak_memory_bytes")}
        decisions = {name: file[f"{name}/decision"][...] for name in ("local/test", "coarse/test")}
    return accuracy, local, decisions


def train(cwd, name, *arguments, ranks=2):
    job = mpirun(ranks, *OPTIONS, *arguments, "--output", name, cwd=cwd)
    assert job.returncode == 0, job.stderr
    return results(cwd / name)


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def on_cpu(cwd):
    return train(cwd, "cpu", "--run.device", "cpu")[0]


@pytest.fixture(scope="module")
def on_gpu(cwd):
    return train(cwd, "gpu", "--local.precision", "float32")


def test_ranks_are_pinned(on_gpu):
    _, local, _ = on_gpu
    assert list(local["rank"]) == [0, 0, 1, 1]
    names = [torch.cuda.get_device_name(rank % GPUS) for rank in local["rank"]]
    assert [device.decode() for device in local["device"]] == names
    assert (local["peak_memory_bytes"] < 2**30).all(), "of the GPU, where two windows' training takes some MB"


def same_accuracy(found, expected):
    assert found.keys() == expected.keys()
    for name, accuracy in expected.items():
        assert found[name] == pytest.approx(accuracy, abs=MARGIN), name


def test_accuracy_is_that_of_the_cpu(on_gpu, on_cpu):
    same_accuracy(on_gpu[0], on_cpu)


def test_bfloat16(cwd, on_cpu):
    same_accuracy(train(cwd, "bfloat16", "--local.precision", "bfloat16")[0], on_cpu)


def test_streamed_through_pinned_memory(cwd, on_gpu):
    accuracy, local, _ = train(cwd, "streamed", "--local.precision", "float32", "--data.memory_limit", 0)
    same_accuracy(accuracy, on_gpu[0])
    assert (local["peak_memory_bytes"] < on_gpu[1]["peak_memory_bytes"]).all()


def test_cross_fitted_and_coherent(cwd, on_cpu):
    options = ["--coarse.decisions", "cross_fitted", "--coherent.start", "transfer", "--coherent.epochs", 1]
    accuracy, _, _ = train(cwd, "both", *options)
    assert accuracy["coherent", "test"] > on_cpu["mean", "test"] - MARGIN
    assert accuracy["dnn", "test"] > on_cpu["mean", "test"] - MARGIN


def test_stopped_and_continued(cwd, on_gpu):
    options = [*OPTIONS, "--local.precision", "float32", "--run.checkpoint_seconds", 0.5, "--output", "stopped"]
    job = start(2, *options, cwd=cwd)
    while job.poll() is None and not list((cwd / "stopped").glob("checkpoints/*.pt")):
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(timeout=120) == 75, (cwd / "stderr").read_text()
    accuracy, _, _ = train(cwd, "stopped", "--local.precision", "float32")
    same_accuracy(accuracy, on_gpu[0])


def test_team_of_two(cwd):
    """Data-parallel, by NCCL where each rank has a GPU and by gloo where they share one."""
    options = ["--decomposition.grid", 1, 1, "--model.global_width", 8, "--local.precision", "float32"]
    alone = train(cwd, "alone", *options, ranks=1)
    team = train(cwd, "team", *options, ranks=2)
    same_accuracy(team[0], alone[0])


def test_decisions_are_probabilities(on_gpu):
    for decisions in on_gpu[2].values():
        assert np.allclose(decisions.sum(-1), 1, atol=1e-5)
