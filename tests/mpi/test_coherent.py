"""The gradients of the spread CNN-DNN are those of one module that holds all its networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ddhpc.method.class_balance import Loss
from ddhpc.method.decomposition import owned
from ddhpc.method.local import output
from ddhpc.models import build
from ddhpc.models.dnn import Dnn
from ddhpc.solver.backpropagation import backpropagate

pytestmark = pytest.mark.mpi

SUBDOMAINS, BATCH, CLASSES, FEATURES = 5, 7, 3, 16


class Whole(nn.Module):
    """All networks in one module, in one process."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        options = {"channels": 1, "classes": CLASSES, "window": (9, 8), "width": 4, "depth": None}
        self.cnns = nn.ModuleList(build("resnet", **options) for _ in range(SUBDOMAINS))
        self.dnn = Dnn(SUBDOMAINS, CLASSES, FEATURES, (16,), 0.0)
        nn.init.normal_(self.dnn.layers[-1].weight, std=0.1)

    def forward(self, windows):
        outputs = []
        for cnn, window in zip(self.cnns, windows, strict=True):
            features = cnn[:-1](window)
            outputs += [cnn[-1](features).softmax(1), features]
        return self.dnn(torch.cat(outputs, 1))


def steps(count):
    """Windows [N, B, 1, 9, 8] and labels [B] of some batches."""
    torch.manual_seed(2)
    return [(torch.randn(SUBDOMAINS, BATCH, 1, 9, 8), torch.randint(0, CLASSES, (BATCH,))) for _ in range(count)]


def parameters(network):
    return [parameter.detach().numpy().copy() for parameter in network.parameters()]


@pytest.mark.parametrize(
    ("label_smoothing", "weights"), [(0.0, None), (0.1, None), (0.1, torch.tensor([0.5, 1.0, 3.0]))]
)
def test_gradients_losses_and_weights_are_those_of_one_process(label_smoothing, weights, comm):
    whole, spread = Whole(), Whole()
    counts = [len(owned(SUBDOMAINS, comm.size, rank)) for rank in range(comm.size)]
    mine = owned(SUBDOMAINS, comm.size, comm.rank)
    ours = [spread.cnns[n] for n in mine] + ([spread.dnn] if comm.rank == 0 else [])
    theirs = [whole.cnns[n] for n in mine] + ([whole.dnn] if comm.rank == 0 else [])
    together = torch.optim.SGD(whole.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    alone = [torch.optim.SGD(each.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3) for each in ours]
    for windows, target in steps(4):
        logits = whole(windows)
        loss = cross_entropy(logits, target, weights, label_smoothing=label_smoothing, reduction="sum") / BATCH
        together.zero_grad()
        loss.backward()
        for optimizer in alone:
            optimizer.zero_grad()
        outputs = [output(spread.cnns[n], windows[n], FEATURES)[1] for n in mine]
        network = spread.dnn if comm.rank == 0 else None
        criterion = Loss(weights=weights, label_smoothing=label_smoothing)
        found, right = backpropagate(comm, counts, outputs, network, target, criterion)
        if comm.rank == 0:
            assert found == pytest.approx(loss.item(), rel=1e-6)
            assert right == (logits.argmax(1) == target).sum()
        for our, their in zip(ours, theirs, strict=True):
            for gradient, expected in zip(our.parameters(), their.parameters(), strict=True):
                assert gradient.grad.abs().max() > 0
                assert torch.allclose(gradient.grad, expected.grad, rtol=1e-5, atol=1e-7)
        together.step()
        for optimizer in alone:
            optimizer.step()
    for our, their in zip(ours, theirs, strict=True):
        for weights, expected in zip(parameters(our), parameters(their), strict=True):
            assert np.allclose(weights, expected, rtol=1e-4, atol=1e-6)
