from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ddhpc.method.windows import channels_last
from ddhpc.models import FAMILIES, build, parameters

DIMENSIONS = pytest.mark.parametrize("dimensions", [2, 3])


SMALL_WINDOWS = ("mobilenetv2", "resnet", "vgg")


def make(family, *, channels=3, classes=10, dimensions=2, width=8, depth=None):
    return FAMILIES[family](channels=channels, classes=classes, dimensions=dimensions, width=width, depth=depth)


def on_meta(family, **options):
    with torch.device("meta"):
        return make(family, **options)


def layers(net, *kinds):
    return [layer for layer in net.modules() if isinstance(layer, kinds)]


def convolutions(net):
    return layers(net, nn.Conv2d, nn.Conv3d)


@pytest.mark.parametrize("family", SMALL_WINDOWS)
@pytest.mark.parametrize("window", [(7, 7), (8, 8), (9, 11), (32, 32), (8, 8, 8), (10, 12, 7)], ids=str)
def test_every_parameter_learns_from_every_window(family, window):
    torch.manual_seed(0)
    net = build(family, channels=2, classes=5, window=window, width=4)
    images = torch.randn(6, 2, *window)
    logits = net(images)
    assert logits.shape == (6, 5)
    cross_entropy(logits, torch.tensor([0, 1, 2, 3, 4, 0])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("family", SMALL_WINDOWS)
@pytest.mark.parametrize("window", [(9, 9), (6, 7, 8)], ids=["2D", "3D"])
def test_memory_order_changes_nothing(family, window):
    torch.manual_seed(0)
    net = build(family, channels=1, classes=4, window=window, width=8).double()
    images = torch.randn(4, 1, *window, dtype=torch.float64)
    weights = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    expected = torch.autograd.grad(net(images).square().sum(), weights)
    order = channels_last(images.ndim)
    net.to(memory_format=order)
    found = torch.autograd.grad(net(images.contiguous(memory_format=order)).square().sum(), weights)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("family", SMALL_WINDOWS)
def test_a_volume_of_one_slice_is_an_image(family):
    """With kernels that are zero off the middle slice, the 3D network gives for it what the 2D one gives."""
    torch.manual_seed(0)
    flat, deep = (make(family, channels=2, classes=5, dimensions=dimensions) for dimensions in (2, 3))
    for two, three in zip(flat.parameters(), deep.parameters(), strict=True):
        with torch.no_grad():
            if two.ndim == 4:
                three.zero_()[:, :, two.shape[2] // 2] = two
            else:
                three.copy_(two)
    if family == "vgg":
        for pool in layers(deep, nn.MaxPool3d):
            pool.kernel_size = pool.stride = (1, 2, 2)
    images = torch.randn(4, 2, 16, 12)
    torch.testing.assert_close(deep(images[:, :, None]), flat(images))


@DIMENSIONS
@pytest.mark.parametrize(
    ("family", "depth"),
    [*(("resnet", depth) for depth in (8, 14, 20, 56)), *(("vgg", depth) for depth in (9, 11, 13, 16, 19))],
)
def test_depth_counts_the_layers_with_weights(family, depth, dimensions):
    net = on_meta(family, depth=depth, dimensions=dimensions)
    assert len(convolutions(net)) + len(layers(net, nn.Linear)) == depth


@pytest.mark.parametrize(("family", "depth"), [("resnet", 8), ("vgg", 9)])
def test_default_depth(family, depth):
    assert str(on_meta(family)) == str(on_meta(family, depth=depth))


@pytest.mark.parametrize("family", SMALL_WINDOWS)
@DIMENSIONS
def test_weights_before_normalisation_have_no_bias_and_he_variance(family, dimensions):
    torch.manual_seed(0)
    net = make(family, dimensions=dimensions, width=32)
    assert all(convolution.bias is None for convolution in convolutions(net))
    for layer in layers(net, nn.Conv2d, nn.Conv3d, nn.Linear):
        if layer.weight.numel() > 1000:
            assert layer.weight.square().mean().item() * layer.weight[0].numel() == pytest.approx(2, rel=0.2)
    assert not any(layer.bias.any() for layer in layers(net, nn.Linear))
    assert not layers(net, nn.Dropout)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)], ids=lambda value: str(value)
)
def test_resnet_has_the_parameters_of_the_paper(depth, millions):
    """He et al. 2016, table 6; CIFAR-10, width 16."""
    digits = len(str(millions).split(".")[1])
    assert round(parameters(on_meta("resnet", depth=depth, width=16)) / 1e6, digits) == millions


def test_a_residual_block_is_that_of_torchvision():
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    net = make("resnet", width=16, depth=14)
    block, reference = net[3:5], BasicBlock(16, 16)
    reference.load_state_dict(dict(zip(reference.state_dict(), block.state_dict().values(), strict=True)))
    images = torch.randn(3, 16, 9, 7)
    expected = reference(images)
    torch.testing.assert_close(block(images), expected)


@DIMENSIONS
def test_a_shortcut_into_a_new_stage_takes_every_second_pixel_and_adds_zero_channels(dimensions):
    shortcut = layers(make("resnet", width=3, dimensions=dimensions), nn.Sequential)[0][5].shortcut
    images = torch.randn(2, 3, *(7, 6, 5)[:dimensions])
    out = shortcut(images)
    halved = images[(..., *[slice(None, None, 2)] * dimensions)]
    assert out.shape == (2, 6, *(4, 3, 3)[:dimensions])
    assert torch.equal(out[:, :3], halved)
    assert not out[:, 3:].any()


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_has_the_convolutions_of_torchvision(depth):
    from torchvision import models

    with torch.device("meta"):
        reference = models.get_model(f"vgg{depth}", weights=None)
    net = on_meta("vgg", depth=depth, width=64)
    shapes = [convolution.weight.shape for convolution in convolutions(net)]
    assert shapes == [convolution.weight.shape for convolution in convolutions(reference)]
    assert len(shapes) == depth - 3
    assert len(layers(net, nn.MaxPool2d)) == len(layers(reference, nn.MaxPool2d)) - 1


def test_mobilenetv2_is_that_of_torchvision_but_for_the_strides():
    from torchvision.models import mobilenet_v2

    rows = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    torch.manual_seed(0)
    reference = mobilenet_v2(weights=None, inverted_residual_setting=rows, dropout=0.0, num_classes=1000)
    reference.features[0][0].stride = (1, 1)
    net = make("mobilenetv2", width=32, classes=1000)
    net.load_state_dict(dict(zip(net.state_dict(), reference.state_dict().values(), strict=True)))
    images = 3 * torch.randn(3, 3, 17, 16)
    torch.testing.assert_close(net(images), reference(images))


def test_mobilenetv2_has_the_parameters_of_the_paper():
    """Sandler et al. 2018, table 4: 3.4 million; the exact count is that of torchvision's network."""
    assert parameters(on_meta("mobilenetv2", width=32, classes=1000)) == 3_504_872


@pytest.mark.parametrize("window", [(32, 32), (32, 32, 32)], ids=["2D", "3D"])
def test_mobilenetv2_ends_with_an_eighth_of_the_window(window):
    net = on_meta("mobilenetv2", dimensions=len(window))
    with torch.device("meta"):
        assert net[:-2](torch.empty(2, 3, *window)).shape[2:] == (4,) * len(window)
