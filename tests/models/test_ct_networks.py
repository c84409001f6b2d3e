"""The networks of the CT papers: cnn3d, and densenet121 where MONAI is installed."""

import pytest
import torch

from ddhpc.errors import InputError
from ddhpc.models import build, parameters

NAMES = ("cnn3d", "densenet121")


@pytest.fixture(autouse=True)
def monai_if_needed(request):
    if "densenet121" in request.node.name:
        pytest.importorskip("monai", reason="densenet121 needs MONAI")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("window", [(32, 32, 32), (36, 40, 34), (32, 32)])
def test_windows_of_32_voxels_train(name, window):
    net = build(name, channels=1, classes=2, window=window, width=4)
    logits = net(torch.randn(2, 1, *window))
    assert logits.shape == (2, 2)
    logits.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_cnn3d_has_the_parameters_of_the_example():
    """1,351,873 trainable ones are printed there, with one output; a second one has 512 weights and a bias."""
    net = build("cnn3d", channels=1, classes=2, window=(32, 32, 32), width=64)
    assert parameters(net) == 1_351_873 + 513


def test_densenet121_has_the_parameters_of_the_paper():
    """torchvision's, for three channels and 1,000 classes."""
    net = build("densenet121", channels=3, classes=1000, window=(64, 64), width=64)
    assert parameters(net) == 7_978_856


@pytest.mark.parametrize(("name", "smallest"), [("cnn3d", "16x16x16"), ("densenet121", "29x29x29")])
def test_smaller_windows_are_refused(name, smallest):
    with pytest.raises(InputError, match=f"window 8x8x8 .* too small for {name}: the smallest .* is {smallest}"):
        build(name, channels=1, classes=2, window=(8, 8, 8), width=4)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_one_depth(name):
    with pytest.raises(InputError, match=f"--model.depth 5: {name} has one depth"):
        build(name, channels=1, classes=2, window=(32, 32), width=4, depth=5)
