"""Local features are what the layer takes that gives the logits, or there are none."""

import pytest
import torch
from torch import nn

from ddhpc.models import build
from ddhpc.models.features import count_features, exposing, with_features


class Auxiliary(nn.Module):
    """A dense layer of K outputs stands last and is not what gives the logits."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.unused = nn.Flatten(), nn.Linear(64, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x))


class Scaled(Auxiliary):
    def __init__(self):
        super().__init__()
        self.unused = None

    def forward(self, x):
        return 2 * self.head(self.body(x))


class Averaged(nn.Module):
    """Logits of each row of pixels, averaged."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(x[:, 0]).mean(1)


class Twice(Auxiliary):
    def __init__(self):
        super().__init__()
        self.unused = None

    def forward(self, x):
        self.head(self.body(x.flip(2)))
        return self.head(self.body(x))


@pytest.mark.parametrize("network", [Scaled, Averaged, lambda: nn.Sequential(nn.Flatten())])
def test_networks_whose_logits_no_dense_layer_gives_have_none(network):
    assert count_features(network(), (2, 1, 8, 8)) == 0


@pytest.mark.parametrize("network", [Auxiliary, Twice])
def test_the_layer_is_known_by_what_it_gives(network):
    net, x = network(), torch.randn(2, 1, 8, 8)
    logits, features = with_features(net, x)
    assert count_features(net, (2, 1, 8, 8)) == 64
    assert torch.equal(features, x.flatten(1))
    assert torch.equal(net.head(features), logits)


@pytest.mark.parametrize("name", ["resnet", "vgg", "mobilenetv2", "cnn3d", "densenet121", "googlenet"])
def test_features_make_the_logits(name):
    window = (20, 20, 20) if name == "cnn3d" else (64, 64)
    cnn = build(name, channels=1, classes=3, window=window, width=4).eval()
    found = count_features(cnn, (2, 1, *window))
    last = [layer for layer in cnn.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.inference_mode():
        logits, features = with_features(cnn, torch.randn(2, 1, *window))
        assert features.shape == (2, found)
        assert torch.equal(last(features), logits)


def test_a_network_that_ends_in_a_convolution_has_none():
    cnn = build("squeezenet1_0", channels=1, classes=3, window=(64, 64), width=4)
    assert count_features(cnn, (2, 1, 64, 64)) == 0


def test_counting_changes_neither_random_numbers_nor_statistics():
    cnn = build("resnet", channels=1, classes=3, window=(9, 9), width=4)
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in cnn.state_dict().items()}
    assert count_features(cnn, (2, 1, 9, 9)) == 16
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, cnn.state_dict()[name]) for name, value in state.items())
    assert cnn.training


def test_large_windows_are_counted_without_being_computed():
    cnn = build("resnet", channels=1, classes=3, window=(4000, 4000), width=64, depth=20)
    assert count_features(cnn, (2, 1, 4000, 4000)) == 256


@pytest.mark.parametrize("name", ["resnet", "vgg", "mobilenetv2", "cnn3d"])
def test_exposed_they_stand_behind_the_logits(name):
    cnn = build(name, channels=1, classes=3, window=(16, 16), width=4).eval()
    x = torch.randn(4, 1, 16, 16)
    with torch.inference_mode():
        logits, features = with_features(cnn, x)
        both = exposing(cnn, (1, 1, 16, 16))(x)
        assert torch.equal(both, torch.cat([logits, features], 1))
        assert torch.equal(cnn(x), logits), "the network itself is as it was"


def test_exposed_is_what_a_dense_layer_takes_alone():
    convolutional = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no dense layer makes the logits"):
        exposing(convolutional.eval(), (1, 1, 8, 8))
    dense = nn.Linear(4, 3)
    assert exposing(dense, (1, 4))(torch.ones(2, 4)).shape == (2, 7)
