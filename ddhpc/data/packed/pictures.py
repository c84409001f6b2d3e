"""Packed images as pictures."""

from __future__ import annotations

import numpy as np

CUT_OFF = 1
"""Percent of the darkest and of the brightest pixels that may be saturated."""


def shown(image: np.ndarray) -> np.ndarray:
    """An image [C, *spatial] ready to be looked at: [*spatial, 3] for three channels, else the first; from 0 to 1.

    Example:
        >>> shown(np.array([[[100, 300, 200]]])).round(2).tolist()
        [[0.0, 1.0, 0.5]]
    """
    low, high = np.percentile(image, (CUT_OFF, 100 - CUT_OFF))
    scaled = ((image.astype(np.float64) - low) / max(high - low, 1e-12)).clip(0, 1)
    return np.moveaxis(scaled, 0, -1) if len(image) == 3 else np.asarray(scaled[0])
