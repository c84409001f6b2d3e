"""The model that a finished run keeps: whole or absent, verified, and nothing of others destroyed."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ddhpc.cli import main
from ddhpc.data.packed import open_packed
from ddhpc.errors import InputError
from ddhpc.results import verify
from ddhpc.results.model import open_model, training_ids
from ddhpc.results.model_directory import begin_model, foreign_model, take_place, write_network
from tests.jobs.starting import mpirun

OPTIONS = [
    *("--decomposition.grid", 1, 2, "--local.epochs", 1, "--coarse.epochs", 1, "--model.global_width", 4),
    *("--coherent.start", "transfer", "--coherent.epochs", 1, "--run.threads", 1),
]


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    done = mpirun(0, "--data.file", small, *OPTIONS, "--output", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_run_has_its_model(finished):
    assert verify(finished) == []
    assert sorted(path.name for path in finished.iterdir()) == [
        *("checkpoints", "jobs.jsonl", "model", "results.h5", "run.yaml")
    ]
    networks = ["coarse", "subdomain-00000", "subdomain-00001"]
    names = sorted(str(path.relative_to(finished / "model")) for path in (finished / "model").rglob("*.*"))
    files = [f"{folder}{name}.safetensors" for folder in ("", "coherent/") for name in networks]
    assert names == sorted([*files, "model.json"])
    description = json.loads((finished / "model/model.json").read_text())
    assert description["format"] == "ddhpc model"
    assert sorted(description["files"]) == sorted(files)
    with h5py.File(finished / "results.h5") as file:
        digest = hashlib.sha256((finished / "model/model.json").read_bytes()).hexdigest()
        assert file.attrs["model_sha256"] == digest


@pytest.mark.parametrize(("coherent", "group"), [(False, "coarse"), (True, "coherent")])
def test_it_decides_as_the_run_without_its_packed_file(coherent, group, finished, small):
    packed = open_packed(small)
    network = open_model(finished).cnn_dnn(coherent=coherent)
    with torch.inference_mode():
        final = network(torch.from_numpy(packed.read("test", (slice(None), slice(None))))).numpy()
    with h5py.File(finished / "results.h5") as file:
        assert np.allclose(final, file[f"{group}/test/decision"][...], atol=1e-6)


def test_it_tells_what_it_is(finished, small):
    trained, packed = open_model(finished).trained, open_packed(small)
    assert (trained.classes, trained.image_shape, trained.dtype) == (packed.classes, (16, 14), "uint8")
    assert np.array_equal([trained.mean, trained.std], [packed.mean, packed.std]), "to the last digit"
    assert [trained.extent(n) for n in range(2)] == [(16, 9), (16, 9)]
    alone = open_model(finished / "model")
    assert alone.trained == trained


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("subdomain-00001.safetensors", "model/subdomain-00001.safetensors: damaged, its checksum differs"),
        ("coherent/coarse.safetensors", "model/coherent/coarse.safetensors: damaged, its checksum differs"),
        ("model.json", "model/model.json: is not that of the results file, its checksum differs"),
    ],
)
def test_damage_is_named(name, said, run, capsys):
    path = run / "model" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert verify(run) == [said]
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(run)], 0)
    assert left.value.code == 2
    assert said in capsys.readouterr().err
    if name != "model.json":
        with pytest.raises(InputError, match=f"{path}: damaged, its checksum differs"):
            open_model(run).cnn_dnn(coherent="coherent" in name)


def test_what_is_missing_is_named(run):
    (run / "model/coarse.safetensors").unlink()
    assert verify(run) == ["model/coarse.safetensors: No such file or directory"]
    shutil.rmtree(run / "model")
    assert verify(run) == ["model: is missing"]
    with pytest.raises(InputError, match="model: is missing; expected the model of the run"):
        open_model(run)
    assert verify(run / "results.h5") == [], "the results file alone is whole"


def test_ids_of_the_training_are_those_beside_the_model(run, tmp_path, monkeypatch):
    expected = {f"train/{n}" for n in range(96)}
    assert training_ids(open_model(run)) == expected
    monkeypatch.chdir(run / "model")
    assert training_ids(open_model(Path())) == expected
    shutil.copytree(run / "model", tmp_path / "alone/model")
    assert training_ids(open_model(tmp_path / "alone/model")) == frozenset()
    os.truncate(run / "results.h5", 1000)
    assert training_ids(open_model(run / "model")) == frozenset(), "the model is whole"


def test_a_run_of_before_has_none_and_says_so(run):
    with h5py.File(run / "results.h5", "r+") as file:
        del file.attrs["model_sha256"]
    shutil.rmtree(run / "model")
    assert verify(run) == []
    with pytest.raises(InputError, match=f"^{run}: was made before models were kept[^\n]*train it again$"):
        open_model(run)


SPOILED = {
    "no JSON": lambda found: "{",
    "another format": lambda found: found | {"format": "x"},
    "a newer version": lambda found: found | {"format_version": 2},
    "no files": lambda found: found | {"files": {"../../x": "0"}},
    "classes": lambda found: found | {"classes": [1, 2, 3]},
    "one class": lambda found: found | {"classes": ["x"]},
    "channels": lambda found: found | {"channels": 2},
    "dtype": lambda found: found | {"dtype": "object"},
    "grid": lambda found: found | {"decomposition": found["decomposition"] | {"grid": [2, 2]}},
    "huge": lambda found: found | {"image_shape": [10**15, 10**15], "decomposition": {"grid": [10**15, 10**15]}},
    "windows": lambda found: found | {"decomposition": found["decomposition"] | {"lower": [[0, 0], [0, 6]]}},
    "network": lambda found: found | {"subdomains": [{"name": "resnet"}] * 2},
    "coarse": lambda found: found | {"coarse": None},
    "lacking": lambda found: {name: value for name, value in found.items() if name != "mean"},
    "a list": lambda found: [],
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_description_that_is_none_is_refused_in_one_line(kind, run):
    path = run / "model/model.json"
    spoiled = SPOILED[kind](json.loads(path.read_text()))
    path.write_text(spoiled if isinstance(spoiled, str) else json.dumps(spoiled))
    with pytest.raises(InputError, match=f"^{path}: [^\n]*; expected the model of a finished run$"):
        open_model(run / "model")


def test_weights_of_another_network_are_refused(run):
    first, second = (run / f"model/{name}.safetensors" for name in ("subdomain-00000", "coarse"))
    first.write_bytes(second.read_bytes())
    path = run / "model/model.json"
    found = json.loads(path.read_text())
    found["files"][first.name] = found["files"][second.name]
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=f"^{first}: [^\n]*Missing key"):
        open_model(run / "model").local_cnn(0)


def again(small, run, *options):
    return mpirun(0, "--data.file", small, *OPTIONS, *options, "--output", run.name, cwd=run.parent)


def test_killed_between_the_model_and_the_results_the_same_command_finishes(run, small):
    """The model has its name, the results not yet; and half of another one is left."""
    model = (run / "model/subdomain-00001.safetensors").read_bytes()
    with h5py.File(run / "results.h5", "r+") as file:
        decided = file["coarse/test/decision"][...]
    (run / "results.h5").rename(run / "results.h5.part")
    begin_model(run, coherent=True)
    write_network(run, "subdomain-00001.safetensors", {"x": torch.zeros(3)})
    done = again(small, run)
    assert done.returncode == 0, done.stderr
    assert verify(run) == []
    assert not list(run.glob("*.part")) + list(run.glob("*.old"))
    assert (run / "model/subdomain-00001.safetensors").read_bytes() == model
    with h5py.File(run / "results.h5") as file:
        assert np.array_equal(file["coarse/test/decision"][...], decided)


def test_overwrite_replaces_it(run, small):
    before = (run / "model/subdomain-00001.safetensors").read_bytes()
    done = again(small, run, "--overwrite", "--run.seed", 1, "--coherent.start", "none")
    assert done.returncode == 0, done.stderr
    assert verify(run) == []
    assert (run / "model/subdomain-00001.safetensors").read_bytes() != before
    assert not (run / "model/coherent").exists()
    assert not (run / "model.old").exists()


@pytest.mark.parametrize("name", ["model", "model/notes.txt", "model.part/coarse.safetensors", "model.old/model.json"])
def test_names_of_ours_with_content_of_others_are_left_alone(name, small, tmp_path):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    done = mpirun(0, "--data.file", small, *OPTIONS, "--overwrite", "--output", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name} is no part of a model" in done.stderr
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_text() == "mine"


def test_a_model_of_ours_is_known(run):
    assert foreign_model(run) == ""
    (run / "model/.nfs0001").touch()
    assert foreign_model(run) == ""
    (run / "model/mine.safetensors").touch()
    assert foreign_model(run) == "model/mine.safetensors"


def test_the_second_level_solved_again_has_a_whole_model(finished, small, tmp_path):
    done = mpirun(0, "coarse", finished, "--output", "again", "--coarse.inputs", "decisions", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again"
    assert verify(again) == []
    model = open_model(again)
    assert (model.trained.features, model.trained.coherent) == (0, False)
    assert sorted(path.name for path in (again / "model").iterdir()) == [
        *("coarse.safetensors", "model.json", "subdomain-00000.safetensors", "subdomain-00001.safetensors")
    ]
    packed = open_packed(small)
    with torch.inference_mode():
        final = model.cnn_dnn()(torch.from_numpy(packed.read("test", (slice(None), slice(None))))).numpy()
    with h5py.File(again / "results.h5") as file:
        assert np.allclose(final, file["coarse/test/decision"][...], atol=1e-6)


def test_of_a_run_without_a_model_it_has_none(run, tmp_path):
    shutil.rmtree(run / "model")
    done = mpirun(0, "coarse", run, "--output", "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "again") == []
    assert not (tmp_path / "again/model").exists()


def test_the_renaming_is_of_a_whole_directory(tmp_path):
    begin_model(tmp_path, coherent=False)
    take_place(tmp_path)
    begin_model(tmp_path, coherent=False)
    take_place(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old"]


def test_a_description_of_before_lacks_temperatures_balance_and_class_weights(run):
    path = run / "model/model.json"
    description = json.loads(path.read_text())
    for name in ("temperature", "coherent_temperature"):
        del description[name]
    del description["decomposition"]["balance"]
    for name in ("class_weight", "sampling"):
        del description["coarse"][name]
    path.write_text(json.dumps(description))
    trained = open_model(run / "model").trained
    assert (trained.temperature, trained.balance, trained.coarse.class_weight) == (None, "blocks", "none")


@pytest.mark.parametrize("temperature", [0, -1.5, float("inf"), float("nan"), "1"])
def test_a_temperature_that_is_none_is_refused(temperature, run):
    path = run / "model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": temperature}))
    with pytest.raises(InputError, match="expected the model of a finished run"):
        open_model(run / "model")
