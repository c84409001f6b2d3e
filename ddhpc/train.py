"""The two-level CNN-DNN method: owned windows -> local problems -> results file -> gather -> coarse problem.

Where asked for, the CNN-DNN is then trained end to end (`coherent`). More ranks than subdomains form a team for each,
which trains it data-parallel; the first rank of a team owns the subdomain.

Klawonn, Lanser, Weber: A Domain Decomposition-Based CNN-DNN Architecture for Model Parallel Training Applied to Image
Recognition Problems, SIAM J. Sci. Comput. 46(5), C557-C582, 2024, doi:10.1137/23m1562202.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddhpc import coarse, provenance, results, runtime
from ddhpc.coherent import train_coherent
from ddhpc.data.hdf5 import text
from ddhpc.data.packed import SPLITS
from ddhpc.decomposition import owned
from ddhpc.errors import InputError
from ddhpc.metrics import below_mean, margin
from ddhpc.problem import Problem
from ddhpc.progress import Progress
from ddhpc.rendezvous import form_team
from ddhpc.subdomain import Job, solve_local, solve_or_leave
from ddhpc.team import ALONE

if TYPE_CHECKING:
    from mpi4py import MPI

PATIENCE_SECONDS = 5.0


def train(
    problem: Problem,
    directory: Path,
    comm: MPI.Comm,
    place: runtime.Place,
    request: runtime.StopRequest,
    startup: float,
) -> None:
    """Solve the local problems and the coarse problem, and leave a finished results file in the run directory.

    Goes on from the checkpoints that the directory holds.

    Args:
        problem: the same on all ranks.
        directory: of the run; exists.
        comm: all ranks.
        place: of this rank.
        request: looked at between the steps of the local CNNs.
        startup: seconds that this job took before.

    Raises:
        InputError: on all ranks, if any of them cannot go on.
        Stopped: on all ranks, when any of them was asked to stop; all have made a checkpoint.
    """
    clock = runtime.Clock()
    shares = [owned(problem.subdomains, comm.size, rank) for rank in range(comm.size)]
    mine = shares[comm.rank]
    owners = comm.Split(0 if mine else 1, comm.rank)
    check_teams(problem, comm.size)
    labels = {split: problem.packed.labels(split) for split in SPLITS}
    layout = provenance.layout(problem, labels, comm, place)
    runtime.together(comm, lambda: results.create(directory, layout) if comm.rank == 0 else None)

    with (
        form_team(comm, problem.subdomains, place) as team,
        Progress(comm.Dup(), shares, len(problem.fits) * problem.config.local.epochs) as progress,
    ):
        job = Job(
            problem=problem,
            labels=labels,
            directory=directory,
            run=results.fingerprint(results.identity(problem.config, problem.packed.digest)),
            place=place,
            team=team,
            clock=clock,
            progress=progress,
            request=request,
        )

        def solve_owned() -> list[dict[str, np.ndarray]]:
            with clock("local"):
                solved = [solve_or_leave(job, subdomain) for subdomain in mine or [team.subdomain]]
            request.obey()
            return solved[: len(mine)]

        with clock("all_local"):
            solved = runtime.together(comm, solve_owned, tick=progress.show, patience=PATIENCE_SECONDS)
        progress.finish()
    check_absent(comm, solved, problem.config.coarse.allow_missing)
    job_name = layout.attributes["job"]
    runtime.together(comm, lambda: results.check_own(directory, job_name) if comm.rank == 0 else None)
    runtime.log.info("all subdomains are finished; writing and gathering their decisions")
    gathered, seconds = write_and_gather(job, solved, mine, owners, comm.rank) if mine else ({}, np.empty(0))
    spent = runtime.gather(comm, rank_seconds(clock, startup)[None], comm.size)

    def solve_coarse() -> coarse.Solution | None:
        if comm.rank != 0:
            return None
        runtime.log.info("solving the coarse problem")
        with clock("coarse"):
            problem.seed(problem.subdomains)
            return coarse.solve(gathered, labels, problem.config.coarse, place.device, problem.learned)

    solution = runtime.together(comm, solve_coarse)
    if problem.config.coherent.start != "none":
        with clock("coherent"):
            solution = runtime.together(comm, lambda: train_coherent(job, mine, owners, solution) if mine else None)

    def finish() -> None:
        if solution is None:
            return
        runtime.log.info("finishing the results file")
        before, jobs = results.earlier_jobs(directory)
        total = before + startup + clock.elapsed()
        timing = {
            "startup": startup,
            "read": spent[:, results.PHASES.index("read")].max(),
            "local_max": seconds.max(),
            "local_sum": seconds.sum(),
            **{phase: s for phase, s in clock.seconds.items() if phase in ("write", "gather", "coarse", "coherent")},
            "total": total if total >= seconds.max() else np.nan,  # less, where the times of earlier jobs are lost
            "jobs": jobs + 1,
        }
        spent[0, results.PHASES.index("coarse")] = clock.seconds["coarse"]
        there = coarse.present(gathered["val"])
        results.finish(
            directory,
            job=job_name,
            present=there,
            solution=solution,
            labels=labels,
            timing=timing,
            spent=spent,
        )
        dnn, mean = (solution.fusions[name]["val"] for name in ("dnn", "mean"))
        if told := below_mean(*margin(dnn, mean, labels["val"])):
            runtime.warn(told)

    runtime.together(comm, finish)


def check_teams(problem: Problem, ranks: int) -> None:
    """InputError if more ranks than subdomains cannot train as configured."""
    config, most = problem.config, problem.subdomains
    if ranks > most and config.coarse.allow_missing:
        raise InputError(
            f"--coarse.allow_missing {config.coarse.allow_missing}: expected at most {most} ranks with it, found "
            f"{ranks}: ranks that train a subdomain together cannot go on without each other"
        )
    batch = min(config.local.batch_size, *(len(fit.images) for fit in problem.fits))
    if ranks > most * batch:
        raise InputError(
            f"{ranks} ranks for {most} subdomain{'s' * (most != 1)}: expected at most {most * batch}, one for each "
            f"image of a batch of {batch}; start fewer, or refine --decomposition.grid"
        )


def write_and_gather(
    job: Job, solved: list[dict[str, np.ndarray]], mine: range, owners: MPI.Comm, rank: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Write the local decisions into the results file and bring them to rank 0; collective on the owners.

    Args:
        job: of this rank.
        solved: of its subdomains, as `solve_local` gives it.
        mine: their numbers.
        owners: the ranks that own subdomains.
        rank: of this process among all.

    Returns:
        On rank 0 the local decisions by split, [N, S, K], and the seconds of each subdomain, [N]; elsewhere no rows.
    """
    slabs = {name: np.stack([subdomain[name] for subdomain in solved]) for name in solved[0]}
    slabs["rank"] = np.full(len(mine), rank)
    slabs["device"] = text([job.place.device_name] * len(mine), results.DEVICE_BYTES)
    subdomains, limit = job.problem.subdomains, job.problem.config.coarse.memory_limit
    with job.clock("write"):
        results.write_local(job.directory, owners, mine, subdomains, slabs)
    with job.clock("gather"):
        gathered = results.gather_local(job.directory, owners, slabs, subdomains, limit)
        return gathered, runtime.gather(owners, slabs["seconds"], subdomains)


def rank_seconds(clock: runtime.Clock, startup: float) -> np.ndarray:
    """Seconds of this rank in each of the phases before the coarse problem, by `results.PHASES`: [P] float64."""
    seconds = {"read": 0.0, "write": 0.0, "gather": 0.0, **clock.seconds, "startup": startup, "coarse": 0.0}
    seconds["train"] = seconds["local"] - seconds["read"]
    seconds["wait"] = seconds["all_local"] - seconds["local"]
    return np.array([seconds[phase] for phase in results.PHASES])


def check_absent(comm: MPI.Comm, solved: list[dict[str, np.ndarray]], allow_missing: int) -> None:
    """InputError on all ranks if more subdomains are absent than the coarse DNN is to do without, or all are."""
    from mpi4py import MPI

    counts = np.array([len(solved), sum(not subdomain["val/decision"].any() for subdomain in solved)])
    comm.Allreduce(MPI.IN_PLACE, counts, op=MPI.SUM)
    subdomains, missing = counts.tolist()
    if missing > allow_missing or missing == subdomains:
        raise InputError(
            f"--coarse.allow_missing {allow_missing}: {missing} of {subdomains} subdomains could not be trained; "
            "expected no more than that many, and not all; see the warnings above"
        )


def train_subdomain(
    problem: Problem,
    subdomain: int,
    directory: Path,
    comm: MPI.Comm,
    place: runtime.Place,
    request: runtime.StopRequest,
) -> None:
    """Solve one local problem and leave its checkpoint in the run directory, from which `train` takes it.

    For clusters where N single GPUs are free sooner than one job of N; several processes may do this at once, each for
    another subdomain.

    Args:
        problem: see `train`.
        subdomain: its number.
        directory: see `train`.
        comm: of this process alone.
        place: of this process.
        request: see `train`.

    Raises:
        InputError, Stopped: see `train`.
    """
    epochs = len(problem.fits) * problem.config.local.epochs
    with Progress(comm.Dup(), [range(subdomain, subdomain + 1)], epochs) as progress:
        job = Job(
            problem=problem,
            labels={split: problem.packed.labels(split) for split in SPLITS},
            directory=directory,
            run=results.fingerprint(results.identity(problem.config, problem.packed.digest)),
            place=place,
            team=ALONE,
            clock=runtime.Clock(),
            progress=progress,
            request=request,
        )
        solve_local(job, subdomain)
