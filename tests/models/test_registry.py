from __future__ import annotations

import re
import sys

import pytest
import torch
from torch import nn
from torchvision import models

from ddhpc.errors import InputError
from ddhpc.models import FAMILIES, build, parameters

FACTORIES = """
import numpy as np
import torch
from torch import nn

TABLE = {}

def flat(*, channels, classes, dimensions, width, depth):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 8**dimensions, classes))

def on_cpu(*, channels, classes, dimensions, width, depth):
    class OnCPU(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = nn.Linear(64 * channels, classes), nn.BatchNorm2d(channels)
        def forward(self, x):
            if min(x.shape[2:]) < 6:
                raise ValueError("need 6 pixels")
            return self.dense(torch.from_numpy(np.tanh(self.norm(x).detach().numpy())).flatten(1))
    return OnCPU()

SEEN = []

class Watched(nn.Linear):
    def forward(self, x):
        SEEN.append((self.training, *x.shape, x.device.type))
        return super().forward(x)

def watched(*, channels, classes, dimensions, width, depth):
    return nn.Sequential(nn.Flatten(), Watched(49, classes))

def lazy(*, channels, classes, dimensions, width, depth):
    return nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(classes))

def listed(*, channels, classes, dimensions, width, depth):
    return [nn.Flatten()]

def features(*, channels, classes, dimensions, width, depth):
    return nn.Flatten()

def pair(*, channels, classes, dimensions, width, depth):
    return nn.LSTM(7, classes)

def short(*, channels, classes):
    return nn.Flatten()

def broken(*, channels, classes, dimensions, width, depth):
    raise RuntimeError("no table")
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """A directory with a module of factories, the current one."""
    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "needs_more.py").write_text("import not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield
    sys.modules.pop("factories", None)


def refused(name, *, channels=1, classes=10, window=(7, 7), width=8, depth=None):
    """The message of the error."""
    with pytest.raises(InputError) as error:
        build(name, channels=channels, classes=classes, window=window, width=width, depth=depth)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", [*FAMILIES, "squeezenet1_1"])
def test_weights_come_from_the_seed_alone(name):
    """The same as without the check that precedes them."""
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        net = build(name, channels=3, classes=4, window=(32, 32), width=4)
        states.append((net.state_dict(), torch.get_rng_state()))
    torch.manual_seed(3)
    if name in FAMILIES:
        net = FAMILIES[name](channels=3, classes=4, dimensions=2, width=4, depth=None)
    else:
        net = models.get_model(name, weights=None, num_classes=4)
    for state, generator in states:
        assert torch.equal(generator, torch.get_rng_state())
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[key]), key
    torch.manual_seed(4)
    other = build(name, channels=3, classes=4, window=(32, 32), width=4).state_dict()
    assert any(not torch.equal(value, states[0][0][key]) for key, value in other.items())


def test_networks_can_be_built_where_they_cost_nothing():
    with torch.device("meta"):
        net = build("resnet", channels=1, classes=2, window=(9, 9), width=8)
    assert all(parameter.is_meta for parameter in net.parameters())


def test_parameters_are_those_that_are_trained():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert parameters(net) == 3 * 4 + 4 + 2 * 4
    net[0].weight.requires_grad_(False)
    assert parameters(net) == 4 + 2 * 4


@pytest.mark.parametrize(
    ("options", "smallest"),
    [
        ({"window": (3, 3)}, "window 3x3 of the decomposition is too small for vgg: the smallest .* works is 4x4;"),
        ({"window": (20, 3)}, "window 20x3 .* 4x4;"),
        ({"window": (3, 8, 8), "depth": 9}, "window 3x8x8 .* for vgg depth 9: .* 4x4x4;"),
        ({"window": (15, 15), "depth": 16}, "window 15x15 .* for vgg depth 16: .* 16x16;"),
        ({"name": "alexnet", "window": (8, 8)}, "window 8x8 .* for alexnet: .* 63x63;"),
    ],
    ids=str,
)
def test_a_window_that_is_too_small(options, smallest):
    message = refused(**{"name": "vgg", **options})
    assert re.search(smallest, message), message
    assert message.endswith("; use a coarser --decomposition.grid or more --decomposition.overlap")


@pytest.mark.parametrize(("window", "depth"), [((4, 4), None), ((4, 4, 4), 9), ((16, 16), 11), ((16, 16), 19)])
def test_the_smallest_window_works(window, depth):
    net = build("vgg", channels=1, classes=3, window=window, width=2, depth=depth)
    assert net(torch.zeros(2, 1, *window)).shape == (2, 3)


@pytest.mark.parametrize("family", ["resnet", "mobilenetv2"])
@pytest.mark.parametrize("window", [(1, 1), (1, 2, 3)], ids=["2D", "3D"])
def test_other_families_work_on_any_window(family, window):
    build(family, channels=1, classes=3, window=window, width=2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "resnett"}, "--model.name resnett: no such network; did you mean resnet"),
        ({"name": "quark"}, "expected one of cnn3d, .*vgg, .*torchvision.*package.module:factory"),
        ({"name": "resnet", "depth": 10}, r"--model.depth 10: resnet has the depths 6n \+ 2, that is 8, 14, 20"),
        ({"name": "resnet", "depth": 2}, "--model.depth 2: resnet"),
        ({"name": "resnet", "depth": -4}, "--model.depth -4: resnet"),
        ({"name": "vgg", "depth": 10}, "--model.depth 10: vgg has the depths 9, 11, 13, 16, 19"),
        ({"name": "mobilenetv2", "depth": 9}, "--model.depth 9: mobilenetv2 has one depth"),
        ({"name": "resnet", "width": 0}, "--model.width 0: expected at least 1"),
        ({"name": "squeezenet1_1", "window": (8, 8, 8)}, "--model.name squeezenet1_1: .*images; for volumes .*resnet"),
        ({"name": "squeezenet1_1", "channels": 2}, "1 or 3 channels, found 2"),
        ({"name": "squeezenet1_1", "depth": 18}, "--model.depth 18: squeezenet1_1"),
        ({"name": "fcn_resnet50"}, "--model.name fcn_resnet50: no such network"),
    ],
    ids=str,
)
def test_what_there_is_not(options, expected):
    message = refused(**options)
    assert re.search(expected, message), message


@pytest.mark.parametrize(("channels", "name"), [(1, "squeezenet1_1"), (3, "squeezenet1_1"), (1, "googlenet")])
def test_models_of_torchvision(channels, name):
    torch.manual_seed(0)
    net = build(name, channels=channels, classes=6, window=(40, 33), width=8)
    images = torch.randn(2, channels, 40, 33)
    logits = net(images)
    assert logits.shape == (2, 6)
    logits.sum().backward()
    if channels == 1:
        net.eval()
        torch.testing.assert_close(net(images), net.net(images.repeat(1, 3, 1, 1)))


@pytest.mark.usefixtures("factories")
def test_an_import_path():
    net = build("factories:flat", channels=2, classes=3, window=(8, 8, 8), width=1)
    assert net[1].weight.shape == (3, 2 * 8**3)


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(("small", "device"), [(98, "cpu"), (97, "meta")])
def test_the_check_is_one_forward_pass_of_two_images_that_computes_nothing_large(small, device, monkeypatch):
    monkeypatch.setattr("ddhpc.models.registry.SMALL", small)
    build("factories:watched", channels=1, classes=3, window=(7, 7), width=1)
    seen = sys.modules["factories"].SEEN
    assert seen == [(True, 2, 49, device)]


@pytest.mark.usefixtures("factories")
def test_lazy_layers_get_their_weights_from_the_window_and_the_seed():
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(build("factories:lazy", channels=2, classes=3, window=(5, 4), width=1))
    assert parameters(nets[0]) == 2 * 2 + 2 * 5 * 4 * 3 + 3
    assert torch.equal(nets[0][2].weight, nets[1][2].weight)
    assert nets[0].training
    assert nets[0][0].num_batches_tracked == 0


@pytest.mark.usefixtures("factories")
def test_a_network_that_cannot_be_on_meta_is_tried_on_the_cpu_without_a_trace():
    torch.manual_seed(0)
    net = build("factories:on_cpu", channels=2, classes=3, window=(8, 8), width=1)
    torch.manual_seed(0)
    assert torch.equal(net.dense.weight, nn.Linear(2 * 8 * 8, 3).weight)
    assert net.norm.num_batches_tracked == 0
    assert net.training
    assert net(torch.zeros(5, 2, 8, 8)).shape == (5, 3)


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("factories:flat", "window 7x7 .* too small for factories:flat: the smallest window that works is 8x8;"),
        ("factories:listed", r"factories:listed: expected that it returns a torch.nn.Module, found \[Flatten"),
        ("factories:features", r"factories:features: for 2 images it gives \[2, 49\], expected logits \[2, 10\]"),
        ("factories:pair", r"factories:pair: cannot compute on a window of 7x7 with 1 channels: "),
        ("factories:short", "factories:short: it is called with channels=, .*depth=, but TypeError: .*dimensions"),
        ("factories:absent", "factories:absent: expected a function 'absent' in the module factories, found None"),
        ("factories:TABLE", "expected a function 'TABLE' in the module factories, found {}"),
        ("factories:", "expected a function '' in the module factories"),
        ("factorys:flat", "importing 'factorys' failed: .*No module named 'factorys'"),
        ("factories.deep:flat", "importing 'factories.deep' failed: .*'factories' is not a package"),
        ("needs_more:flat", "importing 'needs_more' failed: .*No module named 'not_installed'"),
        (":flat", "importing '' failed"),
        (".factories:flat", "importing '.factories' failed"),
    ],
)
def test_import_paths_that_fail(name, expected):
    message = refused(name)
    assert message.startswith((f"--model.name {name}", "window"))
    assert re.search(expected, message), message


@pytest.mark.usefixtures("factories")
def test_a_network_that_cannot_be_on_meta_and_does_not_work_on_the_window():
    message = refused("factories:on_cpu", window=(5, 9))
    assert message.endswith("cannot compute on a window of 5x9 with 1 channels: ValueError: need 6 pixels")


@pytest.mark.usefixtures("factories")
def test_the_error_of_a_factory_is_not_disguised():
    with pytest.raises(RuntimeError, match="no table"):
        build("factories:broken", channels=1, classes=2, window=(7, 7), width=1)
