"""The cluster, and a directory to submit from with the job files that ship."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, cluster, missing

SHIPPED = Path(__file__).parents[2] / "slurm"


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Four nodes n0 to n3 of 16 CPUs and 4 GPUs (device files that no driver stands behind)."""
    if reason := missing():
        pytest.skip(reason)
    with cluster() as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path, small: Path) -> Path:
    """Where a user submits: `slurm/` as it ships, and small data."""
    shutil.copytree(SHIPPED, tmp_path / "slurm", ignore=shutil.ignore_patterns("site.env"))
    shutil.copy(small, tmp_path / "small.h5")
    return tmp_path
