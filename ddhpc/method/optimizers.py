"""torch's optimizers without its compiler, which their first step would import: a second of each rank's start.

Those are 1,200 modules, on a cluster from a file system that all ranks share, and nothing here is compiled. The
arithmetic is torch's own, to the bit.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

T = TypeVar("T", bound=Optimizer)

WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods that torch 2.14 keeps from its compiler, for which it imports it."""


def plain(kind: type[T]) -> type[T]:
    """An optimizer class whose methods are the ones that torch wraps for its compiler."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD = plain(torch.optim.SGD)
AdamW = plain(torch.optim.AdamW)
