"""What tells the content of packed files apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import h5py

from ddhpc.data.hdf5 import attribute
from ddhpc.data.packed.checks import CHECKSUM, SPLITS, restricted_name
from ddhpc.data.packed.chunks import CHECKED_CHUNKS, sampled

SMALL_BYTES = 2**26
"""Size up to which files without CHECKSUM are read whole to tell their pixels apart."""
CHECKED_RESTRICTED = CHECKED_CHUNKS // 8
"""Chunks of each restricted dataset whose values the digest covers."""


def digest(file: h5py.File, path: Path, known: bytes, sizes: Sequence[tuple[int, ...]]) -> str:
    """`Packed.digest`: over what is `known` of the images, and over the pixels, restricted to `sizes` as well."""
    found = hashlib.sha256(known)
    found.update(b"".join(sampled(file[f"{split}/image"]) for split in SPLITS))
    checksums = [attribute(file[f"{split}/image"], CHECKSUM, str) for split in SPLITS]
    if all(checksums):
        found.update(repr(checksums).encode())
    elif _size(path) <= SMALL_BYTES:
        found.update(path.read_bytes())
    for stored in (file[restricted_name(split, size)] for size in sizes for split in SPLITS):
        found.update(repr(attribute(stored, CHECKSUM, str)).encode() + sampled(stored, CHECKED_RESTRICTED))
    return found.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
