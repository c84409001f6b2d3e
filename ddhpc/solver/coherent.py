"""The coherent CNN-DNN: local CNNs and coarse DNN trained end to end, as one network that is spread over the ranks.

Klawonn, Lanser, Weber: Model Parallel Training and Transfer Learning for Convolutional Neural Networks by Domain
Decomposition, 2024, arXiv:2408.14442. In each step the local outputs of a batch travel to rank 0, which holds the
DNN, and their gradients travel back: N x (K + F) numbers an image each way. The steps are those of one process that
holds all networks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddhpc.config import Config, Local
from ddhpc.data.packed import SPLITS
from ddhpc.errors import Stopped
from ddhpc.method.augmentation import draw_changes
from ddhpc.method.class_balance import drawn, weighted_loss
from ddhpc.method.coarse import coarse_dnn, decide
from ddhpc.method.decomposition import owned
from ddhpc.method.local import local_outputs, output
from ddhpc.method.solutions import CoherentSolution, LocalSolution
from ddhpc.method.training import History, State, autocast, descend, learning_rate, new_optimizer, restore, set_rate
from ddhpc.parallel import logs
from ddhpc.parallel.communicator import Communicator
from ddhpc.parallel.progress import LINE_SECONDS
from ddhpc.parallel.standing import as_clock
from ddhpc.results import COHERENT, checkpoint, file_system
from ddhpc.solver.backpropagation import backpropagate
from ddhpc.solver.subdomain import Job, local_cnn, read_windows

TRANSFER_RATE = 0.1
"""Share of the local CNNs' learning rate at which networks that are trained already go on."""


@dataclass(kw_only=True)
class Tally:
    """How far the training is, and on rank 0 how it goes."""

    done: int = 0
    """Steps."""
    loss: float = 0.0
    """Sum over the steps of this epoch."""
    right: int = 0
    """Final decisions of this epoch that were right."""
    seconds: float = 0.0
    """That this epoch took so far."""
    history: History = field(default_factory=History)

    def add(self, loss: float, right: int, seconds: float) -> None:
        """Count a step."""
        self.done, self.loss, self.right = self.done + 1, self.loss + loss, self.right + right
        self.seconds += seconds

    def end_epoch(self, steps: int, images: int, learning_rate: float) -> None:
        """Note an epoch of so many steps in the history."""
        self.history.append(
            loss=self.loss / steps,
            accuracy=self.right / images,
            learning_rate=learning_rate,
            seconds=self.seconds,
        )
        self.loss, self.right, self.seconds = 0.0, 0, 0.0


class Member:
    """One network of the CNN-DNN in training.

    Each has an optimizer of its own; they treat every weight alone, so that this is the same as one for all. Only
    gradients are clipped by network, which needs no word from the others.
    """

    def __init__(self, network: nn.Module, config: Local) -> None:
        self.network = network.train()
        self.optimizer, self.clip = new_optimizer(network, config), config.clip

    def state(self) -> State:
        """As `checkpoint.save` takes it."""
        return {name: getattr(self, name).state_dict() for name in ("network", "optimizer")}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        restore(self.optimizer, state["optimizer"])

    def step(self, rate: float) -> None:
        """Update the weights by their gradients, at a learning rate."""
        set_rate(self.optimizer, rate)
        descend(self.network, self.optimizer, self.clip)
        self.optimizer.zero_grad(set_to_none=True)


def settings(config: Config) -> Local:
    """How the CNN-DNN is trained: as section `local` says, with the epochs and the rate of section `coherent`."""
    rate = config.coherent.learning_rate
    if rate == "auto":
        rate = config.local.rate * (TRANSFER_RATE if config.coherent.start == "transfer" else 1)
    return replace(config.local, epochs=config.coherent.epochs, learning_rate=rate)


class CnnDnn:
    """What one rank holds of the CNN-DNN in training.

    The random numbers of a step are drawn from the seed, the network and the step alone, so that they depend neither
    on the ranks nor on what went before.

    Args:
        job: of this rank.
        comm: all ranks that own subdomains; rank 0 owns subdomain 0, and the coarse DNN, which has number N.
        local: by subdomain, those that this rank owns, as trained alone.
        coarse: on rank 0, the coarse DNN as trained on the local decisions.

    Raises:
        InputError: windows cannot be read.
    """

    def __init__(
        self, job: Job, comm: Communicator, local: Mapping[int, LocalSolution], coarse: nn.Module | None
    ) -> None:
        self.job, self.mine, self.comm, self.problem = job, list(local), comm, job.problem
        self.counts = [len(owned(self.problem.subdomains, comm.size, rank)) for rank in range(comm.size)]
        self.config = settings(job.problem.config)
        self.device = torch.device(job.place.device)
        labels, classes = job.problem.packed.labels["train"], len(job.problem.packed.classes)
        self.target = torch.from_numpy(labels).to(self.device)
        self.criterion = weighted_loss(
            labels, self.config.class_weight, classes, self.device, self.config.label_smoothing
        )
        self.batch_size = min(self.config.batch_size, len(self.target))
        self.batches = len(self.target) // self.batch_size
        """Steps of an epoch."""
        networks = {n: self._cnn(n, solution) for n, solution in local.items()}
        if comm.rank == 0:
            networks[self.problem.subdomains] = self._dnn(coarse).to(self.device)
        self.members = {n: Member(network, self.config) for n, network in networks.items()}
        self.coarse = networks.get(self.problem.subdomains)
        self.images = {n: read_windows(job, n) for n in local}

    def _cnn(self, subdomain: int, solution: LocalSolution) -> nn.Module:
        cnn = local_cnn(self.job, subdomain)
        if solution.weights is not None:
            cnn.load_state_dict(solution.weights)
        return cnn

    def _dnn(self, trained: nn.Module | None) -> nn.Module:
        if trained is not None and self.problem.config.coherent.start == "transfer":
            return deepcopy(trained)
        problem = self.problem
        problem.seed(problem.subdomains)
        return coarse_dnn(problem.subdomains, len(problem.packed.classes), problem.features, problem.config.coarse)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Of a step of an epoch."""
        return learning_rate(self.config, epoch * self.batches + step, self.config.epochs * self.batches)

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch, [batches, B] int64."""
        labels, seed = self.problem.packed.labels["train"], self.problem.config.run.seed
        chosen = torch.from_numpy(drawn(labels, self.config.sampling, seed, epoch))
        self.problem.seed(self.problem.subdomains, epoch)
        order = chosen[torch.randperm(len(chosen))][: self.batches * self.batch_size]
        return order.view(self.batches, self.batch_size).to(self.device)

    def step(self, epoch: int, step: int, batch: Tensor) -> tuple[float, int]:
        """Train on one batch, collectively; see `backpropagate`."""
        config, coarse_number = self.config, self.problem.subdomains
        outputs = []
        for n in self.mine:
            windows = self.images[n]["train"]
            # The same for all subdomains, so that the windows of an image are shifted alike.
            self.problem.seed(coarse_number, epoch, step)
            (padded,) = windows.batches([batch])
            changes = draw_changes(config, len(batch), len(windows.core)).to(self.device)
            pixels = windows.augmented(padded, config, changes)
            self.problem.seed(n, epoch, step)
            with autocast(config.precision, self.device.type):
                _, given = output(self.members[n].network, pixels, self.problem.features)
            outputs.append(given)
        self.problem.seed(coarse_number, epoch, step, 0)
        found = backpropagate(self.comm, self.counts, outputs, self.coarse, self.target[batch], self.criterion)
        for member in self.members.values():
            member.step(self.learning_rate(epoch, step))
        return found

    def decisions(self, split: str) -> np.ndarray:
        """The final decisions [S, K] float32 for a split on rank 0, no rows elsewhere; collective."""
        cnns = ((self.members[n].network, self.images[n][split]) for n in self.mine)
        precision, features = self.config.precision, self.problem.features
        mine = np.stack([local_outputs(cnn, images, precision, features) for cnn, images in cnns])
        everything = self.comm.gather(mine, self.problem.subdomains)
        return everything if self.coarse is None else decide(self.coarse, everything)

    def _file(self, number: int) -> Path:
        return checkpoint.path(self.job.directory, number, COHERENT)

    def save(self, tally: Tally) -> None:
        """Keep all networks of this rank at this step."""
        for number, member in self.members.items():
            with file_system(self._file(number)):
                checkpoint.save(self._file(number), {**member.state(), "tally": asdict(tally)}, self.job.run)

    def restore(self) -> Tally:
        """Go on from the newest step that all ranks have kept; collective.

        Some ranks may have kept one more before the job was killed. Where any lacks that step, all start anew.
        """
        states = {number: self._load(number) for number in self.members}
        common = self.comm.lowest(min(state["tally"]["done"] for state in states.values()))
        for number, state in states.items():
            if state["tally"]["done"] > common:
                checkpoint.step_back(self._file(number))
                states[number] = self._load(number)
        (lacking,) = self.comm.any(any(state["tally"]["done"] != common for state in states.values()))
        if lacking or common == 0:
            return Tally()
        for number, member in self.members.items():
            member.restore(states[number])
        kept = states[max(states)]["tally"]
        return Tally(**{**kept, "history": History(**kept["history"])})

    def _load(self, number: int) -> State:
        """The newest checkpoint of a network; without one, a tally of no steps alone."""
        state, damaged = checkpoint.load(self._file(number), self.job.run)
        for line in damaged:
            logs.warn(f"{line}; going on from the one before it, if any")
        return state or {"tally": asdict(Tally())}


def train_coherent(
    job: Job, comm: Communicator, local: Mapping[int, LocalSolution], coarse: nn.Module | None
) -> CoherentSolution | None:
    """Train the CNN-DNN end to end, collectively; see `CnnDnn` for the arguments.

    Goes on from the checkpoints that the run directory holds.

    Returns:
        The final decisions and the history on rank 0, None elsewhere.

    Raises:
        InputError: on all ranks, if any of them cannot go on.
        Stopped: on all ranks, when any of them was asked to stop; all have made a checkpoint.
    """
    model = comm.together(lambda: CnnDnn(job, comm, local, coarse))
    tally = model.restore()
    epochs, interval = model.config.epochs, job.problem.config.run.checkpoint_seconds
    began = shown = kept = time.monotonic()
    for epoch in range(tally.done // model.batches, epochs):
        order = model.order(epoch)
        for step in range(tally.done % model.batches, model.batches):
            started, rate = time.perf_counter(), model.learning_rate(epoch, step)
            loss, right = model.step(epoch, step, order[step])
            tally.add(loss, right, time.perf_counter() - started)
            if step == model.batches - 1:
                tally.end_epoch(model.batches, order.numel(), rate)
                comm.together(lambda: tally.history.check_finite("coherent.learning_rate", model.config.rate))
            now = time.monotonic()
            if comm.rank == 0 and now - shown >= LINE_SECONDS:
                shown = now
                print(line(tally, model.batches, epochs, now - began), flush=True)
            stop, due = comm.any(job.request.signal != "", comm.rank == 0 and now - kept >= interval)
            if stop or due:
                kept = now
                comm.together(lambda: model.save(tally))
            if stop:
                raise Stopped(f"stopped by {job.request.signal or 'another rank'}")
    comm.together(lambda: model.save(tally))
    decisions = {split: model.decisions(split) for split in SPLITS}
    return CoherentSolution(decisions=decisions, history=tally.history) if comm.rank == 0 else None


def line(tally: Tally, batches: int, epochs: int, elapsed: float) -> str:
    """Progress for a log."""
    accuracy = f", training accuracy {tally.history.accuracy[-1]:.1%}" if tally.history.accuracy else ""
    return f"  {as_clock(elapsed)}  coherent CNN-DNN: epoch {tally.done / batches:.1f} of {epochs}{accuracy}"
