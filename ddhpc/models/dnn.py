"""The coarse DNN: a dense network from the local decisions of an image to its final decision."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Dnn(nn.Sequential):
    """Dense layers that see by how much each probability of a local decision differs from 1/K.

    Without the common 1/K, N x K positive numbers move every hidden unit alike, and the training of large N stalls. An
    absent subdomain, all zeros, is one without an opinion.
    """

    def __init__(self, classes: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.classes = classes

    def forward(self, decisions: Tensor) -> Tensor:
        """[B, N * K] local decisions to [B, K] logits."""
        each = decisions.unflatten(1, (-1, self.classes))
        values: Tensor = (each - each.mean(2, keepdim=True)).flatten(1)
        for layer in self:
            values = layer(values)
        return values


def dnn(subdomains: int, classes: int, hidden: Sequence[int], dropout: float) -> Dnn:
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
    return Dnn(classes, *layers, nn.Dropout(dropout), nn.Linear(width, classes))
