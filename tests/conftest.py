"""What several test files need: small packed files of real structure, and an undisturbed training."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import h5py
import hypothesis
import numpy as np
import pytest

import ddhpc
from ddhpc.data.packed import SPLITS, Contents, Split, write_packed
from tests.jobs.starting import decisions, start_training

# no deadline: on a busy machine every example is slow
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, and so would the jobs that are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = {"train": 96, "val": 30, "test": 33}


def striped(samples: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes told by a bright band along one of the axes, or none, under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.resize(np.arange(3), samples))
    pixels = rng.integers(0, 120, (samples, 1, *shape))
    for axis in range(2):
        band = 120 * (np.arange(shape[axis]) % 4 == 0).reshape(-1, *[1] * (len(shape) - 1 - axis))
        pixels[labels == axis] += band
    return pixels.astype(np.uint8), labels


def pack_small(
    path: Path, shape: tuple[int, ...] = (16, 14), dtype: str = "uint8", patients: int = 0, folds: int = 0
) -> Path:
    """A packed file of small striped images or volumes; of patients, with so many samples each, if that is not 0.

    With folds a patient, or a sample, is in one after the other.
    """
    splits = {}
    for seed, (split, count) in enumerate(SMALL.items()):
        pixels, labels = striped(count, shape, seed)
        splits[split] = Split(
            labels=labels,
            ids=[f"{split}/{n}" for n in range(count)],
            images=pixels.astype(dtype),
            patients=[f"Smith^{split}{n // patients}" for n in range(count)] if patients else (),
            fold=[n // max(patients, 1) % folds for n in range(count)] if folds else (),
        )
    write_packed(
        path,
        Contents(
            classes=("rows", "columns", "none"),
            splits=splits,
            image_shape=shape,
            channels=1,
            dtype=dtype,
            source="stripes for tests",
        ),
    )
    return path


def make_older(path: Path) -> Path:
    """Turns a packed file into one of format version 1, which holds no restricted images."""
    with h5py.File(path, "r+") as file:
        for split in SPLITS:
            file.pop(f"{split}/restricted", None)
        file.attrs["format_version"] = 1
    return path


def make_unreadable(path: Path, *names: str) -> None:
    """Spoils all chunks of datasets of a file, and leaves its size and time as they were."""
    with h5py.File(path) as file:
        found = [file[name].id.get_chunk_info(n) for name in names for n in range(file[name].id.get_num_chunks())]
    before = os.stat(path)
    with path.open("r+b") as stored:
        for chunk in found:
            stored.seek(chunk.byte_offset)
            stored.write(bytes(chunk.size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed file of 16x14 images."""
    return pack_small(tmp_path_factory.mktemp("packed") / "small.h5")


@pytest.fixture(scope="session")
def small_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed file of 12x10x8 volumes."""
    return pack_small(tmp_path_factory.mktemp("packed") / "volumes.h5", (12, 10, 8))


@pytest.fixture(scope="session")
def finished(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a grid of 2x2, `runs/mine` beside its packed file `small.h5`, trained in this process."""
    home = tmp_path_factory.mktemp("finished")
    shutil.copy(small, home / "small.h5")
    options = {
        **{"data.file": "small.h5", "decomposition.grid": (2, 2), "model.global_width": 8, "run.threads": 1},
        **{"local.epochs": 2, "local.batch_size": 16, "coarse.epochs": 5, "run.report": False},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        ddhpc.train(ddhpc.Config.from_recipe("faces", options), "runs/mine")
    return home / "runs/mine"


@pytest.fixture(scope="session")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], float]:
    """Decisions and losses of a job of `starting.TRAINING` that nothing happens to, and the seconds that it takes."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    job = start_training(2, small, cwd)
    assert job.wait(timeout=300) == 0, (cwd / "stderr").read_text()
    return decisions(cwd / "run"), time.monotonic() - started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for Slurm first, then those with many slow tests: at the end all workers have something to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent.name != "slurm", -slow[item.path]))
