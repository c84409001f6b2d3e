"""The VGG networks of Simonyan and Zisserman, arXiv:1409.1556, in 2D and 3D, fitted to small windows."""

from __future__ import annotations

from torch import nn

from ddhpc.errors import InputError
from ddhpc.models.layers import MAX_POOL, GlobalAveragePool, conv_norm, he_init

# Convolutions in each stage. 11 to 19 are configurations A, B, D and E of the paper's table 1; 9 is the short one for
# small images.
STAGES = {
    9: (2, 2, 2),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(*, channels: int, classes: int, dimensions: int, width: int, depth: int | None) -> nn.Module:
    """A VGG of depth weight layers, three of them dense: [B, channels, *window] to logits [B, classes].

    Stages of 3x3 (3x3x3) convolutions with width, 2 width, 4 width, 8 width and 8 width channels; depth None is 9;
    the paper's width is 64. What differs from the paper: batch normalisation, as usual since; max pooling
    between the stages only and global average pooling after the last, so that windows from 4x4 (depth 9) or
    16x16 fit; dense layers as wide as the last stage, not 4096; no dropout, since the normalisation regularises
    and training then draws no random number that a resumed run would have to draw again.

    Raises InputError where there is no VGG of this depth.
    """
    depth = 9 if depth is None else depth
    if depth not in STAGES:
        raise InputError(f"--model.depth {depth}: vgg has the depths {', '.join(map(str, STAGES))}")
    layers: list[nn.Module] = []
    inputs = channels
    for stage, convolutions in enumerate(STAGES[depth]):
        if stage:
            layers.append(MAX_POOL[dimensions](2))
        for _ in range(convolutions):
            outputs = width * min(2**stage, 8)
            layers += [*conv_norm(dimensions, inputs, outputs), nn.ReLU(inplace=True)]
            inputs = outputs
    layers.append(GlobalAveragePool())
    for _ in range(2):
        layers += [nn.Linear(inputs, inputs), nn.ReLU(inplace=True)]
    return he_init(nn.Sequential(*layers, nn.Linear(inputs, classes)))
