"""The second level with local features, and solved again."""

import re

import h5py
import numpy as np
import pytest
import torch

from ddhpc.config import Config
from ddhpc.method.problem import open_problem
from ddhpc.results import stored_outputs, verify
from tests.jobs.starting import decisions, mpirun, state

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.grid", 2, 2, "--local.epochs", 6, "--local.batch_size", 16, "--model.global_width", 8),
    *("--coarse.epochs", 30, "--run.threads", 1),
]


@pytest.fixture(scope="module")
def cwd(small, tmp_path_factory):
    """Runs with and without features, of the same local CNNs."""
    cwd = tmp_path_factory.mktemp("second")
    for name, inputs in (("both", "auto"), ("alone", "decisions")):
        options = ["--data.file", small, *OPTIONS, "--coarse.inputs", inputs, "--output", name]
        completed = mpirun(2, *options, cwd=cwd)
        assert completed.returncode == 0, completed.stderr
        assert verify(cwd / name) == []
    return cwd


def test_the_features_are_those_of_the_local_cnns(cwd):
    """Written out once more: the checkpoint's network without its last layer."""
    with h5py.File(cwd / "both/results.h5") as file:
        problem = open_problem(Config.from_yaml(file.attrs["config"]))
        found, decided = file["local/test/feature"][2], file["local/test/decision"][2]
        assert file.attrs["format_version"] == 2
    assert problem.features == found.shape[1] == 16
    cnn = problem.local_cnn(2)
    cnn.load_state_dict(state(cwd / "both/checkpoints/00002.pt")["cnn"])
    cnn.eval()
    pixels = problem.packed.read("test", problem.window(2)).astype(np.float64)
    normal = (pixels - problem.packed.mean[0]) / problem.packed.std[0]
    with torch.inference_mode():
        features = cnn[:-1](torch.from_numpy(normal).float())
        assert np.allclose(features, found, atol=1e-4)
        assert np.allclose(cnn[-1](features).softmax(1), decided, atol=1e-4)


def test_without_features_the_local_decisions_are_the_same(cwd):
    both, alone = decisions(cwd / "both"), decisions(cwd / "alone")
    for name, values in alone.items():
        if name.startswith("local"):
            assert np.array_equal(values, both[name])
    with h5py.File(cwd / "alone/results.h5") as file:
        assert "feature" not in file["local/test"]
        assert file.attrs["format_version"] == 1


def test_a_damaged_feature_is_found(cwd, tmp_path):
    copy = tmp_path / "results.h5"
    copy.write_bytes((cwd / "both/results.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        file["local/val/feature"][3, 2, 1] += 1
    assert verify(copy) == ["/local/val/feature of subdomain 3: differs from its checksum"]


@pytest.mark.parametrize(("name", "ranks"), [("both", 0), ("alone", 3)])
def test_solved_again_with_the_same_options_it_has_the_same_bits(name, ranks, cwd, tmp_path):
    """By one process, should it have been started on several ranks."""
    again = mpirun(ranks, "coarse", cwd / name, "--output", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert verify(tmp_path / "again") == []
    expected, found = decisions(cwd / name), decisions(tmp_path / "again")
    for each, values in expected.items():
        assert np.array_equal(values, found[each]), each
    assert again.stdout.count("Accuracy of the final decision") == 1


def test_solved_again_with_other_options_both_can_be_compared(cwd, tmp_path):
    options = ["--coarse.inputs", "decisions", "--coarse.epochs", 40, "--coarse.hidden", 32, 16, "--output", "other"]
    again = mpirun(0, "coarse", cwd / "both", *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    with h5py.File(tmp_path / "other/results.h5") as file, h5py.File(cwd / "both/results.h5") as before:
        config = Config.from_yaml(file.attrs["config"])
        assert (config.coarse.epochs, config.coarse.hidden, config.local.epochs) == (40, (32, 16), 6)
        assert file["coarse/history/loss"].shape == (40,)
        assert stored_outputs(file)["test"].shape[2] == 3
        assert np.array_equal(file["local/seconds"][...], before["local/seconds"][...])
        assert np.isnan(file["timing"].attrs["total"])
    compared = mpirun(0, "inspect", cwd / "both", "other", cwd=tmp_path)
    assert "They also differ in coarse.inputs, coarse.epochs, coarse.hidden" in " ".join(compared.stdout.split())
    with h5py.File(tmp_path / "other/results.h5", "r+") as file:
        file.attrs["second_level_code"] = "9.9.9 abc"
    compared = mpirun(0, "inspect", cwd / "both", "other", cwd=tmp_path)
    assert ", second level 9.9.9 abc: other" in " ".join(compared.stdout.split())
    page = mpirun(0, "report", "other", cwd=tmp_path)
    assert page.returncode == 0, page.stderr


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("alone", ["--coarse.inputs", "both"], "--coarse.inputs both: .*alone holds local decisions alone"),
        ("both", ["--coarse.decisions", "held_out"], "--coarse.decisions held_out: the local CNNs of .* in_sample"),
        ("both", ["--coarse.epochs", 0], "--coarse.epochs 0: expected auto or at least 1"),
        ("nowhere", [], "nowhere: expected a run directory"),
    ],
)
def test_what_cannot_be_solved_again(run, options, message, cwd, tmp_path):
    refused = mpirun(0, "coarse", cwd / run, *options, "--output", "x", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert re.search(message, refused.stderr)
    assert not (tmp_path / "x/results.h5").exists()


def test_a_run_of_a_gpu_is_solved_again_without_one(cwd, tmp_path):
    (tmp_path / "run").mkdir()
    copy = tmp_path / "run/results.h5"
    copy.write_bytes((cwd / "alone/results.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        file.attrs["config"] = file.attrs["config"].replace("device: auto", "device: cuda")
    again = mpirun(0, "coarse", "run", "--output", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_a_damaged_run_is_not_solved_again(cwd, tmp_path):
    """Its checksums would be made anew."""
    copy = tmp_path / "run/results.h5"
    copy.parent.mkdir()
    copy.write_bytes((cwd / "both/results.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        file["local/train/decision"][1, 5] = [1, 0, 0]
    refused = mpirun(0, "coarse", "run", "--output", "x", cwd=tmp_path)
    assert refused.returncode == 2
    assert "run: damaged: /local/train/decision of subdomain 1: differs from its checksum" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_solved_again_from_a_mapped_file_it_has_the_same_bits(cwd, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = ["--coarse.memory_limit", 0, "--output"]
    assert mpirun(0, "coarse", cwd / "both", *options, "again", cwd=tmp_path).returncode == 0
    expected, found = decisions(cwd / "both"), decisions(tmp_path / "again")
    for each, values in expected.items():
        assert np.array_equal(values, found[each]), each


def test_a_network_without_a_last_dense_layer_gives_decisions_alone(small, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def convolutional(*, channels, classes, dimensions, width, depth):\n"
        "    return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    options = ["--data.file", small, *OPTIONS, "--model.name", "net:convolutional"]
    assert mpirun(0, *options, "--output", "run", cwd=tmp_path).returncode == 0
    with h5py.File(tmp_path / "run/results.h5") as file:
        assert "feature" not in file["local/test"]
    refused = mpirun(0, *options, "--coarse.inputs", "both", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--coarse.inputs both: net:convolutional does not end in a dense layer" in refused.stderr
