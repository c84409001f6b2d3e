"""The plain CNN for CT of the Keras example "3D image classification from CT scans" (Zunair, 2020), in 2D and 3D."""

from __future__ import annotations

from torch import nn

from ddhpc.errors import InputError
from ddhpc.models.layers import BATCH_NORM, CONV, MAX_POOL, GlobalAveragePool, he_init

STAGES = (1, 1, 2, 4)
DENSE = 8
DROPOUT = 0.3


def cnn3d(*, channels: int, classes: int, dimensions: int, width: int, depth: int | None) -> nn.Module:
    """Four stages of convolution, ReLU, pooling and normalisation: [B, channels, *window] to logits [B, classes].

    Width, width, 2 width and 4 width channels, global average pooling, a dense layer of 8 width with dropout 0.3, and
    the output; the example's width is 64. The convolutions keep the window (padding), those of the example do not, so
    that windows from 16 pixels (voxels) work.

    Raises InputError where depth is not None.
    """
    if depth is not None:
        raise InputError(f"--model.depth {depth}: cnn3d has one depth; leave the option out")
    layers: list[nn.Module] = []
    inputs = channels
    for factor in STAGES:
        outputs = factor * width
        layers += [
            CONV[dimensions](inputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            MAX_POOL[dimensions](2),
            BATCH_NORM[dimensions](outputs),
        ]
        inputs = outputs
    dense = DENSE * width
    layers += [GlobalAveragePool(), nn.Linear(inputs, dense), nn.ReLU(inplace=True), nn.Dropout(DROPOUT)]
    return he_init(nn.Sequential(*layers, nn.Linear(dense, classes)))
