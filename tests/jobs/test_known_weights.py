"""Runs that start from known weights: the same start everywhere, said once, part of what the run is."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ddhpc
from ddhpc.cli.study import read_study, run_study
from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method.problem import open_problem
from ddhpc.results import differences, fingerprint, identity, identity_of
from ddhpc.tables.comparison import mixed, row
from tests.jobs.starting import mpirun
from tests.jobs.test_bad_input import refused

OPTIONS = {
    **{"decomposition.grid": (2, 2), "model.global_width": 8, "run.threads": 1, "run.report": False},
    **{"local.epochs": 1, "local.batch_size": 16, "coarse.epochs": 2, "run.seed": 5},
}


@pytest.fixture
def known(finished, tmp_path):
    """Weights of a local CNN that ddhpc has trained."""
    shutil.copy(finished / "model/subdomain-00000.safetensors", tmp_path / "known.safetensors")
    return tmp_path / "known.safetensors"


def config(small, known, **more):
    return Config.from_recipe("faces", {**OPTIONS, "data.file": str(small), "model.weights": str(known), **more})


def test_each_local_cnn_and_that_of_the_coarse_image_start_alike(small, known):
    problem = open_problem(config(small, known, **{"decomposition.coarse_image": True}))
    expected = load_file(known)
    weight, bias = "10.weight", "10.bias"
    count = len(expected)
    assert problem.known_line == (
        f"known weights: {count - 2} of {count} tensors of known.safetensors; left out: {weight}, {bias} (classifier)"
    )
    cnns = [problem.local_cnn(n).state_dict() for n in range(5)]
    for name, value in expected.items():
        same = [torch.equal(value, cnn[name]) for cnn in cnns]
        assert same == [name not in (weight, bias)] * 5 or name == bias, name
    assert not torch.equal(cnns[0][weight], cnns[1][weight])
    drawn = open_problem(Config.from_recipe("faces", {**OPTIONS, "data.file": str(small)}))
    assert drawn.known_line == ""
    assert torch.equal(drawn.local_cnn(3).state_dict()[weight], cnns[3][weight])


def test_a_coarse_image_of_another_width_cannot_start_so(small, known):
    wider = {"decomposition.coarse_image": True, "model.coarse_width": 6}
    with pytest.raises(InputError, match="fit; expected .* 0.weight of 6x1x3x3; found 0.weight of 4x1x3x3"):
        open_problem(config(small, known, **wider))


def test_a_run_is_that_of_its_weights_wherever_they_lie(small, known, tmp_path):
    directory = tmp_path / "first"
    ddhpc.train(config(small, known), str(directory))
    with h5py.File(directory / "results.h5") as file:
        found = identity_of(file)
        digest = str(file.attrs["weights_digest"])
    problem = open_problem(config(small, known))
    assert digest == problem.weights_digest
    wanted = identity(problem.config, problem.packed.digest, digest)
    moved = {**wanted, "model": {**wanted["model"], "weights": "elsewhere"}}
    assert differences(found, moved) == []
    assert fingerprint(found) == fingerprint(moved)
    without = identity(problem.config, problem.packed.digest)
    assert differences(without, wanted) == [f"weights_digest was None and is now {digest[:12]}"]
    assert fingerprint(without) != fingerprint(wanted)

    first = row(directory)
    known.rename(tmp_path / "away")  # the model does not need it
    images = np.zeros((1, 1, 16, 14), np.float32)
    assert ddhpc.open_run(directory).model()(torch.from_numpy(images)).shape == (1, 3)
    away = config(small, tmp_path / "away")
    ddhpc.train(away, str(tmp_path / "second"))
    second = row(tmp_path / "second")
    assert (first.settings, first.dnn) == (second.settings, second.dnn)
    state = load_file(tmp_path / "away")
    save_file({**state, "0.weight": state["0.weight"] * 2}, known)
    ddhpc.train(config(small, known), str(tmp_path / "third"))
    assert "They also differ in model.weights" in mixed([first, row(tmp_path / "third")])

    study = tmp_path / "study.yaml"
    given = {**OPTIONS, "data.file": str(small), "model.weights": str(known)}
    study.write_text(json.dumps({"recipe": "faces", "options": given, "vary": {"local.epochs": [1]}}))
    (training,) = read_study(study, tmp_path / "study")
    shutil.move(directory, training.directory)
    with pytest.raises(InputError, match=f"is another run: weights_digest was {digest[:12]} and is now "):
        run_study(str(study), str(tmp_path / "study"), 1, "", list_only=True)


@pytest.mark.slow
def test_weights_of_another_network_end_all_ranks_with_one_line(small, tmp_path):
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "other.pth")
    arguments = ("--data.file", small, "--model.weights", "other.pth", "--output", "run")
    expected = "other.pth: 0 of the .* fit; expected .* 0.weight of 8x1x3x3; found conv1.weight"
    refused(mpirun(2, *arguments, cwd=tmp_path), expected)
    assert not (tmp_path / "run").exists()
