"""How samples are divided into splits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddhpc.errors import InputError


def stratified(
    labels: np.ndarray, fractions: Mapping[str, float], seed: int, classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Draws the given fraction of each class for every named split; "train" is what remains.

    `labels` [S] integer; the result holds ascending indices into it. Each class gives at least one sample to
    every named split, and draws from its own generator, so that it does not change with the other classes.
    Raises InputError, naming the class, where none would be left to train on.
    """
    drawn: dict[str, list[np.ndarray]] = {split: [] for split in ("train", *fractions)}
    for label, name in enumerate(classes):
        members = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        counts = [max(1, round(fraction * len(members))) for fraction in fractions.values()]
        if sum(counts) >= len(members):
            raise InputError(
                f"class {name!r} has {len(members)} training samples, too few to draw "
                f"{' and '.join(fractions)} from them; add samples or leave the class out"
            )
        *parts, rest = np.split(members, np.cumsum(counts))
        for split, part in zip(("train", *fractions), (rest, *parts), strict=True):
            drawn[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in drawn.items()}
