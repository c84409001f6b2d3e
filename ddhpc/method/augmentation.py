"""Augmentation: random changes of the windows of a batch, drawn from the generator of this process. No MPI."""

from __future__ import annotations

from math import radians

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ddhpc.config import Local
from ddhpc.method.decomposition import Window, extent, rotation_margins

Part = tuple[int, slice]
"""Images of a batch, and those of them that this process trains on."""


def augment_geometry(pixels: Tensor, core: Window, config: Local, part: Part | None = None) -> Tensor:
    """The windows of a batch: each shifted, rotated, and every second one mirrored, as configured.

    Real pixels beyond the edge of the window come in where the image has them, else the edge is repeated.

    Args:
        pixels: [B, C, *padded], padded as far as `config` may look and the image reaches.
        core: slices of the window within.
        config: shift, flip, rotate.
        part: where the B images are of a larger batch, which of it: what is drawn is drawn for all.

    Returns:
        [B, C, *window], dtype of the pixels, float32 where they are rotated.
    """
    shift, flip, rotate = config.shift, config.flip, config.rotate
    if not shift and not flip and not rotate:
        return pixels
    dimensions, count, device = len(core), len(pixels), pixels.device
    batch, rows = part or (count, slice(None))
    offsets = torch.randint(-shift, shift + 1, (dimensions, batch, 1))[:, rows].to(device)
    mirrored = (torch.rand(batch, 1)[rows] < 0.5).to(device)
    margins = rotation_margins(extent(core), rotate)
    index = [torch.arange(size, device=device) for size in pixels.shape[:2]]
    index = [index[0].reshape(-1, *[1] * (dimensions + 1)), index[1].reshape(-1, *[1] * dimensions)]
    for axis, (side, margin) in enumerate(zip(core, margins, strict=True)):
        place = torch.arange(side.start - margin, side.stop + margin, device=device) + offsets[axis]
        if flip and axis == dimensions - 1:
            place = torch.where(mirrored, place.flip(1), place)
        place = place.clamp_(0, pixels.shape[2 + axis] - 1)
        index.append(place.reshape(count, 1, *[1] * axis, -1, *[1] * (dimensions - 1 - axis)))
    grown = pixels[tuple(index)]
    if not rotate:
        return grown
    return rotated(grown, radians(rotate) * (2 * torch.rand(batch)[rows] - 1).to(device), extent(core))


def rotated(pixels: Tensor, angles: Tensor, window: tuple[int, ...]) -> Tensor:
    """The centres of images, rotated about them in the plane of the first two dimensions, between pixels linearly.

    Args:
        pixels: [B, C, *grown] of any real dtype; grown by `rotation_margins` to all sides.
        angles: [B] in radians, from the first dimension towards the second.
        window: extent of the result.

    Returns:
        [B, C, *window] float32.
    """
    rows, columns = (torch.arange(size, device=pixels.device) - (size - 1) / 2 for size in window[:2])
    cos, sin = (values.reshape(-1, 1, 1) for values in (angles.cos(), angles.sin()))
    source = (cos * rows[:, None] + sin * columns, cos * columns - sin * rows[:, None])
    # grid_sample counts from -1 to 1 between the outer edges of the pixels, and the last dimension first.
    height, width = pixels.shape[2:4]
    places = torch.stack((2 * source[1] / width, 2 * source[0] / height), dim=-1)
    planes = pixels.float().flatten(4) if pixels.ndim > 4 else pixels.float().unsqueeze(4)
    planes = planes.movedim(4, 2).flatten(1, 2)
    turned = grid_sample(planes, places, padding_mode="border", align_corners=False)
    windows: Tensor = turned.unflatten(1, (pixels.shape[1], -1)).movedim(2, 4).reshape(*pixels.shape[:2], *window)
    return windows


def augment_intensity(pixels: Tensor, intensity: float, part: Part | None = None) -> Tensor:
    """Images with another contrast and brightness each.

    Args:
        pixels: [B, C, *window] float32 of mean 0 and standard deviation 1.
        intensity: largest change of the factor from 1, and of the offset from 0 in standard deviations.
        part: see `augment_geometry`.

    Returns:
        The same shape, dtype and memory order.
    """
    if not intensity:
        return pixels
    batch, rows = part or (len(pixels), slice(None))
    changes = intensity * (2 * torch.rand(2, batch, *[1] * (pixels.ndim - 1))[:, rows] - 1)
    changes = changes.to(pixels.device)
    return pixels * (1 + changes[0]) + changes[1]
