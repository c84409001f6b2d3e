"""The coarse DNN: a dense network from the local decisions of an image to its final decision."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def dnn(subdomains: int, classes: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """The coarse DNN.

    Args:
        subdomains: N, local decisions of an image.
        classes: K, probabilities in a decision.
        hidden: width of each hidden layer.
        dropout: share of the inputs of each dense layer that is dropped in training.

    Returns:
        A network from [B, N * K] local decisions to [B, K] logits.
    """
    layers: list[nn.Module] = []
    width = subdomains * classes
    for following in hidden:
        layers += [nn.Dropout(dropout), nn.Linear(width, following), nn.ReLU(inplace=True)]
        width = following
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(width, classes))
