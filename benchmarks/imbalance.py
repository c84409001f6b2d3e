"""Classes of unequal size: what class weights and balanced draws do to accuracy and balanced accuracy.

    python benchmarks/imbalance.py FOLDER --output runs/imbalance --seeds 0 1

FOLDER holds the packed files that CASES names; those that are missing are left out. Makes thinned copies, trains local
CNNs in each way and the coarse DNN of each in each way. Prints Markdown: balanced accuracy on test, where all classes
of a thinned copy have as many images, and (accuracy / balanced accuracy on val), in %, means over the seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddhpc.config import Coarse, Config
from ddhpc.data.packed import Contents, Packed, Split, open_packed, write_packed
from ddhpc.method import coarse
from ddhpc.method.metrics import accuracy, confusion
from ddhpc.method.problem import seed_process
from ddhpc.results import code, is_finished, open_results, stored_outputs
from ddhpc.results.provenance import processor

WAYS: dict[str, dict[str, Any]] = {
    "none": {"class_weight": "none", "sampling": "natural"},
    "sqrt": {"class_weight": "sqrt", "sampling": "natural"},
    "balanced": {"class_weight": "balanced", "sampling": "natural"},
    "balanced draws": {"class_weight": "none", "sampling": "balanced"},
}
FALLING = 0.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images, how they are thinned, and how they are trained on."""

    name: str
    file: str
    kept: float
    """Share of the images of each class but the first in train and val; FALLING from all to a tenth, class by class."""
    options: str

    def shares(self, classes: int) -> np.ndarray:
        """Of each class, [K]."""
        return np.geomspace(1, 0.1, classes) if self.kept == FALLING else np.array([1] + [self.kept] * (classes - 1))


FACES = "--recipe faces --decomposition.grid 2 2 --model.global_width 16"
CT = "--recipe ct --decomposition.grid 2 2 1 --decomposition.overlap 2 --model.global_width 32 --local.epochs 15"
CASES = (
    Case(
        name="TF-Flowers, 10 %",
        file="flowers32.h5",
        kept=0.1,
        options="--recipe flowers --model.width auto --local.epochs 20",
    ),
    Case(
        name="CIFAR-10, 10 %", file="cifar.h5", kept=0.1, options="--recipe cifar10 --model.width auto --local.epochs 8"
    ),
    Case(name="faces", file="faces.h5", kept=FALLING, options=FACES),
    Case(name="CT phantoms, 25 %", file="ct.h5", kept=0.25, options=CT),
    Case(
        name="TF-Flowers as it is",
        file="flowers32.h5",
        kept=1,
        options="--recipe flowers --model.width auto --local.epochs 10",
    ),
)


def thinned(packed: Packed, case: Case, path: Path) -> None:
    """Write a copy with fewer images of some classes in train and val, and equally many in test."""
    rng, splits = np.random.default_rng(0), {}
    whole = tuple(slice(0, size) for size in packed.image_shape)
    for split, labels in packed.labels.items():
        counts = np.bincount(labels)
        wanted = np.ceil(case.shares(len(counts)) * counts).astype(int)
        if split == "test" and case.kept < 1:
            wanted[:] = counts.min()
        kept = [rng.permutation(np.flatnonzero(labels == kind))[:count] for kind, count in enumerate(wanted)]
        chosen = np.sort(np.concatenate(kept))
        ids, images = packed.ids(split), packed.read(split, whole)[chosen]
        splits[split] = Split(labels=labels[chosen], ids=[ids[n] for n in chosen], images=images)
    same = {name: getattr(packed, name) for name in ("classes", "image_shape", "channels", "dtype")}
    write_packed(path, Contents(splits=splits, source=f"{packed.source}; thinned", **same))


def trained(file: Path, case: Case, way: str, seed: int) -> Path:
    """The run of local CNNs trained in one way."""
    run = file.with_suffix("") / f"{way.replace(' ', '-')}-{seed}"
    words = [*case.options.split(), "--data.file", file, "--run.threads", 1, "--run.seed", seed, "--output", run]
    words += [word for name, value in WAYS[way].items() for word in (f"--local.{name}", value)]
    if not is_finished(run):
        command = [sys.executable, "-m", "ddhpc", *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def scored(run: Path) -> dict[str, np.ndarray]:
    """Of `mean` and the DNN trained in each way: balanced accuracy on test, accuracy and balanced accuracy on val."""
    with open_results(run) as file:
        config, local = Config.from_yaml(file.attrs["config"]), stored_outputs(file)
        labels = {split: file[f"samples/{split}/label"][...].astype(np.int64) for split in local}
        classes, found = len(file["classes"]), {}
    for way, options in WAYS.items():
        seed_process(config.run.seed, len(local["train"]))
        fusions = coarse.solve(local, labels, classes, replace(Coarse(), **options), "cpu").fusions
        for name, final in (("mean", fusions["mean"]), (way, fusions["dnn"])):
            recalls = [balanced(final[split], labels[split]) for split in ("test", "val")]
            found[name] = 100 * np.array([recalls[0], accuracy(final["val"], labels["val"]), recalls[1]])
    return found


def balanced(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the share that is classified rightly."""
    counts = confusion(decisions, labels)
    return float((counts.diagonal() / counts.sum(1)).mean())


def rows(case: Case, file: Path, seeds: Sequence[int]) -> list[str]:
    """A row for each way of training the local CNNs."""
    counts = np.bincount(open_packed(file).labels["train"])
    lines = []
    for way in WAYS:
        each = [scored(trained(file, case, way, seed)) for seed in seeds]
        means = [np.mean([found[name] for found in each], axis=0) for name in ("mean", *WAYS)]
        cells = " | ".join("{:.1f} ({:.1f} / {:.1f})".format(*values) for values in means)
        lines.append(f"| {case.name}: {counts.min()} to {counts.max()} a class | {way} | {cells} |")
    return lines


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {code()}, seeds {given.seeds}\n")
    heads = ["images to train on", "local", "mean", *(f"dnn, {way}" for way in WAYS)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for case in CASES:
        file = given.output / f"{Path(case.file).stem}-{case.kept:g}.h5"
        if (given.folder / case.file).exists():
            if not file.exists():
                thinned(open_packed(given.folder / case.file), case, file)
            print("\n".join(rows(case, file, given.seeds)), flush=True)


if __name__ == "__main__":
    main()
