"""The ResNet for small images of He et al. 2016, arXiv:1512.03385, section 4.2, in 2D and 3D."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ddhpc.errors import InputError
from ddhpc.models.layers import GlobalAveragePool, Residual, conv_norm, he_init

STAGES = 3


class ZeroPadShortcut(nn.Module):
    """Every second pixel along each dimension, then zeros for the channels that a new stage adds.

    The identity shortcut without parameters, option A of the paper, which it uses for its small-image networks.
    """

    def __init__(self, dimensions: int, added: int) -> None:
        super().__init__()
        self.every_second = (slice(None),) + (slice(None, None, 2),) * dimensions
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *window] to [B, C + added, *ceil(window / 2)]."""
        # With the channels last, the gradient of the slice is laid out as its neighbours are in channels_last.
        return F.pad(x.movedim(1, -1)[self.every_second], (0, self.added)).movedim(-1, 1)


def resnet(*, channels: int, classes: int, dimensions: int, width: int, depth: int | None) -> nn.Module:
    """A ResNet of 6n + 2 weight layers: [B, channels, *window] to logits [B, classes].

    A stem and three stages of n residual blocks with width, 2 width and 4 width channels and strides 1, 2, 2, global
    average pooling, a dense layer. depth None is 8, one block a stage; the paper's width is 16.

    Shortcuts are the paper's option A. A projection (option B) would add 4 % parameters at depth 8 in 2D, and the
    weight gradient of its strided 1x1 convolution from fewer than 8 channels corrupts the heap in channels_last where
    oneDNN 3.12 (torch 2.14.1) uses AVX2, the best that many AMD nodes have.

    Raises InputError where depth is not 6n + 2.
    """
    depth = 2 + 2 * STAGES if depth is None else depth
    blocks, remainder = divmod(depth - 2, 2 * STAGES)
    if blocks < 1 or remainder:
        raise InputError(f"--model.depth {depth}: resnet has the depths 6n + 2, that is 8, 14, 20, 26, 32, ...")
    layers = [*conv_norm(dimensions, channels, width), nn.ReLU(inplace=True)]
    inputs = width
    for stage in range(STAGES):
        outputs = width * 2**stage
        for _ in range(blocks):
            shrinks = outputs != inputs
            body = nn.Sequential(
                *conv_norm(dimensions, inputs, outputs, stride=2 if shrinks else 1),
                nn.ReLU(inplace=True),
                *conv_norm(dimensions, outputs, outputs),
            )
            shortcut = ZeroPadShortcut(dimensions, outputs - inputs) if shrinks else nn.Identity()
            layers += [Residual(body, shortcut), nn.ReLU(inplace=True)]
            inputs = outputs
    return he_init(nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(inputs, classes)))
