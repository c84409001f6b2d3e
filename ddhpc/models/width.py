"""How much narrower a local CNN is than the global one."""

from __future__ import annotations

from math import sqrt


def local_width(global_width: int, subdomains: int) -> int:
    """Width of each local CNN: global_width / sqrt(subdomains), rounded, at least 1.

    The parameters of a CNN grow with the square of its width, so the local CNNs together have about as many
    parameters as the global CNN: "proportionally smaller" in the sense of arXiv:2302.06564.

    Example:
        >>> local_width(32, 16)
        8
    """
    return max(1, round(global_width / sqrt(subdomains)))
