"""The local problem: train the CNN of one subdomain on its window of every image, and give its decisions. No MPI."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddhpc.config import Local
from ddhpc.errors import InputError

DECISION_BATCH = 512
WARM_UP = 0.25

Step = Callable[[float, float], None]


@dataclass(frozen=True, kw_only=True)
class History:
    """What a training did, one float per epoch."""

    loss: list[float]
    """Mean cross entropy of the training steps."""
    accuracy: list[float]
    """Share of the augmented training images that were classified rightly in the step that used them."""
    learning_rate: list[float]
    """Rate of the epoch's last step."""
    seconds: list[float]


@dataclass(frozen=True, kw_only=True)
class Images:
    """The windows of all images of a split on the device.

    `pixels` is [S, C, *padded] in stored units, channels last; `core` are the slices of the window within it, which
    is padded by what a random shift needs and the image has. `mean` and `std` are [C, 1, ...] of the whole
    training images, so that all subdomains see the same scale.
    """

    pixels: Tensor
    core: tuple[slice, ...]
    mean: Tensor
    std: Tensor

    def normalised(self, pixels: Tensor) -> Tensor:
        """[B, C, *window] float32 in channels-last order with mean 0 and standard deviation 1."""
        pixels = pixels.to(dtype=torch.float32, memory_format=channels_last(pixels.ndim))
        return (pixels - self.mean) / self.std


def channels_last(ndim: int) -> torch.memory_format:
    """The memory order in which convolutions of [B, C, *window] with `ndim` dimensions are fastest."""
    return torch.channels_last if ndim == 4 else torch.channels_last_3d


def to_device(pixels: np.ndarray, core: tuple[slice, ...], mean: np.ndarray, std: np.ndarray, device: str) -> Images:
    """Images from [S, C, *padded] of any real dtype and [C] statistics; integers stay integers on the device."""
    channel = (-1,) + (1,) * (pixels.ndim - 2)
    return Images(
        pixels=torch.from_numpy(pixels).to(device, memory_format=channels_last(pixels.ndim)),
        core=core,
        mean=torch.tensor(mean, dtype=torch.float32, device=device).reshape(channel),
        std=torch.tensor(std, dtype=torch.float32, device=device).reshape(channel),
    )


def augmented(images: Images, batch: Tensor, shift: int, flip: bool) -> Tensor:
    """The windows of a batch, each shifted by up to `shift` pixels in every dimension and every second one mirrored.

    A shifted window shows the real pixels beyond its edge where the image has them, else the edge is repeated.

    Args:
        images: of the training split.
        batch: [B] int64 indices on the device.

    Returns:
        [B, C, *window], dtype of the images.
    """
    pixels, core = images.pixels, images.core
    dimensions, count = len(core), len(batch)
    if not shift and not flip:
        return pixels[batch]
    offsets = torch.randint(-shift, shift + 1, (dimensions, count, 1)).to(batch.device)
    mirrored = (torch.rand(count, 1) < 0.5).to(batch.device)
    index: list[Tensor] = [batch.reshape(-1, *[1] * (dimensions + 1))]
    index.append(torch.arange(pixels.shape[1], device=batch.device).reshape(1, -1, *[1] * dimensions))
    for axis, side in enumerate(core):
        place = torch.arange(side.start, side.stop, device=batch.device) + offsets[axis]
        if flip and axis == dimensions - 1:
            place = torch.where(mirrored, place.flip(1), place)
        place = place.clamp_(0, pixels.shape[2 + axis] - 1)
        index.append(place.reshape(count, 1, *[1] * axis, -1, *[1] * (dimensions - 1 - axis)))
    return pixels[tuple(index)]


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The precision of the network's arithmetic; weights, loss and statistics stay float32."""
    kind = torch.device(device).type
    gains = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(
        kind, dtype=torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and gains)
    )


def schedule(optimizer: torch.optim.Optimizer, config: Local, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate over all `steps`: one-cycle (Smith and Topin, arXiv:1708.07120) or cosine (arXiv:1608.03983)."""
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )


def train_local(cnn: nn.Module, images: Images, labels: np.ndarray, config: Local, on_step: Step) -> History:
    """Train a local CNN in place.

    Args:
        cnn: network from [B, C, *window] to [B, K] logits, on the device of the images.
        images: the windows of the training split.
        labels: [S] int64.
        on_step: called after each step with the share of steps done and the accuracy of the last epoch.

    Raises:
        InputError: the loss is no longer finite.
    """
    device = images.pixels.device
    target = torch.from_numpy(labels).to(device)
    batch_size = min(config.batch_size, len(target))
    batches = len(target) // batch_size
    optimizer = torch.optim.SGD(
        cnn.parameters(),
        config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )
    rate = schedule(optimizer, config, config.epochs * batches)
    history = History(loss=[], accuracy=[], learning_rate=[], seconds=[])
    cnn.train()
    for epoch in range(config.epochs):
        started = time.perf_counter()
        order = torch.randperm(len(target)).to(device)
        total_loss, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        for number, batch in enumerate(order[: batches * batch_size].split(batch_size), start=1):
            pixels = images.normalised(augmented(images, batch, config.shift, config.flip))
            with autocast(config.precision, device.type):
                logits = cnn(pixels)
                loss = cross_entropy(logits, target[batch], label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            used_rate = float(rate.get_last_lr()[0])
            rate.step()
            total_loss += loss.detach()
            right += (logits.argmax(1) == target[batch]).sum()
            on_step((epoch + number / batches) / config.epochs, history.accuracy[-1] if epoch else float("nan"))
        history.loss.append(total_loss.item() / batches)
        history.accuracy.append(right.item() / (batches * batch_size))
        history.learning_rate.append(used_rate)
        history.seconds.append(time.perf_counter() - started)
        if not np.isfinite(history.loss[-1]):
            raise InputError(
                f"--local.learning_rate {config.learning_rate}: the loss is not finite after epoch {epoch + 1}; "
                "expected a rate at which training converges, try a tenth"
            )
    return history


@torch.inference_mode()
def local_decisions(cnn: nn.Module, images: Images, precision: str) -> np.ndarray:
    """The local decisions for the windows of a split: class probabilities [S, K] float32."""
    cnn.eval()
    decisions = []
    windows = images.pixels[(slice(None), slice(None), *images.core)]
    for pixels in windows.split(DECISION_BATCH):
        with autocast(precision, pixels.device.type):
            logits = cnn(images.normalised(pixels))
        decisions.append(logits.float().softmax(1).cpu())
    return torch.cat(decisions).numpy()
