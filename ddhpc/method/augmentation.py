"""Augmentation: random changes of the windows of a batch, drawn on the CPU and made where the pixels are. No MPI."""

from __future__ import annotations

from math import radians

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ddhpc.config import Local
from ddhpc.method.decomposition import Window, extent, rotation_margins


def draw_changes(config: Local, batch: int, dimensions: int) -> Tensor:
    """How the images of a batch are to be changed, from the generator of this process.

    Shift, flip and rotation draw together, so that one does not change the draws of another.

    Args:
        config: shift, flip, rotate, intensity.
        batch: B, images.
        dimensions: D, of an image.

    Returns:
        [B, D + 4] float32 on the CPU, a row for each image: its offset in pixels along each dimension, 1 where a
        flip mirrors it, its angle in radians, and the changes of its contrast and brightness.
    """
    changes = torch.zeros(batch, dimensions + 4)
    if config.shift or config.flip or config.rotate:
        changes[:, :dimensions] = torch.randint(-config.shift, config.shift + 1, (dimensions, batch)).T
        changes[:, dimensions] = torch.rand(batch) < 0.5
    if config.rotate:
        changes[:, dimensions + 1] = radians(config.rotate) * (2 * torch.rand(batch) - 1)
    if config.intensity:
        changes[:, dimensions + 2 :] = (config.intensity * (2 * torch.rand(2, batch) - 1)).T
    return changes


def augment_geometry(pixels: Tensor, core: Window, config: Local, changes: Tensor) -> Tensor:
    """The windows of a batch: shifted, rotated, and mirrored with a probability of one half, as configured.

    Real pixels beyond the edge of the window come in where the image has them, else the edge is repeated.

    Args:
        pixels: [B, C, *padded], padded as far as `config` may look and the image reaches.
        core: slices of the window within.
        config: shift, flip, rotate.
        changes: [B, D + 4], see `draw_changes`, where the pixels are.

    Returns:
        [B, C, *window], dtype of the pixels, float32 where they are rotated.
    """
    if not config.shift and not config.flip and not config.rotate:
        return pixels
    dimensions, count, device = len(core), len(pixels), pixels.device
    offsets, mirrored = changes[:, :dimensions].to(torch.int64), changes[:, dimensions, None] > 0
    margins = rotation_margins(extent(core), config.rotate)
    index = [torch.arange(size, device=device) for size in pixels.shape[:2]]
    index = [index[0].reshape(-1, *[1] * (dimensions + 1)), index[1].reshape(-1, *[1] * dimensions)]
    for axis, (side, margin) in enumerate(zip(core, margins, strict=True)):
        place = torch.arange(side.start - margin, side.stop + margin, device=device) + offsets[:, axis, None]
        if config.flip and axis == dimensions - 1:
            place = torch.where(mirrored, place.flip(1), place)
        place = place.clamp_(0, pixels.shape[2 + axis] - 1)
        index.append(place.reshape(count, 1, *[1] * axis, -1, *[1] * (dimensions - 1 - axis)))
    grown = pixels[tuple(index)]
    return rotated(grown, changes[:, dimensions + 1], extent(core)) if config.rotate else grown


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


def augment_intensity(pixels: Tensor, config: Local, changes: Tensor) -> Tensor:
    """Images with another contrast and brightness each.

    Args:
        pixels: [B, C, *window] float32 of mean 0 and standard deviation 1.
        config: intensity, the largest change of the factor from 1, and of the offset from 0 in standard deviations.
        changes: [B, D + 4], see `draw_changes`, where the pixels are.

    Returns:
        The same shape, dtype and memory order.
    """
    if not config.intensity:
        return pixels
    contrast, brightness = (each.reshape(-1, *[1] * (pixels.ndim - 1)) for each in changes[:, -2:].unbind(1))
    return pixels * (1 + contrast) + brightness
