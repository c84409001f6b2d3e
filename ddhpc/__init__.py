"""ddhpc: model-parallel training of image classifiers by domain decomposition.

The names below are imported when they are first used, so that `import ddhpc` is fast:

    >>> from ddhpc import Config, InputError
    >>> Config().decomposition.grid
    (4, 4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddhpc.config import Config
    from ddhpc.data.packed import open_packed
    from ddhpc.errors import InputError

__version__ = "0.1.0"

__all__ = ["Config", "InputError", "__version__", "open_packed"]

_HOME = {"Config": "ddhpc.config", "InputError": "ddhpc.errors", "open_packed": "ddhpc.data.packed"}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'ddhpc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
