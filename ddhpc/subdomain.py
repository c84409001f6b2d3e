"""One subdomain on its rank: read its windows, train its CNN with checkpoints, give its decisions."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import nn

from ddhpc import checkpoint, runtime
from ddhpc.data.packed import SPLITS
from ddhpc.decomposition import extent
from ddhpc.errors import InputError, Stopped
from ddhpc.images import Images, channels_last, load
from ddhpc.local import State, local_decisions, train_local
from ddhpc.metrics import accuracy
from ddhpc.models import parameters
from ddhpc.problem import Problem
from ddhpc.progress import Progress
from ddhpc.results import file_system
from ddhpc.team import Team


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the subdomains of a rank have in common."""

    problem: Problem
    labels: dict[str, np.ndarray]
    """By split, [S] int64."""
    directory: Path
    """Of the run."""
    run: str
    """Fingerprint of the run."""
    place: runtime.Place
    team: Team
    clock: runtime.Clock
    progress: Progress
    request: runtime.StopRequest


def solve_or_leave(job: Job, subdomain: int) -> dict[str, np.ndarray]:
    """`solve_local`, or `absent` where that fails and the coarse DNN may do without."""
    try:
        return solve_local(job, subdomain)
    except (InputError, OSError, RuntimeError) as error:
        if not job.problem.config.coarse.allow_missing:
            raise
        runtime.warn(f"subdomain {subdomain} is absent: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        job.progress.step(subdomain, 1, float("nan"))
        return absent(job.problem, job.labels)


def absent(problem: Problem, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What stands for the result of `solve_local` where a subdomain cannot be trained: zeros and NaN."""
    classes, epochs = len(problem.packed.classes), problem.config.local.epochs
    return {
        **{f"{split}/decision": np.zeros((len(labels[split]), classes), np.float32) for split in SPLITS},
        **{f"{split}/accuracy": np.array(np.nan) for split in SPLITS},
        **{f"history/{name}": np.full(epochs, np.nan) for name in ("loss", "accuracy", "learning_rate", "seconds")},
        **{name: np.array(0) for name in ("parameters", "peak_memory_bytes")},
        **{name: np.array(0.0) for name in ("seconds", "cpu_seconds", "path_seconds")},
    }


def read_windows(job: Job, subdomain: int, after_each: Callable[[], None] = lambda: None) -> dict[str, Images]:
    """The windows of a subdomain of the images of each split, on the device; calls `after_each` split."""
    problem, window = job.problem, job.problem.decomposition[subdomain]
    images, streamed = {}, problem.streamed(window)
    with job.clock("read"):
        for split in SPLITS:
            padded = problem.padded(split, window)
            images[split] = load(problem.packed, split, *padded, job.place.device, streamed=streamed)
            after_each()
    return images


def asked_to_stop(job: Job) -> bool:
    """Whether this rank or another one was."""
    return bool(job.request.signal) or job.progress.stopped()


def stop_all(job: Job) -> NoReturn:
    """Tell the other ranks and raise Stopped."""
    job.progress.stop()
    raise Stopped(f"stopped by {job.request.signal or 'another rank'}")


def obey(job: Job) -> None:
    """`stop_all` on all ranks of a team of which one was asked to; collective in the team."""
    (stop,) = job.team.any(asked_to_stop(job))
    if stop:
        stop_all(job)


def local_cnn(job: Job, subdomain: int, *key: int) -> nn.Module:
    """The local CNN of a subdomain before training, see `Problem.local_cnn`, on the device."""
    cnn = job.problem.local_cnn(subdomain, *key).to(job.place.device)
    return cnn.to(memory_format=channels_last(2 + job.problem.packed.dimensions))


def solve_local(job: Job, subdomain: int) -> dict[str, np.ndarray]:
    """Read the windows of a subdomain, train its CNN, and give what the results file keeps of it below /local.

    The ranks of a team do this together; the first of them reports and keeps the checkpoints.
    """
    problem, labels, progress, device = job.problem, job.labels, job.progress, job.place.device
    team, leads = job.team, job.team.rank == 0
    config = problem.config.local
    file = checkpoint.path(job.directory, subdomain)
    saved, damaged = checkpoint.load(file, job.run)
    for line in damaged if leads else ():
        runtime.warn(f"{line}; going on from the one before it, if any")
    if saved and "solved" in saved:
        solved = {name: np.asarray(values.numpy()) for name, values in saved["solved"].items()}
        if leads:
            progress.step(subdomain, 1, float(solved["history/accuracy"][-1]))
        runtime.log.info("subdomain %d: finished before, taken from its checkpoint", subdomain)
        return solved

    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    images = read_windows(job, subdomain, lambda: obey(job))

    started, cpu_started = time.perf_counter(), time.process_time()
    seconds = np.array(saved["spent"] if saved else (0.0, 0.0, 0.0))
    fits, first = problem.fits, saved["fit"] if saved else 0
    nothing = np.zeros((len(labels["train"]), len(problem.packed.classes)), np.float32)
    decided: np.ndarray = saved["decided"].numpy() if saved else nothing

    def spent() -> np.ndarray:
        """Seconds of all jobs so far: on the clock, of all CPUs of the team, of one of them; collective in the team."""
        cpu = team.total(torch.tensor(time.process_time() - cpu_started, dtype=torch.float64, device=device)).item()
        return np.asarray(seconds + np.array([time.perf_counter() - started, cpu, cpu / team.size]))

    def keep(state: State) -> None:
        if not leads:
            return
        with file_system(file):
            checkpoint.save(file, state, job.run)
        runtime.log.info("subdomain %d: checkpoint after %.1f s", subdomain, seconds[0] + time.perf_counter() - started)

    due = time.monotonic() + problem.config.run.checkpoint_seconds

    def on_step(fraction: float, accuracy: float, state: Callable[[], State]) -> None:
        nonlocal due
        if leads:
            progress.step(subdomain, (number + fraction) / len(fits), accuracy)
        stop, save = team.any(asked_to_stop(job), leads and time.monotonic() >= due)
        if stop or save:
            keep({**state(), "spent": spent().tolist(), "fit": number, "decided": torch.from_numpy(decided)})
            due = time.monotonic() + problem.config.run.checkpoint_seconds
        if stop:
            stop_all(job)

    runtime.log.info(
        "subdomain %d: window %s %s %s, %s",
        subdomain,
        extent(problem.decomposition[subdomain]),
        "streamed to" if problem.streamed(problem.decomposition[subdomain]) else "held on",
        device,
        "continued" if saved else "from the start",
    )
    for number in range(first, len(fits)):
        fit = fits[number]
        cnn = local_cnn(job, subdomain, *fit.key)
        history = train_local(cnn, images["train"], labels["train"], config, on_step, saved, fit.images, team)
        saved = None
        if len(fit.decides):
            decided[fit.decides] = local_decisions(cnn, images["train"], config.precision, team)[fit.decides]
    if leads:  # a checkpoint of the last step leaves no step that would report the end
        progress.step(subdomain, 1, history.accuracy[-1])
    decisions = {"train": decided}
    decisions |= {split: local_decisions(cnn, images[split], config.precision, team) for split in ("val", "test")}
    wall, cpu, path = spent()
    runtime.log.info("subdomain %d: finished, loss %.4f, %.1f s", subdomain, history.loss[-1], wall)

    peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    solved = {
        **{f"{split}/decision": decisions[split] for split in SPLITS},
        **{f"{split}/accuracy": accuracy(decisions[split], labels[split]) for split in SPLITS},
        **{f"history/{name}": np.array(values) for name, values in vars(history).items()},
        "parameters": np.array(parameters(cnn)),
        "seconds": np.array(wall),
        "cpu_seconds": np.array(cpu),
        "path_seconds": np.array(path),
        "peak_memory_bytes": np.array(peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }
    tensors = {name: torch.from_numpy(values) for name, values in solved.items()}
    keep({"cnn": cnn.state_dict(), "solved": tensors})
    return solved
