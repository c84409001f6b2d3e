"""Finished runs to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.starting import mpirun

OPTIONS = ["--local.epochs", 2, "--local.batch_size", 16, "--coarse.epochs", 20, "--model.global_width", 8]


def finished(ranks: int, file: Path, directory: Path, *arguments: object) -> Path:
    """The directory of a new run on a packed file."""
    options = ["--data.file", file, *OPTIONS, "--output", directory, *arguments]
    completed = mpirun(ranks, *options, cwd=directory.parent, timeout=300)
    assert completed.returncode == 0, completed.stderr
    return directory


@pytest.fixture(scope="session")
def run(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 2 ranks on a grid of 3x2."""
    return finished(2, small, tmp_path_factory.mktemp("runs") / "dd", "--decomposition.grid", 3, 2)


@pytest.fixture(scope="session")
def baseline(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the global CNN on the same data."""
    return finished(0, small, tmp_path_factory.mktemp("runs") / "global", "--decomposition.grid", 1, 1)


@pytest.fixture(scope="session")
def volumes_run(small_volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on volumes with a grid of 2x1x3."""
    grid = ["--decomposition.grid", 2, 1, 3, "--decomposition.overlap", 1]
    return finished(0, small_volumes, tmp_path_factory.mktemp("runs") / "volumes", *grid)
