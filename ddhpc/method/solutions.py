"""What the parts of the method give: solved local problems, a solved coarse problem, a trained coherent CNN-DNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from ddhpc.method.training import History


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the training of a subdomain took, in all jobs."""

    seconds: float = 0.0
    """On the clock."""
    cpu_seconds: float = 0.0
    """Of all ranks that trained it."""
    path_seconds: float = 0.0
    """CPU seconds of one of the ranks that trained it together."""
    peak_memory_bytes: int = 0
    """Of the GPU, or of the process where it trained on a CPU."""


@dataclass(frozen=True, kw_only=True)
class LocalSolution:
    """What the training of a subdomain gives, or that it could not be trained."""

    present: bool = True
    """False for an absent subdomain: its outputs are zeros, its accuracy and history NaN."""
    outputs: Mapping[str, np.ndarray]
    """Local outputs by split, [S, K + F] float32: K class probabilities and F local features."""
    accuracy: Mapping[str, float]
    """By split."""
    history: History
    parameters: int = 0
    """Of the local CNN."""
    cost: Cost = Cost()
    weights: Mapping[str, Any] | None = None
    """State dictionary of the local CNN, where the coherent CNN-DNN starts from it."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The local outputs of all subdomains on rank 0; no rows on other ranks."""

    outputs: Mapping[str, np.ndarray]
    """By split, [N, S, K + F] float32."""
    present: np.ndarray
    """[N] bool, the subdomains that could be trained."""
    seconds: np.ndarray
    """[N] float64, that each training took."""


@dataclass(frozen=True, kw_only=True)
class CoarseSolution:
    """The final decisions of all fusions of local decisions."""

    network: nn.Module | None
    """The coarse DNN; None where there is a single subdomain."""
    fusions: dict[str, dict[str, np.ndarray]]
    """By fusion and split, [S, K] float32 probabilities."""
    history: History
    """Of the coarse DNN, on what it learns from, in the steps as they were made."""
    absent: dict[str, np.ndarray]
    """By fusion, the accuracy on test with 0 to `allow_missing` more subdomains absent than there are, means over
    ABSENT_DRAWS random choices of them: [allow_missing + 1], NaN where too few subdomains are left."""


@dataclass(frozen=True, kw_only=True)
class CoherentSolution:
    """What the coherent CNN-DNN gives."""

    decisions: Mapping[str, np.ndarray]
    """Final decisions by split, [S, K] float32."""
    history: History


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Which subdomains spoke for the decisions of S inputs."""

    files: tuple[str, ...]
    """Names of the S maps."""
    drops: np.ndarray
    """[S, N] float32 of `dependence.drops`, which the maps show."""
    coarse_image: bool
    """Whether the last subdomain is the coarse image, which is in no map."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model decides for the inputs that could be used, in their order."""

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    decisions: np.ndarray
    """[S, K] float32, class probabilities."""
    labels: np.ndarray | None
    """[S] int64; None where none were wanted."""
    unusable: tuple[str, ...]
    """`path: reason` of each input that could not be used."""
    maps: Mapped | None = None
    """What their maps show, where these were wanted."""
