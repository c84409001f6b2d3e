"""Sections of the configuration on how networks are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddhpc.config.checks import check_balance, require

RATES = {"sgd": 0.1, "adamw": 1e-3}
"""Highest learning rate of each optimizer, unless one is given."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """Training of each local CNN."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 64
    """Images a step."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is stochastic gradient descent with Nesterov momentum; adamw (arXiv:1711.05101) suits networks whose layers
    need rates of their own, such as those with known weights."""

    learning_rate: float | Literal["auto"] = "auto"
    """Highest learning rate of the schedule; auto is 0.1 with sgd and 0.001 with adamw."""

    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """How the rate falls, after it has risen in the warm-up: by half a cosine to zero."""

    warmup: float | Literal["auto"] = "auto"
    """Share of the steps in which the rate rises to its highest: with cosine linearly, with onecycle by half a cosine
    from a 25th of it. auto is 0.25 with onecycle, and 0 with cosine."""

    clip: float | None = None
    """Largest norm of the gradient of all weights of a CNN; a longer one is scaled to it. In a team it is that of the
    whole batch, in the coherent CNN-DNN that of each network alone. null: any."""

    momentum: float = 0.9
    """Nesterov momentum of sgd."""

    weight_decay: float = 5e-4
    """L2 penalty on the weights; with adamw decoupled weight decay, of which 0.01 is usual."""

    label_smoothing: float = 0.0
    """Share of the target probability that is spread evenly over all classes."""

    shift: int = 0
    """Augmentation: largest random shift of the window in pixels (voxels), in every dimension."""

    flip: bool = False
    """Augmentation: mirror the last dimension (left and right) of every second window, drawn at random."""

    rotate: float = 0.0
    """Augmentation: largest random rotation of the window in degrees, in the plane of the first two dimensions."""

    intensity: float = 0.0
    """Augmentation: largest random change of contrast, as a share, and of brightness, in standard deviations."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto is bfloat16 autocast on GPUs that have it, float32 elsewhere."""

    class_weight: Literal["none", "balanced", "sqrt"] = "none"
    """What an image weighs in the loss, for classes of unequal size. none: every image the same; a rare class may then
    never be chosen. balanced: every class the same, n / (K n_k) for the n_k of n images in one of K classes. sqrt: the
    square root of that, for a part of the gain in rare classes at a smaller loss in frequent ones. Scaled to the mean 1
    over the training images. Take it where rare classes matter more than accuracy over all images."""

    sampling: Literal["natural", "balanced"] = "natural"
    """Training images of an epoch. natural: each once. balanced: as many draws and steps, each class as often as any
    other, the same draws on all subdomains. Take it for a few classes with dozens of images each; it repeats
    those of rare classes and leaves frequent ones out, which costs accuracy where there are few to learn from."""

    validate_every: int | None = 5
    """Epochs from one validation to the next: loss and accuracy on val, after the last epoch in any case, by which
    overfitting can be seen. Where val is a sixth of train, each costs about a twentieth of an epoch; the training has
    the same bits with and without. null: never."""

    keep: Literal["last", "best"] = "last"
    """Weights that are kept of a local CNN: those after its last epoch, or after the one with the lowest loss on val of
    those that were validated. Since every schedule ends at a rate of zero, the last epoch mostly is the best. What is
    said of val is then slightly optimistic; test has no part in it."""

    patience: int | None = None
    """Epochs without a lower loss on val after which the training of a local CNN stops, noticed by its validations.
    A schedule learns most at its end, when the rate falls, which a stop leaves out: take it to save time where local
    CNNs overfit early, with keep best. null: never stops early."""

    def __post_init__(self) -> None:
        check_balance("local", self.class_weight, self.sampling)
        require(self.epochs >= 1, "local.epochs", self.epochs, "at least 1")
        require(self.batch_size >= 2, "local.batch_size", self.batch_size, "at least 2 (batch normalisation)")
        require(self.rate > 0, "local.learning_rate", self.learning_rate, "auto or a rate above 0")
        warmup = 0.0 if self.warmup == "auto" else self.warmup
        require(0 <= warmup < 1, "local.warmup", self.warmup, "auto or a share from 0 to below 1")
        require(self.clip is None or self.clip > 0, "local.clip", self.clip, "a norm above 0, or null")
        require(0 <= self.momentum < 1, "local.momentum", self.momentum, "0 <= momentum < 1")
        require(self.weight_decay >= 0, "local.weight_decay", self.weight_decay, "0 or more")
        share = self.label_smoothing
        require(0 <= share < 1, "local.label_smoothing", share, "a share from 0 to below 1")
        require(self.shift >= 0, "local.shift", self.shift, "0 or more pixels")
        require(0 <= self.rotate <= 90, "local.rotate", self.rotate, "0 to 90 degrees")
        require(0 <= self.intensity < 1, "local.intensity", self.intensity, "a share from 0 to below 1")
        every = self.validate_every
        require(every is None or every >= 1, "local.validate_every", every, "at least 1 epoch, or null")
        require(
            self.patience is None or self.patience >= 1, "local.patience", self.patience, "at least 1 epoch, or null"
        )
        needs = "--local.validate_every with it, which is null"
        require(every is not None or self.patience is None, "local.patience", self.patience, needs)
        seldom = self.patience is not None and every is not None and self.patience < every
        rule = f"null, or no less than --local.validate_every, {every}: val is looked at that seldom"
        require(not seldom, "local.patience", self.patience, rule)
        require(every is not None or self.keep == "last", "local.keep", self.keep, needs)

    @property
    def rate(self) -> float:
        """Highest learning rate of the schedule."""
        return RATES[self.optimizer] if self.learning_rate == "auto" else self.learning_rate


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """Training of the coarse DNN on what the local CNNs give (AdamW, cosine rate)."""

    inputs: Literal["auto", "decisions", "both"] = "auto"
    """What the coarse DNN takes of each subdomain: its local decision, or both that and its local features, which the
    last layer of its CNN takes. auto is both, where that layer is dense and takes no more than 512."""

    epochs: int | Literal["auto"] = "auto"
    """Passes over the local decisions of the training images; auto is 30, or on few images as many as make 1,000
    steps."""

    batch_size: int = 128
    """Images a step."""

    hidden: tuple[int, ...] = (128,)
    """Width of each hidden layer."""

    learning_rate: float = 3e-3
    """Highest learning rate."""

    weight_decay: float = 1e-2
    """Decoupled weight decay."""

    dropout: float | Literal["auto"] = "auto"
    """Share of the inputs and of each hidden layer that is dropped in training; auto is 0.2, with features 0.5."""

    decisions: Literal["in_sample", "held_out", "cross_fitted"] = "in_sample"
    """Training images whose local decisions are learned from: in_sample, those that the local CNNs are fitted to;
    held_out, a fifth that is kept from them; cross_fitted, all, each decided by a further CNN that a third is kept
    from (three times the work)."""

    memory_limit: float | None = None
    """GiB that the local decisions of all subdomains may take in the memory of rank 0. Where they take more they are
    copied to a temporary file in TMPDIR and read from there step by step, with the same results. null: no limit."""

    allow_missing: int = 0
    """Subdomains that may be absent since they cannot be trained; the coarse DNN is trained with so many left out."""

    class_weight: Literal["auto", "none", "balanced", "sqrt"] = "auto"
    """What an image weighs in the loss of the coarse DNN; see local.class_weight. auto is sqrt, with balanced sampling
    none. Of a finished run, `ddhpc coarse` tries others in seconds."""

    sampling: Literal["natural", "balanced"] = "natural"
    """Training images of an epoch of the coarse DNN; see local.sampling."""

    keep: Literal["last", "best"] = "last"
    """Which weights of the coarse DNN are kept: of its last epoch, or of the epoch with the lowest loss on val. With
    best, figures on val are slightly optimistic."""

    patience: int | None = None
    """Epochs without a lower loss on val after which the training of the coarse DNN stops. null: never stops early."""

    def __post_init__(self) -> None:
        check_balance("coarse", self.class_weight, self.sampling)
        shown = " ".join(map(str, self.hidden))
        require(self.epochs == "auto" or self.epochs >= 1, "coarse.epochs", self.epochs, "auto or at least 1")
        require(self.batch_size >= 1, "coarse.batch_size", self.batch_size, "at least 1")
        require(all(width >= 1 for width in self.hidden), "coarse.hidden", shown, "widths of at least 1")
        require(self.learning_rate > 0, "coarse.learning_rate", self.learning_rate, "a rate above 0")
        require(self.weight_decay >= 0, "coarse.weight_decay", self.weight_decay, "0 or more")
        require(self.allow_missing >= 0, "coarse.allow_missing", self.allow_missing, "0 or more subdomains")
        limit = self.memory_limit
        require(limit is None or limit >= 0, "coarse.memory_limit", limit, "0 or more GiB, or null")
        patience = self.patience
        require(patience is None or patience >= 1, "coarse.patience", patience, "at least 1 epoch, or null")
        given, share = self.dropout, 0.0 if self.dropout == "auto" else self.dropout
        require(0 <= share < 1, "coarse.dropout", given, "auto or a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Coherent:
    """Training of all local CNNs and a coarse DNN end to end, as one network; otherwise as in section local, but it is
    not validated and keeps its last epoch."""

    start: Literal["none", "scratch", "transfer"] = "none"
    """none leaves it out; scratch starts as the local CNNs start, transfer where they and the coarse DNN ended."""

    epochs: int = 10
    """Passes over the training images."""

    learning_rate: float | Literal["auto"] = "auto"
    """Highest learning rate; auto is that of section local from scratch, and a tenth of it with transfer."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        require(self.epochs >= 1, "coherent.epochs", self.epochs, "at least 1")
        require(rate == "auto" or rate > 0, "coherent.learning_rate", rate, "auto or a rate above 0")
