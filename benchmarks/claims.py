"""The papers' claims, tested on the runs of studies; writes a Markdown table a claim.

    python -m ddhpc sweep benchmarks/studies/brain.yaml --ranks 1   # and others
    python benchmarks/claims.py runs/brain runs/flowers --output benchmarks/claims.md

Each directory is the study of a problem and holds finished runs that differ in grid, seed, `coarse.decisions` and
`coherent.start`. What
is compared has the same seed and the same test samples; the figure is the mean over the seeds. Intervals (95 %) are
percentiles over RESAMPLES draws with replacement of seeds and test samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ddhpc.config import Config
from ddhpc.results import FILE, open_results
from ddhpc.results.cost import critical_path, machine
from ddhpc.wording import by

RESAMPLES = 2000
FINAL = {"dnn": "coarse", "coherent": "coherent"}
HEAD = "| problem | grid | seeds | {figure} | 95 % interval | verdict |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the claims need of a run."""

    grid: tuple[int, ...]
    start: str
    """Option `coherent.start`."""
    decisions: str
    """Option `coarse.decisions`."""
    seed: int
    seconds: float
    """Of the critical path."""
    accuracy: dict[str, float]
    """On test, by fusion."""
    right: dict[str, np.ndarray]
    """[S] bool, whether a test sample is decided rightly, by fusion."""
    where: str
    """Processor, ranks and cores."""


Runs = Mapping[int, Run]
"""By seed."""


def read(directory: Path) -> Run:
    """The run in a directory."""
    from ddhpc.method.fusions import mean, vote

    with open_results(directory) as file:
        config, labels = Config.from_yaml(file.attrs["config"]), file["samples/test/label"][...]
        local = file["local/test/decision"][...]
        final = {name: file[f"{group}/test/decision"][...] for name, group in FINAL.items() if group in file}
        final |= {"mean": mean(local), "vote": vote(local)}
        return Run(
            grid=config.decomposition.grid,
            start=config.coherent.start,
            decisions=config.coarse.decisions,
            seed=config.run.seed,
            seconds=critical_path(file).seconds,
            accuracy={name: float((decided.argmax(1) == labels).mean()) for name, decided in final.items()},
            right={name: decided.argmax(1) == labels for name, decided in final.items()},
            where=f"{file.attrs['processor']}, {machine(file)}",
        )


def collect(study: Path) -> dict[tuple[tuple[int, ...], str], Runs]:
    """The finished runs of a study by grid and by what is special about them, `none` or an option, then by seed."""
    found: dict[tuple[tuple[int, ...], str], dict[int, Run]] = {}
    for path in sorted(study.glob(f"*/{FILE}")):
        run = read(path.parent)
        special = run.start if run.start != "none" else run.decisions
        found.setdefault((run.grid, "none" if special == "in_sample" else special), {})[run.seed] = run
    return found


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of [seeds, S] under draws of both."""
    draw, (seeds, samples) = np.random.default_rng(0), differences.shape
    means = [
        differences[np.ix_(draw.integers(0, seeds, seeds), draw.integers(0, samples, samples))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def verdict(low: float, high: float, nothing: float = 0) -> str:
    """Whether a claim of more than `nothing` holds, given the interval."""
    return "holds" if low > nothing else "does not hold" if high < nothing else "not decided"


def faster(mine: Runs, baseline: Runs) -> str:
    """Cells: how many times shorter the critical path is, with the range over the seeds."""
    ratios = [baseline[seed].seconds / run.seconds for seed, run in mine.items() if seed in baseline]
    low, high = min(ratios), max(ratios)
    return f"{len(ratios)} | {np.mean(ratios):.1f} times | {low:.1f} to {high:.1f} (range) | {verdict(low, high, 1)}"


def better(fusion: str, other: str, mine: Runs, baseline: Runs) -> str:
    """Cells: points of test accuracy by which a fusion is better than another, of the same run or of the baseline."""
    pairs = [(run, baseline[seed]) for seed, run in mine.items() if seed in baseline]
    differences = np.array([run.right[fusion].astype(float) - its.right[other] for run, its in pairs])
    low, high = interval(differences)
    shares = [np.mean([run.accuracy[fusion] for run, _ in pairs]), np.mean([its.accuracy[other] for _, its in pairs])]
    told = f"{100 * differences.mean():+.1f} ({100 * shares[0]:.1f} against {100 * shares[1]:.1f} %)"
    return f"{len(pairs)} | {told} | {100 * low:+.1f} to {100 * high:+.1f} | {verdict(low, high)}"


CLAIMS = (
    ("Q1: the training time is significantly shorter (arXiv:2302.06564)", "critical path, shorter", "none", faster),
    ("Q2: the CNN-DNN can be more accurate than the global CNN (arXiv:2302.06564)", "dnn - global, points", "none",
     partial(better, "dnn", "dnn")),
    ("Q3a: the coarse DNN beats the average probability (arXiv:2408.14442)", "dnn - mean, points", "own",
     partial(better, "dnn", "mean")),
    ("Q3b: the coarse DNN beats the majority vote (arXiv:2408.14442)", "dnn - vote, points", "own",
     partial(better, "dnn", "vote")),
    ("Q4: local CNNs as initial values of the coherent CNN-DNN give more accuracy (arXiv:2408.14442)",
     "coherent - dnn, points", "transfer", partial(better, "coherent", "dnn")),
    ("Q5: the coherent CNN-DNN from scratch (arXiv:2408.14442: helps or not, depending on the network)",
     "coherent - dnn, points", "scratch", partial(better, "coherent", "dnn")),
    ("Coarse DNN trained on decisions for a fifth of the images, held out from the local CNNs, instead of in sample",
     "held out - in sample, points", "held_out", partial(better, "dnn", "dnn")),
    ("Coarse DNN trained on cross-fitted decisions instead of in sample",
     "cross-fitted - in sample, points", "cross_fitted", partial(better, "dnn", "dnn")),
)  # fmt: skip
"""Title, figure, what is compared with what (`none`: those without anything special with the global CNN; `own`: with
themselves; a start of the coherent training: its runs with themselves; decisions: with those in sample), and how."""


def table(claim: str, figure: str, kind: str, compared, studies: Mapping[str, Mapping]) -> str:
    """The Markdown of a claim."""
    lines = []
    for problem, runs in studies.items():
        baseline = next((found for (grid, _), found in runs.items() if prod(grid) == 1), {})
        for (grid, start), mine in runs.items():
            if prod(grid) == 1 or start != ("none" if kind in ("none", "own") else kind):
                continue
            in_sample = runs.get((grid, "none"), {})
            its = {"none": baseline, "held_out": in_sample, "cross_fitted": in_sample}.get(kind, mine)
            if set(mine) & set(its):
                lines.append(f"| {problem} | {by(grid)} | {compared(mine, its)} |")
    body = "\n".join([HEAD.format(figure=figure), *lines]) if lines else "No runs yet: not decided."
    return f"## {claim}\n\n{body}\n"


def main() -> None:
    """Read all studies and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="directories of runs, as sweep leaves them")
    parser.add_argument("--output", type=Path, default=Path("claims.md"))
    given = parser.parse_args()
    studies = {study.name: collect(study) for study in given.studies}
    where = {run.where for runs in studies.values() for found in runs.values() for run in found.values()}
    told = " ".join(__doc__.split("\n\n")[-1].split()).replace("RESAMPLES", f"{RESAMPLES:,}")
    intro = (
        f"# The papers' claims\n\nWritten by `benchmarks/claims.py`. {told}\n\nMade on: {'; '.join(sorted(where))}. "
        "The critical path is projected: CPU seconds of the slowest local CNN and the coarse DNN.\n"
    )
    given.output.write_text("\n".join([intro, *(table(*claim, studies) for claim in CLAIMS)]))
    print(given.output.read_text())


if __name__ == "__main__":
    main()
