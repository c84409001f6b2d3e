"""The local features: what the dense layer takes that gives the logits of a local CNN."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddhpc.models.registry import SMALL

Seen = TypeVar("Seen")


def with_features(cnn: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The logits [B, K] of a network, and the features [B, F] from which a dense layer makes them.

    None where no dense layer does, as at the end of a network of convolutions. A layer is known by what it gives, not
    by its place among the modules, where one that nothing calls may stand last.
    """
    logits, layers = dense_layers(cnn, x)
    features = [given for given, made in layers.values() if made is logits and given.ndim == 2]
    return logits, features[0] if features else None


def dense_layers(cnn: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """The logits of a network, and by name of each dense layer what it took and gave, at its last call."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, given, made: calls.update({name: (given[0], made)})

    dense = {name: layer for name, layer in cnn.named_modules() if isinstance(layer, nn.Linear)}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in dense.items()]
    try:
        return cnn(x), calls
    finally:
        for hook in hooks:
            hook.remove()


class Exposed(nn.Module):
    """The dense layer that gives the logits, with what it takes behind them: [B, F] to [B, K + F]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """Logits and features, side by side."""
        return torch.cat([self.layer(features), features], 1)


def exposing(cnn: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A network that gives the features of `with_features` behind its logits, [B, K + F], and needs no hooks.

    It shares the weights of the given one, and unlike that can be exported.

    Args:
        cnn: a network in evaluation mode whose logits a dense layer makes.
        shape: [B, C, *window] that it works on.

    Raises:
        ValueError: no dense layer makes the logits, or something else takes them as well.
    """
    some = next(cnn.parameters())
    x = torch.zeros(shape, device=some.device, dtype=some.dtype)
    with torch.no_grad():
        logits, layers = dense_layers(cnn, x)
    last = next((name for name, (_, made) in layers.items() if made is logits), None)
    if last is None:
        raise ValueError("no dense layer makes the logits of this network")
    if not last:
        return Exposed(cnn)
    copy = deepcopy(cnn, {id(each): each for each in (*cnn.parameters(), *cnn.buffers())})
    parent, _, name = last.rpartition(".")
    setattr(copy.get_submodule(parent), name, Exposed(cnn.get_submodule(last)))
    with torch.no_grad():
        found = copy(x)
    if found.shape[1] <= logits.shape[1] or not torch.equal(found[:, : logits.shape[1]], logits):
        raise ValueError("the last dense layer of this network is not all that takes its outputs")
    return copy


def count_features(cnn: nn.Module, shape: tuple[int, ...]) -> int:
    """How many features a network makes its logits from, in training and after it; 0 where there are none.

    Args:
        cnn: a network that works on the shape.
        shape: [B, C, *window].
    """

    def count(copy: nn.Module, x: Tensor) -> set[int]:
        found = [with_features(copy.train(training), x)[1] for training in (False, True)]
        return {0 if features is None else features.shape[1] for features in found}

    counts = _seen(cnn, shape, count)
    return counts.pop() if len(counts) == 1 else 0


def classifier_name(cnn: nn.Module, shape: tuple[int, ...]) -> str | None:
    """The name of the dense layer that gives the logits; None where no dense layer does, as `with_features`."""

    def find(copy: nn.Module, x: Tensor) -> str | None:
        logits, layers = dense_layers(copy.eval(), x)
        return next((name for name, (_, made) in layers.items() if made is logits), None)

    return _seen(cnn, shape, find)


def _seen(cnn: nn.Module, shape: tuple[int, ...], look: Callable[[nn.Module, Tensor], Seen]) -> Seen:
    """What is seen of a copy of a network, given zeros: neither its statistics nor random numbers change.

    Large inputs are not computed, where the network can be on torch's meta device.
    """
    devices = ["cpu"] if prod(shape) <= SMALL else ["meta", "cpu"]
    for device in devices:
        copy = deepcopy(cnn).to(device)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                return look(copy, torch.zeros(shape, device=device))
        except (NotImplementedError, RuntimeError):
            if device == devices[-1]:
                raise
    raise AssertionError("the last device shows it or raises")
