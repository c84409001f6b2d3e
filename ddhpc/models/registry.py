"""From the name of a network to the network: own families, import paths, and the 2D models of torchvision."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ddhpc.errors import InputError
from ddhpc.models.cnn3d import cnn3d
from ddhpc.models.densenet import densenet121
from ddhpc.models.mobilenet import mobilenetv2
from ddhpc.models.resnet import resnet
from ddhpc.models.vgg import vgg

Factory = Callable[..., nn.Module]

FAMILIES: dict[str, Factory] = {
    "cnn3d": cnn3d,
    "densenet121": densenet121,
    "mobilenetv2": mobilenetv2,
    "resnet": resnet,
    "vgg": vgg,
}
"""Called with the keyword arguments channels, classes, dimensions, width and depth; depth may be None."""

LARGEST_TRIED = 256
SMALL = 2**16
"""Numbers of an input that is computed sooner than its shapes alone are."""
WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
TORCHVISION_OPTIONS = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}


class GreyAsColour(nn.Module):
    """A network for colour images, given grey ones."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, H, W], repeated to [B, 3, H, W], to the logits of the network."""
        logits: Tensor = self.net(x.expand(-1, 3, -1, -1))
        return logits


def build(
    name: str, *, channels: int, classes: int, window: tuple[int, ...], width: int, depth: int | None = None
) -> nn.Module:
    """The network of this name for [B, channels, *window], with output [B, classes], after a check that it works.

    Works means: a copy of the network computes [2, classes] logits in training mode. For large windows the copy is on
    torch's meta device, which costs nothing; a network that cannot be there is computed on the CPU. The check leaves
    torch's random numbers as they are, so that the weights depend on the seed alone. Lazy layers get their weights.

    Args:
        name: one of FAMILIES; `package.module:factory`, imported also from the current directory and called as
            FAMILIES are; or a classification model of torchvision, to which width does not apply and which is given
            grey images as colour images.
        channels: of the images.
        classes: K.
        window: pixels (voxels) along each of 2 or 3 dimensions.
        width: channels of the first stage.
        depth: weight layers; None is the default of the family.

    Raises:
        InputError: no such network, one that does not come in this width, depth or dimension, or that does not work
            on the window; where another window would do, the message tells the smallest.
    """
    if width < 1:
        raise InputError(f"--model.width {width}: expected at least 1 channel")
    make = partial(_find(name), channels=channels, classes=classes, dimensions=len(window), width=width, depth=depth)
    shown = name if depth is None else f"{name} depth {depth}"
    shape = (2, channels, *window)
    _check(make, shown, shape, classes)
    net = make()
    if any(map(is_lazy, net.parameters())):
        with torch.no_grad():
            net.eval()(torch.zeros(shape))
    return net.train()


def parameters(module: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _find(name: str) -> Factory:
    if name in FAMILIES:
        return FAMILIES[name]
    if ":" in name:
        return _imported(name)
    known = _torchvision_names()
    if name in known:
        return partial(_torchvision, name)
    close = get_close_matches(name, [*FAMILIES, *known])
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise InputError(
        f"--model.name {name}: no such network; {hint}expected one of {', '.join(FAMILIES)}, a 2D classification "
        "model of torchvision, or an import path written package.module:factory"
    )


def _imported(path: str) -> Factory:
    """The factory at `package.module:factory`."""
    option = f"--model.name {path}"
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(f"{option}: importing {module_name!r} failed: {_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"{option}: expected a function {attribute!r} in the module {module_name}, found {factory!r}")
    arguments = ("channels", "classes", "dimensions", "width", "depth")
    try:
        inspect.signature(factory).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError) as error:
        raise InputError(f"{option}: it is called with {'=, '.join(arguments)}=, but {_line(error)}") from error
    made: Factory = factory
    return made


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _torchvision(
    name: str, *, channels: int, classes: int, dimensions: int, width: int, depth: int | None
) -> nn.Module:
    from torchvision import models

    option = f"--model.name {name}"
    if dimensions != 2:
        raise InputError(f"{option}: models of torchvision are for images; for volumes there are {', '.join(FAMILIES)}")
    if depth is not None:
        raise InputError(f"--model.depth {depth}: {name} of torchvision has one depth; leave the option out")
    if channels not in (1, 3):
        raise InputError(f"{option}: models of torchvision take images of 1 or 3 channels, found {channels}")
    net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **TORCHVISION_OPTIONS.get(name, {}))
    return GreyAsColour(net) if channels == 1 else net


def _check(make: Factory, shown: str, shape: tuple[int, ...], classes: int) -> None:
    """InputError unless the network computes [2, classes] from `shape`, which is [2, channels, *window].

    Small windows are computed: for its meta device torch would import its compiler, a second of each rank's start.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            device = "cpu" if prod(shape) <= SMALL else "meta"
            output = _computed(_made(make, shown, device), shape, device)
        except InputError:
            raise
        except Exception:
            # Either the network does not work on the window, or some code of it does not work on meta: the CPU tells.
            net = _made(make, shown, "cpu")
            try:
                output = _computed(net, shape, "cpu")
            except Exception as error:
                raise InputError(_advice(make, shown, shape, error)) from error
    found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if found != [2, classes]:
        raise InputError(f"--model.name {shown}: for 2 images it gives {found}, expected logits [2, {classes}]")


def _made(make: Factory, shown: str, device: str) -> nn.Module:
    with torch.device(device):
        net = make()
    if not isinstance(net, nn.Module):
        raise InputError(f"--model.name {shown}: expected that it returns a torch.nn.Module, found {net!r}")
    return net


def _computed(net: nn.Module, shape: tuple[int, ...], device: str) -> object:
    """What the network gives for zeros of this shape in training mode."""
    with torch.device(device), torch.no_grad():
        return net.train()(torch.zeros(shape))


def _works(net: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        _computed(net, shape, "meta")
    except Exception:
        return False
    return True


def _advice(make: Factory, shown: str, shape: tuple[int, ...], error: Exception) -> str:
    """What to do about a network that failed with `error`: a larger window if there is one that works."""
    channels, *window = shape[1:]
    size = _by(window)
    try:
        net = _made(make, shown, "meta")
    except Exception:
        larger = []
    else:
        tried = ([edge] * len(window) for edge in range(min(window) + 1, LARGEST_TRIED + 1))
        larger = next((edges for edges in tried if _works(net, (2, channels, *edges))), [])
    if larger:
        return (
            f"window {size} of the decomposition is too small for {shown}: the smallest window that works is "
            f"{_by(larger)}; use a coarser --decomposition.grid or more --decomposition.overlap"
        )
    return f"--model.name {shown}: cannot compute on a window of {size} with {channels} channels: {_line(error)}"


def _by(edges: Sequence[int]) -> str:
    return "x".join(map(str, edges))


def _line(error: Exception) -> str:
    """An error of other code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
