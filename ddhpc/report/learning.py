"""The section of a report on how the local CNNs learned, on train and on val."""

from __future__ import annotations

import h5py
import numpy as np

from ddhpc.report.figures import training
from ddhpc.report.section import Section
from ddhpc.results.cost import critical_path
from ddhpc.tables.stopping import stopping
from ddhpc.wording import duration, percent, plural

HEAD = ("subdomain", "loss, first epoch", "last epoch", "accuracy on train, first epoch", "last epoch", "epochs took")
VAL_HEAD = ("loss on val, last", "lowest", "after epoch", "accuracy on val, last")


def curves(file: h5py.File) -> Section:
    """Loss and accuracy of all local CNNs by epoch, on val where they were validated."""
    history = {name: values[...] for name, values in file["local/history"].items() if name != "epoch"}
    slowest = critical_path(file).slowest
    validated = "val_loss" in history and bool(np.isfinite(history["val_loss"]).any())
    if not validated:
        history = {name: values for name, values in history.items() if not name.startswith("val_")}
    subdomains, epochs = history["loss"].shape
    present = np.flatnonzero(np.isfinite([history["loss"], history["accuracy"]]).any(axis=2).all(axis=0))
    dashed = ", dashed after the epoch on val; where that loss rises while the other falls, the CNN overfits"
    return Section(
        name="curves",
        title="How the local CNNs learned",
        caption=f"On the training images, in the steps as they were made{dashed * validated}. Marked is the local CNN "
        "that took longest, which the coarse problem waits for."
        + "".join(f" {line[0].upper()}{line[1:]}." for line in stopping(file)),
        figure=training.curves(history, slowest),
        alt=f"Loss and accuracy of {plural(subdomains, 'local CNN')} on train{' and val' * validated} over "
        f"{plural(epochs, 'epoch')}",
        head=(*HEAD, *(VAL_HEAD if validated else ())),
        rows=[_row({name: values[n] for name, values in history.items()}, n) for n in present.tolist()],
    )


def _row(history: dict[str, np.ndarray], subdomain: int) -> tuple[str, ...]:
    """What the table says of a subdomain, from what is known of its epochs, [E] each."""
    known = {name: values[np.isfinite(values)] for name, values in history.items()}
    (first, last), (first_share, last_share) = (known[name][[0, -1]] for name in ("loss", "accuracy"))
    took = duration(known["seconds"].sum())
    row = (str(subdomain), f"{first:.4f}", f"{last:.4f}", percent(first_share), percent(last_share), took)
    if "val_loss" not in known:
        return row
    loss, share = known["val_loss"], known["val_accuracy"]
    if not len(loss):
        return (*row, *["-"] * len(VAL_HEAD))
    lowest = int(np.nanargmin(history["val_loss"]))
    return (*row, f"{loss[-1]:.4f}", f"{loss.min():.4f}", str(lowest + 1), percent(share[-1]))
