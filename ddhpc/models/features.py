"""The local features: what the last layer of a local CNN takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def last_layer(cnn: nn.Module) -> nn.Linear:
    """The last dense layer of a network; ValueError where it has none."""
    dense = [layer for layer in cnn.modules() if isinstance(layer, nn.Linear)]
    if not dense:
        raise ValueError("the network has no dense layer")
    return dense[-1]


def count_features(cnn: nn.Module, classes: int) -> int:
    """How many numbers the last layer takes, where it is dense and gives the logits of all classes; else 0."""
    try:
        layer = last_layer(cnn)
    except ValueError:
        return 0
    return layer.in_features if layer.out_features == classes else 0


@contextmanager
def recorded(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """What a layer takes while the `with` block runs, a tensor [B, F] for each call."""
    taken: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    try:
        yield taken
    finally:
        hook.remove()
