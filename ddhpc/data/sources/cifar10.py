"""Source of packed files: CIFAR-10, of the original Python batches or of a tree of class directories.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The batches are pickles, which
torchvision opens only with the MD5 sums of the published files; nothing is unpickled here.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import numpy as np

from ddhpc.data.hdf5 import reason
from ddhpc.data.packed.writer import Contents, Split, write_packed
from ddhpc.data.sources.class_folders import scan
from ddhpc.data.sources.image_decoding import ImagePreparation, endings
from ddhpc.data.sources.image_folders import ImageOptions, Listed, pack_images
from ddhpc.data.sources.source import Packing, Prepared, option
from ddhpc.data.sources.splits import Divided, contradictions, counted, divide, drawn_notes, drop_copies
from ddhpc.errors import InputError
from ddhpc.wording import plural

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the official order, which is that of the names."""
SIZE = (32, 32)
PREPARATION = ImagePreparation(mode="colour", white=255, size=SIZE, resize="crop")
"""Of the batches, which are no files: what makes a photograph one of them."""
BATCHES = "cifar-10-batches-py"
"""Name of the directory of the batches."""


@dataclass(frozen=True, kw_only=True)
class Cifar10Options:
    """How CIFAR-10 is packed."""

    download: bool = option("fetch the batches into SOURCE where they are missing", default=False)
    train_samples: int | None = option("pack only so many training images, of each class alike", default=None)
    val_fraction: float = option("share of the training images drawn as val", default=0.1)
    seed: int = option("of the drawn splits", default=0)

    def check(self) -> None:
        """InputError, naming the option, where one is out of its range."""
        if not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction {self.val_fraction}: expected a number between 0 and 1")
        if self.train_samples is not None and self.train_samples < len(CLASSES):
            raise InputError(
                f"--train-samples {self.train_samples}: expected at least {len(CLASSES)}, one of each class"
            )
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: expected 0 or more")

    def divide(self, given: Sequence[str], labels: np.ndarray, ids: Sequence[str]) -> tuple[Divided, list[str]]:
        """Indices into S samples by split, and what was done, a sentence each; a given val is kept."""
        missing = {} if "val" in given else {"val": self.val_fraction}
        divided = divide(given, labels, ids, missing, self.seed, CLASSES)
        notes = drawn_notes(missing, self.seed)
        if self.train_samples is None:
            return divided, notes
        train = divided["train"]
        if self.train_samples > len(train):
            raise InputError(f"--train-samples {self.train_samples}: there are {len(train)}, without those of val")
        chosen = subset(labels[train], self.train_samples, self.seed)
        notes.append(f"train: {len(chosen)} of {len(train)} images, the same share of each class, seed {self.seed}")
        return divided | {"train": [train[i] for i in chosen]}, notes


def prepare_cifar10(source: Path, options: Cifar10Options, packing: Packing) -> Prepared | None:
    """Packs CIFAR-10 of a directory that holds (or is) `cifar-10-batches-py`, or of `train|test/<class>/*`.

    With `download`, batches that are missing are first fetched into `source`. The test images are the official ones;
    val is drawn from each class of the training images by its fraction, unless the tree has one. Of what remains
    `train_samples` are packed, the same share of each class and a subset of any larger number's; None: all. A tree
    whose names keep the order of the batches gives the same samples. Copies of images of an earlier split and
    unreadable files are left out and named in the result and in the file. `workers` is as for `prepare_images`.

    Raises InputError for bad options, an output that exists, and a source that is not CIFAR-10.
    """
    options.check()
    packing.check()
    root = source.absolute().parent if source.absolute().name == BATCHES else source
    if options.download or os.path.isdir(root / BATCHES):
        # They are one array, read in seconds: nothing to share.
        return packing.workers.on_root(lambda: _pack_batches(root, options, packing))
    return _pack_tree(source, options, packing)


def subset(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Draws ascending indices into labels [S], as nearly as possible the same share of each class.

    A smaller count gives a subset of a larger one's.
    """
    share = np.empty(len(labels))
    for label in range(len(CLASSES)):
        members = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        share[members] = np.arange(1, len(members) + 1) / len(members)
    drawn: list[int] = np.sort(np.argsort(share, kind="stable")[:count]).tolist()
    return drawn


def _pack_batches(root: Path, options: Cifar10Options, packing: Packing) -> Prepared:
    images, labels, given = _read_batches(root, options.download)
    ids = _number([f"{split}/{CLASSES[label]}" for split, label in zip(given, labels, strict=True)])
    divided, notes = options.divide(given, labels, ids)
    checksums = [hashlib.sha256(image).hexdigest() for image in images]
    twofold = contradictions(ids, labels.tolist(), checksums)
    divided = {name: [i for i in members if ids[i] not in twofold] for name, members in divided.items()}
    divided, copies = drop_copies(divided, ids, checksums)
    left_out = {"same pixels under two labels": twofold, "copy of an image of an earlier split": copies}
    notes += [f"{plural(len(names), 'file')} left out: {reason}" for reason, names in left_out.items() if names]
    skipped = dict(sorted({**twofold, **copies}.items()))
    start, total = 0, sum(map(len, divided.values()))
    splits = {}
    for name, members in divided.items():
        splits[name] = Split(
            labels=labels[members],
            ids=[ids[i] for i in members],
            images=(images[i] for i in counted(members, packing.progress, start, total)),
        )
        start += len(members)
    packed = write_packed(
        packing.output,
        Contents(
            classes=CLASSES,
            splits=splits,
            image_shape=SIZE,
            channels=3,
            dtype="uint8",
            preparation=PREPARATION.to_json(),
            source=f"CIFAR-10 of {BATCHES}: {'; '.join(notes)}",
            skipped=[f"{name}: {reason}" for name, reason in skipped.items()],
        ),
        overwrite=packing.overwrite,
    )
    return Prepared(packed=packed, notes=tuple(notes), skipped=skipped)


def _read_batches(root: Path, download: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images [S, 3, 32, 32] uint8, labels [S] int64 and splits, in order of split, class, and place in the batches."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    try:
        parts = {"train": CIFAR10(root, train=True, download=download), "test": CIFAR10(root, train=False)}
    except RuntimeError as error:
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
        bad = [name for name, md5 in files if not check_integrity(root / BATCHES / name, md5)]
        raise InputError(
            f"{root / BATCHES}: {', '.join(bad)}: missing, or another MD5 sum than the published file; "
            "remove the directory and fetch it anew with --download"
        ) from error
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        why = reason(cause if isinstance(cause, Exception) else error)
        if download:
            raise InputError(f"--download into {root}: {why}; expected a network, or bring {BATCHES} there") from error
        raise InputError(f"{root / BATCHES}: cannot be read: {why}") from error
    images, labels, splits = [], [], []
    for split, part in parts.items():
        own = np.array(part.targets, np.int64)
        order = np.argsort(own, kind="stable")
        images.append(part.data[order].transpose(0, 3, 1, 2))
        labels.append(own[order])
        splits += [split] * len(own)
    return np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels), splits


def _number(kinds: Sequence[str]) -> list[str]:
    """`train/cat/0007` for the eighth of kind `train/cat`."""
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        names.append(f"{kind}/{seen[kind]:04d}")
        seen[kind] += 1
    return names


def _pack_tree(source: Path, options: Cifar10Options, packing: Packing) -> Prepared | None:
    if not all(os.path.isdir(source / split) for split in ("train", "test")):
        raise InputError(
            f"{source}: holds neither {BATCHES} nor train/ and test/ with a directory for each class; "
            "--download fetches the former"
        )
    listed = scan(source, endings())
    if listed.classes != CLASSES:
        other = sorted(set(listed.classes) ^ set(CLASSES))[0]
        found = "has a class" if other in listed.classes else "lacks the class"
        raise InputError(f"{source}: {found} {other!r}; expected those of CIFAR-10; `prepare images` packs any classes")
    labels = np.array([file.label for file in listed.files], np.int64)
    divided, notes = options.divide([file.split for file in listed.files], labels, [f.id for f in listed.files])
    files = [replace(listed.files[i], split=split) for split, members in divided.items() for i in members]
    tree = Listed(folder=source, found=replace(listed, files=tuple(files)), kind="CIFAR-10", notes=notes)
    return pack_images(tree, ImageOptions(size=SIZE, seed=options.seed), packing)
