"""`predict` against a bare loop of the same networks, and its peak memory for a large volume, by rank.

    python benchmarks/prediction.py RUN FILE.h5 [--repeats 3]        # images a second, of whole processes
    python benchmarks/prediction.py --memory [--shape 256 256 128]   # large volumes; networks with drawn weights

The bare loop reads each window of the packed file at once and calls the network on batches of 32, with one thread; its
decisions are compared with those of `predict`. Prints tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path

import h5py
import nibabel
import numpy as np
import torch

from ddhpc.__main__ import main as main_of_ddhpc
from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.data.packed import SPLITS, Contents, Split, write_packed
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.method.problem import open_problem
from ddhpc.method.trained import trained
from ddhpc.models.features import with_features
from ddhpc.parallel import launcher
from ddhpc.results.model import open_model, to_dict
from ddhpc.results.model_directory import MODEL, MODEL_PART, begin_model, describe_model, network_file, write_network
from ddhpc.results.provenance import processor

BATCH = 32


def bare(run: Path, packed: Path, output: Path) -> None:
    """What a person would write for these networks and this file."""
    torch.set_num_threads(1)
    model = open_model(run)
    what, outputs = model.trained, []
    mean, std = (torch.tensor(each).float().reshape(-1, 1, 1) for each in (what.mean, what.std))
    with h5py.File(packed) as file, torch.inference_mode():
        for n in range(what.subdomains):
            cnn = model.local_cnn(n)
            window = what.window(n)
            images = np.concatenate([file[f"{split}/image"][(slice(None), slice(None), *window)] for split in SPLITS])
            for start in range(0, len(images), BATCH):
                pixels = (torch.from_numpy(images[start : start + BATCH]).float() - mean) / std
                logits, features = with_features(cnn, pixels)
                outputs.append(torch.cat([logits.softmax(1), features], 1))
        local = torch.cat(outputs).reshape(what.subdomains, len(images), -1)
        together = local.transpose(0, 1).flatten(1)
        np.save(output, model.coarse_dnn()(together).softmax(1).numpy())


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Wall seconds of a process, and the largest memory of it and its children in GiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with status {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def speed(run: Path, packed: Path, repeats: int) -> None:
    """Whole processes in turn, start of Python included."""
    python, work = sys.executable, Path(tempfile.mkdtemp())
    out = work / "out.csv"
    ddhpc = [python, "-m", "ddhpc", "predict", run, packed, "--threads", 1, "--csv", out, "--overwrite"]
    commands = {
        "bare loop, 1 process": [python, __file__, run, packed, "--bare", work / "bare.npy"],
        "predict, 1 rank": ddhpc,
        "predict, 2 ranks": ["mpirun", "-n", 2, *ddhpc],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name].append(timed(command)[0])
    decided = np.loadtxt(out, delimiter=",", skiprows=1, usecols=range(2, 2 + len(open_model(run).trained.classes)))
    print(f"{processor()}, torch {torch.__version__}, Python {platform.python_version()}; {len(decided):,} images\n")
    print("| | s, median (range) | images a second | n |\n|---|---|---|---|")
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(
            f"| {name} | {middle:.1f} ({min(each):.1f} to {max(each):.1f}) | {len(decided) / middle:,.0f} | {repeats} |"
        )
    print(f"\nLargest difference of a probability: {np.abs(np.load(work / 'bare.npy') - decided).max():.1e}")


def memory(shape: tuple[int, ...]) -> None:
    """Volumes decided by networks of the size of the recipe `ct`, 4x4x2 and global; two ranks share the subdomains."""
    work = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    preparation = VolumePreparation(
        shape=shape, resize="none", spacing=None, intensity_range=None, orientation="of the file", dtype="int16"
    )
    volumes = {
        split: Split(
            labels=np.arange(2),
            ids=[f"{split}{n}" for n in range(2)],
            images=(rng.integers(-1000, 400, (1, *shape)).astype(np.int16) for _ in range(2)),
        )
        for split in SPLITS
    }
    about = {"classes": ("healthy", "ill"), "image_shape": shape, "channels": 1, "dtype": "int16", "source": "noise"}
    write_packed(work / "six.h5", Contents(splits=volumes, preparation=preparation.to_json(), **about))
    nibabel.save(nibabel.Nifti1Image(rng.integers(-1000, 400, shape).astype(np.int16), np.eye(4)), work / "one.nii.gz")
    print(f"{processor()}, torch {torch.__version__}; volumes of {'x'.join(map(str, shape))}, cnn3d, width 64\n")
    print("| grid | source | ranks | peak memory of each, GiB | s |\n|---|---|---|---|---|")
    for grid in ((1, 1, 1), (4, 4, 2)):
        run = work / "x".join(map(str, grid))
        draw_model(run, work / "six.h5", grid)
        for source in ("six.h5", "one.nii.gz"):
            for ranks in range(1, 1 + min(2, prod(grid))):
                peaks = Path(tempfile.mkdtemp(dir=work))
                ddhpc = ["predict", run / MODEL, work / source, "--memory", 0, "--threads", 1]
                command = ["mpirun", "-n", ranks, sys.executable, __file__, "--peaks", peaks, *ddhpc]
                seconds, _ = timed(command)
                found = ", ".join(f"{int((peaks / str(rank)).read_text()) / 2**20:.2f}" for rank in range(ranks))
                print(f"| {run.name} | {source} | {ranks} | {found} | {seconds:.0f} |", flush=True)
    print(f"| the program alone | | 1 | {timed([sys.executable, '-c', 'import torch, ddhpc.predict'])[1]:.2f} | |")


def watched(peaks: Path, words: Sequence[str]) -> None:
    """A rank of `python -m ddhpc`, which leaves the largest memory that it had in KiB in a file."""
    sys.argv = ["ddhpc", *words]
    main_of_ddhpc()
    (peaks / str(launcher.rank())).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def draw_model(run: Path, packed: Path, grid: tuple[int, ...]) -> None:
    """Write a model directory whose networks are untrained."""
    config = Config(
        data=Data(file=str(packed)),
        decomposition=Decomposition(grid=grid, overlap=4 if max(grid) > 1 else 0),
        model=Model(name="cnn3d", global_width=64),
    )
    problem = open_problem(config)
    what = trained(problem, np.ones(problem.subdomains, bool))
    begin_model(run, coherent=False)
    write = partial(write_network, run)
    files = {network_file(n): write(network_file(n), what.local_cnn(n).state_dict()) for n in range(what.subdomains)}
    if what.coarse is not None:
        files[network_file(None)] = write(network_file(None), what.coarse_dnn().state_dict())
    describe_model(run, to_dict(what, files, {"data_digest": problem.packed.digest, "run": ""}))
    (run / MODEL_PART).rename(run / MODEL)


def main() -> None:
    """Print what was asked for."""
    if "--peaks" in sys.argv[1:2]:
        watched(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("packed", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 128])
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        memory(tuple(given.shape))
    elif given.bare:
        bare(given.run, given.packed, given.bare)
    else:
        speed(given.run, given.packed, given.repeats)


if __name__ == "__main__":
    main()
