"""What several test files need: small packed files of real structure, and an undisturbed training."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ddhpc.data.packed import Contents, Split, write_packed
from tests.jobs.starting import decisions, start_training

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


def pack_small(path: Path, shape: tuple[int, ...] = (16, 14), dtype: str = "uint8", patients: int = 0) -> Path:
    """A packed file of small striped images or volumes; of patients, with so many samples each, if that is not 0."""
    splits = {}
    for seed, (split, count) in enumerate(SMALL.items()):
        pixels, labels = striped(count, shape, seed)
        splits[split] = Split(
            labels=labels,
            ids=[f"{split}/{n}" for n in range(count)],
            images=pixels.astype(dtype),
            patients=[f"Smith^{split}{n // patients}" for n in range(count)] if patients else (),
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


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed file of 16x14 images."""
    return pack_small(tmp_path_factory.mktemp("packed") / "small.h5")


@pytest.fixture(scope="session")
def small_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed file of 12x10x8 volumes."""
    return pack_small(tmp_path_factory.mktemp("packed") / "volumes.h5", (12, 10, 8))


@pytest.fixture(scope="session")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], float]:
    """Decisions and losses of a job of `starting.TRAINING` that nothing happens to, and the seconds that it takes."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    job = start_training(2, small, cwd)
    assert job.wait(timeout=300) == 0, (cwd / "stderr").read_text()
    return decisions(cwd / "run"), time.monotonic() - started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first, so that at the end all workers have something to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
