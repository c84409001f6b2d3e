"""Known weights: a network starts from those in a file, where names and shapes fit."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ddhpc.errors import InputError
from ddhpc.models.features import classifier_name
from ddhpc.wording import by

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
"""Under which programs keep a state dict beside other things."""
DEEPEST = 3
PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model|network|net|backbone)\.)+")
"""What DataParallel, torch.compile and classes around a network put before the names of its tensors."""
SHOWN = 3
KINDS = "safetensors, or what torch.save(network.state_dict(), FILE) writes"


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a network takes of known weights."""

    taken: Mapping[str, Tensor]
    """By their names in the network, for `load_state_dict` with strict=False."""
    said: str
    """What was taken and what was not, in one line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownWeights:
    """The tensors of a file.

    Example::

        known = read_weights("resnet18.pth")
        fitting = known.fit(network, (2, 3, 64, 64))
        network.load_state_dict(fitting.taken, strict=False)
    """

    path: str
    digest: str
    """SHA-256 of the file, hexadecimal."""
    tensors: Mapping[str, Tensor]

    def fit(self, network: nn.Module, shape: tuple[int, ...]) -> Fitting:
        """What a network can take: parameters and statistics of the same name and shape, but for its classifier.

        Names are compared without what usual wrappers put before them. The classifier is the dense layer that gives
        the logits. Where the first convolution has C input channels and that of the file C_in, each of the C gets the
        sum over the C_in, divided by C: it responds to equal channels as that of the file does.

        Args:
            network: on the CPU.
            shape: [B, C, *window] that it works on.

        Raises:
            InputError: fewer than half of the parameters fit, not counting the classifier's, or one is not finite.
        """
        last = classifier_name(network, shape)
        classifier = () if last is None else tuple(f"{last}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        own = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
        sources = self._sources(own)
        first, taken, adapted, other = _first_convolution(network), dict[str, Tensor](), "", []
        for name, source in sources.items():
            found, wanted = self.tensors[source], own[name]
            if name in classifier:
                continue
            if found.shape == wanted.shape:
                taken[name] = found
            elif name == first and found.shape[:1] + found.shape[2:] == wanted.shape[:1] + wanted.shape[2:]:
                taken[name] = with_channels(found, wanted.shape[1])
                adapted = f"{name} adapted from {found.shape[1]} to {wanted.shape[1]} channels"
            else:
                other.append(source)
        self._check(network, taken, classifier)
        left = {
            "classifier": [sources[name] for name in classifier if name in sources],
            "of another shape": other,
            "not in this network": [name for name in self.tensors if name not in sources.values()],
        }
        shown = ", ".join(f"{_listed(names)} ({why})" for why, names in left.items() if names)
        drawn = [name for name in own if name not in sources and name not in classifier]
        parts = (
            f"{len(taken)} of {len(self.tensors)} tensors of {Path(self.path).name}",
            adapted,
            f"left out: {shown}" if shown else "",
            f"not in the file: {_listed(drawn)}" if drawn else "",
        )
        return Fitting(taken=taken, said="; ".join(filter(None, parts)))

    def _sources(self, own: Mapping[str, Tensor]) -> dict[str, str]:
        """By name in the network the name in the file, as it is or else without what was put around a network."""
        plain = {_plain(name): name for name in self.tensors}
        found = {name: name if name in self.tensors else plain.get(_plain(name)) for name in own}
        return {name: source for name, source in found.items() if source is not None}

    def _check(self, network: nn.Module, taken: Mapping[str, Tensor], classifier: Sequence[str]) -> None:
        wanted = {name: value for name, value in network.named_parameters() if name not in classifier}
        count, fitting = (sum(wanted[name].numel() for name in names) for names in (wanted, wanted.keys() & taken))
        if 2 * fitting < count or not taken:
            name = next(name for name in [*wanted, *classifier] if name not in taken)
            source = self._sources({name: wanted.get(name, torch.empty(0))}).get(name)
            found = f"{source} of {by(self.tensors[source].shape)}" if source else _listed(list(self.tensors))
            expected = f"{name} of {by(wanted[name].shape)}" if name in wanted else "weights before the classifier"
            raise InputError(
                f"--model.weights {self.path}: {fitting:,} of the {count:,} parameters before the classifier fit; "
                f"expected the weights of a network like this one, in which is {expected}; found {found or 'no tensor'}"
            )
        if bad := [name for name, value in taken.items() if not value.isfinite().all()]:
            raise InputError(f"--model.weights {self.path}: {_listed(bad)}: not finite; expected finite weights")


def read_weights(path: str) -> KnownWeights:
    """Read a file of weights, safetensors or a torch state dict, also where it is kept beside other things.

    Nothing in the file is executed: torch reads it with weights_only=True.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    option = f"--model.weights {path}"
    if not Path(path).is_file():
        raise InputError(f"{option}: no such file; expected {KINDS}")
    try:
        data = Path(path).read_bytes()
        tensors = _tensors(data)
    except Exception as error:  # what a damaged file makes the readers raise is not documented
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise InputError(f"{option}: cannot be read ({why}); expected {KINDS}") from error
    if not tensors:
        raise InputError(f"{option}: holds no tensors by name; expected {KINDS}")
    return KnownWeights(path=path, digest=hashlib.sha256(data).hexdigest(), tensors=tensors)


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """The weight [O, C_in, *kernel] of a convolution for C input channels: the sum over C_in / C, for each of the C.

    The response to equal channels stays the same, as that of a network for colour images to grey ones.
    """
    return weight.float().sum(1, keepdim=True).div(channels).expand(-1, channels, *weight.shape[2:])


def _tensors(data: bytes) -> dict[str, Tensor]:
    if data[8:9] == b"{":
        from safetensors.torch import load

        return load(data)
    found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for _ in range(DEEPEST):
        inner = (found[name] for name in WRAPPERS if isinstance(found, Mapping) and name in found)
        found = next((each for each in inner if isinstance(each, Mapping)), found)
    named = found.items() if isinstance(found, Mapping) else ()
    return {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}


def _plain(name: str) -> str:
    """A name without what was put around a network; the layers of DenseNet are `layers` in MONAI alone."""
    return PREFIX.sub("", name).replace(".layers.", ".")


def _first_convolution(network: nn.Module) -> str:
    """Name of the weight of the first convolution; empty where there is none, or it has groups."""
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            return f"{name}.weight".lstrip(".") if layer.groups == 1 else ""
    return ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
