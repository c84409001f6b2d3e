"""One subdomain on its rank: read its windows, train its CNN with checkpoints, give its decisions."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError, Stopped
from ddhpc.method.local import LocalProblem, Validation, local_outputs, train_local
from ddhpc.method.metrics import accuracy
from ddhpc.method.problem import Problem
from ddhpc.method.solutions import Cost, LocalSolution
from ddhpc.method.team import Team
from ddhpc.method.training import History, State
from ddhpc.method.windows import Images, channels_last, load_windows
from ddhpc.models import parameters
from ddhpc.parallel import logs
from ddhpc.parallel.placement import Place
from ddhpc.parallel.progress import Progress
from ddhpc.parallel.signals import StopRequest
from ddhpc.parallel.standing import Accuracy
from ddhpc.parallel.stopwatch import Stopwatch
from ddhpc.results import checkpoint, file_system
from ddhpc.results.scalars import FOLDER, Scalars


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the subdomains of a rank have in common."""

    problem: Problem
    directory: Path
    """Of the run."""
    run: str
    """Fingerprint of the run."""
    place: Place
    team: Team
    stopwatch: Stopwatch
    progress: Progress
    request: StopRequest

    def scalars(self, *name: object) -> Scalars:
        """Of a training that this rank leads, into which nothing is written where nobody asked for them."""
        wanted = self.problem.config.run.tensorboard and self.team.rank == 0
        return Scalars(self.directory / FOLDER / "-".join(map(str, name)) if wanted else None)

    def asked_to_stop(self) -> bool:
        """Whether this rank or another one was."""
        return bool(self.request.signal) or self.progress.stopped()

    def stop(self) -> NoReturn:
        """Tell the other ranks and raise Stopped."""
        self.progress.stop()
        raise Stopped(f"stopped by {self.request.signal or 'another rank'}")

    def obey(self) -> None:
        """Stop if a rank of the team was asked to; collective in the team."""
        (stop,) = self.team.any(self.asked_to_stop())
        if stop:
            self.stop()


def solve_or_leave_out(job: Job, subdomain: int) -> LocalSolution:
    """Train a subdomain; on failure return an absent solution, if `coarse.allow_missing` permits."""
    try:
        return solve_local(job, subdomain)
    except (InputError, OSError, RuntimeError) as error:
        if not job.problem.config.coarse.allow_missing:
            raise
        logs.warn(f"subdomain {subdomain} is absent: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        job.progress.step(subdomain, 1, Accuracy())
        return absent(job.problem)


def absent(problem: Problem) -> LocalSolution:
    """The solution of a subdomain that cannot be trained."""
    never = [float("nan")] * problem.config.local.epochs
    return LocalSolution(
        present=False,
        outputs={split: nothing(problem, split) for split in SPLITS},
        accuracy=dict.fromkeys(SPLITS, float("nan")),
        history=History(loss=never, accuracy=never, learning_rate=never, seconds=never),
    )


def nothing(problem: Problem, split: str) -> np.ndarray:
    """Local outputs [S, K + F] that are not there: zeros."""
    return np.zeros((problem.packed.samples[split], len(problem.packed.classes) + problem.features), np.float32)


def read_windows(job: Job, subdomain: int, after_each: Callable[[], None] = lambda: None) -> dict[str, Images]:
    """The windows of a subdomain of the images of each split, on the device; calls `after_each` split."""
    problem, images, streamed = job.problem, dict[str, Images](), job.problem.streamed(subdomain)
    with job.stopwatch("read"):
        for split in SPLITS:
            padded, packed = problem.padded(split, subdomain), problem.images(subdomain)
            images[split] = load_windows(packed, split, *padded, job.place.device, streamed=streamed)
            after_each()
    return images


def local_cnn(job: Job, subdomain: int, *key: int) -> nn.Module:
    """The local CNN of a subdomain before training, see `Problem.local_cnn`, on the device."""
    cnn = job.problem.local_cnn(subdomain, *key).to(job.place.device)
    return cnn.to(memory_format=channels_last(2 + job.problem.packed.dimensions))


def solve_local(job: Job, subdomain: int) -> LocalSolution:
    """Solve the local problem of a subdomain, from its checkpoint where there is one.

    The ranks of a team do this together; the first of them reports and keeps the checkpoints.
    """
    file = checkpoint.path(job.directory, subdomain)
    saved, damaged = checkpoint.load(file, job.run)
    for line in damaged if job.team.rank == 0 else ():
        logs.warn(f"{line}; going on from the one before it, if any")
    if saved and "solved" in saved:
        solution = _restored(job, saved)
        job.scalars(f"subdomain-{subdomain:05}").write(solution.history)
        if job.team.rank == 0:
            job.progress.step(subdomain, 1, Accuracy(*solution.history.latest()))
        logs.log.info("subdomain %d: finished before, taken from its checkpoint", subdomain)
        return solution
    return SubdomainTraining(job, subdomain, saved).solve()


class SubdomainTraining:
    """The training of one subdomain in this job, with its checkpoints and its seconds."""

    def __init__(self, job: Job, subdomain: int, saved: State | None) -> None:
        self.job, self.subdomain, self.saved = job, subdomain, saved
        self.on_gpu = job.place.device != "cpu"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(job.place.device)
        self.images = read_windows(job, subdomain, job.obey)
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.before = Cost(**saved["cost"]) if saved else Cost()
        self.due = time.monotonic() + job.problem.config.run.checkpoint_seconds
        self.told = len(History(**saved["history"])) if saved else 0
        """Epochs of this training whose validation the log has."""
        self.scalars = Scalars(None)
        self.fits, self.fit = job.problem.fits, saved["fit"] if saved else 0
        self.decided: np.ndarray = saved["decided"].numpy() if saved else nothing(job.problem, "train")
        """Local outputs [S, K + F] for the training split, as far as they are made."""

    def solve(self) -> LocalSolution:
        """Train, decide, and keep the solution."""
        problem, team = self.job.problem, self.job.team
        logs.log.info(
            "subdomain %d: window %s %s %s, %s",
            self.subdomain,
            problem.extent(self.subdomain),
            "streamed to" if problem.streamed(self.subdomain) else "held on",
            self.job.place.device,
            "continued" if self.saved else "from the start",
        )
        cnn, history = self.train()
        if team.rank == 0:  # a checkpoint of the last step leaves no step that would report the end
            self.job.progress.step(self.subdomain, 1, Accuracy(*history.latest()))
        labels, classes = problem.packed.labels, len(problem.packed.classes)
        outputs = {"train": self.decided, **{split: self.outputs(cnn, split) for split in ("val", "test")}}
        cost = self.cost()
        logs.log.info("subdomain %d: finished, loss %.4f, %.1f s", self.subdomain, history.loss[-1], cost.seconds)
        solution = LocalSolution(
            outputs=outputs,
            accuracy={split: float(accuracy(outputs[split][:, :classes], labels[split])) for split in SPLITS},
            history=history,
            parameters=parameters(cnn),
            cost=cost,
            weights=_weights(self.job, cnn.state_dict()),
        )
        self.keep({"cnn": cnn.state_dict(), "solved": _state(solution)})
        return solution

    def train(self) -> tuple[nn.Module, History]:
        """The local CNN, trained once, or once for each fold (`cross_fitting`), of which the last decides on others."""
        problem, images = self.job.problem, self.images["train"]
        config, labels = problem.config.local, problem.packed.labels["train"]
        for number in range(self.fit, len(self.fits)):
            self.fit, fit = number, self.fits[number]
            cnn = local_cnn(self.job, self.subdomain, *fit.key)
            self.scalars = self.job.scalars(f"subdomain-{self.subdomain:05}", *(f"fold-{part}" for part in fit.key))
            local = LocalProblem(
                images=images,
                labels=labels,
                config=config,
                fitted=fit.images,
                team=self.job.team,
                seed=problem.config.run.seed,
                captured=":" not in problem.config.model.name,
                validation=Validation(images=self.images["val"], labels=problem.packed.labels["val"]),
            )
            history = train_local(cnn, local, self.on_step, self.saved)
            self.tell(history)
            self.scalars.close()
            if len(history) < config.epochs:
                logs.log.info(
                    "subdomain %d: stopped after epoch %d of %d, its loss on val was lowest after epoch %d",
                    *(self.subdomain, len(history), config.epochs, history.best),
                )
            self.saved, self.told = None, 0
            if len(fit.decides):
                self.decided[fit.decides] = self.outputs(cnn, "train")[fit.decides]
        return cnn, history

    def outputs(self, cnn: nn.Module, split: str) -> np.ndarray:
        """The local outputs [S, K + F] of a trained CNN for a split."""
        problem = self.job.problem
        return local_outputs(cnn, self.images[split], problem.config.local.precision, problem.features, self.job.team)

    def tell(self, history: History) -> None:
        """Log the validations that the log does not have yet, and write the scalars."""
        self.scalars.add(history)
        for epoch in range(self.told, len(history)):
            if np.isfinite(history.val_accuracy[epoch]):
                logs.log.info(
                    "subdomain %d: epoch %d, loss %.4f and on val %.4f, accuracy %.1f %% and on val %.1f %%",
                    *(self.subdomain, epoch + 1, history.loss[epoch], history.val_loss[epoch]),
                    *(100 * history.accuracy[epoch], 100 * history.val_accuracy[epoch]),
                )
        self.told = len(history)

    def on_step(self, fraction: float, history: History, state: Callable[[], State]) -> None:
        """Report a step, keep a checkpoint when one is due, and stop when asked to."""
        job, leads = self.job, self.job.team.rank == 0
        self.tell(history)
        if leads:
            done = (self.fit + fraction) / len(self.fits)
            job.progress.step(self.subdomain, done, Accuracy(*history.latest()))
        stop, save = job.team.any(job.asked_to_stop(), leads and time.monotonic() >= self.due)
        if stop or save:
            decided = torch.from_numpy(self.decided)
            self.keep({**state(), "cost": asdict(self.cost()), "fit": self.fit, "decided": decided})
            self.due = time.monotonic() + job.problem.config.run.checkpoint_seconds
        if stop:
            job.stop()

    def cost(self) -> Cost:
        """Of all jobs so far; collective in the team."""
        team, device = self.job.team, self.job.place.device
        mine = torch.tensor(time.process_time() - self.cpu_started, dtype=torch.float64, device=device)
        cpu = team.total(mine).item()
        peak = torch.cuda.max_memory_allocated(device) if self.on_gpu else 0
        return Cost(
            seconds=self.before.seconds + time.perf_counter() - self.started,
            cpu_seconds=self.before.cpu_seconds + cpu,
            path_seconds=self.before.path_seconds + cpu / team.size,
            peak_memory_bytes=peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )

    def keep(self, state: State) -> None:
        """Write the checkpoint, on the first rank of the team."""
        if self.job.team.rank != 0:
            return
        file = checkpoint.path(self.job.directory, self.subdomain)
        with file_system(file):
            checkpoint.save(file, state, self.job.run)
        seconds = self.before.seconds + time.perf_counter() - self.started
        logs.log.info("subdomain %d: checkpoint after %.1f s", self.subdomain, seconds)


def _weights(job: Job, state: Any) -> Any:
    """Kept where the coherent CNN-DNN starts from them."""
    return state if job.problem.config.coherent.start == "transfer" else None


def _state(solution: LocalSolution) -> State:
    """A solution as a checkpoint holds it."""
    return {
        "outputs": {split: torch.from_numpy(values) for split, values in solution.outputs.items()},
        "accuracy": dict(solution.accuracy),
        "history": solution.history.state(),
        "parameters": solution.parameters,
        "cost": asdict(solution.cost),
    }


def _restored(job: Job, saved: State) -> LocalSolution:
    """The solution that a checkpoint holds."""
    solved = saved["solved"]
    return LocalSolution(
        outputs={split: values.numpy() for split, values in solved["outputs"].items()},
        accuracy=solved["accuracy"],
        history=History(**solved["history"]),
        parameters=solved["parameters"],
        cost=Cost(**solved["cost"]),
        weights=_weights(job, saved["cnn"]),
    )
