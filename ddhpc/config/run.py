"""The section of the configuration on where and how the program runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddhpc.config.checks import require


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how the program runs."""

    seed: int = 0
    """Everything random is drawn from it: subdomain n from (seed, n), the coarse DNN from (seed, N)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU of this rank (local rank modulo visible GPUs) where there is one, else the CPU."""

    threads: int = 0
    """CPU threads a rank; 0 takes OMP_NUM_THREADS, and without it shares the cores of a node out among its ranks."""

    checkpoint_seconds: float = 300
    """Time between two checkpoints of a subdomain; one is made when it is finished in any case."""

    stop_signal: Literal["USR1", "USR2"] = "USR2"
    """Signal that asks to stop ahead of the time limit; SIGTERM and SIGINT do as well."""

    report: bool = True
    """Write the report of the run, a page with figures, when it is finished; needs matplotlib."""

    tensorboard: bool = False
    """Write loss, accuracy and learning rate of every subdomain and of the coarse DNN into the run directory, for
    TensorBoard while it trains; needs tensorboard."""

    def __post_init__(self) -> None:
        require(self.checkpoint_seconds > 0, "run.checkpoint_seconds", self.checkpoint_seconds, "more than 0 seconds")
        require(0 <= self.seed < 2**63, "run.seed", self.seed, "0 <= seed < 2^63")
        require(self.threads >= 0, "run.threads", self.threads, "0 or more threads")
