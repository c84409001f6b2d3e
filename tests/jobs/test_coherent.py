"""The coherent CNN-DNN in whole jobs; its gradients are tested in tests/mpi."""

import os
import re
import shutil
import signal
import time

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from ddhpc.config import Config
from ddhpc.data.packed import SPLITS
from ddhpc.method.problem import open_problem
from ddhpc.method.training import learning_rate
from ddhpc.method.windows import channels_last
from ddhpc.models.dnn import Dnn
from ddhpc.results import checkpoint, verify
from ddhpc.solver.coherent import settings
from tests.jobs.starting import decisions, mpirun, ranks_of, start_training, state
from tests.jobs.test_train import FAULTY

OPTIONS = [
    *("--decomposition.grid", 2, 2, "--local.epochs", 2, "--local.batch_size", 16, "--model.global_width", 8),
    *("--coarse.epochs", 5, "--run.threads", 1, "--coherent.epochs", 3),
]
LONG = ["--local.epochs", 2, "--coherent.start", "scratch", "--coherent.epochs", 20, "--run.checkpoint_seconds", 0.2]


def run(ranks, file, cwd, *arguments, output):
    """A finished run's directory."""
    completed = mpirun(ranks, "--data.file", file, *OPTIONS, *arguments, "--output", output, cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    assert verify(cwd / output) == []
    return cwd / output


def outcome(directory):
    """What the results file holds of the CNN-DNN, but for the time."""
    with h5py.File(directory / "results.h5") as file:
        names = [f"{split}/decision" for split in SPLITS]
        return {name: file[f"coherent/{name}"][...] for name in [*names, "history/loss", "history/accuracy"]}


def same(found, expected):
    for name, values in expected.items():
        assert np.array_equal(values, found[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(("start", "ranks"), [("scratch", 3), ("transfer", 2)])
def test_any_number_of_ranks_gives_the_same_bits(start, ranks, small, tmp_path):
    arguments = ["--local.shift", 1, "--local.flip", "true", "--coherent.start", start]
    first = run(0, small, tmp_path, *arguments, output="run-0")
    same(outcome(run(ranks, small, tmp_path, *arguments, output="others")), outcome(first))
    plain = run(0, small, tmp_path, *arguments[:-2], output="plain")
    same(decisions(first), decisions(plain))
    compared = mpirun(0, "inspect", "run-0", "plain", cwd=tmp_path)
    assert "coherent" in compared.stdout
    with h5py.File(first / "results.h5") as file:
        loss = file["coherent/history/loss"][...]
        assert len(loss) == 3
        assert loss[-1] < loss[0]
        assert file["timing"].attrs["coherent"] > file["coherent/history/seconds"][...].sum() > 0


@pytest.mark.slow
def test_the_whole_training_is_that_of_one_module_with_one_optimizer(small, tmp_path):
    """Without augmentation and dropout, written out once more with nothing spread."""
    directory = run(3, small, tmp_path, "--coherent.start", "scratch", "--coarse.dropout", 0, output="run")
    with h5py.File(directory / "results.h5") as file:
        problem = open_problem(Config.from_yaml(file.attrs["config"]))
    packed, config = problem.packed, problem.config
    torch.set_num_threads(1)
    cnns = nn.ModuleList(problem.local_cnn(n).to(memory_format=channels_last(4)) for n in range(4))
    problem.seed(4)
    whole = nn.ModuleList([*cnns, Dnn(4, 3, problem.features, config.coarse.hidden, 0.0)])
    optimizer = torch.optim.SGD(whole.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    windows = {
        split: [
            torch.from_numpy((packed.read(split, window) - packed.mean[0]) / packed.std[0]).float()
            for window in problem.decomposition
        ]
        for split in ("train", "test")
    }

    def final(split, batch):
        local = []
        for cnn, each in zip(cnns, windows[split], strict=True):
            features = cnn[:-1](each[batch])
            local += [cnn[-1](features).softmax(1), features]
        return whole[-1](torch.cat(local, 1))

    labels = torch.from_numpy(packed.labels["train"])
    losses = []
    for epoch in range(3):
        problem.seed(4, epoch)
        for batch in torch.randperm(96).split(16):
            optimizer.param_groups[0]["lr"] = learning_rate(settings(config), len(losses), 3 * 6)
            loss = nn.functional.cross_entropy(final("train", batch), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    found = outcome(directory)
    assert np.allclose(np.array(losses).reshape(3, 6).mean(1), found["history/loss"], rtol=1e-3)
    whole.eval()
    with torch.inference_mode():
        assert np.allclose(final("test", slice(None)).softmax(1), found["test/decision"], atol=0.01)


@pytest.mark.slow
def test_transfer_starts_from_what_the_sequential_training_gave(small, tmp_path):
    """At a rate of next to nothing it keeps the final decisions, but for batch statistics that go on moving."""
    arguments = ["--local.epochs", 12, "--coarse.epochs", 80, "--coherent.start", "transfer"]
    directory = run(2, small, tmp_path, *arguments, "--coherent.learning_rate", 1e-12, output="run")
    found = outcome(directory)["val/decision"]
    sequential = decisions(directory)["coarse/val/decision"]
    assert np.abs(found - sequential).mean() < 0.05
    assert (found.argmax(1) == sequential.argmax(1)).mean() > 0.9


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """Outcome of a run that nothing happened to, on the options of tests/jobs.py."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    job = start_training(2, small, cwd, *LONG)
    assert job.wait(timeout=300) == 0, (cwd / "stderr").read_text()
    return outcome(cwd / "run")


def under_way(small, cwd, ranks, before=0):
    """A job that trains the CNN-DNN and has kept every network after more than `before` steps."""
    job = start_training(ranks, small, cwd, *LONG)
    while job.poll() is None and steps(cwd)[0] <= before:
        time.sleep(0.1)
    return job


def steps(cwd):
    """Lowest and highest number of steps after which the networks were kept last."""
    states = [state(kept(cwd, number)) for number in range(7)]
    done = [each["tally"]["done"] if each else 0 for each in states]
    return min(done), max(done)


def kept(cwd, number):
    return checkpoint.path(cwd / "run", number, "coherent")


@pytest.mark.slow
@pytest.mark.parametrize("to_one", [False, True])
def test_a_stopped_job_continues_with_other_ranks(to_one, small, tmp_path, undisturbed):
    job = under_way(small, tmp_path, 3)
    pids = ranks_of(job)
    for pid in pids[-1:] if to_one else pids:
        os.kill(pid, signal.SIGUSR2)
    assert job.wait(timeout=60) == 75, (tmp_path / "stderr").read_text()
    errors = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("ddhpc: ")]
    assert len(errors) == 1
    assert "checkpoints are made, continue with the same command, --output run" in errors[0]
    lowest, highest = steps(tmp_path)
    assert 0 < lowest == highest
    assert start_training(2, small, tmp_path, *LONG).wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    same(outcome(tmp_path / "run"), undisturbed)


@pytest.mark.slow
def test_killed_again_and_again_the_bits_are_the_same(small, tmp_path, undisturbed):
    before = 0
    for ranks in (2, 3):
        job = under_way(small, tmp_path, ranks, before)
        os.kill(ranks_of(job)[0], signal.SIGKILL)
        assert job.wait(timeout=60) not in (0, 75)
        before = steps(tmp_path)[1]
    assert start_training(1, small, tmp_path, *LONG).wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    same(outcome(tmp_path / "run"), undisturbed)


@pytest.fixture(scope="module")
def stopped(small, tmp_path_factory):
    """Where a job was stopped that had kept every network twice."""
    cwd = tmp_path_factory.mktemp("stopped")
    job = under_way(small, cwd, 3)
    first = steps(cwd)[1]
    while job.poll() is None and steps(cwd)[0] <= first:
        time.sleep(0.1)
    os.kill(ranks_of(job)[0], signal.SIGUSR2)
    assert job.wait(timeout=60) == 75
    return cwd


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["one behind", "one without", "one damaged"])
def test_networks_of_different_steps_are_brought_together(fault, small, stopped, tmp_path, undisturbed):
    """As after a kill between the checkpoints of two networks, or with a file that is lost."""
    shutil.copytree(stopped / "run", tmp_path / "run")
    file = kept(tmp_path, 4)
    if fault == "one behind":
        checkpoint.step_back(file)
        assert steps(tmp_path)[0] < steps(tmp_path)[1]
    elif fault == "one damaged":
        os.truncate(file, 1000)
    else:
        for each in file.parent.glob(f"{file.stem}.*"):
            each.unlink()
    assert start_training(2, small, tmp_path, *LONG).wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
    assert ("damaged, its checksum differs" in (tmp_path / "stderr").read_text()) == (fault == "one damaged")
    same(outcome(tmp_path / "run"), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raise RuntimeError('the GPU fell off')", "os.kill(os.getpid(), 9)"])
def test_a_rank_that_fails_ends_the_job(fault, small, tmp_path):
    """The fault comes after the 12 steps of the local training and the outputs for all blocks of three splits."""
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault=fault).replace("self.steps > 3", "self.steps > 60"))
    arguments = ["--data.file", small, *OPTIONS, "--coherent.start", "scratch", "--model.name", "faulty:faulty"]
    started = time.monotonic()
    completed = mpirun(4, *arguments, "--coherent.epochs", 500, "--output", "run", cwd=tmp_path, timeout=90)
    assert time.monotonic() - started < 60
    assert completed.returncode not in (0, 2, 75)
    assert len(list((tmp_path / "run/checkpoints").glob("*.pt"))) == 4
    assert not (tmp_path / "run/results.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coarse.allow_missing", 1], "--coherent.start scratch: expected --coarse.allow_missing 0 with it"),
        (["--decomposition.grid", 1, 1], "--coherent.start scratch: expected a grid of more than one subdomain"),
        (["--coherent.learning_rate", 1e9], "--coherent.learning_rate .*: the loss is not finite after epoch 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message, small, tmp_path):
    ranks = 1 if "--decomposition.grid" in arguments else 2
    completed = mpirun(
        ranks, "--data.file", small, *OPTIONS, "--coherent.start", "scratch", *arguments, cwd=tmp_path, timeout=90
    )
    assert completed.returncode == 2
    lines = [line for line in completed.stderr.splitlines() if line.startswith("ddhpc: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
