"""The coarse problem: from the N local decisions of an image to its final decision, by three fusions. No MPI."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ddhpc.config import Coarse
from ddhpc.models.dnn import dnn

Decisions = Mapping[str, np.ndarray]
"""By split: local decisions [N, S, K] or final decisions [S, K], float32 probabilities."""


def solve(
    local: Decisions, labels: Mapping[str, np.ndarray], config: Coarse, device: str
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list[float]]]:
    """All fusions of the local decisions, and the history of the coarse DNN.

    The decision of a single subdomain, the global CNN, is the final one; there is no coarse problem and no history.

    Args:
        local: by split, [N, S, K] float32.
        labels: by split, [S] int64.
        config: section `coarse`.
        device: torch device.

    Returns:
        By fusion and split, final decisions [S, K]; and the history of `train_dnn`.
    """
    if len(local["train"]) == 1:
        only = {split: decisions[0] for split, decisions in local.items()}
        return dict.fromkeys(("mean", "vote", "dnn"), only), {"loss": [], "accuracy": []}
    final, history = train_dnn(local, labels, config, device)
    fusions = {
        "mean": {split: mean(decisions) for split, decisions in local.items()},
        "vote": {split: vote(decisions) for split, decisions in local.items()},
        "dnn": final,
    }
    return fusions, history


def mean(local: np.ndarray) -> np.ndarray:
    """Average probability of the local decisions [N, S, K]: final decisions [S, K]."""
    return np.asarray(local.mean(axis=0, dtype=np.float64), np.float32)


def vote(local: np.ndarray) -> np.ndarray:
    """Majority vote of the local decisions [N, S, K]: final decisions [S, K], the share of the votes.

    A tie is decided by the average probability, which weighs less than one vote.
    """
    subdomains, _, classes = local.shape
    votes = np.eye(classes, dtype=np.float32)[local.argmax(axis=2)].sum(axis=0)
    return np.asarray((votes + mean(local) / 2) / (subdomains + 0.5))


def train_dnn(
    local: Decisions, labels: Mapping[str, np.ndarray], config: Coarse, device: str
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Train the coarse DNN on the local decisions for the training split, and give the final decisions.

    Args:
        local: by split, [N, S, K] float32.
        labels: by split, [S] int64.
        config: section `coarse`.
        device: torch device.

    Returns:
        The final decisions by split, [S, K] float32 probabilities; and the history, `loss` and `accuracy` of each
        epoch on the training split, in the steps as they were made (with dropout).
    """
    inputs = {split: _inputs(decisions).to(device) for split, decisions in local.items()}
    target = torch.from_numpy(labels["train"]).to(device)
    subdomains, _, classes = local["train"].shape
    network = dnn(subdomains, classes, config.hidden, config.dropout).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    batches = -(-len(target) // config.batch_size)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * batches)
    history: dict[str, list[float]] = {"loss": [], "accuracy": []}
    for _ in range(config.epochs):
        total_loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
        for batch in torch.randperm(len(target)).to(device).split(config.batch_size):
            logits = network(inputs["train"][batch])
            loss = cross_entropy(logits, target[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            rate.step()
            total_loss += loss.detach() * len(batch)
            right += (logits.argmax(1) == target[batch]).sum()
        history["loss"].append(total_loss.item() / len(target))
        history["accuracy"].append(right.item() / len(target))
    network.eval()
    with torch.inference_mode():
        final = {split: network(values).softmax(1).cpu().numpy() for split, values in inputs.items()}
    return final, history


def _inputs(decisions: np.ndarray) -> torch.Tensor:
    """[N, S, K] as the rows [S, N * K] that the coarse DNN takes."""
    subdomains, samples, classes = decisions.shape
    return torch.from_numpy(decisions).permute(1, 0, 2).reshape(samples, subdomains * classes)
