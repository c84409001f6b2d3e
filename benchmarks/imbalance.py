"""Classes of unequal size: what class weights and balanced draws do to accuracy and balanced accuracy.

    python benchmarks/imbalance.py FOLDER --output runs/imbalance --seeds 0 1

FOLDER holds the packed files that CASES names; those that are missing are left out. Makes thinned copies, trains local
CNNs in each way and the coarse DNN of each in each way. Prints Markdown: accuracy / balanced accuracy in % on
test, where all classes of a thinned copy have as many images, and (balanced accuracy on val); means over the seeds.
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
    "none": {},
    "sqrt": {"class_weight": "sqrt"},
    "balanced": {"class_weight": "balanced"},
    "balanced draws": {"sampling": "balanced"},
}
SPLITS = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images, how they are thinned, and how they are trained on."""

    name: str
    file: str
    kept: str
    """Shares of train and val: "all"; "one", the first class whole and a tenth of the others; "quarter" likewise;
    "falling" from 1 to 0.1, class by class."""
    options: str

    def shares(self, classes: int) -> np.ndarray:
        """Of each class, [K]."""
        if self.kept == "falling":
            return np.asarray(np.geomspace(1, 0.1, classes))
        return np.array([1] + [{"all": 1, "one": 0.1, "quarter": 0.25}[self.kept]] * (classes - 1))


CASES = (
    Case(name="TF-Flowers, 10 %", file="flowers32.h5", kept="one", options="--recipe flowers --local.epochs 20"),
    Case(name="CIFAR-10, 10 %", file="cifar.h5", kept="one", options="--recipe cifar10 --local.epochs 8"),
    Case(
        name="faces, 100 to 10 %",
        file="light48.h5",
        kept="falling",
        options="--recipe faces --decomposition.grid 2 2 --model.global_width 32",
    ),
    Case(
        name="CT phantoms, 25 %",
        file="ct.h5",
        kept="quarter",
        options="--recipe ct --decomposition.grid 2 2 2 --decomposition.overlap 2 --model.global_width 32 "
        "--local.learning_rate 0.01 --local.epochs 15",
    ),
    Case(name="TF-Flowers as it is", file="flowers32.h5", kept="all", options="--recipe flowers --local.epochs 10"),
)


def thinned(packed: Packed, case: Case, path: Path) -> None:
    """Write a copy with fewer images of some classes in train and val, and equally many in test."""
    rng, splits = np.random.default_rng(0), {}
    whole = tuple(slice(0, size) for size in packed.image_shape)
    for split, labels in packed.labels.items():
        counts = np.bincount(labels)
        wanted = np.ceil(case.shares(len(counts)) * counts).astype(int)
        if split == "test" and case.kept != "all":
            wanted[:] = counts.min()
        kept = [rng.permutation(np.flatnonzero(labels == kind))[:count] for kind, count in enumerate(wanted)]
        chosen = np.sort(np.concatenate(kept))
        ids, images = packed.ids(split), packed.read(split, whole)[chosen]
        splits[split] = Split(labels=labels[chosen], ids=[ids[n] for n in chosen], images=images)
    contents = Contents(
        classes=packed.classes,
        splits=splits,
        image_shape=packed.image_shape,
        channels=packed.channels,
        dtype=packed.dtype,
        source=f"{packed.source}; thinned: {case.kept}",
    )
    write_packed(path, contents)


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
    """Accuracy and balanced accuracy, on val and on test, of `mean` and of the DNN trained in each way: [2, 2]."""
    with open_results(run) as file:
        config, local = Config.from_yaml(file.attrs["config"]), stored_outputs(file)
        labels = {split: file[f"samples/{split}/label"][...].astype(np.int64) for split in local}
        classes = len(file["classes"])
    found = {}
    for way, options in WAYS.items():
        seed_process(config.run.seed, len(local["train"]))
        solution = coarse.solve(local, labels, classes, replace(Coarse(), **options), "cpu")
        for fusion, name in (("mean", "mean"), ("dnn", way)):
            found[name] = np.array([shares(solution.fusions[fusion][split], labels[split]) for split in SPLITS])
    return found


def shares(decisions: np.ndarray, labels: np.ndarray) -> list[float]:
    """Accuracy and balanced accuracy in %."""
    counts = confusion(decisions, labels)
    members = counts.sum(1)
    recall = counts.diagonal()[members > 0] / members[members > 0]
    return [100 * float(accuracy(decisions, labels)), 100 * float(recall.mean())]


def rows(case: Case, folder: Path, output: Path, seeds: Sequence[int]) -> list[str]:
    """A row for each way of training the local CNNs."""
    file = output / f"{Path(case.file).stem}-{case.kept}.h5"
    if not file.exists():
        thinned(open_packed(folder / case.file), case, file)
    counts = np.bincount(open_packed(file).labels["train"])
    lines = []
    for way in WAYS:
        each = [scored(trained(file, case, way, seed)) for seed in seeds]
        cells = []
        for name in ("mean", *WAYS):
            val, test = np.mean([found[name] for found in each], axis=0)
            cells.append(f"{test[0]:.1f} / {test[1]:.1f} ({val[1]:.1f})")
        lines.append(f"| {case.name} ({counts.min()} to {counts.max()}) | {way} | {' | '.join(cells)} |")
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
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {code()}, seeds {given.seeds}")
    heads = ["data (images a class)", "local", "mean", *(f"dnn, {way}" for way in WAYS)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for case in CASES:
        if (given.folder / case.file).exists():
            print("\n".join(rows(case, given.folder, given.output, given.seeds)), flush=True)


if __name__ == "__main__":
    main()
