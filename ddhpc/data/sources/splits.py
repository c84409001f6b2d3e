"""From listed samples to splits: given or drawn, a patient in one of them, without copies. Pure.

Samples are indices into parallel sequences, so that images and volumes are divided by the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.wording import plural

Item = TypeVar("Item")
Divided = dict[str, list[int]]
"""Indices of the samples of each split."""


def drawn_notes(missing: Mapping[str, float], seed: int) -> list[str]:
    """What to say of the splits that are drawn, by their fractions."""
    return [f"{name}: {part:.0%} of each class in train, seed {seed}" for name, part in missing.items()]


def divide(
    given: Sequence[str],
    labels: np.ndarray,
    owners: Sequence[str],
    missing: Mapping[str, float],
    seed: int,
    classes: Sequence[str],
) -> Divided:
    """Keeps given splits and draws each missing one, a fraction of what is given as "train" or "".

    `given`, `labels` and `owners` describe S samples. All samples of an owner (a patient, or the sample itself)
    stay together; owners are drawn by class, the rarest of theirs. Raises InputError, naming the class, where
    none would be left to train on.
    """
    pool = [i for i, split in enumerate(given) if split in ("", "train")]
    divided = {name: [i for i, split in enumerate(given) if split == name] for name in SPLITS}
    number = {owner: n for n, owner in enumerate(dict.fromkeys(owners[i] for i in pool))}
    owner = np.array([number[owners[i]] for i in pool], np.int64)
    label = rarest_labels(labels[pool], owner, np.bincount(labels))
    present, stratum = np.unique(label, return_inverse=True)
    noun = "training sample" if len(number) == len(pool) else "training patient"
    drawn = stratified(stratum, missing, seed, [classes[n] for n in present], noun)
    split_of = {n: name for name, members in drawn.items() for n in members.tolist()}
    return divided | {name: [i for i in pool if split_of[number[owners[i]]] == name] for name in drawn}


def rarest_labels(labels: np.ndarray, owner: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """The class of each owner, the least frequent of those that its samples have: int64, an owner each.

    Args:
        labels: [S] int64.
        owner: of each sample, [S] int64 from 0.
        frequency: of each class, [K].
    """
    found = np.empty(int(owner.max(initial=-1)) + 1, np.int64)
    for i in np.argsort(-frequency[labels], kind="stable").tolist():
        found[owner[i]] = labels[i]
    return found


def drop_copies(divided: Divided, ids: Sequence[str], checksums: Sequence[str]) -> tuple[Divided, dict[str, str]]:
    """Leaves out copies of samples of earlier splits, which would make accuracy look better than it is.

    Gives what is kept, and the reason for each id left out.
    """
    kept: Divided = {}
    copies: dict[str, str] = {}
    earlier: dict[str, str] = {}
    for name, members in divided.items():
        originals = {i: earlier.get(checksums[i]) for i in members}
        kept[name] = [i for i, original in originals.items() if original is None]
        copies |= {ids[i]: f"copy of {original}" for i, original in originals.items() if original}
        earlier |= {checksums[i]: ids[i] for i in kept[name]}
    return kept, copies


def check_patients(divided: Divided, ids: Sequence[str], patients: Sequence[str]) -> None:
    """Raises InputError, naming the patient and the samples, where a patient is in more than one split.

    An empty name is nobody.
    """
    home: dict[str, tuple[str, str]] = {}
    for split, members in divided.items():
        for i in members:
            other, sample = home.setdefault(patients[i], (split, ids[i]))
            if patients[i] and other != split:
                raise InputError(
                    f"patient {patients[i]!r} is in {other} ({sample}) and in {split} ({ids[i]}); expected each "
                    f"patient in one split, or --allow-shared-patients"
                )


def contradictions(ids: Sequence[str], labels: Sequence[int], checksums: Sequence[str]) -> dict[str, str]:
    """The reason to leave each sample out whose content also stands under another label."""
    first: dict[str, int] = {}
    found: dict[str, str] = {}
    for i, checksum in enumerate(checksums):
        other = first.setdefault(checksum, i)
        if labels[i] != labels[other]:
            found[ids[other]] = f"same content as {ids[i]}, which has another label"
            found[ids[i]] = f"same content as {ids[other]}, which has another label"
    return found


def patients_of(ids: Sequence[str], pattern: str) -> list[str]:
    """The patient that a pattern finds in each id: its first group, or all that it matches.

    Raises InputError, naming the option --patients, where it is no regular expression or finds nothing in an id.
    """
    try:
        finder = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--patients {pattern}: {error}; expected a regular expression, e.g. 'patient(\\d+)'"
        ) from error
    found = []
    for name in ids:
        match = finder.search(name)
        patient = match and match[1 if finder.groups else 0]
        if not patient:
            raise InputError(f"--patients {pattern}: finds no patient in {name}; expected one in the path of each file")
        found.append(patient)
    return found


def patients_note(divided: Divided, patients: Sequence[str], noun: str) -> str:
    """How many patients each split has, or that nobody said whose the samples are."""
    if not any(patients):
        return f"every {noun} is taken as independent of the others; --patients tells which are of one patient"
    counts = {
        split: len({patients[i] for i in members if patients[i]}) + sum(not patients[i] for i in members)
        for split, members in divided.items()
    }
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"patients: {shown}; stored as running numbers, not by name"


def counted(items: Iterable[Item], progress: Callable[[int, int], None], start: int, total: int) -> Iterator[Item]:
    """The items; as each one is handed out `progress` is told the steps done, from `start` on, and their total."""
    for done, item in enumerate(items, start + 1):
        progress(done, total)
        yield item


def stratified(
    labels: np.ndarray,
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str],
    noun: str = "training sample",
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
                f"class {name!r} has {plural(len(members), noun)}, too few to draw "
                f"{' and '.join(fractions)} from them; add samples or leave the class out"
            )
        *parts, rest = np.split(members, np.cumsum(counts))
        for split, part in zip(("train", *fractions), (rest, *parts), strict=True):
            drawn[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in drawn.items()}
