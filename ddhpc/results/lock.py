"""One job at a time in a run directory, and the seconds that each job took.

A lock is a file that only one job can make (by a hard link, which is atomic on NFS and Lustre too). It names the
process; its time of change is moved on while the job lives. A job that was killed leaves its lock behind: on the same
machine the next job sees at once that the process is gone, on another one that the time stands still. A job that only
stood still, as one that was suspended, finds the lock of another when it goes on, and leaves that alone.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ddhpc.errors import InputError
from ddhpc.results.run_directory import JOBS, file_system

WHOLE = "run.lock"
"""Lock of a whole run; those of subdomains that are trained alone are named by their numbers."""
ALONE = re.compile(r"\d{5,}\.lock")
LETTERS = 10_000
"""More than a lock has."""
BEAT_SECONDS = 3.0
GRACE_SECONDS = 5.0
"""For which a job waits for one that is about to end, as after a kill of its launcher."""
WATCH_SECONDS = 15.0
"""For which a job watches the lock of one on another machine."""
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The job that holds a lock."""

    host: str
    machine: str
    """Same on all processes that see each other in /proc."""
    pid: int
    born: str
    """When the process began, in ticks since its machine did: tells it from a later one of the same number."""
    started: float
    """When the job began, in seconds since 1970 on its clock."""
    subdomain: int | None

    def is_alive(self) -> bool:
        """Whether the process is there; of a job on this machine."""
        return _born(self.pid) == self.born

    def line(self) -> str:
        """For a person."""
        what = "a job" if self.subdomain is None else f"a job for subdomain {self.subdomain}"
        return (
            f"{what}, process {self.pid} on {self.host}, since {time.strftime('%F %T', time.localtime(self.started))}"
        )


@contextmanager
def lock(directory: Path, started: float, subdomain: int | None, say: Callable[[str], None] = print) -> Iterator[None]:
    """Keep all other jobs out of a run directory; those for other subdomains may share it with one for a subdomain.

    Args:
        directory: of the run; exists.
        started: when this job began, in seconds since 1970.
        subdomain: the one that this job trains alone; None where it trains the whole run.
        say: takes a line for a person, where the job has to wait.

    Raises:
        InputError: another job is at work in the directory.
    """
    path = directory / (WHOLE if subdomain is None else f"{subdomain:05}.lock")
    mine = Holder(
        host=socket.gethostname(),
        machine=machine_id(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        started=started,
        subdomain=subdomain,
    )
    with file_system(path):
        _take(path, mine, say)
        try:
            for other in _rivals(path):
                _clear(other, say)
        except InputError:
            path.unlink(missing_ok=True)
            raise
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with suppress(OSError):  # a disk that takes no more must not hide what ended the job
            if _holder(path) == mine:
                path.unlink()


@contextmanager
def counted(directory: Path, started: float, subdomain: int | None) -> Iterator[None]:
    """Keep the seconds of a job for those that go on with the run, however it ends; see `lock` for the arguments.

    Those of a job that is killed are kept by the next one that comes, which finds its lock.
    """
    try:
        yield
    finally:
        with suppress(OSError):
            _note(directory, time.time() - started, subdomain)


def earlier_jobs(directory: Path) -> tuple[float, int]:
    """Seconds and number of the jobs that worked on a run before.

    The seconds are NaN where they do not add up to those of a run: jobs for single subdomains overlap, and what is
    damaged is not guessed.
    """
    try:
        lines = [json.loads(line) for line in (directory / JOBS).read_text().splitlines()]
        alone = any(line["subdomain"] is not None for line in lines)
        seconds = math.nan if alone or any(line["seconds"] < 0 for line in lines) else 0.0
        return seconds + sum(line["seconds"] for line in lines), len(lines)
    except FileNotFoundError:
        return 0.0, 0
    except (OSError, ValueError, TypeError, KeyError):
        return math.nan, 0


def _rivals(path: Path) -> list[Path]:
    """Other locks that must not be held beside this one."""
    if path.name != WHOLE:
        return [path.with_name(WHOLE)]
    return sorted(other for other in path.parent.iterdir() if ALONE.fullmatch(other.name))


def _take(path: Path, mine: Holder, say: Callable[[str], None]) -> None:
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with draft.open("w") as file:
            file.write(json.dumps(asdict(mine)))
            file.flush()
            os.fsync(file.fileno())
        while True:
            with suppress(FileExistsError):
                _link(draft, path)
                return
            if _holder(path) == mine:  # NFS sends a request whose reply was lost once more
                return
            _clear(path, say)
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> None:
    """Give a lock its name, which one job can alone; FileExistsError where it is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system that knows no hard links
        content = draft.read_text()
        with path.open("x") as file:
            file.write(content)


def _clear(path: Path, say: Callable[[str], None]) -> None:
    """Remove the lock of a job that is gone; InputError while it is at work."""
    holder = _holder(path)
    if holder is None and _has_content(path):
        raise InputError(
            f"--output {path.parent}: {path.name} is not of a job of ddhpc; expected another directory, or that you "
            "remove it"
        )
    if not _is_gone(path, holder, say):
        named = holder.line() if holder else "another job"
        raise InputError(f"--output {path.parent}: {named} is at work there; expected another directory, or its end")
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        last = path.stat().st_mtime
        path.rename(aside)
        if _holder(aside) != holder:  # of a job that came between
            with suppress(FileExistsError):
                _link(aside, path)
        elif holder:
            _note(path.parent, last - holder.started, holder.subdomain)
        aside.unlink()


def _holder(path: Path) -> Holder | None:
    """None where there is no lock, or it is none of ours."""
    try:
        with path.open() as file:
            holder = Holder(**json.loads(file.read(LETTERS)))
        holder.line()
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    kinds = {"host": str, "machine": str, "pid": int, "born": str}
    return holder if all(type(getattr(holder, name)) is kind for name, kind in kinds.items()) else None


def _has_content(path: Path) -> bool:
    """False for a lock that a crash of its machine emptied, or that is gone."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return None


def _is_gone(path: Path, holder: Holder | None, say: Callable[[str], None]) -> bool:
    # /proc may hide the processes of other users
    here = holder is not None and holder.machine == machine_id() and _owner(path) == os.getuid()
    began = moved = time.monotonic()
    told, last = False, _changed(path)
    while last is not None:
        now = time.monotonic()
        if here and holder and not holder.is_alive():
            return True
        if now - began > (GRACE_SECONDS if here else WATCH_SECONDS):
            return not here and now - moved > WATCH_SECONDS / 2
        if not told and now - began > 1:
            told = True
            say(f"{path.parent}: {holder.line() if holder else 'another job'} holds it; watching whether it still runs")
        time.sleep(POLL_SECONDS)
        changed = _changed(path)
        if changed != last:
            last, moved = changed, time.monotonic()
    return True


def _changed(path: Path) -> int | None:
    """When a lock was touched last, None where it is gone; opened, so that network file systems look again."""
    try:
        with path.open() as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _beat(path: Path, mine: Holder, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            if _holder(path) != mine:
                return
            now = time.time()
            os.utime(path, (now, now))


def _note(directory: Path, seconds: float, subdomain: int | None) -> None:
    """Keep the seconds of a job."""
    with (directory / JOBS).open("a") as file:
        file.write(json.dumps({"seconds": max(0.0, seconds), "subdomain": subdomain}) + "\n")


def machine_id() -> str:
    """Tells this boot of this machine, or this container, from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str:
    """Empty where there is no such process, or it is one that has ended and waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
