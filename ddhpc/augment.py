"""Augmentation: random changes of the windows of a batch, drawn from the generator of this process. No MPI."""

from __future__ import annotations

import torch
from torch import Tensor

from ddhpc.config import Local
from ddhpc.decomposition import Window


def moved(pixels: Tensor, core: Window, config: Local) -> Tensor:
    """The windows of a batch: each shifted, and every second one mirrored, as configured.

    Real pixels beyond the edge of the window come in where the image has them, else the edge is repeated.

    Args:
        pixels: [B, C, *padded], padded as far as `config` may look and the image reaches.
        core: slices of the window within.
        config: shift, flip.

    Returns:
        [B, C, *window], dtype of the pixels.
    """
    shift, flip = config.shift, config.flip
    if not shift and not flip:
        return pixels
    dimensions, count, device = len(core), len(pixels), pixels.device
    offsets = torch.randint(-shift, shift + 1, (dimensions, count, 1)).to(device)
    mirrored = (torch.rand(count, 1) < 0.5).to(device)
    index = [torch.arange(size, device=device) for size in pixels.shape[:2]]
    index = [index[0].reshape(-1, *[1] * (dimensions + 1)), index[1].reshape(-1, *[1] * dimensions)]
    for axis, side in enumerate(core):
        place = torch.arange(side.start, side.stop, device=device) + offsets[axis]
        if flip and axis == dimensions - 1:
            place = torch.where(mirrored, place.flip(1), place)
        place = place.clamp_(0, pixels.shape[2 + axis] - 1)
        index.append(place.reshape(count, 1, *[1] * axis, -1, *[1] * (dimensions - 1 - axis)))
    return pixels[tuple(index)]
