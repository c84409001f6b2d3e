"""What the trainings of local CNNs and of the coherent CNN-DNN have in common: steps, rate, precision, history."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import nn

from ddhpc.config import Local
from ddhpc.errors import InputError
from ddhpc.method.optimizers import SGD, AdamW

WARM_UP = {"onecycle": 0.25, "cosine": 0.0}
"""Share of the steps by schedule, unless one is given."""

State = dict[str, Any]
"""What a checkpoint holds: tensors, numbers, strings, and lists and dictionaries of them."""


@dataclass(kw_only=True)
class History:
    """What a training did, one float per epoch."""

    loss: list[float] = field(default_factory=list)
    """Mean cross entropy of the training steps."""
    accuracy: list[float] = field(default_factory=list)
    """Share of the augmented training images that were classified rightly in the step that used them."""
    learning_rate: list[float] = field(default_factory=list)
    """Rate of the epoch's last step."""
    seconds: list[float] = field(default_factory=list)
    """Of its steps, without validation."""
    val_loss: list[float] = field(default_factory=list)
    """Mean cross entropy on val after the epoch, classes weighted as in training; NaN where there was no validation."""
    val_accuracy: list[float] = field(default_factory=list)
    """Accuracy on val after the epoch; NaN likewise."""

    def __post_init__(self) -> None:
        for values in (self.val_loss, self.val_accuracy):  # which checkpoints of older versions lack
            values += [float("nan")] * (len(self.loss) - len(values))

    def __len__(self) -> int:
        """Epochs."""
        return len(self.loss)

    def append(self, *, loss: float, accuracy: float, learning_rate: float, seconds: float) -> None:
        """Add an epoch, without validation so far."""
        self.loss.append(loss)
        self.accuracy.append(accuracy)
        self.learning_rate.append(learning_rate)
        self.seconds.append(seconds)
        self.val_loss.append(float("nan"))
        self.val_accuracy.append(float("nan"))

    @property
    def best(self) -> int:
        """The first epoch with the lowest loss on val, counted from 1; 0 where no such loss is known."""
        known = [loss for loss in self.val_loss if np.isfinite(loss)]
        return self.val_loss.index(min(known)) + 1 if known else 0

    def latest(self) -> tuple[float, float]:
        """Accuracy of the last epoch on train, and of the last validation on val; NaN where there was none."""
        seen = [share for share in self.val_accuracy if not np.isnan(share)]
        return (self.accuracy or [float("nan")])[-1], (seen or [float("nan")])[-1]

    def check_finite(self, option: str, learning_rate: float) -> None:
        """InputError, naming the option of the learning rate, if the loss of the last epoch is not finite."""
        if not np.isfinite(self.loss[-1]):
            raise InputError(
                f"--{option} {learning_rate}: the loss is not finite after epoch {len(self)}; "
                "expected a rate at which training converges, try a tenth"
            )

    def state(self) -> State:
        """As a checkpoint holds it."""
        return asdict(self)


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The precision of the network's arithmetic; weights, loss and statistics stay float32."""
    kind = torch.device(device).type
    gains = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(
        kind, dtype=torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and gains)
    )


def new_optimizer(network: nn.Module, config: Local) -> torch.optim.Optimizer:
    """The optimizer of a network's weights."""
    if config.optimizer == "adamw":
        return AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True)
    return SGD(
        network.parameters(),
        lr=config.rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def update(network: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None) -> None:
    """Change the weights of a network by its gradient, of which `clip` is the largest norm, see `config.Local`."""
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()


def schedule(optimizer: torch.optim.Optimizer, config: Local, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate over all `steps`: one-cycle (Smith and Topin, arXiv:1708.07120) or cosine (arXiv:1608.03983).

    Where a warm-up is no whole step, there is none, and one-cycle is the cosine.
    """
    share = WARM_UP[config.schedule] if config.warmup == "auto" else config.warmup
    if share * steps <= 1:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if config.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.rate, total_steps=steps, pct_start=share, cycle_momentum=False
        )
    rising = int(share * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return (1 + cos(pi * (step - rising) / (steps - rising))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
