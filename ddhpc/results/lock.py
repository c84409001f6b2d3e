"""One job at a time in a run directory, and the seconds that each job took.

A lock is a file that only one job can make (by a hard link, which is atomic on NFS and Lustre too). It names the
process; its time of change is moved on while the job lives. A job that was killed leaves its lock behind: on the same
machine the next job sees at once that the process is gone, on another one that the time stands still.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ddhpc.errors import InputError
from ddhpc.results.directory import JOBS, file_system

NAME = "{}.lock"
WHOLE = "run"
"""Name of the lock of a whole run; those of subdomains that are trained alone are their numbers."""
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
    path = _path(directory, subdomain)
    mine = Holder(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        started=started,
        subdomain=subdomain,
    )
    with file_system(path):
        _take(path, mine, say)
        try:
            for other in _rivals(directory, subdomain):
                _clear(other, say)
        except InputError:
            path.unlink(missing_ok=True)
            raise
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with suppress(OSError):  # a disk that takes no more must not hide what ended the job
            _note(directory, mine, time.time())
            path.unlink(missing_ok=True)


def earlier_jobs(directory: Path) -> tuple[float, int, bool]:
    """Seconds and number of the jobs that worked on a run before, and whether some trained subdomains alone."""
    try:
        lines = [json.loads(line) for line in (directory / JOBS).read_text().splitlines()]
    except (OSError, ValueError):
        return 0.0, 0, False
    whole = [line["seconds"] for line in lines if line["subdomain"] is None]
    return sum(whole), len(whole), len(whole) < len(lines)


def _path(directory: Path, subdomain: int | None) -> Path:
    return directory / NAME.format(WHOLE if subdomain is None else f"{subdomain:05}")


def _rivals(directory: Path, subdomain: int | None) -> list[Path]:
    """Other locks that must not be held beside the one for a subdomain, or None for a whole run."""
    if subdomain is not None:
        return [_path(directory, None)]
    return [path for path in sorted(directory.glob(NAME.format("*"))) if path != _path(directory, None)]


def _take(path: Path, mine: Holder, say: Callable[[str], None]) -> None:
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        draft.write_text(json.dumps(asdict(mine)))
        while True:
            with suppress(FileExistsError):
                os.link(draft, path)
                return
            _clear(path, say)
    finally:
        draft.unlink(missing_ok=True)


def _clear(path: Path, say: Callable[[str], None]) -> None:
    """Remove the lock of a job that is gone; InputError while it is at work."""
    holder = _holder(path)
    if not _is_gone(path, holder, say):
        named = holder.line() if holder else "another job"
        raise InputError(
            f"--output {path.parent}: {named} is at work there; expected another directory, or its end"
            + ("" if holder else f" (remove {path} if there is none)")
        )
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        last = path.stat().st_mtime
        path.rename(aside)
        if _holder(aside) != holder:  # of a job that came between
            with suppress(FileExistsError):
                os.link(aside, path)
        elif holder:
            _note(path.parent, holder, last)
        aside.unlink()


def _holder(path: Path) -> Holder | None:
    """None where there is no lock, or it does not say."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_gone(path: Path, holder: Holder | None, say: Callable[[str], None]) -> bool:
    here = holder is not None and holder.machine == _machine()
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


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            now = time.time()
            os.utime(path, (now, now))


def _note(directory: Path, holder: Holder, ended: float) -> None:
    """Keep the seconds of a job."""
    seconds = max(0.0, ended - holder.started)
    with (directory / JOBS).open("a") as file:
        file.write(json.dumps({"seconds": seconds, "subdomain": holder.subdomain, "host": holder.host}) + "\n")


def _machine() -> str:
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
