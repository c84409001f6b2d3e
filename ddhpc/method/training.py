"""What the trainings of local CNNs and of the coherent CNN-DNN have in common: steps, rate, precision, history."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddhpc.config import Local
from ddhpc.errors import InputError
from ddhpc.method.metrics import accuracy, cross_entropy
from ddhpc.method.optimizers import SGD, AdamW

WARM_UP = {"onecycle": 0.25, "cosine": 0.0}
"""Share of the steps by schedule, unless one is given."""
DIVISOR, LAST_DIVISOR = 25, 10_000
"""Of one-cycle: the highest rate by the first, and the first by the last."""

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

    def validate(self, decisions: np.ndarray, labels: np.ndarray, weights: Tensor | None) -> None:
        """Note loss and accuracy on val after the last epoch.

        Args:
            decisions: [S, K] float32.
            labels: [S] int64.
            weights: of the classes in the loss, [K]; all 1 without them.
        """
        of_classes = None if weights is None else weights.cpu().numpy()
        self.val_loss[-1] = cross_entropy(decisions, labels, of_classes)
        self.val_accuracy[-1] = float(accuracy(decisions, labels))

    def without_gain(self, patience: int | None) -> bool:
        """Whether the loss on val has not fallen for so many epochs; never without patience."""
        return patience is not None and len(self) - self.best >= patience

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
    """The optimizer of a network's weights, whose rate is set before each step.

    On a GPU the rate is a tensor there, so that a step can be captured as a CUDA graph.
    """
    weights = list(network.parameters())
    on_gpu = weights[0].is_cuda
    rate = torch.tensor(config.rate, device=weights[0].device) if on_gpu else config.rate
    if config.optimizer == "adamw":
        return AdamW(weights, lr=rate, weight_decay=config.weight_decay, fused=True, capturable=on_gpu)
    return SGD(
        weights,
        lr=rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Take over what an optimizer of the same options, on this or another device, remembers of the steps before."""
    optimizer.load_state_dict({**state, "param_groups": optimizer.state_dict()["param_groups"]})


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None) -> None:
    """Change the weights of a network by its gradient, of which `clip` is the largest norm, see `config.Local`."""
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()


def learning_rate(config: Local, step: int, steps: int) -> float:
    """The rate of a step, counted from 0, of so many in the training.

    One-cycle (Smith and Topin, arXiv:1708.07120), with the start at a 25th of the highest rate and the end at a
    10,000th of that, as torch has it; or cosine (Loshchilov and Hutter, arXiv:1608.03983), after a linear warm-up if
    one is asked for. Where a warm-up is no whole step, there is none, and one-cycle is the cosine.

    Example:
        >>> [round(learning_rate(Local(learning_rate=1.0, schedule="cosine"), step, 4), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    share = WARM_UP[config.schedule] if config.warmup == "auto" else config.warmup
    highest, rising = config.rate, share * steps
    if config.schedule == "cosine" or rising <= 1:
        whole = int(rising) if rising > 1 else 0
        if step < whole:
            return highest * (step + 1) / (whole + 1)
        return between(highest, 0.0, (step - whole) / (steps - whole))
    lowest, top = highest / DIVISOR, rising - 1
    if step <= top:
        return between(lowest, highest, step / top)
    return between(highest, lowest / LAST_DIVISOR, (step - top) / (steps - 1 - top))


def between(first: float, last: float, share: float) -> float:
    """From one value to another along half a cosine."""
    return last + (first - last) / 2 * (1 + cos(pi * share))
