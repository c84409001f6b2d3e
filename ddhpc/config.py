"""The configuration: frozen dataclasses, one a section, read from a recipe, a YAML file and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, Literal, get_type_hints

import yaml

from ddhpc.errors import InputError
from ddhpc.recipes import recipe
from ddhpc.settings import from_options
from ddhpc.yaml_file import fits, plain_values, with_lists, with_tuples

CODE = ("ddhpc_version", "git_commit")
IDENTITY = ("data_digest", *CODE)
"""What stands beside the sections where a run keeps all that its results depend on, in `run.yaml`."""
BEFORE: dict[str, dict[str, str]] = {
    section: {"class_weight": "none", "sampling": "natural"} for section in ("local", "coarse")
}
"""Options that runs of older versions lack, and the values that say what those did."""


def _require(condition: bool, option: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"--{option} {value}: expected {expected}")


def _check_balance(section: str, class_weight: str, sampling: str) -> None:
    once = class_weight in ("auto", "none") or sampling == "natural"
    expected = f"none with --{section}.sampling balanced, after which all classes are as frequent already"
    _require(once, f"{section}.class_weight", class_weight, expected)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on."""

    file: str = "fashion_mnist.h5"
    """Packed file (HDF5) with the images; a bare name is also looked up among the data that ship with ddhpc."""

    memory_limit: float | None = None
    """GiB that the windows of a subdomain may take on its device, all splits together. Where they take more they are
    copied to a temporary file in TMPDIR and read from there batch by batch, with the same results. null: no limit."""

    def __post_init__(self) -> None:
        given = self.memory_limit
        _require(given is None or given >= 0, "data.memory_limit", given, "0 or more GiB, or null")


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """How the image is cut into subdomains."""

    grid: tuple[int, ...] = (4, 4)
    """Subdomains along each dimension of the image, e.g. 4 4, or 4 4 2 for volumes; all ones is the global CNN."""

    overlap: int = 2
    """Pixels (voxels) that a subdomain extends beyond its block on every interior side."""

    coarse_image: bool = False
    """One more subdomain: the whole image, restricted to coarse_shape. It sees what no window shows."""

    coarse_shape: tuple[int, ...] | None = None
    """Pixels of the coarse image along each dimension; null is the extent of the largest window, at most half of the
    image."""

    def __post_init__(self) -> None:
        shown = " ".join(map(str, self.grid))
        _require(bool(self.grid), "decomposition.grid", shown, "one number for each dimension of the image")
        _require(min(self.grid) >= 1, "decomposition.grid", shown, "numbers of at least 1")
        _require(self.overlap >= 0, "decomposition.overlap", self.overlap, "0 or more pixels")
        alone = self.coarse_image and max(self.grid) == 1
        _require(not alone, "decomposition.grid", shown, "more than one part, with --decomposition.coarse_image true")
        if self.coarse_shape is not None:
            option, sizes = "decomposition.coarse_shape", " ".join(map(str, self.coarse_shape))
            _require(self.coarse_image, option, sizes, "--decomposition.coarse_image true with it")
            fits = len(self.coarse_shape) == len(self.grid) and min(self.coarse_shape) >= 1
            _require(fits, option, sizes, "pixels along each dimension of the image")

    @property
    def subdomains(self) -> int:
        """Parts of the grid, and the coarse image."""
        return prod(self.grid) + self.coarse_image


@dataclass(frozen=True, kw_only=True)
class Model:
    """The local CNN, a proportionally smaller copy of the global CNN."""

    name: str = "resnet"
    """resnet, vgg, mobilenetv2, cnn3d, densenet121 (MONAI), a 2D model of torchvision, or package.module:factory."""

    depth: int | None = None
    """Weight layers of resnet (6n+2) or vgg (9, 11, 13, 16, 19); null is the family's default."""

    global_width: int = 32
    """Channels of the first stage of the global CNN."""

    width: int | Literal["auto"] = "auto"
    """Channels of the first stage of a local CNN; auto is global_width / sqrt(parts of the grid)."""

    coarse_width: int | Literal["auto"] = "auto"
    """Channels of the first stage of the coarse image's CNN; auto is the width of the local CNNs."""

    def __post_init__(self) -> None:
        _require(self.global_width >= 1, "model.global_width", self.global_width, "at least 1 channel")
        for name in ("width", "coarse_width"):
            value = getattr(self, name)
            _require(value == "auto" or value >= 1, f"model.{name}", value, "auto or at least 1 channel")


@dataclass(frozen=True, kw_only=True)
class Local:
    """Training of each local CNN: stochastic gradient descent with Nesterov momentum."""

    epochs: int = 10
    """Passes over the training images."""

    batch_size: int = 64
    """Images a step."""

    learning_rate: float = 0.1
    """Highest learning rate of the schedule."""

    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """onecycle warms up over the first quarter of the steps; cosine starts at the highest rate; both end at zero."""

    momentum: float = 0.9
    """Nesterov momentum."""

    weight_decay: float = 5e-4
    """L2 penalty on the weights."""

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

    def __post_init__(self) -> None:
        _check_balance("local", self.class_weight, self.sampling)
        _require(self.epochs >= 1, "local.epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "local.batch_size", self.batch_size, "at least 2 (batch normalisation)")
        _require(self.learning_rate > 0, "local.learning_rate", self.learning_rate, "a rate above 0")
        _require(0 <= self.momentum < 1, "local.momentum", self.momentum, "0 <= momentum < 1")
        _require(self.weight_decay >= 0, "local.weight_decay", self.weight_decay, "0 or more")
        share = self.label_smoothing
        _require(0 <= share < 1, "local.label_smoothing", share, "a share from 0 to below 1")
        _require(self.shift >= 0, "local.shift", self.shift, "0 or more pixels")
        _require(0 <= self.rotate <= 90, "local.rotate", self.rotate, "0 to 90 degrees")
        _require(0 <= self.intensity < 1, "local.intensity", self.intensity, "a share from 0 to below 1")


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

    def __post_init__(self) -> None:
        _check_balance("coarse", self.class_weight, self.sampling)
        shown = " ".join(map(str, self.hidden))
        _require(self.epochs == "auto" or self.epochs >= 1, "coarse.epochs", self.epochs, "auto or at least 1")
        _require(self.batch_size >= 1, "coarse.batch_size", self.batch_size, "at least 1")
        _require(all(width >= 1 for width in self.hidden), "coarse.hidden", shown, "widths of at least 1")
        _require(self.learning_rate > 0, "coarse.learning_rate", self.learning_rate, "a rate above 0")
        _require(self.weight_decay >= 0, "coarse.weight_decay", self.weight_decay, "0 or more")
        _require(self.allow_missing >= 0, "coarse.allow_missing", self.allow_missing, "0 or more subdomains")
        limit = self.memory_limit
        _require(limit is None or limit >= 0, "coarse.memory_limit", limit, "0 or more GiB, or null")
        given, share = self.dropout, 0.0 if self.dropout == "auto" else self.dropout
        _require(0 <= share < 1, "coarse.dropout", given, "auto or a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Coherent:
    """Training of all local CNNs and a coarse DNN end to end, as one network; otherwise as in section local."""

    start: Literal["none", "scratch", "transfer"] = "none"
    """none leaves it out; scratch starts as the local CNNs start, transfer where they and the coarse DNN ended."""

    epochs: int = 10
    """Passes over the training images."""

    learning_rate: float | Literal["auto"] = "auto"
    """Highest learning rate; auto is that of section local from scratch, and a tenth of it with transfer."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        _require(self.epochs >= 1, "coherent.epochs", self.epochs, "at least 1")
        _require(rate == "auto" or rate > 0, "coherent.learning_rate", rate, "auto or a rate above 0")


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

    def __post_init__(self) -> None:
        _require(self.checkpoint_seconds > 0, "run.checkpoint_seconds", self.checkpoint_seconds, "more than 0 seconds")
        _require(0 <= self.seed < 2**63, "run.seed", self.seed, "0 <= seed < 2^63")
        _require(self.threads >= 0, "run.threads", self.threads, "0 or more threads")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All sections of a training."""

    data: Data = field(default_factory=Data)
    decomposition: Decomposition = field(default_factory=Decomposition)
    model: Model = field(default_factory=Model)
    local: Local = field(default_factory=Local)
    coarse: Coarse = field(default_factory=Coarse)
    coherent: Coherent = field(default_factory=Coherent)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        start, missing = self.coherent.start, self.coarse.allow_missing
        _require(start == "none" or missing == 0, "coherent.start", start, "--coarse.allow_missing 0 with it")

    @classmethod
    def from_recipe(cls, name: str, options: Mapping[str, Any] | None = None) -> Config:
        """A recipe that ships, with single options over it.

        Args:
            name: of the recipe, see `ddhpc.recipes.recipe_names`.
            options: by name, as on the command line.

        Raises:
            InputError: there is no such recipe or option, or a value is of another type or out of range.

        Example:
            >>> config = Config.from_recipe("flowers", {"data.file": "x.h5", "decomposition.grid": [4, 4]})
            >>> config.decomposition
            Decomposition(grid=(4, 4), overlap=4, coarse_image=False, coarse_shape=None)
        """
        return from_options(cls, {**recipe(name), **(options or {})})

    def to_yaml(self) -> str:
        """The configuration as YAML text that `--config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By section and field, plain values and lists."""
        sections: dict[str, dict[str, Any]] = with_lists(asdict(self))
        return sections

    @classmethod
    def from_yaml(cls, text: str) -> Config:
        """The configuration that `to_yaml` wrote, e.g. that of a results file; ValueError where it did not."""
        given = plain_values(text)
        if not isinstance(given, dict) or not all(isinstance(section, dict) for section in given.values()):
            raise ValueError("its configuration is no mapping of sections")
        for name, section in given.items():
            hints = get_type_hints(SECTIONS[name]) if name in SECTIONS else {}
            for option, value in section.items():
                if option not in hints or not fits(value, hints[option]):
                    raise ValueError(f"its configuration has {name}.{option}: {value!r}, which this version has not")
        sections = with_older(given)
        return cls(**{name: section(**with_tuples(sections.get(name, {}))) for name, section in SECTIONS.items()})


def with_older(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version kept of a configuration, and the options that it lacked; see `BEFORE`."""
    return {**given, **{name: {**older, **given.get(name, {})} for name, older in BEFORE.items()}}


SECTIONS: dict[str, type] = {
    "data": Data,
    "decomposition": Decomposition,
    "model": Model,
    "local": Local,
    "coarse": Coarse,
    "coherent": Coherent,
    "run": Run,
}
