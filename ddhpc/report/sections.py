"""The sections of a report: from a results file to figures, each with a caption, words for it and its numbers."""

from __future__ import annotations

from functools import partial

import h5py
import numpy as np

from ddhpc.method.metrics import scores
from ddhpc.report.ablation import ablation
from ddhpc.report.dependence import dependence
from ddhpc.report.figures import accuracy, domain, training
from ddhpc.report.figures.view import Domain
from ddhpc.report.learning import curves
from ddhpc.report.metrics import metrics
from ddhpc.report.picture import Pictures
from ddhpc.report.pooled import pooled
from ddhpc.report.section import OLD, Asked, Section
from ddhpc.results import balance, has_coarse_image, names, patients
from ddhpc.results.cost import critical_path, differences, machine
from ddhpc.wording import by, duration, percent


def sections(file: h5py.File, baseline: h5py.File | None, pictures: Pictures, asked: Asked) -> list[Section]:
    """All sections of the report on a run, in their order.

    Args:
        file: results of the run.
        baseline: results of the global CNN on the same data, if there are any.
        pictures: the test images of the run.
        asked: what else to show.
    """
    area = _domain(file, pictures)
    return [
        _decomposition(file, area, pictures),
        _fusions(file, baseline),
        *ablation(file, asked.ablation),
        *pooled(file, asked.pool, asked.positive),
        *metrics(file, asked.positive),
        _local(file, area),
        _confusion(file),
        dependence(file, area, pictures),
        curves(file),
        _time(file),
        _speedup(file, baseline),
    ]


def _domain(file: h5py.File, pictures: Pictures) -> Domain:
    attributes = file["decomposition"].attrs
    shape, grid = (tuple(attributes[name].tolist()) for name in ("image_shape", "grid"))
    coarse = tuple(attributes["coarse_shape"].tolist()) if has_coarse_image(file) else ()
    return Domain(
        shape=shape,
        grid=grid,
        overlap=int(attributes["overlap"]),
        balance=balance(file),
        coarse_shape=coarse,
        patient=pictures.orientation is not None,
        marked=pictures.orientation == "of the file",
    )


def _decomposition(file: h5py.File, area: Domain, pictures: Pictures) -> Section:
    chosen = critical_path(file).slowest
    name = names(file["samples/test/id"])[0]
    caption = (
        f"{len(area.blocks)} subdomains, {by(area.grid)}, numbered row-major, on "
        f"{'volumes' if len(area.shape) == 3 else 'images'} of {by(area.shape)}. A local CNN sees its block and the "
        f"overlap around it; the dashed window is that of the local CNN that took longest."
    )
    if has_coarse_image(file):
        shape = by(file["decomposition"].attrs["coarse_shape"])
        caption += f" Subdomain {len(area.blocks)} is the coarse image: the whole image, restricted to {shape}."
    if area.patient:
        caption += (
            " Slices are shown as radiologists look at them: the patient's right (R) at the left, the front (A) at the "
            "top. In the table x goes to the right, y to the front and z up."
        )
    if area.patient and not area.marked:
        caption += " The files did not tell where the sides are; LAS was assumed."
    lower, upper = file["decomposition/lower"][...], file["decomposition/upper"][...]
    sides = ("rows", "columns") if len(area.shape) == 2 else ("x", "y", "z")
    return Section(
        name="decomposition",
        title="The image and its subdomains",
        caption=f"{caption} {pictures.lacking or f'The picture is {name}, the first of test.'}",
        figure=domain.decomposition(area, pictures.of(0), chosen),
        alt=f"A test image cut into {by(area.grid)} subdomains, with their overlaps",
        head=("subdomain", *(f"{side} of the window" for side in sides)),
        rows=[
            (str(n), *(f"{low} to {high - 1}" for low, high in zip(lower[n], upper[n], strict=True)))
            for n in range(len(lower))
        ],
    )


def _fusions(file: h5py.File, baseline: h5py.File | None) -> Section:
    title, labels = "Final decisions against single networks", file["samples/test/label"][...]
    if "test" not in file["fusion/dnn"]:
        return Section(name="fusions", title=title, caption=f"The interval of the accuracy {OLD}")
    scored, whose = [], patients(file, "test")
    if len(file["subdomain"]) > 1:
        best = int(np.nanargmax(file["local/val/accuracy"][...]))
        scored.append(
            _scored(f"local CNN {best}", scores(file["local/test/decision"][best], labels, whose), file, best)
        )
        for fusion in ("vote", "mean", "dnn"):
            found = file[f"fusion/{fusion}/test"].attrs
            low, high = found["accuracy_low"], found["accuracy_high"]
            share = file[f"fusion/{fusion}"].attrs["test"]
            scored.append(accuracy.Scored(name=fusion, accuracy=share, low=low, high=high))
    for alone in (file if len(file["subdomain"]) == 1 else None, baseline):
        if alone is not None:
            found = scores(alone["local/test/decision"][0], alone["samples/test/label"][...], patients(alone, "test"))
            scored.append(_scored("global CNN", found, alone, 0))
    caption = (
        f"Accuracy on the {len(labels):,} test samples, with 95 % bootstrap intervals over "
        f"{'whole patients' if whose else 'them'}. "
        "dnn is the coarse DNN, mean the average probability, vote the majority of the local CNNs; the single local "
        "CNN is the one that was best on val. The intervals do not tell how much another seed would change."
    )
    return Section(
        name="fusions",
        title=title,
        caption=caption if baseline else f"{caption} --baseline RUN adds the global CNN.",
        figure=accuracy.fusions(scored),
        alt="Accuracy on test: " + ", ".join(f"{each.name} {percent(each.accuracy)}" for each in scored),
        head=("decision", "accuracy on test", "95 % interval"),
        rows=[(each.name, percent(each.accuracy), f"{percent(each.low)} to {percent(each.high)}") for each in scored],
    )


def _scored(name: str, found: dict[str, float], file: h5py.File, subdomain: int) -> accuracy.Scored:
    share = float(file["local/test/accuracy"][subdomain])
    return accuracy.Scored(name=name, accuracy=share, low=found["accuracy_low"], high=found["accuracy_high"])


def _local(file: h5py.File, area: Domain) -> Section:
    title = "Accuracy of the local CNNs"
    if len(area.blocks) == 1:
        return Section(name="local", title=title, caption="This is the global CNN: there is no grid to show.")
    shares = {split: file[f"local/{split}/accuracy"][...] for split in ("train", "val", "test")}
    return Section(
        name="local",
        title=title,
        caption="Each local CNN alone on test, in %, laid out as the grid; small numbers are those of the subdomains."
        + (f" The coarse image alone has {percent(shares['test'][-1])}." if has_coarse_image(file) else ""),
        figure=domain.heat_map(area, shares["test"][: len(area.blocks)], "accuracy on test in %"),
        alt=f"Heat map of the accuracy of {len(area.blocks)} local CNNs on test",
        head=("subdomain", *shares),
        rows=[
            (str(n), *("absent" if np.isnan(share) else percent(share) for share in line))
            for n, line in enumerate(np.transpose(list(shares.values())))
        ],
    )


def _confusion(file: h5py.File) -> Section:
    title = "Which classes are taken for which"
    if "test" not in file["fusion/dnn"]:
        return Section(name="confusion", title=title, caption=f"The confusion matrix {OLD}")
    counts, classes = file["fusion/dnn/test/confusion"][...], names(file["classes"])
    wrong = counts * (1 - np.eye(len(classes), dtype=counts.dtype))
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    most = f"Most often, {wrong.max()} times, {classes[row]} is taken for {classes[column]}." if wrong.any() else ""
    return Section(
        name="confusion",
        title=title,
        caption=f"Final decisions on test: a row for each true class, a column for each decided one. {most}",
        figure=accuracy.confusion(counts, classes),
        alt=f"Confusion matrix of {len(classes)} classes on test. {most}",
        head=("true class", *classes),
        rows=[(name, *map(str, line)) for name, line in zip(classes, counts.tolist(), strict=True)],
    )


def _time(file: h5py.File) -> Section:
    title = "What each rank did"
    if "timing/seconds" not in file:
        return Section(name="time", title=title, caption=f"The time of each rank {OLD}")
    seconds, phases = file["timing/seconds"][...], names(file["timing/phase"])
    return Section(
        name="time",
        title=title,
        caption=f"Real time of {machine(file)}, in the job that finished the run. Ranks "
        "that share cores take turns, so each seems to need longer than it would alone.",
        figure=training.time_bars(seconds, phases),
        alt="Bars of the seconds that each rank spent in each phase",
        head=("rank", *(str(training.LOOKS[phase]["label"]) for phase in phases)),
        rows=[(str(rank), *map(duration, line)) for rank, line in enumerate(seconds)],
    )


def _speedup(file: h5py.File, baseline: h5py.File | None) -> Section:
    title, subdomains = "How much faster than the global CNN", len(file["subdomain"])
    leave = partial(Section, name="speedup", title=title)
    if subdomains == 1:
        return leave(caption="This is the global CNN itself.")
    if baseline is None:
        return leave(caption="--baseline RUN, a run of the global CNN (--decomposition.grid of ones), shows it.")
    path, other = critical_path(file), critical_path(baseline)
    totals = [float(each["timing"].attrs["total"]) for each in (file, baseline)]
    counted: list[tuple[str, float, float]] = [
        (f"critical path, {path.clock} time, {path.kind}", path.seconds, other.seconds),
    ]
    if np.isfinite(totals).all():
        counted.append(("whole run, wall time, measured", totals[0], totals[1]))
    projected = (
        "It is projected: as each subdomain would have it with a rank and a core of its own, since here they shared, "
        "or several jobs trained them. "
        if path.shared
        else ""
    )
    unequal = differences(file, baseline)
    warning = f" They differ in more than the decomposition: {'; '.join(unequal)}." if unequal else ""
    return leave(
        caption=f"The critical path is the slowest local CNN ({path.clock} time) and the coarse DNN after it, against "
        f"the global CNN's training ({other.clock} time). {projected}More times than there are "
        "subdomains are possible, since a local CNN sees a part of the image and is narrower as well. The whole run is "
        f"what a clock on the wall showed, from start-up to the results, of {machine(file)}, "
        f"against {machine(baseline)}.{warning}",
        figure=training.speedup(subdomains, [(name, other / mine) for name, mine, other in counted]),
        alt="; ".join(f"{name}: {other / mine:.1f} times faster" for name, mine, other in counted),
        head=("what is counted", "this run", "global CNN", "times faster", "of the ideal"),
        rows=[
            (name, duration(mine), duration(other), f"{other / mine:.1f}", percent(other / mine / subdomains))
            for name, mine, other in counted
        ],
    )
