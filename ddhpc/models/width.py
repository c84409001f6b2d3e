"""How much narrower a local CNN is than the global one."""

from __future__ import annotations

from math import sqrt


def local_width(global_width: int, subdomains: int, *, wide: bool = False) -> int:
    """Width of each local CNN: global_width / sqrt(subdomains), or / subdomains^(1/4) if wide; rounded, at least 1.

    The parameters of a CNN grow with the square of its width. So the local CNNs together have about as many parameters
    as the global CNN, "proportionally smaller" in the sense of arXiv:2302.06564; wide ones have sqrt(subdomains) times
    as many. benchmarks/README.md has what that brings.

    Example:
        >>> local_width(32, 16), local_width(32, 16, wide=True)
        (8, 16)
    """
    root = sqrt(subdomains)
    return max(1, round(global_width / (sqrt(root) if wide else root)))
