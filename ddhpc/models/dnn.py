"""The coarse DNN: a dense network from the local outputs of an image to its final decision."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

LEAST = 1e-4
"""Probability that counts for a smaller one in a logarithm."""
VALUES = 2**16
"""Of a random number of 16 bits."""


class Dropout(nn.Module):
    """What `torch.nn.Dropout` is, on a CPU in a quarter of its time, which is half of a step of the coarse DNN.

    Each random number of 64 bits gives four of 16 bits, and the share that is dropped is a multiple of 1 / 65536.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """In training a `share` of the numbers is zero, and the others grow, so that the mean stays."""
        if not self.training or self.share == 0:
            return x
        if x.is_cuda:
            return dropout(x, self.share)
        random = torch.empty(ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = min(round(self.share * VALUES), VALUES - 1)
        kept = random.view(torch.int16)[: x.numel()].view_as(x) >= dropped - VALUES // 2
        return x * kept.to(x.dtype).mul_(VALUES / (VALUES - dropped))


class Dnn(nn.Module):
    """Dense layers that correct the average log-probability of the local decisions.

    They see by how much each probability of a local decision differs from 1/K, and the local features with mean 0 and
    standard deviation 1 over the training images. Their last weights start at zero, so that the training starts from
    the average and need not find it: on few images it would not. An absent subdomain, all zeros, is one without an
    opinion.

    Args:
        subdomains: N, local outputs of an image.
        classes: K, probabilities in a local decision.
        features: F, numbers that follow the decision in each local output.
        hidden: width of each hidden layer.
        dropout: share of the inputs of each dense layer that is dropped in training.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, subdomains: int, classes: int, features: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.subdomains, self.classes = subdomains, classes
        layers: list[nn.Module] = []
        width = subdomains * (classes + features)
        for following in hidden:
            layers += [Dropout(dropout), nn.Linear(width, following), nn.ReLU(inplace=True)]
            width = following
        last = nn.Linear(width, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, Dropout(dropout), last)
        self.average = nn.Parameter(torch.ones(()))
        """Weight of the average log-probability."""
        self.register_buffer("feature_mean", torch.zeros(subdomains, features))
        self.register_buffer("feature_scale", torch.ones(subdomains, features))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and standard deviation [N, F] of the local features; what does not vary counts as zero."""
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(torch.where(std > 0, 1 / std, 0))

    def forward(self, outputs: Tensor) -> Tensor:
        """[B, N * (K + F)] local outputs, each a decision and its features, to [B, K] logits."""
        each = outputs.unflatten(1, (self.subdomains, -1))
        decisions, features = each[:, :, : self.classes], each[:, :, self.classes :]
        present = decisions.sum(2, keepdim=True)  # 1, or 0 where absent
        opinions = decisions - present / self.classes
        features = (features - self.feature_mean) * self.feature_scale * present
        average = (opinions + 1 / self.classes).clamp_min(LEAST).log().mean(1)
        logits: Tensor = self.layers(torch.cat([opinions.flatten(1), features.flatten(1)], 1))
        logits = logits + self.average * average
        return logits
