"""Known weights: what a network takes of a file, how, and what it says of it."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from ddhpc.errors import InputError
from ddhpc.method.windows import channels_last
from ddhpc.models import build
from ddhpc.models.features import classifier_name, with_features
from ddhpc.models.known_weights import read_weights, with_channels

COLOUR = (2, 3, 32, 32)
NAME = "shufflenet_v2_x0_5"


def resnet(channels=3, classes=3, width=4, window=(12, 10)):
    return build("resnet", channels=channels, classes=classes, window=window, width=width)


def stirred(network):
    """With statistics and biases that no new network has."""
    generator = torch.Generator().manual_seed(7)
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif name.endswith("num_batches_tracked"):
            value.fill_(9)
    return network


def start(network, path, shape):
    """Start a network from a file, and return what is said of it."""
    fitting = read_weights(str(path)).fit(network, shape)
    network.load_state_dict(fitting.taken, strict=False)
    return fitting.said


@pytest.fixture(scope="module")
def colour():
    """A network of torchvision as it may be downloaded."""
    return stirred(models.get_model(NAME, weights=None, num_classes=7))


@pytest.fixture(scope="module")
def downloaded(colour, tmp_path_factory):
    file = tmp_path_factory.mktemp("known") / "shuffle.pth"
    torch.save(colour.state_dict(), file)
    return file


def features(network, x):
    with torch.no_grad():
        return with_features(network.eval(), x)[1]


@pytest.mark.parametrize("classes", [5, 7])
def test_all_but_the_classifier_is_taken(classes, colour, downloaded):
    network = build(NAME, channels=3, classes=classes, window=(32, 32), width=1)
    drawn, known = network.fc.weight.clone(), colour.state_dict()
    said = start(network, downloaded, COLOUR)
    for name, value in network.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, known[name]), name
    assert torch.equal(network.fc.weight, drawn)
    count = len(known)
    assert said == f"{count - 2} of {count} tensors of shuffle.pth; left out: fc.weight, fc.bias (classifier)"


def test_a_colour_network_given_grey_images_takes_it_as_it_is(colour, downloaded):
    network = build(NAME, channels=1, classes=5, window=(32, 32), width=1)
    assert "adapted" not in start(network, downloaded, (2, 1, 32, 32))
    grey = torch.rand(2, 1, 32, 32)
    assert torch.equal(features(network, grey), features(colour, grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("wrap", ["DataParallel", "state_dict", "twice", "half"])
def test_usual_wrappers_and_types(wrap, tmp_path):
    known = stirred(resnet())
    state = known.state_dict()
    kept = {
        "DataParallel": nn.DataParallel(known).state_dict(),
        "state_dict": {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}},
        "twice": {"model": {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}}},
        "half": {name: value.to(torch.float64) for name, value in state.items()},
    }[wrap]
    torch.save(kept, tmp_path / "weights.pt")
    network = resnet().to(memory_format=channels_last(4))
    assert start(network, tmp_path / "weights.pt", (2, 3, 12, 10)).startswith(f"{len(state) - 2} of {len(state)}")
    x = torch.rand(2, 3, 12, 10)
    assert torch.allclose(features(network, x), features(known, x), atol=1e-6)
    assert network[0].weight.dtype == torch.float32


def test_densenet_of_torchvision_is_that_of_monai(tmp_path):
    pytest.importorskip("monai")
    known = models.get_model("densenet121", weights=None, num_classes=3)
    torch.save(known.state_dict(), tmp_path / "densenet.pth")
    network = build("densenet121", channels=3, classes=3, window=(32, 32), width=64)
    said = start(network, tmp_path / "densenet.pth", COLOUR)
    # torchvision has the last ReLU and pooling outside of its modules, MONAI within
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(features(network, x), features(known, x), rtol=1e-3, atol=1e-5)
    assert "not in the file: class_layers" not in said
    assert "left out: classifier.weight, classifier.bias (not in this network)" in said


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_first_convolution_responds_to_equal_channels_as_before(channels, tmp_path):
    known, network = stirred(resnet()), resnet(channels)
    save_file(known.state_dict(), tmp_path / "w.safetensors")
    said = start(network, tmp_path / "w.safetensors", (2, channels, 12, 10))
    assert ("0.weight adapted from 3 to" in said) == (channels != 3)
    grey = torch.rand(2, 1, 12, 10)
    here, there = (features(net, grey.repeat(1, count, 1, 1)) for net, count in ((network, channels), (known, 3)))
    assert torch.allclose(here, there, atol=1e-5)


def test_the_rule_for_channels():
    weight = torch.arange(2.0 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    assert torch.equal(with_channels(weight, 1), weight[:, :1] + weight[:, 1:2] + weight[:, 2:])
    two = with_channels(weight, 2)
    assert torch.allclose(two, (weight.mean(1, keepdim=True) * 3 / 2).repeat(1, 2, 1, 1))


def test_volumes_with_another_number_of_channels(tmp_path):
    known = stirred(resnet(2, window=(8, 8, 8)))
    save_file(known.state_dict(), tmp_path / "w.safetensors")
    network = resnet(1, window=(8, 8, 8))
    assert "0.weight adapted from 2 to 1 channels" in start(network, tmp_path / "w.safetensors", (2, 1, 8, 8, 8))
    assert torch.equal(network[0].weight, known[0].weight.sum(1, keepdim=True))


def test_what_is_left_out_and_what_is_missing_is_named(tmp_path):
    state = resnet().state_dict()
    names = list(state)
    state["0.weight"] = state["0.weight"][:, :, :1]
    del state[names[-3]]
    torch.save({**state, "more": torch.ones(1)}, tmp_path / "w.pt")
    said = start(resnet(), tmp_path / "w.pt", (2, 3, 12, 10))
    left = f"{names[-2]}, {names[-1]} (classifier), 0.weight (of another shape), more (not in this network)"
    taken = f"{len(state) - 3} of {len(state) + 1} tensors of w.pt"
    assert said == f"{taken}; left out: {left}; not in the file: {names[-3]}"


class Elsewhere(nn.Module):
    """Its last module is not its classifier."""

    def __init__(self):
        super().__init__()
        self.classifier, self.first = nn.Linear(6, 3), nn.Linear(5, 6)

    def forward(self, x):
        return self.classifier(self.first(x.flatten(1)))


def test_the_classifier_is_known_by_what_it_gives():
    assert classifier_name(Elsewhere(), (2, 1, 5)) == "classifier"
    assert classifier_name(nn.Sequential(nn.Flatten()), (2, 1, 5)) is None
    network = resnet()
    before = [value.clone() for value in network.state_dict().values()]
    random = torch.get_rng_state()
    assert classifier_name(network, (2, 3, 12, 10)) == list(network.state_dict())[-1].removesuffix(".bias")
    assert all(map(torch.equal, before, network.state_dict().values()))
    assert torch.equal(random, torch.get_rng_state())


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_other_files_are_refused_in_one_line(tmp_path, capsys):
    state = resnet().state_dict()
    files = {
        "text": b"no weights",
        "empty": b"",
        "code": pickle.dumps(Harmful()),
        "broken": b"\x10" + bytes(7) + b"{" + b"x" * 30,
        "list": [torch.ones(2)],
        "settings": {"state_dict": {"lr": 0.1}},
        "wide": resnet(width=8).state_dict(),
        "other": models.get_model(NAME, weights=None).state_dict(),
        "part": {"0.weight": state["0.weight"]},
        "infinite": {**state, "0.weight": state["0.weight"] / 0},
    }
    messages = {
        **dict.fromkeys(("text", "empty", "code", "broken"), "cannot be read .*; expected safetensors, or what"),
        **dict.fromkeys(("list", "settings"), "holds no tensors by name; expected safetensors"),
        "wide": "0 of the .* fit; expected .*, in which is 0.weight of 4x3x3x3; found 0.weight of 8x3x3x3",
        "other": "0 of the .* fit; expected .*0.weight of 4x3x3x3; found conv1.0.weight, .* and [0-9]+ more$",
        "part": "108 of the .* fit; expected .*, in which is 1.weight of 4; found 0.weight",
        "infinite": "0.weight: not finite",
    }
    for name, content in files.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(InputError, match=f"^--model.weights [^\\n]*{name}: {messages[name]}[^\\n]*$"):
            read_weights(str(path)).fit(resnet(), (2, 3, 12, 10))
    for absent in ("absent", "."):
        with pytest.raises(InputError, match="no such file; expected safetensors"):
            read_weights(str(tmp_path / absent))
    assert "executed" not in capsys.readouterr().out
