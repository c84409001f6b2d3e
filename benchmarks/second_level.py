"""The second level as the number of subdomains grows: write, gather and coarse training with synthetic decisions.

    mpirun -n 2 python benchmarks/second_level.py [--subdomains 16 64 256] [--memory-limit GIB]

The subdomains are shared out among the ranks, and their decisions are random with a little truth in them; from there
on all is what a training does: one results file, written by all ranks, then the coarse DNN on rank 0. Memory is what
rank 0 takes beyond its own decisions and the program: its highest anonymous memory, without pages mapped from a file,
which the system takes back when it needs them. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import h5py
import numpy as np
import torch

from ddhpc import results
from ddhpc.config import Coarse, Config
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.method import coarse
from ddhpc.method.decomposition import owned, windows
from ddhpc.method.fusions import present
from ddhpc.method.metrics import accuracy
from ddhpc.parallel.communicator import world
from ddhpc.parallel.stopwatch import Stopwatch
from ddhpc.results.provenance import processor

HELD_OUT = 1000
"""Samples of val, and of test."""


def anonymous_bytes() -> int:
    """Memory of this process that no file is behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@dataclass
class Peak:
    """The highest anonymous memory while the `with` block runs, looked at twenty times a second."""

    bytes: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.bytes = max(self.bytes, anonymous_bytes())


def made_up(subdomains: range, labels: np.ndarray, classes: int, split: str) -> np.ndarray:
    """Decisions [N, S, K] float32 that are right somewhat more often than chance; no two splits share their noise."""
    every = np.empty((len(subdomains), len(labels), classes), np.float32)
    for decided, subdomain in zip(every, subdomains, strict=True):
        np.random.default_rng((subdomain, SPLITS.index(split))).random(dtype=np.float32, out=decided)
        decided[np.arange(len(labels)), labels] += 0.05
        decided /= decided.sum(1, keepdims=True)
    return every


def measure(comm, subdomains: int, given: argparse.Namespace, directory: Path) -> str:
    """The row of the table for N subdomains."""
    config = Coarse(epochs=given.epochs, memory_limit=given.memory_limit)
    rng, side = np.random.default_rng(0), isqrt(subdomains)
    counts = {"train": given.samples, "val": HELD_OUT, "test": HELD_OUT}
    labels = {split: rng.integers(0, given.classes, count) for split, count in counts.items()}
    mine = owned(subdomains, comm.size, comm.rank)
    slabs = {f"{split}/decision": made_up(mine, labels[split], given.classes, split) for split in SPLITS}
    slabs |= {f"{split}/accuracy": accuracy(slabs[f"{split}/decision"], labels[split]) for split in SPLITS}
    slabs |= dict.fromkeys(("seconds", "cpu_seconds", "path_seconds"), np.ones(len(mine)))
    layout = results.Layout(
        attributes={
            **dict.fromkeys(("job", "data_digest", "ddhpc_version", "git_commit", "created", "processor"), ""),
            **{"config": Config().to_yaml(), "hosts": text(["made up"]), "ranks": comm.size, "cores": 1, "seed": 0},
        },
        classes=tuple(map(str, range(given.classes))),
        features=0,
        decomposition=windows((side, side), (side, side)),
        grid=(side, side),
        overlap=0,
        balance="blocks",
        image_shape=(side, side),
        coarse_shape=(),
        labels=labels,
        fold=np.zeros(given.samples, int),
        decisions="in_sample",
        ids={split: [str(n) for n in range(count)] for split, count in counts.items()},
        patients={split: [] for split in counts},
        epochs=1,
        coarse_epochs=config.epochs,
        weights=coarse.weight_shapes(subdomains, given.classes, 0, config),
        coherent_epochs=0,
        allow_missing=0,
        ranks=comm.size,
    )
    comm.on_root(lambda: results.create(directory, layout))
    stopwatch, before = Stopwatch(), anonymous_bytes()
    with Peak() as peak:
        comm.mpi.Barrier()
        with stopwatch("write"):
            results.write_local(directory, comm, mine, subdomains, slabs)
        with stopwatch("gather"):
            gathered = results.gather_local(directory, comm, slabs, subdomains, config.memory_limit)
        if comm.rank == 0:
            torch.manual_seed(0)
            with stopwatch("coarse"):
                solution = coarse.solve(gathered, labels, given.classes, config, "cpu")
            began = time.perf_counter()
            outcome = results.Outcome(
                job="",
                model_sha256=None,
                labels=labels,
                present=present(gathered["val"]),
                coarse=solution,
                coherent=None,
                timing=results.Timing(
                    **dict.fromkeys(("startup", "read", "local_max", "local_sum", "write", "gather", "coarse"), 0.0),
                    coherent=None,
                    total=1.0,
                    jobs=1,
                ),
                rank_seconds=np.zeros((comm.size, len(results.PHASES))),
            )
            results.finish(directory, outcome)
            finish = time.perf_counter() - began
        comm.together(lambda: None)
    if comm.rank != 0:
        return ""
    decided = 4 * subdomains * given.classes * sum(counts.values())
    with h5py.File(directory / results.FILE) as file:
        share = file["fusion/dnn"].attrs["test"]
    cells = [
        f"{subdomains:,}",
        f"{decided / 2**20:,.0f}",
        f"{stopwatch.seconds.write:.2f}",
        f"{stopwatch.seconds.gather:.2f}",
        f"{stopwatch.seconds.coarse / config.epochs:.2f}",
        f"{finish:.2f}",
        f"{max(0, peak.bytes - before) / 2**20:,.0f}",
        f"{100 * share:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure all numbers of subdomains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subdomains", type=int, nargs="+", default=[16, 64, 256, 1024], help="square numbers")
    parser.add_argument("--samples", type=int, default=50_000, help="training images")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="of the coarse DNN; one more fusion pass is counted in")
    parser.add_argument("--memory-limit", type=float, help="GiB, option coarse.memory_limit; no limit without it")
    parser.add_argument("--scratch", type=Path, help="where the results files go, which are removed")
    given = parser.parse_args()
    comm = world()
    torch.set_num_threads(1)
    if comm.rank == 0:
        limit = "no limit" if given.memory_limit is None else f"limit {given.memory_limit:g} GiB"
        print(
            f"{processor()}, {os.cpu_count()} cores, {comm.size} ranks, torch {torch.__version__}; "
            f"{given.samples:,} training images, K = {given.classes}, {limit}; n = 1; {time.strftime('%Y-%m-%d')}\n"
        )
        print("| N | decisions, MiB | write, s | gather, s | coarse, s an epoch | verify, s | rank 0, MiB | dnn, % |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
    # The first one, which imports what is used, is not printed.
    for number, subdomains in enumerate([4, *given.subdomains]):
        with tempfile.TemporaryDirectory(dir=given.scratch) as directory:
            shared = Path(comm.broadcast(directory))
            line = measure(comm, subdomains, given, shared)
            if comm.rank == 0 and number:
                print(line, flush=True)
            comm.mpi.Barrier()


if __name__ == "__main__":
    main()
