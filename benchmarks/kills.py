"""Kills at random moments of a small job, each followed by the same command, until the job is finished; and again.

    PYTHONPATH=. python benchmarks/kills.py [--kills 50] [--seed 0] [--launcher "mpirun -n 2"]

Kills come in the start-up, while local CNNs train, while a checkpoint is written, while local decisions are written,
while the coarse problem is solved and while the results file is finished; of a rank or of the launcher; by SIGKILL,
SIGTERM or SIGINT. A phase is known by what rank 0 logs. Prints Markdown, and what is wrong: jobs that did not end in a
minute, processes that stayed, files that stayed in the run directory (a checkpoint's .previous may), and results with
other bits than those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.conftest import pack_small
from tests.jobs.starting import TRAINING, decisions

ANNOUNCED = {
    "training": "window ",
    "writing": "writing and gathering",
    "coarse": "solving the coarse problem",
    "finish": "finishing the results file",
}
"""What rank 0 logs when a phase begins."""
PHASES = ("start-up", "training", "checkpoint", "writing", "coarse", "finish")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
END_SECONDS, LEAVE_SECONDS = 60.0, 10.0


@dataclass(frozen=True)
class Kill:
    """One that is drawn."""

    phase: str
    victim: str
    """rank or launcher."""
    signal: signal.Signals
    moment: float
    """Of the phase, 0 to 1."""
    rank: float
    """Which of them, 0 to 1."""


@dataclass
class Tally:
    """What came of the kills."""

    kills: list[Kill] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    finished: int = 0


class Job:
    """The job in its directory, to be started again and again."""

    def __init__(self, directory: Path, launcher: str) -> None:
        self.directory, self.run, self._log = directory, directory / "run", directory / "log/rank-00000.log"
        packed = pack_small(directory / "small.h5")
        command = [*shlex.split(launcher), sys.executable, "-m", "ddhpc", "--data.file", packed, *TRAINING]
        self._command = [
            str(word) for word in (*command, "--coarse.epochs", 300, "--output", "run", "--log-dir", "log")
        ]

    def start(self) -> subprocess.Popen[bytes]:
        """The launcher."""
        self._read = self._log.stat().st_size if self._log.exists() else 0
        with (self.directory / "output").open("w") as output:
            return subprocess.Popen(
                self._command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def has_begun(self, phase: str) -> bool:
        """Whether the job that was started last is in a phase, or has been."""
        if phase == "checkpoint":
            return any(self.run.glob("checkpoints/*.part"))
        if not self._log.exists():
            return False
        with self._log.open() as log:
            log.seek(self._read)
            return ANNOUNCED[phase] in log.read()

    def processes(self) -> list[int]:
        """Those of this job, ranks and others."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (entry / "cwd").readlink() == self.directory and b"ddhpc" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def ranks(self) -> list[int]:
        """Those that are Python."""
        return [pid for pid in self.processes() if Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()]

    def files(self) -> set[str]:
        """What the run directory holds."""
        return {str(file.relative_to(self.run)) for file in self.run.rglob("*") if file.suffix != ".previous"}


def measure(job: Job) -> dict[str, float]:
    """Seconds of each phase of an undisturbed job."""
    process, started = job.start(), time.monotonic()
    begun = {"start-up": started}
    while process.poll() is None:
        for phase in ANNOUNCED:
            if phase not in begun and job.has_begun(phase):
                begun[phase] = time.monotonic()
        time.sleep(0.001)
    if process.returncode != 0:
        raise SystemExit((job.directory / "output").read_text())
    ends = [*list(begun.values())[1:], time.monotonic()]
    seconds = {phase: end - begin for (phase, begin), end in zip(begun.items(), ends, strict=True)}
    return {**seconds, "checkpoint": 0.002, "total": time.monotonic() - started}


def strike(job: Job, kill: Kill, seconds: dict[str, float], tally: Tally) -> bool:
    """Start the job and kill it; False where it was finished before its moment came."""
    process, started = job.start(), time.monotonic()
    while kill.phase != "start-up" and not job.has_begun(kill.phase):
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(kill.moment * seconds[kill.phase])
    ranks = job.ranks()
    if process.poll() is not None or (kill.victim == "rank" and not ranks):
        process.wait()
        return False
    struck = time.monotonic()
    os.kill(process.pid if kill.victim == "launcher" else ranks[int(kill.rank * len(ranks))], kill.signal)
    name = f"{kill.phase}, {kill.victim}, {kill.signal.name} after {struck - started:.1f} s"
    tally.kills.append(kill)
    try:
        tally.codes[f"{kill.signal.name} to a {kill.victim}: {process.wait(END_SECONDS)}"] += 1
    except subprocess.TimeoutExpired:
        tally.wrong.append(f"hang: {name}")
    while (stray := job.processes()) and time.monotonic() < struck + END_SECONDS + LEAVE_SECONDS:
        time.sleep(0.05)
        if process.poll() is not None and time.monotonic() > struck + LEAVE_SECONDS:
            break
    tally.slowest[kill.phase] = max(tally.slowest.get(kill.phase, 0.0), time.monotonic() - struck)
    if stray:
        tally.wrong.append(f"processes that stayed: {len(stray)}, {name}")
        for pid in stray:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    return True


def main() -> None:
    """Draw the kills, strike, and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--launcher", default="mpirun -n 2")
    given = options.parse_args()
    draw, tally, began = random.Random(given.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ddhpc-kills-") as directory:
        job = Job(Path(directory).resolve(), given.launcher)
        seconds = measure(job)
        expected, files = decisions(job.run), job.files()

        def check() -> None:
            tally.finished += 1
            if (job.run / "run.lock").exists():  # killed after the results had their name: the next command clears it
                job.start().wait()
            found = decisions(job.run)
            tally.wrong.extend(
                f"other bits: {name}" for name in expected if not np.array_equal(expected[name], found[name])
            )
            tally.wrong.extend(f"file that stayed: {name}" for name in sorted(job.files() - files))
            subprocess.run(["rm", "-r", job.run], check=True)

        subprocess.run(["rm", "-r", job.run], check=True)
        plan = [PHASES[number % len(PHASES)] for number in range(given.kills)]
        draw.shuffle(plan)
        while plan:
            kill = Kill(plan[-1], draw.choice(("rank", "launcher")), draw.choice(SIGNALS), draw.random(), draw.random())
            if strike(job, kill, seconds, tally):
                plan.pop()
            if (job.run / "results.h5").exists():
                check()
        if job.run.exists():
            if job.start().wait() != 0:
                tally.wrong.append(f"not finished: {(job.directory / 'output').read_text()}")
            else:
                check()
    report(tally, seconds["total"], time.monotonic() - began)


def report(tally: Tally, undisturbed: float, seconds: float) -> None:
    """Print tables, and what is wrong."""
    print(
        f"{len(tally.kills)} kills, {tally.finished} runs finished by the same command, {seconds / 60:.1f} minutes; ",
        end="",
    )
    print(f"undisturbed {undisturbed:.1f} s\n\n| phase | rank | launcher | KILL | TERM | INT | ended after at most |")
    print("|---|---|---|---|---|---|---|")
    for phase in PHASES:
        kills = [kill for kill in tally.kills if kill.phase == phase]
        counts = [sum(kill.victim == victim for kill in kills) for victim in ("rank", "launcher")]
        counts += [sum(kill.signal == each for kill in kills) for each in SIGNALS]
        print(f"| {phase} | {' | '.join(map(str, counts))} | {tally.slowest.get(phase, 0):.1f} s |")
    codes = ", ".join(f"{code} ({count})" for code, count in sorted(tally.codes.items()))
    print(f"\nexit codes: {codes}\nwrong: {len(tally.wrong)}", *tally.wrong, sep="\n- ")
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
