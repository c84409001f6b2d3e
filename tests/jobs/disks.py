"""Real file systems on which nothing more can be written: full, at a quota, read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REFUSALS = {
    "full": "No space left on device",
    "quota": "Disk quota exceeded",
    "read-only": "Read-only file system",
}
IMAGE_BYTES = 120 << 20  # the smallest that btrfs takes
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def run(*command: object) -> None:
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)


@contextmanager
def mounted(path: Path, *arguments: object) -> Iterator[None]:
    """Mounts at a new directory what `mount` is told; skips the test without the right to."""
    path.mkdir()
    command = ["mount", *map(str, arguments), str(path)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip(f"this needs the right to {' '.join(command[:3])}")
    try:
        yield
    finally:
        run("umount", path)


@contextmanager
def disk(kind: str, path: Path) -> Iterator[Disk]:
    """A file system of its own at a new directory, as large as is needed until it `fail`s."""
    if kind != "quota":
        with mounted(path, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
            yield Disk(kind, path)
        return
    if not shutil.which("mkfs.btrfs", path=SYSTEM_PATH):
        pytest.skip("a real quota needs btrfs-progs")
    image = path.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    run("mkfs.btrfs", image)
    with mounted(path, "-o", "loop", image):
        run("btrfs", "quota", "enable", path)
        yield Disk(kind, path)


class Disk:
    """A file system that a test makes fail."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path, self.refusal = kind, path, REFUSALS[kind]

    def fail(self) -> None:
        """From now on nothing more can be written; what is there can be read."""
        if self.kind == "full":
            with (self.path / "filler").open("wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(bytes(4096))
                except OSError:
                    return
        elif self.kind == "quota":
            run("btrfs", "qgroup", "limit", 1, self.path)
        else:
            self._remount_read_only()

    def heal(self) -> None:
        """As it was before."""
        if self.kind == "full":
            (self.path / "filler").unlink()
        elif self.kind == "quota":
            run("btrfs", "quota", "disable", self.path)
        else:
            run("mount", "-o", "remount,rw", self.path)

    def _remount_read_only(self) -> None:
        """Refused while a file is being written, so again and again."""
        deadline = time.monotonic() + 10
        command = ["mount", "-o", "remount,ro", str(self.path)]
        while subprocess.run(command, capture_output=True).returncode != 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
