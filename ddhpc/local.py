"""The local problem: train the CNN of one subdomain on its window of every image, and give its decisions. No MPI."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddhpc.config import Local
from ddhpc.errors import InputError

DECISION_BATCH = 512
WARM_UP = 0.25

State = dict[str, Any]
Step = Callable[[float, float, Callable[[], State]], None]
"""Called after each step with the share of steps done, the accuracy of the last epoch (NaN in the first), and a
function that gives all that the next step depends on."""


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


@dataclass(kw_only=True)
class Training:
    """A local CNN in training: all that its next step depends on."""

    cnn: nn.Module
    optimizer: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    history: History
    order: Tensor
    """[S] int64, the images in the order of this epoch."""
    loss: Tensor
    """Sum over the steps of this epoch."""
    right: Tensor
    """Images classified rightly in this epoch, int64."""
    step: int = 0
    """Steps done in this epoch."""
    seconds: float = 0.0
    """That this epoch took so far."""
    learning_rate: float = 0.0
    """Of the last step."""

    def state(self) -> State:
        """All of it, and the random numbers of this process, as `checkpoint.save` takes it."""
        on_gpu = self.order.device.type == "cuda"
        return {
            **{name: getattr(self, name).state_dict() for name in ("cnn", "optimizer", "rate")},
            **{name: getattr(self, name) for name in ("order", "loss", "right", "step", "seconds", "learning_rate")},
            "history": asdict(self.history),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.order.device) if on_gpu else None,
        }

    def restore(self, state: State) -> None:
        """Go on as if the training that gave this state had never stopped."""
        device = self.order.device
        for name in ("cnn", "optimizer", "rate"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("order", "loss", "right"):
            setattr(self, name, state[name].to(device))
        for name in ("step", "seconds", "learning_rate"):
            setattr(self, name, state[name])
        self.history = History(**state["history"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"], device)


def train_local(
    cnn: nn.Module, images: Images, labels: np.ndarray, config: Local, on_step: Step, saved: State | None = None
) -> History:
    """Train a local CNN in place.

    Args:
        cnn: network from [B, C, *window] to [B, K] logits, on the device of the images.
        images: the windows of the training split.
        labels: [S] int64.
        on_step: called after each step; what it raises ends the training.
        saved: a state that `on_step` got, to go on from; the remaining steps have the same bits as if nothing
            had happened.

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
    nothing = torch.zeros((), dtype=torch.int64, device=device)
    training = Training(
        cnn=cnn, optimizer=optimizer, rate=rate, history=history, order=nothing, loss=nothing, right=nothing
    )
    if saved:
        training.restore(saved)
        history = training.history
    cnn.train()
    for epoch in range(len(history.loss), config.epochs):
        started = time.perf_counter() - training.seconds
        if training.step == 0:
            training.order = torch.randperm(len(target)).to(device)
            training.loss, training.right = torch.zeros((), device=device), torch.zeros_like(nothing)
        for batch in training.order[: batches * batch_size].split(batch_size)[training.step :]:
            pixels = images.normalised(augmented(images, batch, config.shift, config.flip))
            with autocast(config.precision, device.type):
                logits = cnn(pixels)
                loss = cross_entropy(logits, target[batch], label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            training.learning_rate = float(rate.get_last_lr()[0])
            rate.step()
            training.loss += loss.detach()
            training.right += (logits.argmax(1) == target[batch]).sum()
            training.step += 1
            training.seconds = time.perf_counter() - started
            done = (epoch + training.step / batches) / config.epochs
            on_step(done, history.accuracy[-1] if epoch else float("nan"), training.state)
        history.loss.append(training.loss.item() / batches)
        history.accuracy.append(training.right.item() / (batches * batch_size))
        history.learning_rate.append(training.learning_rate)
        history.seconds.append(training.seconds)
        training.step, training.seconds = 0, 0.0
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
