"""The two-level CNN-DNN method: owned windows -> local problems -> results file -> gather -> coarse problem.

Where asked for, the CNN-DNN is then trained end to end (`coherent`). More ranks than subdomains form a team for each,
which trains it data-parallel; the first rank of a team owns the subdomain.

Klawonn, Lanser, Weber: A Domain Decomposition-Based CNN-DNN Architecture for Model Parallel Training Applied to Image
Recognition Problems, SIAM J. Sci. Comput. 46(5), C557-C582, 2024, doi:10.1137/23m1562202.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ddhpc import results
from ddhpc.errors import InputError
from ddhpc.method import coarse
from ddhpc.method.decomposition import owned
from ddhpc.method.metrics import below_mean, confusion, margin, never_chosen
from ddhpc.method.problem import Problem
from ddhpc.method.solutions import CoarseSolution, CoherentSolution, Gathered, LocalSolution
from ddhpc.method.team import ALONE
from ddhpc.parallel import logs
from ddhpc.parallel.communicator import Communicator
from ddhpc.parallel.data_parallel import form_team
from ddhpc.parallel.placement import Place
from ddhpc.parallel.progress import Progress
from ddhpc.parallel.signals import StopRequest
from ddhpc.parallel.stopwatch import Stopwatch
from ddhpc.results.provenance import describe_run
from ddhpc.solver.coherent import train_coherent
from ddhpc.solver.model import Solutions, keep_model
from ddhpc.solver.subdomain import Job, solve_local, solve_or_leave_out

PATIENCE_SECONDS = 5.0


def train(
    problem: Problem, directory: Path, comm: Communicator, place: Place, request: StopRequest, startup: float
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
    check_teams(problem, comm.size)
    shares = [owned(problem.subdomains, comm.size, rank) for rank in range(comm.size)]
    mine = shares[comm.rank]
    owners = comm.split(0 if mine else 1)
    layout = describe_run(problem, comm, place)
    comm.on_root(partial(results.create, directory, layout))
    epochs = len(problem.fits) * problem.config.local.epochs
    with (
        form_team(comm, problem.subdomains, place) as team,
        Progress(comm.duplicate(), shares, epochs) as progress,
    ):
        job = Job(
            problem=problem,
            directory=directory,
            run=run_fingerprint(problem),
            place=place,
            team=team,
            stopwatch=Stopwatch(startup),
            progress=progress,
            request=request,
        )
        local = solve_local_problems(job, comm, mine)
    comm.on_root(partial(results.check_own, directory, layout.attributes["job"]))
    gathered = write_and_gather(job, owners, local, comm.rank) if mine else None
    solution = comm.on_root(partial(solve_coarse_problem, job, gathered))
    coherent = None
    if problem.config.coherent.start != "none":
        coherent = comm.together(partial(solve_coherent, job, owners, local, solution))
    present = {n: each.present for n, each in local.items()}
    model = keep_model(job, comm, owners, present, Solutions(coarse=solution, coherent=coherent))
    rank_seconds = comm.gather(results.phase_row(job.stopwatch.seconds)[None], comm.size)
    final = Final(coarse=solution, coherent=coherent, model=model)
    comm.on_root(partial(finish, job, layout.attributes["job"], gathered, final, rank_seconds))


def run_fingerprint(problem: Problem) -> str:
    """What tells the checkpoints of this run from those of others."""
    return results.fingerprint(results.identity(problem.config, problem.packed.digest, problem.weights_digest))


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


def solve_local_problems(job: Job, comm: Communicator, mine: range) -> dict[int, LocalSolution]:
    """Train all subdomains, each rank those it owns or its team's, without communication; collective.

    Returns:
        The solutions of the subdomains that this rank owns, by number.

    Raises:
        InputError: on all ranks, also where more subdomains are absent than `coarse.allow_missing` permits.
        Stopped: on all ranks.
    """

    def solve() -> dict[int, LocalSolution]:
        with job.stopwatch("local"):
            solved = {n: solve_or_leave_out(job, n) for n in mine or [job.team.subdomain]}
        job.request.obey()
        return {n: solved[n] for n in mine}

    with job.stopwatch("all_local"):
        solutions = comm.together(solve, tick=job.progress.show, patience=PATIENCE_SECONDS)
    job.progress.finish()
    check_absent(comm, solutions, job.problem.config.coarse.allow_missing)
    return solutions


def check_absent(comm: Communicator, solutions: Mapping[int, LocalSolution], allow_missing: int) -> None:
    """InputError on all ranks if more subdomains are absent than the coarse DNN is to do without, or all are."""
    subdomains, missing = comm.total(len(solutions), sum(not each.present for each in solutions.values()))
    if missing > allow_missing or missing == subdomains:
        raise InputError(
            f"--coarse.allow_missing {allow_missing}: {missing} of {subdomains} subdomains could not be trained; "
            "expected no more than that many, and not all; see the warnings above"
        )


def write_and_gather(job: Job, owners: Communicator, solutions: Mapping[int, LocalSolution], rank: int) -> Gathered:
    """Write the local outputs into the results file and bring them to rank 0; collective on the owners.

    Args:
        job: of this rank.
        owners: the ranks that own subdomains.
        solutions: of the subdomains that this rank owns, by number.
        rank: of this process among all.
    """
    logs.log.info("all subdomains are finished; writing and gathering what they give")
    solved, subdomains = list(solutions.values()), job.problem.subdomains
    mine = range(min(solutions), max(solutions) + 1)
    classes, epochs = len(job.problem.packed.classes), job.problem.config.local.epochs
    slabs = results.local_slabs(solved, classes, epochs, rank, job.place.device_name)
    with job.stopwatch("write"):
        results.write_local(job.directory, owners, mine, subdomains, slabs)
    with job.stopwatch("gather"):
        limit = job.problem.config.coarse.memory_limit
        return Gathered(
            outputs=results.gather_local(job.directory, owners, slabs, subdomains, limit),
            present=owners.gather(np.array([each.present for each in solved]), subdomains),
            seconds=owners.gather(np.array([each.cost.seconds for each in solved]), subdomains),
        )


def solve_coarse_problem(job: Job, gathered: Gathered | None) -> CoarseSolution:
    """Train the coarse DNN on the local outputs, and make the final decisions of all fusions; on rank 0."""
    assert gathered is not None, "rank 0 owns subdomain 0"
    logs.log.info("solving the coarse problem")
    problem = job.problem
    with job.stopwatch("coarse"):
        problem.seed(problem.subdomains)
        solution = coarse.solve(
            gathered.outputs,
            problem.packed.labels,
            len(problem.packed.classes),
            problem.config.coarse,
            job.place.device,
            problem.learned,
        )
    job.scalars("coarse-dnn").write(solution.history)
    return solution


def solve_coherent(
    job: Job, owners: Communicator, local: Mapping[int, LocalSolution], solution: CoarseSolution | None
) -> CoherentSolution | None:
    """Train the CNN-DNN end to end on the ranks that own subdomains; collective on them."""
    if not local:
        return None
    with job.stopwatch("coherent"):
        return train_coherent(job, owners, local, solution.network if solution else None)


def timing(job: Job, gathered: Gathered, rank_seconds: np.ndarray) -> results.Timing:
    """Seconds of the run; on rank 0, whose file system knows the earlier jobs."""
    mine = job.stopwatch.seconds
    before, jobs = results.earlier_jobs(job.directory)
    total, longest = before + job.stopwatch.elapsed(), gathered.seconds.max()
    return results.Timing(
        startup=mine.startup,
        read=rank_seconds[:, results.PHASES.index("read")].max(),
        local_max=longest,
        local_sum=gathered.seconds.sum(),
        write=mine.write,
        gather=mine.gather,
        coarse=mine.coarse,
        coherent=mine.coherent if job.problem.config.coherent.start != "none" else None,
        total=total if total >= longest else np.nan,  # less, where the times of earlier jobs are lost
        jobs=jobs + 1,
    )


@dataclass(frozen=True, kw_only=True)
class Final:
    """What rank 0 has in the end."""

    coarse: CoarseSolution | None
    coherent: CoherentSolution | None
    model: str | None
    """SHA-256 of the description of the model."""


def finish(job: Job, name: str, gathered: Gathered | None, final: Final, rank_seconds: np.ndarray) -> None:
    """Complete the results file and give it its final name, on rank 0; warn of what its user should know.

    That is a coarse DNN that is below mean, and classes that the final decision never is.
    """
    assert gathered is not None, "rank 0 owns subdomain 0"
    assert final.coarse is not None
    solution = final.coarse
    logs.log.info("finishing the results file")
    outcome = results.Outcome(
        job=name,
        labels=job.problem.packed.labels,
        present=gathered.present,
        coarse=solution,
        coherent=final.coherent,
        timing=timing(job, gathered, rank_seconds),
        rank_seconds=rank_seconds,
        model_sha256=final.model,
    )
    results.finish(job.directory, outcome)
    dnn, mean = (solution.fusions[fusion]["val"] for fusion in ("dnn", "mean"))
    if told := below_mean(*margin(dnn, mean, outcome.labels["val"], job.problem.packed.patients("val"))):
        logs.warn(told)
    classes = job.problem.packed.classes
    train = np.bincount(outcome.labels["train"], minlength=len(classes))
    if told := never_chosen(confusion(dnn, outcome.labels["val"]), train, classes):
        logs.warn(told)


def train_subdomain(
    problem: Problem, subdomain: int, directory: Path, comm: Communicator, place: Place, request: StopRequest
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
    with Progress(comm.duplicate(), [range(subdomain, subdomain + 1)], epochs) as progress:
        job = Job(
            problem=problem,
            directory=directory,
            run=run_fingerprint(problem),
            place=place,
            team=ALONE,
            stopwatch=Stopwatch(),
            progress=progress,
            request=request,
        )
        solve_local(job, subdomain)
