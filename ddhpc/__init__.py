"""ddhpc: model-parallel training of image classifiers by domain decomposition.

The names below are imported when they are first used, so that `import ddhpc` is fast:

    >>> from ddhpc import Config, InputError
    >>> Config().decomposition.grid
    (4, 4)
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddhpc.config import Config
    from ddhpc.data.packed import open_packed
    from ddhpc.errors import InputError, Stopped
    from ddhpc.interface import predict, train
    from ddhpc.run import Run, open_run

__version__ = "0.2.0"

__all__ = [
    "Config",
    "InputError",
    "Run",
    "Stopped",
    "__version__",
    "open_packed",
    "open_run",
    "predict",
    "train",
]

_HOME = {
    "Config": "ddhpc.config",
    "InputError": "ddhpc.errors",
    "Run": "ddhpc.run",
    "Stopped": "ddhpc.errors",
    "open_packed": "ddhpc.data.packed",
    "open_run": "ddhpc.run",
    "predict": "ddhpc.interface",
    "train": "ddhpc.interface",
}
"""Module of each public name."""


class _Package(ModuleType):
    """Keeps `ddhpc.train` and `ddhpc.predict` the functions: importing the modules so named would bind them here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'ddhpc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
