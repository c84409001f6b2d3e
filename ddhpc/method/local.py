"""The local problem: train the CNN of one subdomain on its window of every image, and give its outputs. No MPI."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ddhpc.config import Local
from ddhpc.method.augmentation import draw_changes
from ddhpc.method.class_balance import drawn, weighted_loss
from ddhpc.method.cuda_graph import CudaGraph
from ddhpc.method.decomposition import extent
from ddhpc.method.team import ALONE, Team
from ddhpc.method.training import History, State, autocast, descend, learning_rate, new_optimizer, restore, set_rate
from ddhpc.method.windows import Images, channels_last
from ddhpc.models.features import with_features

DECISION_BATCH = {"cpu": 32, "cuda": 512}
"""Images whose outputs are made at once, by kind of device; where there are fewer, zeros fill the batch.

A network's bits depend on the size of the batch, since kernels are chosen by it: those for 1, 2, 4 and 16 images
differ (torch 2.14.1, AVX-512). In a batch of one size they depend neither on the place in it nor on the other images.
On a CPU more than 32 gain little, and a single image costs as much as all of a batch.
"""
DECISION_PIXELS = 2**20
"""Pixels of a batch of decisions, so that the layers' outputs for volumes do not need more memory than training."""

Step = Callable[[float, History, Callable[[], State]], None]
"""Called after each step with the share of steps done, the history of the epochs before, and a function that gives all
that the next step depends on."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a local CNN in training is looked at with."""

    images: Images
    """The windows of the val split."""
    labels: np.ndarray
    """[S] int64."""


@dataclass(frozen=True, kw_only=True)
class LocalProblem:
    """What a local CNN is trained on, and how."""

    images: Images
    """The windows of the training split."""
    labels: np.ndarray
    """[S] int64."""
    config: Local
    fitted: np.ndarray | None = None
    """[n] int64, the images that the CNN is fitted to; all without it."""
    team: Team = ALONE
    """The ranks that train together, on the same problem, each on its rows of every batch."""
    seed: int = 0
    """Of the run, for the draws of an epoch that are the same on all subdomains."""
    validation: Validation | None = None
    """None where nobody looks at it."""
    captured: bool = False
    """Whether a GPU may replay its steps, see `CudaGraph`: only for networks that decide nothing in Python."""

    @property
    def members(self) -> Tensor:
        """[n] int64, the images that the CNN is fitted to."""
        return torch.from_numpy(np.arange(len(self.labels)) if self.fitted is None else self.fitted)

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return min(self.config.batch_size, len(self.members))

    @property
    def batches(self) -> int:
        """Steps of an epoch; what is left of the images waits for another order."""
        return len(self.members) // self.batch_size


class LocalTraining:
    """A local CNN in training: all that its next step depends on."""

    def __init__(self, cnn: nn.Module, problem: LocalProblem) -> None:
        self.problem, self.cnn, self.device = problem, cnn, problem.images.mean.device
        self.model = problem.team.parallel(cnn)
        self.optimizer = new_optimizer(cnn, problem.config)
        labels, config = problem.labels[problem.members.numpy()], problem.config
        classes = int(problem.labels.max()) + 1
        self.criterion = weighted_loss(labels, config.class_weight, classes, self.device, config.label_smoothing)
        self.target = torch.from_numpy(problem.labels).to(self.device)
        self.rows = problem.team.rows(problem.batch_size)
        """Of each batch, that this rank takes."""
        self.history = History()
        self.order = torch.zeros((), dtype=torch.int64, device=self.device)
        """[n] int64, the images of this epoch in their order."""
        self.loss = torch.zeros((), device=self.device)
        """Sum over the steps of this epoch, of this rank's rows; the mean over the team is that of whole batches."""
        self.right = torch.zeros((), dtype=torch.int64, device=self.device)
        """Images of this rank's rows that were classified rightly in this epoch, int64."""
        self.step = 0
        """Steps done in this epoch."""
        self.started = 0.0
        """When this epoch started, on the clock of `time.perf_counter`, less its seconds in earlier jobs."""
        self.learning_rate = 0.0
        """Of the last step."""
        self.best: State = {}
        """State dictionary of the CNN after the best epoch so far, in main memory; empty unless it is to be kept."""

    @property
    def seconds(self) -> float:
        """That this epoch took so far."""
        return time.perf_counter() - self.started

    def state(self) -> State:
        """All of it, and the random numbers of this process, as `checkpoint.save` takes it; collective in a team."""
        team = self.problem.team
        return {
            **{name: getattr(self, name).state_dict() for name in ("cnn", "optimizer")},
            **{name: getattr(self, name) for name in ("order", "step", "seconds", "learning_rate", "best")},
            **{name: team.gathered(getattr(self, name)) for name in ("loss", "right")},
            "history": self.history.state(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: State) -> None:
        """Go on as if the training that gave this state had never stopped."""
        self.cnn.load_state_dict(state["cnn"])
        restore(self.optimizer, state["optimizer"])
        self.order = state["order"].to(self.device)
        for name in ("loss", "right"):
            getattr(self, name).copy_(self.problem.team.own(state[name].to(self.device)))
        self.step, self.learning_rate = state["step"], state["learning_rate"]
        self.started = time.perf_counter() - state["seconds"]
        self.history = History(**state["history"])
        self.best = state.get("best", {})  # which checkpoints of older versions lack
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"], self.device)

    def start_epoch(self) -> None:
        """Draw the images and their order."""
        problem, members = self.problem, self.problem.members
        self.started = time.perf_counter()
        labels = problem.labels[members.numpy()]
        chosen = members[torch.from_numpy(drawn(labels, problem.config.sampling, problem.seed, len(self.history)))]
        self.order = chosen[torch.randperm(len(chosen))].to(self.device)
        self.loss.zero_()
        self.right.zero_()

    def remaining(self) -> list[Tensor]:
        """This rank's images [B] int64 of each step that is left of this epoch."""
        size, problem = self.problem.batch_size, self.problem
        return [batch[self.rows] for batch in self.order[: problem.batches * size].split(size)[self.step :]]

    def draw_step(self) -> Tensor:
        """Set the rate of the next step, and draw how its images are changed, [B, D + 4] on the device."""
        problem, config = self.problem, self.problem.config
        done = len(self.history) * problem.batches + self.step
        self.learning_rate = learning_rate(config, done, config.epochs * problem.batches)
        set_rate(self.optimizer, self.learning_rate)
        changes = draw_changes(config, problem.batch_size, len(problem.images.core))[self.rows]
        return changes.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else changes

    def update(self, padded: Tensor, target: Tensor, changes: Tensor) -> None:
        """All of a step that the device does, from padded windows [B, C, *padded], labels [B] and their changes."""
        problem, config, images, team = self.problem, self.problem.config, self.problem.images, self.problem.team
        inputs = images.augmented(padded, config, changes)
        with team.own_random(self.device, self.step), autocast(config.precision, self.device.type):
            logits = self.model(inputs)
            loss = self.criterion(logits, target)
        if team.size > 1:
            loss = loss * (len(target) * team.size / problem.batch_size)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        descend(self.cnn, self.optimizer, config.clip)
        self.loss += loss.detach()
        self.right += (logits.argmax(1) == target).sum()

    def end_epoch(self) -> None:
        """Note the epoch in the history; InputError if its loss is not finite."""
        team, batches = self.problem.team, self.problem.batches
        loss, right = team.total(self.loss).item(), team.total(self.right).item()  # waits for the device
        self.history.append(
            loss=loss / team.size / batches,
            accuracy=right / (batches * self.problem.batch_size),
            learning_rate=self.learning_rate,
            seconds=self.seconds,
        )
        self.step = 0
        self.history.check_finite("local.learning_rate", self.problem.config.rate)

    def validate(self) -> bool:
        """Note loss and accuracy on val, where that is due after this epoch; draws no random numbers.

        Returns:
            Whether the training stops here, since the loss on val has not fallen for `local.patience` epochs.
        """
        problem, history, validation = self.problem, self.history, self.problem.validation
        every, epochs = problem.config.validate_every, problem.config.epochs
        if validation is None or every is None or (len(history) % every and len(history) < epochs):
            return False
        decisions = local_outputs(self.cnn, validation.images, problem.config.precision, team=problem.team)
        self.cnn.train()
        history.validate(decisions, validation.labels, self.criterion.weights)
        if problem.config.keep == "best" and history.best == len(history):
            self.best = {name: values.cpu().clone() for name, values in self.cnn.state_dict().items()}
        return history.without_gain(problem.config.patience)


def train_local(cnn: nn.Module, problem: LocalProblem, on_step: Step, saved: State | None = None) -> History:
    """Train a local CNN in place, to its last epoch or until its patience ends.

    Args:
        cnn: network from [B, C, *window] to [B, K] logits, on the device of the images.
        problem: images, labels, options and team.
        on_step: called after each step; what it raises ends the training.
        saved: a state that `on_step` got, to go on from; the remaining steps have the same bits as if nothing
            had happened.

    Raises:
        InputError: the loss is no longer finite.
    """
    config, training = problem.config, LocalTraining(cnn, problem)
    if saved:
        training.restore(saved)
    alone_on_gpu = training.device.type == "cuda" and problem.team.size == 1
    update = CudaGraph(training.update) if alone_on_gpu and problem.captured else training.update
    cnn.train()
    for epoch in range(len(training.history), config.epochs):
        if training.step == 0:
            training.start_epoch()
        left = training.remaining()
        for batch, padded in zip(left, problem.images.batches(left), strict=True):
            update(padded, training.target[batch], training.draw_step())
            training.step += 1
            on_step((epoch + training.step / problem.batches) / config.epochs, training.history, training.state)
        training.end_epoch()
        if training.validate():
            break
    if training.best:
        cnn.load_state_dict(training.best)
    return training.history


def decision_batch(window: tuple[int, ...], device: str) -> int:
    """Images whose outputs are made at once, for windows of this extent on this kind of device."""
    return max(1, min(DECISION_BATCH[device], DECISION_PIXELS // prod(window)))


def output(cnn: nn.Module, pixels: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Logits [B, K] of a local CNN, and its local output [B, K + features] float32 with the graph of both.

    A local output is the local decision, and the local features where any are wanted; zeros follow where the CNN has
    fewer, as those of the coarse image's may.
    """
    if not features:
        logits = cnn(pixels)
        return logits, logits.float().softmax(1)
    logits, seen = with_features(cnn, pixels)
    assert seen is not None, "open_problem counted them"
    return logits, pad(torch.cat([logits.float().softmax(1), seen.float()], 1), (0, features - seen.shape[1]))


@torch.inference_mode()
def local_outputs(cnn: nn.Module, images: Images, precision: str, features: int = 0, team: Team = ALONE) -> np.ndarray:
    """The local outputs for the windows of a split, [S, K + features] float32, see `output`; a team shares the work.

    On a CPU with one thread the outputs for an image do not depend on the images beside it.
    """
    cnn.eval()
    outputs = []
    device, window = images.mean.device, extent(images.core)
    core = (slice(None), slice(None), *images.core)
    rows = team.rows(len(images))
    size = decision_batch(window, device.type)
    for padded in images.batches(torch.arange(len(images), device=device)[rows].split(size)):
        # new memory, so that its order and place, of which bits may depend as well, are the same for all batches
        order = channels_last(padded.ndim)
        batch = torch.empty((size, padded.shape[1], *window), device=device, memory_format=order).zero_()
        batch[: len(padded)] = images.normalised(padded[core])
        with autocast(precision, device.type):
            _, given = output(cnn, batch, features)
        outputs.append(given[: len(padded)])
    mine = torch.cat(outputs)
    everything = mine.new_zeros(len(images), mine.shape[1])
    everything[rows] = mine
    return team.total(everything).cpu().numpy()
