"""Scalars of a run for TensorBoard, which reads them while it trains. Needs tensorboard, of the extra of that name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddhpc.data.hdf5 import reason
from ddhpc.errors import InputError
from ddhpc.parallel import logs

if TYPE_CHECKING:
    from ddhpc.method.training import History

FOLDER = "tensorboard"
"""Of the scalars in a run directory."""
OURS = ("subdomain-*", "coarse-dnn")
EVENTS = "events.out.tfevents.*"
QUEUE = 2**20
"""Scalars that may wait for a slow disk, more than a training has, so that it never waits itself."""
FLUSH_SECONDS = 5


def check_needs() -> None:
    """InputError where tensorboard is not installed, or too old for torch; loads it, so that no training waits."""
    try:
        import tensorboard  # noqa: F401
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--run.tensorboard true: needs tensorboard ({error}); expected it: pip install 'ddhpc[tensorboard]'"
        ) from error


def remove_all(run: Path) -> None:
    """Remove the scalars of an earlier run from a run directory, and nothing else; OSError where that cannot be."""
    for ours in OURS:
        for file in (run / FOLDER).glob(f"{ours}/{EVENTS}"):
            file.unlink()


class Scalars:
    """Loss, accuracy and learning rate of one training, by epoch, in an event file of its own.

    A thread writes them. The training waits for nothing, and goes on with one warning where they cannot be written.
    The file of a later job begins with all epochs so far and takes the place of those before, so that no step is there
    twice and none is missing.

    Example::

        scalars = Scalars(Path("runs/latest/tensorboard/subdomain-00003"))
        scalars.add(history)                             # after each epoch
        scalars.close()
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        """None: nothing is written."""
        self.writer: Any = None
        self.written = 0
        """Epochs."""

    def add(self, history: History) -> None:
        """Write the epochs of a history that are not written yet; what is not known of an epoch is left out."""
        if self.folder is None or len(history) == self.written:
            return
        try:
            if self.writer is None:
                self.writer = _writer(self.folder)
            for name, values in history.state().items():
                for epoch in range(self.written, len(history)):
                    if np.isfinite(values[epoch]):
                        self.writer.add_scalar(name, values[epoch], epoch + 1)
            self.written = len(history)
        except OSError as error:
            self._give_up(error)

    def write(self, history: History) -> None:
        """All epochs of a training that is finished."""
        self.add(history)
        self.close()

    def close(self) -> None:
        """Bring to the disk what waits."""
        try:
            if self.writer is not None:
                self.writer.close()
        except OSError as error:
            self._give_up(error)
        self.writer = None

    def _give_up(self, error: OSError) -> None:
        logs.warn(f"scalars cannot be written to {self.folder}: {reason(error)}; the training goes on without them")
        self.folder = self.writer = None


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=1, max_queue=QUEUE, flush_secs=FLUSH_SECONDS)
