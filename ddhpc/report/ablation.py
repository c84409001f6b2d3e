"""What each input of the second level brought."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import h5py

from ddhpc.method.metrics import Compared
from ddhpc.report.section import Section
from ddhpc.results import SCORED
from ddhpc.solver.ablation import Ablation, Inputs, ablate, stored_inputs
from ddhpc.wording import percent

NAMES = {
    Inputs(features=False, coarse_image=False): "decisions",
    Inputs(features=True, coarse_image=False): "+ features",
    Inputs(features=False, coarse_image=True): "+ coarse image",
    Inputs(features=True, coarse_image=True): "+ both",
}
HEAD = ("inputs", *(title for split in SCORED for title in (f"accuracy on {split}", "above decisions")))


def ablation(file: h5py.File, solve: bool) -> list[Section]:
    """The section on what the inputs of the coarse DNN brought, where it takes more than decisions.

    Args:
        file: results of the run.
        solve: whether to solve the coarse DNN again with fewer inputs; otherwise the section tells how to.

    Raises:
        InputError: there is nothing to solve again.
    """
    section = partial(Section, name="ablation", title="What each input of the second level brought")
    if solve:
        found = ablate(file)
        return [section(caption=_caption(found), head=HEAD, rows=_rows(found))]
    if len(stored_inputs(file)) == 1:
        return []
    return [section(caption="report RUN --ablation shows it: the coarse DNN is solved again with fewer of its inputs.")]


def _rows(found: Ablation) -> list[tuple[str, ...]]:
    first, *more = found.with_inputs.items()
    rows = [_row(NAMES[first[0]], first[1], ""), *(_row(NAMES[inputs], scores) for inputs, scores in more)]
    return [*rows, *([_row("coarse image alone", found.coarse_image)] if found.coarse_image else [])]


def _row(name: str, scores: Mapping[str, Compared], difference: str | None = None) -> tuple[str, ...]:
    cells = [name]
    for split in SCORED:
        each = scores[split]
        cells.append(f"{percent(each.accuracy)} ({' to '.join(map(percent, each.interval))})")
        cells.append(_difference(each) if difference is None else difference)
    return tuple(cells)


def _difference(found: Compared) -> str:
    shown = [f"{100 * share:+.1f}" for share in (found.above, *found.above_interval)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _caption(found: Ablation) -> str:
    said = [
        "The coarse DNN solved again from the stored local outputs with fewer inputs, and the options and the seed of "
        "the run. In brackets are 95 % intervals over the samples: bootstrap intervals of the accuracy, and those of "
        "the paired difference to decisions alone, in points. Where one holds 0, these samples do not tell whether the "
        "input helps; none tells how much another seed would change."
    ]
    if found.coarse_image_above:
        said.append(
            "The CNN of the coarse image alone differs on test from all inputs together by "
            f"{_difference(found.coarse_image_above)} points. Where it is as good alone, the data did not need the "
            "resolution."
        )
    said.append(
        f"Of the final decisions with all inputs on val and test, {found.differing:,} do not have the bits of the "
        f"run's own: here they were computed by {found.device}."
        if found.differing
        else "With all inputs, the final decisions on val and test have the bits of the run's own."
    )
    return " ".join(said)
