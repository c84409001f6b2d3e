"""Local CNN families for 2D and 3D windows, their registry, and the rule for the width of a local CNN.

torch is imported by the first use of a name that needs it, not by `import ddhpc.models`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddhpc.models.width import local_width

if TYPE_CHECKING:
    from ddhpc.models.registry import FAMILIES, build, parameters

__all__ = ["FAMILIES", "build", "local_width", "parameters"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("ddhpc.models.registry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
