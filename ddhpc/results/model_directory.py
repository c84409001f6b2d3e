"""The directory of a trained model: what is in it, written whole or not at all, verified by checksums.

    model/model.json                      what the model is, and the SHA-256 of each other file
    model/subdomain-00000.safetensors     weights of the local CNN of each subdomain that is present
    model/coarse.safetensors              weights of the coarse DNN, where there is more than one subdomain
    model/coherent/*.safetensors          the same networks of the coherent CNN-DNN, where it was trained

It is written as `model.part` and renamed just before the results file, which has the SHA-256 of `model.json`. A model
that is replaced waits as `model.old` for a moment.

torch is imported by writing alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddhpc.data.hdf5 import replace
from ddhpc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MODEL, MODEL_PART, MODEL_OLD = "model", "model.part", "model.old"
DESCRIPTION = "model.json"
MODEL_FORMAT, MODEL_VERSION = "ddhpc model", 1
COHERENT_FOLDER = "coherent"
COARSE_FILE = "coarse.safetensors"
NAME = re.compile(r"(subdomain-\d{5,}|coarse)\.safetensors")
SYSTEM = ".nfs"
"""Start of the names by which NFS keeps removed files that are open."""
MOST_DESCRIPTION_BYTES = 2**26
BLOCK_BYTES = 2**24


def network_file(subdomain: int | None, *, coherent: bool = False) -> str:
    """Where the weights of a local CNN are in a model directory; None for the coarse DNN."""
    name = COARSE_FILE if subdomain is None else f"subdomain-{subdomain:05}.safetensors"
    return f"{COHERENT_FOLDER}/{name}" if coherent else name


def begin_model(directory: Path, *, coherent: bool) -> None:
    """Make an empty, unfinished model in a run directory; OSError where that cannot be."""
    part = directory / MODEL_PART
    _remove(part)
    (part / COHERENT_FOLDER if coherent else part).mkdir(parents=True)
    _write(part / DESCRIPTION, json.dumps({"format": MODEL_FORMAT}).encode())  # by which it is known as ours


def write_network(directory: Path, name: str, state: Mapping[str, Tensor]) -> str:
    """Write the state dictionary of a network into the unfinished model, synced; OSError where that cannot be.

    Args:
        directory: of the run.
        name: see `network_file`.
        state: weights and buffers, on any device.

    Returns:
        SHA-256 of the file, hexadecimal.
    """
    from safetensors.torch import save

    data = save({key: values.detach().cpu().contiguous().clone() for key, values in state.items()})
    _write(directory / MODEL_PART / name, data)
    return hashlib.sha256(data).hexdigest()


def copy_network(folder: Path, directory: Path, name: str) -> None:
    """Copy the weights of a network from a model into the unfinished one of a run directory, synced."""
    _write(directory / MODEL_PART / name, (folder / name).read_bytes())


def describe_model(directory: Path, description: Mapping[str, Any]) -> str:
    """Write what the unfinished model is, check its files by reading them back, and give the SHA-256 of this text.

    Raises:
        InputError: a file does not read back as written.
        OSError: it cannot be written.
    """
    part = directory / MODEL_PART
    data = (json.dumps(description, indent=1, allow_nan=False) + "\n").encode()
    _write(part / DESCRIPTION, data)
    digest = hashlib.sha256(data).hexdigest()
    if problems := verify_model(part, digest):
        raise InputError(f"{part} does not read back as written ({problems[0]}); expected a sound file system")
    return digest


def take_place(directory: Path) -> None:
    """Give the unfinished model its final name; that of an earlier run, if any, waits as `model.old`."""
    if (directory / MODEL).exists():
        _remove(directory / MODEL_OLD)
        os.replace(directory / MODEL, directory / MODEL_OLD)
    replace(directory / MODEL_PART, directory / MODEL)


def remove_replaced(directory: Path) -> None:
    """Remove the model of an earlier run that `take_place` has replaced."""
    with suppress(OSError):
        _remove(directory / MODEL_OLD)


def foreign_model(directory: Path) -> str:
    """The first entry of a run directory that has the name of a model, or is in one, and is of others; else empty."""
    for name in (MODEL, MODEL_PART, MODEL_OLD):
        folder = directory / name
        if not os.path.lexists(folder):
            continue
        if folder.is_symlink() or not folder.is_dir():
            return name
        for entry in sorted(folder.rglob("*")):
            below = str(entry.relative_to(folder))
            ours = NAME.fullmatch(below.removeprefix(f"{COHERENT_FOLDER}/")) or below == DESCRIPTION
            if entry.name.startswith(SYSTEM) or (below == COHERENT_FOLDER and entry.is_dir()):
                continue
            if not ours or not entry.is_file() or not _is_ours(folder):
                return f"{name}/{below}"
    return ""


def verify_model(folder: Path, digest: str | None) -> list[str]:
    """What is wrong with a model directory, one line each; empty if it is whole.

    Args:
        folder: of the model.
        digest: SHA-256 of `model.json` that the results file has; None where there is none to compare with.
    """
    shown = folder.name
    if not folder.is_dir():
        return [f"{shown}: is missing"]
    try:
        data = read_description(folder)
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            return [f"{shown}/{DESCRIPTION}: is not that of the results file, its checksum differs"]
        files = files_of(json.loads(data))
    except (OSError, ValueError, RecursionError) as error:
        return [f"{shown}/{DESCRIPTION}: cannot be read: {error}"]
    found = ((name, _problem(folder / name, expected)) for name, expected in files.items())
    return [f"{shown}/{name}: {problem}" for name, problem in found if problem]


def _problem(path: Path, digest: str) -> str:
    """What is wrong with a file of this SHA-256; empty if nothing is."""
    try:
        return "" if file_digest(path) == digest else "damaged, its checksum differs"
    except OSError as error:
        return error.strerror or str(error)


def read_description(folder: Path) -> bytes:
    """The bytes of `model.json`; ValueError where it is far too large."""
    with (folder / DESCRIPTION).open("rb") as stream:
        data = stream.read(MOST_DESCRIPTION_BYTES + 1)
    if len(data) > MOST_DESCRIPTION_BYTES:
        raise ValueError(f"more than {MOST_DESCRIPTION_BYTES:,} bytes")
    return data


def files_of(description: Any) -> dict[str, str]:
    """SHA-256 of each file of a model, by name; ValueError where the description does not tell."""
    if not isinstance(description, dict) or description.get("format") != MODEL_FORMAT:
        raise ValueError("it does not describe a model")
    files = description.get("files")
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        raise ValueError("it lists no files")
    for name in files:
        if not NAME.fullmatch(name.removeprefix(f"{COHERENT_FOLDER}/")):
            raise ValueError(f"it lists {name[:60]!r}, which is no file of a model")
    return files


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, hexadecimal; OSError where there is none."""
    found = hashlib.sha256()
    if path.exists() and not path.is_file():
        raise OSError("is no regular file")
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def _is_ours(folder: Path) -> bool:
    """Whether the model in a folder, which may be unfinished, was written by this program."""
    try:
        found = json.loads(read_description(folder))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == MODEL_FORMAT


def _remove(folder: Path) -> None:
    """Remove a model, and nothing else; its description last, by which it is known as ours."""
    for below in (folder / COHERENT_FOLDER, folder):
        for entry in sorted(below.iterdir()) if below.is_dir() else ():
            if NAME.fullmatch(entry.name):
                entry.unlink()
        if below == folder:
            (folder / DESCRIPTION).unlink(missing_ok=True)
        if below.is_dir():
            below.rmdir()


def _write(path: Path, data: bytes) -> None:
    """Write a file, synced, under its name at once: the directory that it is in has not its own yet."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
