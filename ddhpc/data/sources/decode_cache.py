"""What `prepare` has decoded so far: beside the output, until the output is whole. No MPI.

The directory `OUTPUT.partial` holds `identity.json`, all that the decoded images depend on, and two files a process
that worked on it: `*.data`, the pixels one after the other, and `*.index`, a line of JSON for each sample of a stage.
A line is written when its pixels are, so that whatever ends a process, the lines before hold.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from ddhpc import __version__
from ddhpc.data.hdf5 import reason
from ddhpc.data.sources.workers import Workers
from ddhpc.errors import InputError

IDENTITY = "identity.json"
UNFINISHED = f"{IDENTITY}.part"
MADE_BY = "ddhpc prepare"
OURS = re.compile(r"[0-9a-f]+-[a-z]+-\d{5,}\.(index|data)")
"""Names of the files of a stage, a session and a rank."""


class Named(Protocol):
    """A sample of a source."""

    @property
    def id(self) -> str:
        """Of the sample, unique."""

    @property
    def path(self) -> Path:
        """Of its file or directory."""


T = TypeVar("T")
Item = TypeVar("Item", bound=Named)
Findings = dict[str, Any]
"""Numbers, texts, and tuples of them."""
Work = Callable[[Item], tuple[Findings, np.ndarray | None]]
"""Gives the facts of a sample and its pixels; what depends on the sample alone, and on the identity."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a sample."""

    facts: Findings
    data: Path | None = None
    """File of the pixels."""
    offset: int = 0
    dtype: str = ""
    shape: tuple[int, ...] = ()
    crc32: int = 0

    def pixels(self) -> np.ndarray:
        """The pixels; InputError where they are not those that were written."""
        assert self.data is not None
        try:
            flat = np.fromfile(self.data, self.dtype, prod(self.shape), offset=self.offset)
        except OSError as error:
            raise InputError(f"{self.data}: cannot be read: {reason(error)}") from error
        if flat.size != prod(self.shape) or zlib.crc32(flat.data) != self.crc32:
            raise InputError(f"{self.data}: is damaged; remove {self.data.parent} to decode anew")
        return flat.reshape(self.shape)


@dataclass(kw_only=True)
class DecodeCache:
    """The directory of decoded samples, as all ranks of a workers see it."""

    directory: Path
    workers: Workers
    session: str
    """Prefix of the files that this job writes."""
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    """By stage and id."""

    def each(self, stage: str, items: Sequence[Item], work: Work[Item], advance: Callable[[int], None]) -> list[Record]:
        """Records of all items, on all ranks; each rank works on its share of those that are not yet known.

        Args:
            stage: name of the work.
            items: the same on all ranks.
            work: see `Work`; an InputError of it ends the job.
            advance: told on rank 0 how many items are done.

        Raises:
            InputError: on all ranks, also where the directory cannot be written.
        """
        missing = [item for item in items if (stage, item.id) not in self.records]
        known, before = len(items) - len(missing), self.workers.done(0)
        journal = self.directory / f"{self.session}-{stage}-{self.workers.rank:05}"

        def show(steps: int = 0) -> None:
            done = self.workers.done(steps)
            if self.workers.rank == 0:
                advance(known + done - before)

        def solve() -> None:
            with journal.with_suffix(".data").open("wb") as data, journal.with_suffix(".index").open("w") as index:
                for item in missing[self.workers.rank :: self.workers.size]:
                    facts, pixels = work(item)
                    line: dict[str, Any] = {"stage": stage, "id": item.id, "facts": facts}
                    if pixels is not None:
                        line |= _append(np.ascontiguousarray(pixels), data)
                    index.write(json.dumps(line) + "\n")
                    index.flush()
                    show(1)

        if missing:
            self.workers.together(lambda: self._guarded(solve), tick=show)
            for rank in range(self.workers.size):
                self.records |= _read(self.directory / f"{self.session}-{stage}-{rank:05}.index")
        return [self.records[stage, item.id] for item in items]

    def finish(self, write: Callable[[], T]) -> T | None:
        """Let rank 0 write the output and remove the directory; what `write` gives there, None on other ranks."""

        def whole() -> T:
            value = write()
            with suppress(OSError):  # the output is whole; what stays is removed with the next one
                _remove(self.directory)
            return value

        self.workers.together(lambda: None)  # the others may still be reading what rank 0 removes
        return self.workers.on_root(whole)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            raise InputError(f"{self.directory}: cannot be written: {reason(error)}") from error


def open_cache(output: Path, workers: Workers, samples: Sequence[Named], **options: object) -> DecodeCache:
    """Decoded samples of an output: those of an interrupted job where it was the same, else none yet.

    Args:
        output: the packed file.
        workers: all ranks.
        samples: of the source, with their files.
        options: all others that decoded samples depend on.

    Raises:
        InputError: on all ranks, where the directory cannot be made.
    """
    directory = output.with_name(f"{output.name}.partial")

    def begin() -> str:
        identity = {"made_by": MADE_BY, "version": __version__, "options": repr(options), "source": _digest(samples)}
        try:
            changed = _changes(directory, identity)
            if changed:
                if foreign := _foreign(directory):
                    raise InputError(
                        f"--output {output}: {directory} {foreign}; expected no such directory, or what an "
                        "interrupted `prepare` left there"
                    )
                workers.say(f"{directory}: {' and '.join(changed)} changed since; starting anew")
                _remove(directory)
            directory.mkdir(exist_ok=True)
            unfinished = directory / UNFINISHED
            unfinished.write_text(json.dumps(identity))
            unfinished.replace(directory / IDENTITY)
        except OSError as error:
            raise InputError(f"--output {output}: {directory} cannot be written: {reason(error)}") from error
        return "\n".join([f"{time.time_ns():x}", *sorted(path.name for path in directory.glob("*.index"))])

    session, *journals = workers.broadcast(workers.on_root(begin) or "").split("\n")
    store = DecodeCache(directory=directory, workers=workers, session=session)
    for name in journals:
        store.records |= _read(directory / name)
    if store.records and workers.rank == 0:
        kept = Counter(stage for stage, _ in store.records)
        workers.say(f"{directory}: continuing; {', '.join(f'{n:,} {stage}' for stage, n in kept.items())} are there")
    return store


def _foreign(directory: Path) -> str:
    """Why a directory is not one that `prepare` made and may remove; empty where it is."""
    if not directory.is_dir() or directory.is_symlink():
        return "is no directory of its own"
    names = {path.name for path in directory.iterdir()}
    journals = {name for name in names if OURS.fullmatch(name)}
    others = sorted(names - journals - {IDENTITY, UNFINISHED})
    if others:
        return f"holds {others[0]}"
    try:
        made_by = json.loads((directory / IDENTITY).read_text())["made_by"]
    except FileNotFoundError:  # of a process that was killed at its beginning or end
        return ""
    except (ValueError, TypeError, KeyError):
        made_by = MADE_BY if journals else ""
    return "" if made_by == MADE_BY else f"holds an {IDENTITY} that is not of `prepare`"


def _remove(directory: Path) -> None:
    """Remove a directory that `prepare` made, what tells so last, so that an interrupted removal goes on."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name == IDENTITY):
        path.unlink()
    directory.rmdir()


def _changes(directory: Path, identity: Mapping[str, str]) -> list[str]:
    """Names of what differs from the identity in the directory; nothing where there is no directory."""
    if not directory.exists():
        return []
    try:
        found = json.loads((directory / IDENTITY).read_text())
    except (FileNotFoundError, ValueError):
        return ["something"]
    if not isinstance(found, dict):
        return ["something"]
    return [name for name, value in identity.items() if found.get(name) != value]


def _digest(samples: Sequence[Named]) -> str:
    """Of names, sizes and times of change of all files; a broken link has none of these."""
    digest = sha256()
    for sample in samples:
        files = sorted(sample.path.iterdir()) if sample.path.is_dir() else [sample.path]
        for file in files:
            try:
                status = os.stat(file)
                found = f"{status.st_size}\0{status.st_mtime_ns}"
            except FileNotFoundError:
                found = "missing"
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {reason(error)}") from error
            digest.update(f"{sample.id}\0".encode() + os.fsencode(file.name) + f"\0{found}\n".encode())
    return digest.hexdigest()


def _append(pixels: np.ndarray, data: BinaryIO) -> dict[str, Any]:
    """Write pixels, and give what a journal keeps of them."""
    offset = data.tell()
    data.write(pixels.data)
    data.flush()
    return {"dtype": pixels.dtype.str, "shape": pixels.shape, "offset": offset, "crc32": zlib.crc32(pixels.data)}


def _read(index: Path) -> dict[tuple[str, str], Record]:
    """The whole lines of a journal whose pixels are there."""
    data = index.with_suffix(".data")
    size = data.stat().st_size
    records = {}
    for line in index.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off when its writer was killed
            break
        stage, name = entry.pop("stage"), entry.pop("id")
        entry["facts"] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry["facts"].items()}
        if "shape" not in entry:
            records[stage, name] = Record(**entry)
        elif entry["offset"] + prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize <= size:
            records[stage, name] = Record(**(entry | {"shape": tuple(entry["shape"]), "data": data}))
    return records
