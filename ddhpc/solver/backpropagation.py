"""Gradients of the coherent CNN-DNN across the ranks: local outputs of a batch to rank 0, their gradients back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ddhpc.method.class_balance import Loss
from ddhpc.method.coarse import inputs
from ddhpc.parallel.communicator import Communicator


def backpropagate(
    comm: Communicator,
    counts: Sequence[int],
    outputs: Sequence[Tensor],
    network: nn.Module | None,
    target: Tensor,
    criterion: Loss,
) -> tuple[float, int]:
    """Set the gradients of all networks of the CNN-DNN for one batch; collective.

    Args:
        comm: all ranks, which own consecutive subdomains in their order.
        counts: how many each owns.
        outputs: [B, K + F] float32 of each subdomain of this rank, with the graph of its CNN.
        network: the coarse DNN on rank 0, None elsewhere.
        target: [B] int64 labels, on the device of this rank.
        criterion: the loss, of the whole batch on rank 0.

    Returns:
        The loss and how many final decisions are right; 0 and 0 on other ranks than 0.
    """
    mine = torch.stack([each.detach() for each in outputs]).cpu().numpy()
    back = np.empty_like(mine)
    sizes = [count * mine[0].size for count in counts]
    if network is None:
        comm.mpi.Gatherv(mine, None)
        comm.mpi.Scatterv(None, back)
        loss, right = 0.0, 0
    else:
        everything = np.empty((sum(counts), *mine.shape[1:]), mine.dtype)
        comm.mpi.Gatherv(mine, [everything, sizes])
        gradient, loss, right = final_gradient(network, everything, target, criterion)
        comm.mpi.Scatterv([gradient, sizes], back)
    torch.autograd.backward(list(outputs), list(torch.from_numpy(back).to(target.device)))
    return loss, right


def final_gradient(
    network: nn.Module, local: np.ndarray, target: Tensor, criterion: Loss
) -> tuple[np.ndarray, float, int]:
    """Set the gradients of the coarse DNN, and give those to the local outputs [N, B, K + F], loss and hits."""
    rows = inputs(local).to(target.device).requires_grad_()
    logits = network(rows)
    loss = criterion(logits, target)
    loss.backward()
    assert rows.grad is not None
    subdomains, batch, width = local.shape
    gradient = rows.grad.view(batch, subdomains, width).permute(1, 0, 2).contiguous().cpu().numpy()
    return gradient, loss.item(), int((logits.argmax(1) == target).sum())
