"""Which subdomains drove a final decision."""

from __future__ import annotations

from functools import partial

import h5py
import numpy as np

from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method import coarse
from ddhpc.method.dependence import drops
from ddhpc.method.fusions import BLOCK, vote
from ddhpc.report.figures import domain
from ddhpc.report.figures.view import Domain
from ddhpc.report.picture import Pictures
from ddhpc.report.section import OLD, Section
from ddhpc.results import mean_outputs, names, stored_outputs
from ddhpc.wording import percent, shortened

MOVED = 0.05
"""Of probability, from which on a subdomain counts as one that moves a decision."""
EXAMPLES = 4
"""Test samples that are shown."""


def examples(labels: np.ndarray, final: np.ndarray, vote: np.ndarray, found: np.ndarray, count: int) -> list[int]:
    """Samples worth a look: right ones, ones put right against the majority vote, wrong ones, in turn.

    Of each kind the first, before others those whose probability a single subdomain moves by MOVED or more.

    Args:
        labels: [S].
        final: [S, K] final decisions of the coarse DNN.
        vote: [S, K] those of the majority vote.
        found: [S, N] as `drops` gives it.
        count: samples wanted, of which there may be fewer.

    Returns:
        Their numbers, ascending.
    """
    right, voted = final.argmax(axis=1) == labels, vote.argmax(axis=1) == labels
    unmoved = np.abs(found).max(axis=1) < MOVED
    order = np.argsort(unmoved, kind="stable")
    kinds = [order[kind[order]].tolist() for kind in (right & voted, right & ~voted, ~right)]
    turns = [kind[turn] for turn in range(count) for kind in kinds if turn < len(kind)]
    return sorted(turns[:count])


def dependence(file: h5py.File, area: Domain, pictures: Pictures) -> Section:
    """The section on what drove single decisions of a run."""
    title, subdomains = "What drove single decisions", len(file["subdomain"])
    leave = partial(Section, name="dependence", title=title)
    if subdomains == 1:
        return leave(caption="This is the global CNN: there is no coarse DNN that could depend on subdomains.")
    if "coarse/weights" not in file:
        return leave(caption=f"The coarse DNN itself {OLD}")
    weights = {name: np.asarray(values, np.float32) for name, values in file["coarse/weights"].items()}
    classes, labels = names(file["classes"]), file["samples/test/label"][...]
    config = Config.from_yaml(file.attrs["config"]).coarse
    local = stored_outputs(file, memory_limit=config.memory_limit)["test"]
    final, usual = file["coarse/test/decision"][...], mean_outputs(file)
    expected = coarse.weight_shapes(subdomains, len(classes), local.shape[2] - len(classes), config)
    if not set(expected) <= set(weights):
        return leave(caption=f"The coarse DNN of today {OLD}")
    if {name: values.shape for name, values in weights.items()} != expected:
        raise InputError(f"{file.filename}: its coarse DNN is not that of its configuration; expected the same widths")
    network = coarse.restored(weights, config)
    blocks = (local[:, start : start + BLOCK] for start in range(0, local.shape[1], BLOCK))
    shares = np.concatenate([drops(partial(coarse.decide, network), block, usual) for block in blocks])
    if not np.isfinite(shares).all():
        raise InputError(f"{file.filename}: its coarse DNN decides nothing; expected finite weights")
    chosen = examples(labels, final, vote(local[:, :, : len(classes)]), shares, EXAMPLES)
    found = 100 * shares
    ids = names(file["samples/test/id"])
    named = [shortened(name) for name in classes]
    decided = [f"{named[final[n].argmax()]}, {percent(final[n].max())}" for n in chosen]
    truth = ["right" if final[n].argmax() == labels[n] else f"is {named[labels[n]]}" for n in chosen]
    said = [f"{n}: {words}\n{word}" for n, words, word in zip(chosen, decided, truth, strict=True)]
    overall = found.mean(axis=0)
    most = int(overall.argmax())
    numbers = [str(n) for n in range(subdomains)]
    beside, drawn = "", "Test images with the influence of each subdomain drawn over them"
    if area.coarse_shape:
        numbers[-1] = f"{subdomains - 1} (coarse image)"
        beside = f"The coarse image stands beside, in the same colours; it has {overall[-1]:.1f} points on average. "
        drawn += ", the coarse image beside"
    return Section(
        name="dependence",
        title=title,
        caption="How many percentage points the probability of the decided class loses when what one "
        "subdomain says is replaced by its mean over the training images: occlusion (Zeiler and Fergus, "
        "arXiv:1311.2901) at the coarse level. Orange spoke for the decision, blue against it. The samples are the "
        "first in test of those decided rightly, decided rightly against the majority of the local CNNs, and decided "
        f"wrongly, where one subdomain moves the probability by {100 * MOVED:.0f} points or more if there are such. "
        f"Over all of test, subdomain {numbers[most]} matters most, with {overall[most]:.1f} points on average. "
        f"{beside}{pictures.lacking}",
        figure=domain.dependence(
            area,
            [
                domain.Driven(
                    title=words,
                    image=pictures.of(n),
                    coarse_image=pictures.coarse(n, area.coarse_shape),
                    drops=found[n],
                )
                for n, words in zip(chosen, said, strict=True)
            ],
        ),
        alt=f"{drawn}: {'; '.join(said)}",
        head=(
            "subdomain",
            "mean over test",
            *(f"{words} ({ids[n]})" for n, words in zip(chosen, said, strict=True)),
        ),
        rows=[
            (number, f"{overall[n]:+.2f}", *(f"{found[m, n]:+.2f}" for m in chosen)) for n, number in enumerate(numbers)
        ],
    )
