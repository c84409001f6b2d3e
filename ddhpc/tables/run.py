"""The table of a run, from its results file."""

from __future__ import annotations

import io
from math import prod
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ddhpc.config import Config
from ddhpc.data.packed import SPLITS
from ddhpc.errors import InputError
from ddhpc.method.metrics import BINARY, below_mean, never_chosen
from ddhpc.method.problem import Problem
from ddhpc.method.resampling import owners
from ddhpc.results import (
    FUSIONS,
    SCORED,
    checkpoint,
    has_coarse_image,
    is_finished,
    names,
    open_results,
    patients,
    verify,
)
from ddhpc.results.cost import machine
from ddhpc.results.decisions import fusions
from ddhpc.results.model_directory import MODEL
from ddhpc.tables.counts import count_classes, print_counts
from ddhpc.tables.stopping import stopping
from ddhpc.terminal import PlainConsole, console
from ddhpc.wording import by, duration, percent, plural

HTML = '<pre style="line-height: 1.2; overflow-x: auto">{code}</pre>'
OLD_RESAMPLES = 1000
"""Of files that do not tell how many they have."""
WIDEST = 1_000_000
"""Columns of a terminal on which every grid finds room."""
FEW_STEPS = 100
"""Of a local CNN. On 228 faces 30 steps gave a third of the accuracy of 300."""


def problem_line(problem: Problem) -> str:
    """What is trained, in one line."""
    packed, model = problem.packed, problem.config.model
    samples = ", ".join(f"{packed.samples[split]:,} {split}" for split in SPLITS)
    windows = sorted({problem.extent(n) for n in range(problem.subdomains) if problem.images(n) is packed})
    shown = by(windows[0]) if len(windows) == 1 else f"{by(windows[0])} to {by(windows[-1])}"
    steps = problem.local_steps
    coarse = f" and the coarse image {by(problem.coarse.image_shape)}" if problem.coarse else ""
    few = f"\nonly {plural(steps, 'step')} for each local CNN: try more --local.epochs or a smaller --local.batch_size"
    return (
        f"{packed.path.name}: {samples} {packed.noun} of {by(packed.image_shape)}, "
        f"{plural(packed.channels, 'channel')}, {len(packed.classes)} classes\n"
        f"{plural(problem.subdomains, 'subdomain')} ({by(problem.config.decomposition.grid)}, overlap "
        f"{problem.config.decomposition.overlap}, windows {shown}{coarse}): {model.name}, width {problem.width}, "
        f"{plural(problem.config.local.epochs, 'epoch')}{few if steps < FEW_STEPS else ''}"
        f"{problem.known_line and chr(10)}{problem.known_line}"
    )


def inspect_run(run: Path) -> None:
    """Verify a run and its checkpoints, and print its table; InputError if a file is damaged or absent."""
    problems = checkpoint.verify(run)
    if not is_finished(run) and (kept := list(run.glob("checkpoints/*.pt"))):
        state = (
            f"not finished, {len(kept)} subdomains have a checkpoint; the same command with --output {run} continues"
        )
        raise InputError(f"{run}: {'; '.join([state, *problems])}")
    problems += verify(run)
    print_run(run)
    if problems:
        raise InputError(f"{run}: damaged: {'; '.join(problems)}")


def print_run(run: Path) -> None:
    """Print the table of a finished run; InputError if there is none."""
    out = console()
    with open_results(run) as file:
        print_tables(file, out)
        model = "model_sha256" in file.attrs and (run / MODEL).is_dir()
    if model:
        out.print(f"model {run / MODEL}  (python -m ddhpc predict {run} FILE...)", soft_wrap=True)
    out.print(
        f"run directory {run}  (python -m ddhpc inspect {run}; h5dump -n {run / 'results.h5'})",
        soft_wrap=True,
    )


def print_tables(file: h5py.File, out: Console) -> None:
    """Print what a results file holds, table by table."""
    grid, title = _grid_table(file), "Accuracy of the local CNNs in %"
    if Measurement.get(out, out.options.update(max_width=WIDEST), grid).maximum > out.width:
        tables = {title: _extremes(file)}
    else:
        tables = {f"{title}, val / test, laid out as the grid": grid}
    tables["Accuracy of the final decision"] = _fusion_table(file)
    classes = names(file["classes"])
    if len(classes) == 2 and "test" in file["fusion/dnn"]:
        tables[f"Test of {classes[1]} (positive) against {classes[0]}"] = binary_table(file)
    if "fusion/absent/more" in file and len(file["fusion/absent/more"]) > 1:
        tables["Accuracy on test with fewer subdomains"] = _absent_table(file)
    for title, table in {**tables, "Time": _time_table(file)}.items():
        out.print(f"\n{title}", style="bold")
        out.print(table)
    for line in stopping(file):
        out.print(line)
    _print_classes(file, classes, out)
    config = Config.from_yaml(file.attrs["config"])
    parameters = file["local/parameters"][...]
    out.print(
        f"{config.model.name} of {parameters.max():,} parameters on each subdomain, {parameters.sum():,} on all; "
        f"{machine(file)}, seed {file.attrs['seed']}"
    )


def html_tables(file: h5py.File) -> str:
    """The same tables as HTML, for notebooks."""
    out = PlainConsole(width=120, color_system=None, record=True, file=io.StringIO())
    print_tables(file, out)
    return out.export_html(inline_styles=True, code_format=HTML)


def _grid_table(file: h5py.File) -> Table:
    grid = tuple(int(parts) for parts in file["decomposition"].attrs["grid"])
    table = Table()
    parts = prod(grid)
    accuracies = [100 * file[f"local/{split}/accuracy"][:parts].reshape(grid) for split in SCORED]
    rows = np.stack(accuracies, axis=-1).reshape(grid[0], -1, 2)
    layers = rows.shape[1] // grid[1] if len(grid) > 1 else 1
    for column in np.ndindex(grid[1:]):
        header = f"layer {column[1]}\ncolumn {column[0]}" if len(grid) == 3 and layers > 1 else ""
        table.add_column(header, justify="center")
    for row in rows:
        table.add_row(*(f"{val:.1f} / {test:.1f}" for val, test in row))
    table.show_header = len(grid) == 3
    return table


def _extremes(file: h5py.File) -> Table:
    """The best, worst and median local CNN, where the grid is wider than the terminal."""
    table = Table("", *SCORED)
    table.columns[0].no_wrap = True
    table.columns[1].justify = table.columns[2].justify = "right"
    parts = prod(file["decomposition"].attrs["grid"])
    shares = [100 * file[f"local/{split}/accuracy"][:parts] for split in SCORED]
    if np.isnan(shares).all():
        table.add_row("all", *["absent"] * len(SCORED))
        return table
    for name, place in (("highest", np.nanargmax), ("lowest", np.nanargmin)):
        places = [int(place(share)) for share in shares]
        table.add_row(name, *(f"{share[n]:.1f} (subdomain {n})" for share, n in zip(shares, places, strict=True)))
    table.add_row("median", *(f"{np.nanmedian(share):.1f}" for share in shares))
    table.caption = "all are in local/val/accuracy and local/test/accuracy of the results file"
    return table


def _fusion_table(file: h5py.File) -> Table:
    table = Table()
    for column in ("fusion", *SCORED, "test, 95 % interval", "balanced"):
        table.add_column(column, justify="left" if column == "fusion" else "right")
    # The one subdomain a user could pick is the best on val; its test accuracy is then an honest one.
    best = int(np.nanargmax(file["local/val/accuracy"][...]))
    best_row = (percent(file[f"local/{split}/accuracy"][best]) for split in SCORED)
    if file["local/val/accuracy"].size == 1:
        table.add_row("global CNN", *best_row, *_scores(file, "dnn"))
        table.caption = "; ".join(filter(None, [_resampled(file), *unchosen(file)])) or None
        return table
    table.add_row(f"best local CNN on val (subdomain {best})", *best_row)
    for fusion in fusions(file):
        shares = (percent(file[f"fusion/{fusion}"].attrs[split]) for split in SCORED)
        table.add_row(fusion, *shares, *_scores(file, fusion))
    if has_coarse_image(file):
        table.add_row("coarse image alone", *(percent(file[f"local/{split}/accuracy"][-1]) for split in SCORED))
    missing = int(np.isnan(file["local/val/accuracy"][...]).sum())
    notes = [f"{missing} of {len(file['subdomain'])} subdomains are absent"] if missing else []
    fold = file.get("samples/train/fold")
    if fold is not None and fold.attrs["decisions"] != "in_sample":
        notes.append(f"dnn trained on {fold.attrs['decisions']} decisions")
    table.caption = "; ".join(filter(None, [*notes, _resampled(file), *shortfall(file), *unchosen(file)])) or None
    return table


def _resampled(file: h5py.File) -> str:
    """That patients were resampled, where they are known."""
    whose = patients(file, "test")
    return f"interval over {int(owners(len(whose), whose).max()) + 1:,} whole patients" if whose else ""


def shortfall(file: h5py.File) -> list[str]:
    """What to say where the coarse DNN is below the average probability on val; nothing else, and of older files."""
    found = file["fusion/dnn"].get("val")
    if found is None or not {"above_mean", "above_mean_error"} <= set(found.attrs):
        return []
    told = below_mean(found.attrs["above_mean"], found.attrs["above_mean_error"])
    return [told] if told else []


def unchosen(file: h5py.File) -> list[str]:
    """What to say of classes that the final decision never is on val; nothing else, and of older files."""
    if "val" not in file["fusion/dnn"]:
        return []
    train = count_classes({"train": file["samples/train/label"][...]}, len(file["classes"]))["train"]
    told = never_chosen(file["fusion/dnn/val/confusion"][...], train, names(file["classes"]))
    return [told] if told else []


def _print_classes(file: h5py.File, classes: list[str], out: Console) -> None:
    """Samples by class and split, and, where classes are of unequal size, how often each was chosen."""
    counts = count_classes({split: file[f"samples/{split}/label"][...] for split in SPLITS}, len(classes))
    unequal = len(set(counts["train"].tolist())) > 1 and "val" in file["fusion/dnn"]
    chosen = file["fusion/dnn/val/confusion"][...].sum(0) if unequal else ()
    more = {"chosen on val": [f"{count:,}" for count in chosen]} if unequal else {}
    out.print()
    print_counts(out, counts, classes, "volumes" if len(file["decomposition"].attrs["grid"]) == 3 else "images", more)


def _absent_table(file: h5py.File) -> Table:
    """How the accuracy falls with the number of subdomains that are taken away."""
    table = Table()
    more = file["fusion/absent/more"][...]
    for column in ("fusion", *(f"{count} fewer" for count in more)):
        table.add_column(column, justify="left" if column == "fusion" else "right")
    for fusion in FUSIONS:
        table.add_row(fusion, *(percent(share) for share in file[f"fusion/absent/{fusion}"][...]))
    return table


def _scores(file: h5py.File, fusion: str) -> tuple[str, ...]:
    """Interval and balanced accuracy on test, which older files lack."""
    if f"fusion/{fusion}/test" not in file:
        return ()
    found = file[f"fusion/{fusion}/test"].attrs
    return f"{percent(found['accuracy_low'])} to {percent(found['accuracy_high'])}", percent(found["balanced_accuracy"])


def binary_table(file: h5py.File) -> Table:
    """For two classes, of which the second is the positive one: what is usual in medicine."""
    table = Table()
    for column in ("fusion", *(f"{name.replace('_', ' ')} (95 % interval)" for name in BINARY)):
        table.add_column(column, justify="left" if column == "fusion" else "right")
    for fusion in fusions(file):
        found = file[f"fusion/{fusion}/test"].attrs
        cells = (f"{found[name]:.3f} ({found[f'{name}_low']:.3f} to {found[f'{name}_high']:.3f})" for name in BINARY)
        table.add_row(fusion, *cells)
    negative, positive = file["fusion/mean/test/confusion"][...].sum(1)
    table.caption = f"{positive:,} positive and {negative:,} negative samples"
    drawn = int(found.get("resamples", OLD_RESAMPLES))
    fewest = min(found.get(f"{name}_resamples", drawn) for name in BINARY)
    if fewest < drawn:
        table.caption += f"; intervals over those resamples that have both, {fewest:,} of {drawn:,}"
    return table


def _time_table(file: h5py.File) -> Table:
    timing = file["timing"].attrs
    cpu = file["local/cpu_seconds"][...]
    table = Table()
    for column in ("phase", "wall", "CPU"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    table.add_row("start-up (MPI, torch)", duration(timing["startup"]), "")
    table.add_row("reading windows, slowest rank", duration(timing["read"]), "")
    table.add_row("slowest local CNN", duration(timing["local_max"]), duration(cpu.max()))
    table.add_row("all local CNNs together", duration(timing["local_sum"]), duration(cpu.sum()))
    for phase, name in (
        ("write", "writing local decisions"),
        ("gather", "gathering them on rank 0"),
        ("coarse", "coarse DNN and fusions"),
        ("coherent", "coherent CNN-DNN"),
        ("total", "whole run"),
    ):
        if phase not in timing:
            continue
        table.add_row(name, duration(timing[phase]), "")
    jobs = int(timing.get("jobs", 1))
    if np.isnan(timing["total"]):
        table.caption = (
            "the whole run was not timed: jobs trained single subdomains, `coarse` solved the second level again, or "
            "times are lost"
        )
    elif jobs > 1:
        table.caption = f"{jobs} jobs: local CNNs and the whole run count all of them, the other phases the last"
    return table
