"""One network in one file: the probabilities of the model, without ddhpc, whole or absent."""

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ddhpc
from ddhpc.cli import main
from ddhpc.errors import InputError
from tests.conftest import pack_small

SMALL_TRAINING = {
    **{"model.global_width": 8, "local.epochs": 1, "local.batch_size": 16, "coarse.epochs": 1},
    **{"run.report": False, "run.threads": 1},
}
APART = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("m.onnx")
about = session.get_modelmeta().custom_metadata_map
found = session.run(None, {"images": np.load("images.npy")})[0]
np.save("found.npy", found)
assert "ddhpc" not in sys.modules and "torch" not in sys.modules
print(json.dumps(about))
"""


def refused(capsys, *arguments):
    """The line of a command that ends with code 2."""
    with pytest.raises(SystemExit) as left:
        main(["export", *map(str, arguments)], 0)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def images_of(file, split="test"):
    return ddhpc.open_packed(file).read(split, (slice(None), slice(None)))


@pytest.fixture
def run(finished, monkeypatch):
    """The finished run, with its packed file in reach."""
    monkeypatch.chdir(finished.parents[1])
    return ddhpc.open_run(finished)


def test_onnx_gives_the_probabilities_of_the_run_without_ddhpc(run, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    main(["export", str(run.path), "--output", str(path)], 0)
    assert f"{path}: " in (said := capsys.readouterr().out)
    assert "on 30 val images no probability differs by more than" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx"], "the weights are in it"
    np.save(tmp_path / "images.npy", images_of("small.h5"))
    done = subprocess.run([sys.executable, "-c", APART], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert np.allclose(np.load(tmp_path / "found.npy"), run.decisions("test"), rtol=0, atol=1e-5)
    about = json.loads(done.stdout)
    assert json.loads(about["classes"]) == list(run.classes)
    assert (about["channels"], json.loads(about["image_shape"]), about["dtype"]) == ("1", [16, 14], "uint8")
    assert about["ddhpc_version"] == ddhpc.__version__


def test_pt2_gives_them_with_torch_alone(run, tmp_path, capsys):
    path = tmp_path / "m.pt2"
    main(["export", str(run.path), "--output", str(path)], 0)
    about = dict.fromkeys(("ddhpc_classes", "ddhpc_version"), "")
    network = torch.export.load(path, extra_files=about).module()
    for count in (1, 7):
        found = network(torch.from_numpy(images_of("small.h5")[:count])).detach().numpy()
        assert np.allclose(found, run.decisions("test")[:count], rtol=0, atol=1e-5)
    assert json.loads(about["ddhpc_classes"]) == list(run.classes)
    assert "val images" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_volumes_a_coarse_image_and_the_coherent_networks(suffix, tmp_path, capsys):
    file = pack_small(tmp_path / "x.h5", (20, 17, 15), "int16")
    options = {
        **SMALL_TRAINING,
        **{"data.file": str(file), "decomposition.grid": [2, 1, 2], "decomposition.coarse_image": True},
        **{"coherent.start": "transfer", "coherent.epochs": 1},
    }
    run = ddhpc.train(ddhpc.Config.from_recipe("volumes", options), tmp_path / "run")
    packed = ddhpc.open_packed(file)
    images = packed.read("val", tuple(slice(None) for _ in range(3)))
    for fusion in ("dnn", "coherent"):
        out = tmp_path / f"{fusion}.{suffix}"
        main(["export", str(run.path), "--output", str(out), *(["--coherent"] if fusion == "coherent" else [])], 0)
        if suffix == "onnx":
            import onnxruntime

            found = onnxruntime.InferenceSession(out).run(None, {"images": images})[0]
        else:
            found = torch.export.load(out).module()(torch.from_numpy(images)).detach().numpy()
        assert np.allclose(found, run.decisions("val", fusion), rtol=0, atol=1e-5)


def test_without_the_packed_file_random_images_compare(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["export", str(finished / "model"), "--output", "m.pt2"], 0)
    assert "on 64 random images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.h5", "--output m.h5: expected a name that ends in .onnx or .pt2"),
        ("nix/m.onnx", "--output nix/m.onnx: there is no directory nix; create it first"),
        ("there.pt2", "--output there.pt2: exists; choose another name, or --overwrite to replace it"),
    ],
)
def test_no_other_file_is_touched(name, said, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.pt2").write_text("mine")
    assert refused(capsys, finished, "--output", name) == f"ddhpc: {said}"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("there.pt2", "mine")]


def test_a_file_that_is_no_regular_one_is_never_replaced(finished, tmp_path, capsys):
    os.mkfifo(tmp_path / "m.pt2")
    line = refused(capsys, finished, "--output", tmp_path / "m.pt2", "--overwrite")
    assert line.endswith("m.pt2: is no regular file; expected the name of a file")
    assert stat.S_ISFIFO(os.lstat(tmp_path / "m.pt2").st_mode)


def test_coherent_networks_are_wanted_where_there_are_none(finished, tmp_path, capsys):
    line = refused(capsys, finished, "--output", tmp_path / "m.pt2", "--coherent")
    assert line.startswith("ddhpc: --coherent: the run has not trained the coherent CNN-DNN")


OWN = """
from torch import nn


class Deciding(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.dense = nn.LazyLinear(classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.dense(x if x.sum() > 0 else -x)


def deciding(*, channels, classes, dimensions, width, depth):
    return Deciding(classes)
"""


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_network_that_cannot_be_exported_is_refused_with_the_reason(suffix, small, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_deciding.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    options = {**SMALL_TRAINING, "data.file": str(small), "decomposition.grid": [1, 2]}
    options["model.name"] = "own_deciding:deciding"
    run = ddhpc.train(ddhpc.Config.from_recipe("fashion_mnist", options), tmp_path / "run")
    out = tmp_path / "out"
    out.mkdir()
    capsys.readouterr()
    line = refused(capsys, run.path, "--output", out / f"m.{suffix}")
    assert line.startswith(f"ddhpc: --output {out}/m.{suffix}: the network of this run cannot be exported: ")
    assert "data-dependent" in line
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_disk_that_takes_no_more_leaves_no_file(suffix, finished, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        line = refused(capsys, finished, "--output", tmp_path / f"m.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert line.endswith("cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed_is_named_with_what_brings_it(finished, tmp_path):
    code = (
        "import sys; sys.modules['onnxscript'] = None; sys.argv = ['ddhpc', 'export', "
        f"{str(finished)!r}, '--output', 'm.onnx']; from ddhpc.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("ddhpc: --output m.onnx: needs onnx, onnxscript, onnxruntime (")
    assert line.endswith("pip install 'ddhpc[export]'")
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_other_probabilities_is_refused(finished, tmp_path, monkeypatch):
    from ddhpc.export import Pt2, export
    from ddhpc.results.model import open_model

    class Wrong(Pt2):
        def outputs(self, part, batches):
            return [each + 0.001 for each in super().outputs(part, batches)]

    with pytest.raises(InputError, match=r"m.pt2: the exported network differs by 1.0e-03 from the model on 64 random"):
        export(open_model(finished), Wrong(tmp_path / "m.pt2"), "nix.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_refused(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    data = bytearray((run / "model/coarse.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "model/coarse.safetensors").write_bytes(data)
    assert "model/coarse.safetensors: damaged" in refused(capsys, run, "--output", tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()
