"""The plan of a run: windows, ranks, networks, bytes and memory, without training."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from rich.console import Console
from rich.table import Table

from ddhpc.method.class_balance import class_weights
from ddhpc.method.coarse import epochs
from ddhpc.method.decomposition import owned, team_of
from ddhpc.method.memory import device_kind, subdomain_memory
from ddhpc.method.problem import Problem
from ddhpc.models import parameters
from ddhpc.tables.counts import count_classes, print_counts
from ddhpc.tables.run import problem_line
from ddhpc.terminal import console
from ddhpc.wording import by, mebibytes, plural

PROGRAM_BYTES = 690 * 2**20
"""Measured resident memory of a process that has torch and MPI and trains a tiny problem (CUDA build on a CPU)."""
CONTEXT_BYTES = 2**29
"""Of a GPU that a process takes for itself (CUDA context and libraries), about; it depends on card and driver."""
SHOWN_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """What one rank owns and needs."""

    rank: int
    subdomains: range
    """That it owns."""
    helps: int
    """The subdomain that it trains where it owns none."""
    data_bytes: int
    """Windows of all splits that the rank reads, over all its subdomains."""
    scratch_bytes: int
    """Of the temporary file of the largest of its subdomains that are streamed, 0 without any."""
    memory_bytes: int | None
    """Predicted peak in main memory: the program, the largest of its subdomains, or all where the CNN-DNN is trained,
    and all decisions; None where the training step cannot be followed."""
    device_bytes: int | None
    """Likewise on its GPU; None without one."""


def shares(problem: Problem, ranks: int) -> list[RankPlan]:
    """What each of `ranks` ranks owns and needs; a rank that helps another needs as much and owns nothing."""
    outputs = 4 * sum(problem.packed.samples.values()) * (len(problem.packed.classes) + problem.features)
    kind = device_kind(problem.config.run.device)
    memory = subdomain_memory(problem, kind)
    at_once = max if problem.config.coherent.start == "none" else sum
    planned = []
    for rank in range(ranks):
        mine = owned(problem.subdomains, ranks, rank)
        trained = mine or [team_of(problem.subdomains, ranks, rank)[0]]
        main = PROGRAM_BYTES + at_once(memory[n].main for n in trained) + len(mine) * outputs if memory else None
        on_gpu = CONTEXT_BYTES + at_once(memory[n].device for n in trained) if memory and kind == "cuda" else None
        planned.append(
            RankPlan(
                rank=rank,
                subdomains=mine,
                helps=trained[0],
                data_bytes=sum(sum(problem.window_bytes(n).values()) for n in trained),
                scratch_bytes=max(sum(problem.window_bytes(n).values()) * problem.streamed(n) for n in trained),
                memory_bytes=main,
                device_bytes=on_gpu,
            )
        )
    return planned


def _print_coarse_image(problem: Problem, count: int, ranks: int, out: Console) -> None:
    number = problem.subdomains - 1
    out.print(
        f"subdomain {number} is the coarse image: all {by(problem.packed.image_shape)} pixels restricted to "
        f"{by(problem.extent(number))}, width {problem.width_of(number)}, {count:,} parameters"
    )
    assert problem.coarse is not None
    packed, read = problem.packed, problem.coarse.read_shape
    size = mebibytes(sum(packed.samples.values()) * packed.channels * prod(read) * packed.dtype.itemsize)
    if read != packed.image_shape:
        out.print(f"it is read from images that the packed file holds restricted to {by(read)}, {size}")
    else:
        why = "the packed file is of format version 1, without restricted ones"
        if problem.coarse.origin == packed.image_shape:
            why = "it is finer than half of them"
        out.print(f"it is computed from whole images, {size}, since {why}")
    out.print(" ".join(coarse_image_ranks(problem.subdomains, ranks)))


def coarse_image_ranks(subdomains: int, ranks: int) -> list[str]:
    """Which of `ranks` owns the coarse image, the last of N subdomains; what N - 1 ranks give, and what N. Sentences.

    Example:
        >>> coarse_image_ranks(5, 2)[0]
        'With 2 ranks, rank 1 owns the coarse image and subdomain 3.'
    """
    last = subdomains - 1
    owner = next(rank for rank in range(ranks) if last in owned(subdomains, ranks, rank))
    first = owned(subdomains, ranks, owner).start
    others = {0: "", 1: f" and subdomain {first}"}.get(last - first, f" and subdomains {first} to {last - 1}")
    return [
        f"With {ranks} rank{'s' * (ranks > 1)}, rank {owner} owns the coarse image{others}.",
        f"With {last} ranks, rank 0 owns two subdomains and trains one after the other, so that its path is longer by "
        f"a local CNN; with {subdomains} each owns one.",
    ]


def _print_classes(problem: Problem, out: Console) -> None:
    """Images by class and split, and what those of each class weigh in the loss of the local CNNs."""
    packed, more = problem.packed, dict[str, list[str]]()
    weights = class_weights(packed.labels["train"], problem.config.local.class_weight, len(packed.classes))
    if weights is not None:
        more["weight in the loss"] = [f"{weight:.2f}" for weight in weights]
    print_counts(out, count_classes(packed.labels, len(packed.classes)), packed.classes, packed.noun, more)


def _print_memory(planned: list[RankPlan], out: Console) -> None:
    """What a rank needs, and a node."""
    each = [share.memory_bytes for share in planned if share.memory_bytes is not None]
    if not each:
        out.print("memory: unknown, since the network's step reads values of tensors; results.h5 has what each took")
        return
    out.print(
        f"memory (predicted): {mebibytes(max(each))} a rank at most; {mebibytes(sum(each))} on a node that has "
        f"{'the one rank' if len(each) == 1 else f'all {len(each)} ranks'}"
    )
    on_gpu = [share.device_bytes for share in planned if share.device_bytes is not None]
    if on_gpu:
        out.print(f"GPU memory (predicted): {mebibytes(max(on_gpu))} a rank at most; ranks that share a GPU add up")


def print_plan(problem: Problem, ranks: int | None) -> None:
    """Print the plan for `ranks` ranks, by default one a subdomain."""
    ranks = ranks or problem.subdomains
    planned = shares(problem, ranks)
    out = console()
    out.print(problem_line(problem))
    _print_classes(problem, out)
    counts, alike = {n: parameters(problem.local_cnn(n)) for n in set(problem.alike().values())}, problem.alike()
    total = sum(counts[first] for first in alike.values())
    out.print(f"a local CNN has {counts[0]:,} parameters, all together {total:,}")
    if problem.coarse:
        _print_coarse_image(problem, counts[alike[problem.subdomains - 1]], ranks, out)
    if problem.decisions != "in_sample":
        work = sum(len(fit.images) for fit in problem.fits) / problem.packed.samples["train"]
        times = f"{len(problem.fits)} times" if len(problem.fits) > 1 else "once"
        out.print(f"{problem.decisions} decisions: each local CNN is trained {times}, {work:.1f} times the work")
    if problem.subdomains > 1:
        images = len(problem.learned)
        also = f" and {problem.features} local features" if problem.features else ""
        out.print(
            f"coarse DNN: {plural(epochs(problem.config.coarse, images), 'epoch')} on {plural(images, 'image')}; takes "
            f"{len(problem.packed.classes)} probabilities{also} of each subdomain"
        )
    coherent = problem.config.coherent
    if coherent.start != "none":
        step = (
            4 * problem.config.local.batch_size * problem.subdomains * (len(problem.packed.classes) + problem.features)
        )
        out.print(
            f"coherent CNN-DNN ({coherent.start}): {plural(coherent.epochs, 'more epoch')} of all local CNNs; in each "
            f"step {step / 2**10:.1f} KiB to rank 0 and back"
        )
    out.print()

    windows = Table(title="Subdomains", title_justify="left")
    for column in ("subdomain", "window", "size", "rank"):
        windows.add_column(column, justify="right")
    rank_of = {subdomain: share.rank for share in planned for subdomain in share.subdomains}
    for subdomain, window in enumerate(problem.decomposition[:SHOWN_ROWS]):
        sides = ", ".join(f"{side.start}:{side.stop}" for side in window)
        windows.add_row(str(subdomain), sides, by(problem.extent(subdomain)), str(rank_of[subdomain]))
    out.print(windows)

    table = Table(title="Ranks", title_justify="left")
    on_gpu = any(share.device_bytes for share in planned)
    for column in ("rank", "subdomains", "data to read", "temporary file", "memory", *["GPU memory"] * on_gpu):
        table.add_column(column, justify="right")
    for share in planned[:SHOWN_ROWS]:
        span = " to ".join(str(end) for end in sorted({*share.subdomains[:1], *share.subdomains[-1:]}))
        scratch = mebibytes(share.scratch_bytes) if share.scratch_bytes else "-"
        table.add_row(
            str(share.rank),
            span or f"helps with {share.helps}",
            mebibytes(share.data_bytes),
            scratch,
            "unknown" if share.memory_bytes is None else mebibytes(share.memory_bytes),
            *[mebibytes(share.device_bytes or 0)] * on_gpu,
        )
    out.print(table)
    _print_memory(planned, out)
    if max(ranks, problem.subdomains) > SHOWN_ROWS:
        out.print(f"(the first {SHOWN_ROWS} of {problem.subdomains} subdomains and {ranks} ranks)")
    width = problem.subdomains * (len(problem.packed.classes) + problem.features) + len(problem.packed.classes)
    results = 4 * sum(problem.packed.samples.values()) * width
    out.print(f"results file about {mebibytes(results)}")
