"""The coarse problem: the coarse DNN, from the N local outputs of an image to its final decision. No MPI."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from ddhpc.config import Coarse
from ddhpc.method.class_balance import drawn, weighted_loss
from ddhpc.method.fusions import BLOCK, Fusion, accuracy_without, by_blocks, mean, vote
from ddhpc.method.metrics import accuracy
from ddhpc.method.optimizers import AdamW
from ddhpc.method.solutions import CoarseSolution
from ddhpc.method.training import History, State
from ddhpc.models.dnn import Dnn

LEAST_EPOCHS, LEAST_STEPS = 30, 1000
"""Of the coarse DNN where its epochs are not given. Its steps must not fall with the images: 60 left it below mean."""
DROPOUT, DROPOUT_WITH_FEATURES = 0.2, 0.5
"""Where it is not given. With less, features overfit; with more, little is learned from decisions alone."""


def solve(
    local: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    classes: int,
    config: Coarse,
    device: str,
    learned: np.ndarray | None = None,
) -> CoarseSolution:
    """Solve the coarse problem and the other fusions.

    The decision of a single subdomain, the global CNN, is the final one; there is no coarse problem and no history.

    Args:
        local: local outputs by split, [N, S, K + F] float32; all zeros where a subdomain is absent.
        labels: by split, [S] int64.
        classes: K.
        config: section `coarse`.
        device: torch device.
        learned: [n] int64, the training images that the coarse DNN is trained on; all without it.
    """
    if len(local["train"]) == 1:
        only = {split: outputs[0] for split, outputs in local.items()}
        absent = np.full(config.allow_missing + 1, np.nan)
        absent[0] = accuracy(only["test"], labels["test"])
        return CoarseSolution(
            network=None,
            fusions=dict.fromkeys(("mean", "vote", "dnn"), only),
            history=History(),
            absent=dict.fromkeys(("mean", "vote", "dnn"), absent),
        )
    network, history = train_dnn(local, labels, classes, config, device, learned)
    fuse: dict[str, Fusion] = {
        "mean": lambda outputs: mean(outputs[:, :, :classes]),
        "vote": lambda outputs: vote(outputs[:, :, :classes]),
        "dnn": partial(decide, network),
    }
    fusions = {
        name: {split: by_blocks(fusion, outputs) for split, outputs in local.items()} for name, fusion in fuse.items()
    }
    return CoarseSolution(
        network=network,
        fusions=fusions,
        history=history,
        absent={
            name: accuracy_without(fusion, local["test"], labels["test"], config.allow_missing)
            for name, fusion in fuse.items()
        },
    )


def decide(network: nn.Module, local: np.ndarray) -> np.ndarray:
    """The coarse DNN's final decisions [S, K] float32 for local outputs [N, S, K + F].

    Made of BLOCK samples at once, zeros where there are fewer, so that on a CPU with one thread the bits of a decision
    do not depend on the samples beside it.
    """
    device = next(network.parameters()).device
    network.eval()
    made = []
    with torch.inference_mode():
        for rows in inputs(local).split(BLOCK):
            block = torch.zeros((BLOCK, rows.shape[1]), device=device)
            block[: len(rows)] = rows
            made.append(network(block).softmax(1)[: len(rows)])
        return np.asarray(torch.cat(made).cpu().numpy())


def subdomain_dropout(inputs: Tensor, subdomains: int, allow_missing: int) -> Tensor:
    """Rows of local outputs [B, N * (K + F)], in each of which 0 to `allow_missing` random subdomains are zeroed."""
    order = torch.rand(len(inputs), subdomains, device=inputs.device).argsort(1).argsort(1)
    count = torch.randint(0, allow_missing + 1, (len(inputs), 1), device=inputs.device)
    kept = (order >= count).to(inputs.dtype)
    return (inputs.view(len(inputs), subdomains, -1) * kept[:, :, None]).flatten(1)


def epochs(config: Coarse, images: int) -> int:
    """Passes of the coarse DNN over the local decisions of so many training images."""
    if config.epochs != "auto":
        return config.epochs
    return max(LEAST_EPOCHS, ceil(LEAST_STEPS / ceil(images / config.batch_size)))


def class_weight(config: Coarse) -> str:
    """How images weigh in the loss of the coarse DNN, see `config.Local.class_weight`.

    On unequal classes sqrt gained balanced accuracy at next to no accuracy, see benchmarks/README.md.
    """
    if config.class_weight != "auto":
        return config.class_weight
    return "sqrt" if config.sampling == "natural" else "none"


def train_dnn(
    local: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    classes: int,
    config: Coarse,
    device: str,
    learned: np.ndarray | None = None,
) -> tuple[Dnn, History]:
    """Train the coarse DNN on the local outputs for the training split, which stay where they are.

    After each epoch it is looked at on val, which draws no random numbers.

    Args:
        local: see `solve`; train and val are used.
        labels: see `solve`.
        classes: K.
        config: section `coarse`.
        device: torch device.
        learned: see `solve`.

    Returns:
        The network from [B, N * (K + F)] to [B, K] logits, and what the training did.
    """
    rows, target = inputs(local["train"]), torch.from_numpy(labels["train"])
    images = torch.arange(len(target)) if learned is None else torch.from_numpy(learned)
    subdomains, _, width = local["train"].shape
    network = coarse_dnn(subdomains, classes, width - classes, config)
    network.standardise(*moments(local["train"][:, :, classes:], images.numpy()))
    network = network.to(device)
    optimizer = AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    batches = ceil(len(images) / config.batch_size)
    passes = epochs(config, len(images))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * batches)
    history, best = History(), State()
    seen_labels, seed = labels["train"][images.numpy()], torch.initial_seed()
    criterion = weighted_loss(seen_labels, class_weight(config), classes, device)
    for epoch in range(passes):
        started = time.perf_counter()
        total_loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
        chosen = images[torch.from_numpy(drawn(seen_labels, config.sampling, seed, epoch))]
        network.train()
        for batch in chosen[torch.randperm(len(chosen))].split(config.batch_size):
            seen, wanted = rows[batch].to(device), target[batch].to(device)
            if config.allow_missing:
                seen = subdomain_dropout(seen, subdomains, config.allow_missing)
            logits = network(seen)
            loss = criterion(logits, wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            used = float(rate.get_last_lr()[0])
            rate.step()
            total_loss += loss.detach() * len(batch)
            right += (logits.argmax(1) == wanted).sum()
        history.append(
            loss=total_loss.item() / len(images),
            accuracy=right.item() / len(images),
            learning_rate=used,
            seconds=time.perf_counter() - started,
        )
        seen_on_val = by_blocks(partial(decide, network), local["val"])  # no copy of all of it
        history.validate(seen_on_val, labels["val"], criterion.weights)
        if config.keep == "best" and history.best == len(history):
            best = deepcopy(network.state_dict())
        if history.without_gain(config.patience):
            break
    if best:
        network.load_state_dict(best)
    return network, history


def coarse_dnn(subdomains: int, classes: int, features: int, config: Coarse) -> Dnn:
    """The coarse DNN before training, for N subdomains, K classes and F local features; see `Dnn`."""
    dropout = config.dropout if config.dropout != "auto" else DROPOUT_WITH_FEATURES if features else DROPOUT
    return Dnn(subdomains, classes, features, config.hidden, dropout)


def moments(features: np.ndarray, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [N, F] float32 of local features [N, S, F] over some images, block by block."""
    shape = (features.shape[0], features.shape[2])
    blocks = np.split(images, range(BLOCK, len(images), BLOCK))
    mean = sum((features[:, block].sum(1, dtype=np.float64) for block in blocks), np.zeros(shape)) / len(images)
    squares = sum((np.square(features[:, block] - mean[:, None]).sum(1) for block in blocks), np.zeros(shape))
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(squares / len(images))).float()


def weight_shapes(subdomains: int, classes: int, features: int, config: Coarse) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of the coarse DNN, by name; none where a single subdomain decides alone."""
    if subdomains == 1:
        return {}
    with torch.device("meta"):
        network = coarse_dnn(subdomains, classes, features, config)
    return {name: tuple(values.shape) for name, values in network.state_dict().items()}


def restored(weights: Mapping[str, np.ndarray], config: Coarse) -> Dnn:
    """The coarse DNN with the weights that the results file holds."""
    subdomains, features = weights["feature_mean"].shape
    classes = len(weights[f"layers.{3 * len(config.hidden) + 1}.bias"])
    network = coarse_dnn(subdomains, classes, features, config)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    return network


def inputs(local: np.ndarray) -> Tensor:
    """[N, S, W] as the rows [S, N * W] that the coarse DNN takes; no copy of what is mapped from a file."""
    subdomains, samples, width = local.shape
    return torch.from_numpy(local).permute(1, 0, 2).reshape(samples, subdomains * width)
