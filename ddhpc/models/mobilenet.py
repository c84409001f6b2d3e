"""MobileNetV2 of Sandler et al. 2018, arXiv:1801.04381, in 2D and 3D, with the strides for small images."""

from __future__ import annotations

from torch import nn

from ddhpc.errors import InputError
from ddhpc.models.layers import GlobalAveragePool, Residual, conv_norm, he_init

STANDARD_WIDTH = 32
# Expansion, channels, blocks and stride of each row of the paper's table 2. The paper has stride 2 in the stem and in
# the second row too: 224 pixels become 7, where small images would have become nothing.
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST_CHANNELS = 1280


def mobilenetv2(*, channels: int, classes: int, dimensions: int, width: int, depth: int | None) -> nn.Module:
    """A MobileNetV2: [B, channels, *window] to logits [B, classes]; works on any window, made for 32x32.

    All channels are the paper's times width / 32, where width is that of the stem, rounded to whole channels and not to
    multiples of 8, so that parameters fall with width; the paper's own network has width 32. ReLU6 as in the paper; no
    dropout, since training then draws no random number that a resumed run would have to draw again.

    Raises InputError where depth is not None.
    """
    if depth is not None:
        raise InputError(f"--model.depth {depth}: mobilenetv2 has one depth; leave the option out")

    def scaled(standard: int) -> int:
        return max(1, round(standard * width / STANDARD_WIDTH))

    inputs = scaled(STANDARD_WIDTH)
    layers = [*conv_norm(dimensions, channels, inputs), nn.ReLU6(inplace=True)]
    for expansion, standard, blocks, first_stride in ROWS:
        outputs = scaled(standard)
        for block in range(blocks):
            stride = 1 if block else first_stride
            hidden = expansion * inputs
            body: list[nn.Module] = []
            if expansion > 1:
                body += [*conv_norm(dimensions, inputs, hidden, kernel=1), nn.ReLU6(inplace=True)]
            body += [*conv_norm(dimensions, hidden, hidden, stride=stride, groups=hidden), nn.ReLU6(inplace=True)]
            body += conv_norm(dimensions, hidden, outputs, kernel=1)
            # The first block of a row has no shortcut even where narrow rows happen to have equally many channels.
            layers.append(Residual(nn.Sequential(*body), nn.Identity()) if block else nn.Sequential(*body))
            inputs = outputs
    outputs = scaled(LAST_CHANNELS)
    layers += [*conv_norm(dimensions, inputs, outputs, kernel=1), nn.ReLU6(inplace=True)]
    return he_init(nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(outputs, classes)))
