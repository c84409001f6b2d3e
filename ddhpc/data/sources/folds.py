"""From listed samples to folds for cross-validation: by class, all of a patient and all copies in one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddhpc.data.sources.source import SourceOptions
from ddhpc.data.sources.splits import Divided, rarest_labels
from ddhpc.errors import InputError
from ddhpc.wording import plural


def draw_folds(
    labels: np.ndarray, keys: Sequence[Sequence[str]], count: int, seed: int, classes: Sequence[str]
) -> np.ndarray:
    """The fold of each of S samples, [S] int64.

    Groups are dealt out class by class, the largest first, each round one to every fold, the largest of a round to the
    fold with the fewest samples of the class. So folds differ by at most one group of a class, and by no more samples
    of it than its largest group has.

    Args:
        labels: [S] int64.
        keys: sequences [S], such as patients and checksums; samples that share an entry of any of them are a group. One
            with samples of several classes counts as of the rarest.
        count: of the folds.
        seed: which groups of the same size go where.
        classes: K names.

    Raises:
        InputError: names the option --folds and the class of which a fold would have none.
    """
    group = together(keys)
    for label, name in enumerate(classes):
        found = len(np.unique(group[labels == label]))
        if found < count:
            noun = "sample" if found == (labels == label).sum() else "patient"
            raise InputError(f"--folds {count}: class {name!r} has {plural(found, noun)}; expected one for each fold")
    of_group = rarest_labels(labels, group, np.bincount(labels))
    samples = np.zeros((len(of_group), len(classes)), np.int64)
    np.add.at(samples, (group, labels), 1)
    dealt, fold = np.zeros((count, len(classes)), np.int64), np.empty(len(of_group), np.int64)
    for label in range(len(classes)):
        members = np.random.default_rng((seed, label)).permutation(np.flatnonzero(of_group == label))
        members = members[np.argsort(-samples[members].sum(1), kind="stable")]
        for start in range(0, len(members), count):
            emptiest = np.lexsort((dealt.sum(1), dealt[:, label]))
            for member, to in zip(members[start : start + count], emptiest, strict=False):
                fold[member] = to
                dealt[to] += samples[member]
    if not dealt.all():
        without, label = np.argwhere(dealt == 0)[0].tolist()
        raise InputError(
            f"--folds {count}: class {classes[label]!r} is not in fold {without}, since patients have samples of "
            "several classes; expected fewer folds"
        )
    return np.asarray(fold[group])


def together(keys: Sequence[Sequence[str]]) -> np.ndarray:
    """Groups of samples that share an entry of any of the keys [S], also by way of others: [S] int64, from 0.

    Example:
        >>> together([["Smith", "Smith", "Jones", "Brown"], ["a", "b", "b", "c"]]).tolist()
        [0, 0, 0, 1]
    """
    parent = list(range(len(keys[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for names in keys:
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            parent[root(i)] = root(first.setdefault(name, i))
    number: dict[int, int] = {}
    return np.array([number.setdefault(root(i), len(number)) for i in range(len(parent))], np.int64)


def deal(
    divided: Divided, labels: np.ndarray, keys: Sequence[Sequence[str]], options: SourceOptions, classes: Sequence[str]
) -> tuple[Divided, np.ndarray, list[str]]:
    """Draws the folds of the samples that are packed, where options ask for any; see `draw_folds`.

    Args:
        divided: indices into S samples by split.
        labels: [S] int64.
        keys: see `draw_folds`.
        options: of the source.
        classes: K names.

    Returns:
        The samples of each split in the order of their folds, in which a fold is read in few parts; the fold of each
        [S] int64, -1 where it has none; and what to say of them.
    """
    fold = np.full(len(labels), -1, np.int64)
    if options.folds is None:
        return divided, fold, []
    packed = sorted(i for members in divided.values() for i in members)
    kept = [[key[i] for i in packed] for key in keys]
    fold[packed] = draw_folds(labels[packed], kept, options.folds, options.seed, classes)
    ordered = {name: sorted(members, key=lambda i: int(fold[i])) for name, members in divided.items()}
    sizes = ", ".join(f"{size:,}" for size in np.bincount(fold[packed]).tolist())
    return ordered, fold, [f"{options.folds} folds of all samples of all splits: {sizes}; seed {options.seed}"]
