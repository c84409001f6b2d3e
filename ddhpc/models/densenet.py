"""DenseNet121 of Huang et al., arXiv:1608.06993, in 2D and 3D, as MONAI keeps it."""

from __future__ import annotations

from torch import nn

from ddhpc.errors import InputError

GROWTH = 2
"""The paper's first stage has twice as many channels (64) as each layer adds (32)."""


def densenet121(*, channels: int, classes: int, dimensions: int, width: int, depth: int | None) -> nn.Module:
    """A DenseNet121: [B, channels, *window] to logits [B, classes]; the paper's width is 64, windows from 32.

    Raises InputError where depth is not None, or MONAI is not installed.
    """
    if depth is not None:
        raise InputError(f"--model.depth {depth}: densenet121 has one depth; leave the option out")
    try:
        from monai.networks.nets.densenet import DenseNet121
    except ImportError as error:
        raise InputError("--model.name densenet121: needs MONAI; pip install 'ddhpc[monai]'") from error
    network: nn.Module = DenseNet121(
        spatial_dims=dimensions,
        in_channels=channels,
        out_channels=classes,
        init_features=width,
        growth_rate=max(1, width // GROWTH),
    )
    return network
