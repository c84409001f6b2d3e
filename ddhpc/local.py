"""The local problem: train the CNN of one subdomain on its window of every image, and give its decisions. No MPI."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddhpc.augment import moved, recast
from ddhpc.config import Local
from ddhpc.decomposition import extent
from ddhpc.errors import InputError
from ddhpc.images import Images
from ddhpc.optimizers import SGD
from ddhpc.team import ALONE, Team

DECISION_BATCH = 512
DECISION_PIXELS = 2**20
"""Pixels of a batch of decisions, so that the layers' outputs for volumes do not need more memory than training."""
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


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The precision of the network's arithmetic; weights, loss and statistics stay float32."""
    kind = torch.device(device).type
    gains = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(
        kind, dtype=torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and gains)
    )


def sgd(network: nn.Module, config: Local) -> torch.optim.Optimizer:
    """The optimizer of a network's weights."""
    return SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def schedule(optimizer: torch.optim.Optimizer, config: Local, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate over all `steps`: one-cycle (Smith and Topin, arXiv:1708.07120) or cosine (arXiv:1608.03983).

    No warm-up fits into so few steps that a quarter of them is one.
    """
    if config.schedule == "cosine" or WARM_UP * steps <= 1:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )


@dataclass(kw_only=True)
class Training:
    """A local CNN in training: all that its next step depends on."""

    team: Team
    cnn: nn.Module
    optimizer: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    history: History
    order: Tensor
    """[S] int64, the images in the order of this epoch."""
    loss: Tensor
    """Sum over the steps of this epoch, of this rank's part of each batch; the mean over the team is that of all."""
    right: Tensor
    """Images of this rank's parts that were classified rightly in this epoch, int64."""
    step: int = 0
    """Steps done in this epoch."""
    seconds: float = 0.0
    """That this epoch took so far."""
    learning_rate: float = 0.0
    """Of the last step."""

    def state(self) -> State:
        """All of it, and the random numbers of this process, as `checkpoint.save` takes it; collective in a team."""
        on_gpu = self.order.device.type == "cuda"
        return {
            **{name: getattr(self, name).state_dict() for name in ("cnn", "optimizer", "rate")},
            **{name: getattr(self, name) for name in ("order", "step", "seconds", "learning_rate")},
            **{name: self.team.parts(getattr(self, name)) for name in ("loss", "right")},
            "history": asdict(self.history),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.order.device) if on_gpu else None,
        }

    def restore(self, state: State) -> None:
        """Go on as if the training that gave this state had never stopped."""
        device = self.order.device
        for name in ("cnn", "optimizer", "rate"):
            getattr(self, name).load_state_dict(state[name])
        self.order = state["order"].to(device)
        for name in ("loss", "right"):
            setattr(self, name, self.team.part(state[name].to(device)))
        for name in ("step", "seconds", "learning_rate"):
            setattr(self, name, state[name])
        self.history = History(**state["history"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"], device)


def train_local(
    cnn: nn.Module,
    images: Images,
    labels: np.ndarray,
    config: Local,
    on_step: Step,
    saved: State | None = None,
    fitted: np.ndarray | None = None,
    team: Team = ALONE,
) -> History:
    """Train a local CNN in place.

    Args:
        cnn: network from [B, C, *window] to [B, K] logits, on the device of the images.
        images: the windows of the training split.
        labels: [S] int64.
        on_step: called after each step; what it raises ends the training.
        saved: a state that `on_step` got, to go on from; the remaining steps have the same bits as if nothing
            had happened.
        fitted: [n] int64, the images that it is fitted to; all without it.
        team: the ranks that do this together, with the same arguments, each on its share of every batch, which has
            an image for each at least.

    Raises:
        InputError: the loss is no longer finite.
    """
    device = images.mean.device
    target = torch.from_numpy(labels).to(device)
    members = torch.from_numpy(np.arange(len(labels)) if fitted is None else fitted)
    batch_size = min(config.batch_size, len(members))
    batches = len(members) // batch_size
    model = team.parallel(cnn)
    optimizer = sgd(cnn, config)
    rate = schedule(optimizer, config, config.epochs * batches)
    history = History(loss=[], accuracy=[], learning_rate=[], seconds=[])
    nothing = torch.zeros((), dtype=torch.int64, device=device)
    training = Training(
        team=team,
        cnn=cnn,
        optimizer=optimizer,
        rate=rate,
        history=history,
        order=nothing,
        loss=nothing,
        right=nothing,
    )
    if saved:
        training.restore(saved)
        history = training.history
    rows = team.share(batch_size)
    share = (batch_size, rows)
    cnn.train()
    for epoch in range(len(history.loss), config.epochs):
        started = time.perf_counter() - training.seconds
        if training.step == 0:
            training.order = members[torch.randperm(len(members))].to(device)
            training.loss, training.right = torch.zeros((), device=device), torch.zeros_like(nothing)
        left = [batch[rows] for batch in training.order[: batches * batch_size].split(batch_size)[training.step :]]
        for batch, padded in zip(left, images.batches(left), strict=True):
            windows = images.normalised(moved(padded, images.core, config, share))
            pixels = recast(windows, config.intensity, share)
            with team.own_random(device, training.step), autocast(config.precision, device.type):
                logits = model(pixels)
                loss = cross_entropy(logits, target[batch], label_smoothing=config.label_smoothing)
            if team.size > 1:
                loss = loss * (len(batch) * team.size / batch_size)
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
        history.loss.append(team.total(training.loss).item() / team.size / batches)
        history.accuracy.append(team.total(training.right).item() / (batches * batch_size))
        history.learning_rate.append(training.learning_rate)
        history.seconds.append(training.seconds)
        training.step, training.seconds = 0, 0.0
        if not np.isfinite(history.loss[-1]):
            raise InputError(
                f"--local.learning_rate {config.learning_rate}: the loss is not finite after epoch {epoch + 1}; "
                "expected a rate at which training converges, try a tenth"
            )
    return history


def decision_batch(window: tuple[int, ...]) -> int:
    """Images whose decisions are made at once, for windows of this extent."""
    return max(1, min(DECISION_BATCH, DECISION_PIXELS // prod(window)))


@torch.inference_mode()
def local_decisions(cnn: nn.Module, images: Images, precision: str, team: Team = ALONE) -> np.ndarray:
    """The local decisions for the windows of a split: class probabilities [S, K] float32; a team shares the work."""
    cnn.eval()
    decisions = []
    device = images.mean.device
    core = (slice(None), slice(None), *images.core)
    rows = team.share(len(images))
    batches = torch.arange(len(images), device=device)[rows].split(decision_batch(extent(images.core)))
    for padded in images.batches(batches):
        with autocast(precision, device.type):
            logits = cnn(images.normalised(padded[core]))
        decisions.append(logits.float().softmax(1))
    mine = torch.cat(decisions)
    everything = mine.new_zeros(len(images), mine.shape[1])
    everything[rows] = mine
    return team.total(everything).cpu().numpy()
