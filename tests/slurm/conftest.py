"""The cluster, and a directory to submit from with the job files that ship."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import pack_small
from tests.jobs.starting import decisions, mpirun
from tests.slurm.cluster import Cluster, cluster, missing
from tests.slurm.paced import OPTIONS, PACED

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


@pytest.fixture
def paced(desk: Path) -> Path:
    """Where a user submits, with a model that is slow until its job is requeued."""
    (desk / "paced.py").write_text(PACED)
    return desk


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Decisions and losses of a run outside of Slurm."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    pack_small(cwd / "small.h5")
    (cwd / "paced.py").write_text(PACED)
    completed = mpirun(2, *OPTIONS, "--output", "run", cwd=cwd)
    assert completed.returncode == 0, completed.stderr
    return decisions(cwd / "run")
