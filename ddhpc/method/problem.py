"""A configuration applied to a packed file: everything that is fixed before training. No MPI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ddhpc import models
from ddhpc.config import Config
from ddhpc.data.packed import SPLITS, Packed, find, open_packed
from ddhpc.errors import InputError
from ddhpc.method.coarse_images import CoarseImages
from ddhpc.method.cross_fitting import Fit, fits, folds
from ddhpc.method.decomposition import Window, count_pixels, extent, grow, rotation_margins, whole, windows

if TYPE_CHECKING:
    from torch import nn

    from ddhpc.models.known_weights import KnownWeights


MOST_FEATURES = 512
"""Of a subdomain that the coarse DNN takes unasked; those of large networks would fill the results file."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is trained: images, decomposition, and the local CNN of each subdomain."""

    config: Config
    packed: Packed
    decomposition: list[Window]
    """Windows of the subdomains in the image; that of the coarse image is the whole image, and the last."""
    coarse: CoarseImages | None
    """What the coarse image's CNN sees, where there is a coarse image."""
    width: int
    """Channels of the first stage of a local CNN."""
    features: int
    """F, local features of each subdomain that the coarse DNN takes; 0 where it takes the decisions alone."""
    decisions: str
    """Option `coarse.decisions`; in_sample for the global CNN, which has no coarse problem."""
    fold: np.ndarray
    """[S] int64, the fold of each training image; see `cross_fitting.folds`."""
    known: KnownWeights | None
    """From which each local CNN starts; None where all weights are drawn."""
    known_line: str
    """What local CNNs take of them and what not; empty without them."""

    @property
    def subdomains(self) -> int:
        """N, with the coarse image."""
        return len(self.decomposition)

    def images(self, subdomain: int) -> Packed | CoarseImages:
        """The images in which a subdomain has its window."""
        return self.coarse if self.coarse and subdomain == self.subdomains - 1 else self.packed

    def window(self, subdomain: int) -> Window:
        """The window of a subdomain in its `images`."""
        images = self.images(subdomain)
        return self.decomposition[subdomain] if images is self.packed else whole(images.image_shape)

    def extent(self, subdomain: int) -> tuple[int, ...]:
        """Pixels that the local CNN of a subdomain sees along each dimension."""
        return extent(self.window(subdomain))

    def width_of(self, subdomain: int) -> int:
        """Channels of the first stage of the local CNN of a subdomain."""
        chosen = self.config.model.coarse_width
        return self.width if chosen == "auto" or self.images(subdomain) is self.packed else chosen

    def alike(self) -> dict[int, int]:
        """For each subdomain the first one with the same network: the same extent and width."""
        first: dict[tuple[tuple[int, ...], int], int] = {}
        return {n: first.setdefault((self.extent(n), self.width_of(n)), n) for n in range(self.subdomains)}

    @property
    def weights_digest(self) -> str | None:
        """SHA-256 of the file of known weights; None without them."""
        return self.known.digest if self.known else None

    @property
    def fits(self) -> list[Fit]:
        """The trainings of each local CNN."""
        return fits(self.fold, self.decisions)

    @property
    def learned(self) -> np.ndarray:
        """[n] int64, the training images that the coarse DNN is trained on."""
        return np.flatnonzero(self.fold >= 0)

    @property
    def local_steps(self) -> int:
        """Steps of a local CNN, in the shortest of its trainings."""
        fewest, local = min(len(fit.images) for fit in self.fits), self.config.local
        return local.epochs * (fewest // min(local.batch_size, fewest))

    def padded(self, split: str, subdomain: int) -> tuple[Window, Window]:
        """The window of a subdomain, in the training split with margins for augmentation, as far as its image reaches.

        Returns:
            The padded window, and the slices of the window within it.
        """
        window, local = self.window(subdomain), self.config.local
        margins = [0] * len(window)
        if split == "train":
            margins = [local.shift + margin for margin in rotation_margins(extent(window), local.rotate)]
        return grow(window, margins, self.images(subdomain).image_shape)

    def window_bytes(self, subdomain: int) -> dict[str, int]:
        """Bytes of the windows of all images of a subdomain, by split."""
        images = self.images(subdomain)
        pixel = images.channels * images.dtype.itemsize
        return {
            split: images.samples[split] * count_pixels(self.padded(split, subdomain)[0]) * pixel for split in SPLITS
        }

    def streamed(self, subdomain: int) -> bool:
        """Whether the windows of a subdomain are streamed, since they take more than the limit."""
        limit = self.config.data.memory_limit
        return limit is not None and sum(self.window_bytes(subdomain).values()) > limit * 2**30

    def local_cnn(self, subdomain: int, *key: int) -> nn.Module:
        """The local CNN of a subdomain before training, on the CPU, its weights known or drawn as `seed` says.

        All random numbers that follow in this process are drawn from there as well. InputError if the network cannot
        work on the window, or the known weights are of another network.
        """
        cnn, _ = self.begun_cnn(subdomain, *key)
        return cnn

    def begun_cnn(self, subdomain: int, *key: int) -> tuple[nn.Module, str]:
        """See `local_cnn`; and a line on what it takes of the known weights, empty without them."""
        self.seed(subdomain, *key)
        cnn = models.build(
            self.config.model.name,
            channels=self.packed.channels,
            classes=len(self.packed.classes),
            window=self.extent(subdomain),
            width=self.width_of(subdomain),
            depth=self.config.model.depth,
        )
        if not self.known:
            return cnn, ""
        fitting = self.known.fit(cnn, self.batch_shape(subdomain))
        cnn.load_state_dict(fitting.taken, strict=False)
        return cnn, fitting.said

    def batch_shape(self, subdomain: int) -> tuple[int, ...]:
        """[2, C, *window], on which the local CNN of a subdomain works."""
        return (2, self.packed.channels, *self.extent(subdomain))

    def seed(self, subdomain: int, *key: int) -> None:
        """Seed this process's random numbers for a subdomain, or for a part `key` of its work.

        The coarse problem has number N.
        """
        seed_process(self.config.run.seed, subdomain, *key)


def seed_process(seed: int, subdomain: int, *key: int) -> None:
    """Seed this process's random numbers from the run's seed, see `Problem.seed`."""
    import torch

    entropy = np.random.SeedSequence((seed, subdomain), spawn_key=key)
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


def open_problem(config: Config) -> Problem:
    """Open the packed file and decompose its images; InputError if configuration and file do not fit together.

    The local CNN of each size of window is built once, so that one which cannot work is found before training.
    """
    packed = open_packed(find(config.data.file), config.data.fold)
    cut = config.decomposition
    decomposition = windows(packed.image_shape, cut.grid, cut.overlap, cut.balance)
    width = config.model.width
    if isinstance(width, str):
        width = models.local_width(config.model.global_width, len(decomposition), wide=width == "wide")
    coarse = None
    if config.decomposition.coarse_image:
        coarse = CoarseImages(packed=packed, image_shape=coarse_shape(config, packed.image_shape, decomposition))
        decomposition.append(whole(packed.image_shape))
    if config.coherent.start != "none" and len(decomposition) == 1:
        raise InputError(f"--coherent.start {config.coherent.start}: expected a grid of more than one subdomain")
    decisions = config.coarse.decisions if len(decomposition) > 1 else "in_sample"
    problem = Problem(
        features=0,
        config=config,
        packed=packed,
        decomposition=decomposition,
        coarse=coarse,
        width=width,
        decisions=decisions,
        fold=folds(packed.labels["train"], decisions, config.run.seed, packed.classes),
        known=_known(config.model.weights),
        known_line="",
    )
    begun = {subdomain: problem.begun_cnn(subdomain) for subdomain in sorted(set(problem.alike().values()))}
    cnns = {subdomain: cnn for subdomain, (cnn, _) in begun.items()}
    features = _features(problem, cnns) if len(decomposition) > 1 else 0
    lines = {subdomain: line for subdomain, (_, line) in begun.items()}
    return replace(problem, features=features, known_line=_known_line(lines) if problem.known else "")


def _known(path: str | None) -> KnownWeights | None:
    if path is None:
        return None
    from ddhpc.models.known_weights import read_weights

    return read_weights(path)


def _known_line(lines: Mapping[int, str]) -> str:
    """What networks of each kind take of the known weights: a line for all, or one for each that differs."""
    said: dict[str, int] = {}
    for subdomain, line in lines.items():
        said.setdefault(line, subdomain)
    which = ("" if len(said) == 1 else f" of subdomain {subdomain} and all like it" for subdomain in said.values())
    return "\n".join(f"known weights{those}: {line}" for those, line in zip(which, said, strict=True))


def _features(problem: Problem, cnns: Mapping[int, nn.Module]) -> int:
    """Local features of each subdomain that the coarse DNN takes, from one network of each kind."""
    config = problem.config
    inputs = config.coarse.inputs
    if inputs == "decisions":
        return 0
    from ddhpc.models.features import count_features

    found = [count_features(cnn, problem.batch_shape(subdomain)) for subdomain, cnn in cnns.items()]
    if inputs == "both" and not all(found):
        raise InputError(
            f"--coarse.inputs both: {config.model.name} does not end in a dense layer, whose inputs are the local "
            "features; expected one, or --coarse.inputs decisions"
        )
    wanted = inputs == "both" or (inputs == "auto" and all(found) and max(found) <= MOST_FEATURES)
    return max(found) if wanted else 0


def coarse_shape(config: Config, image_shape: tuple[int, ...], subdomains: list[Window]) -> tuple[int, ...]:
    """Pixels of the coarse image: as asked for, or the extent of the largest window, at most half of the image."""
    largest = map(max, zip(*map(extent, subdomains), strict=True))
    halved = (-(-size // 2) for size in image_shape)
    shape = config.decomposition.coarse_shape or tuple(map(min, largest, halved))
    if any(pixels > size for pixels, size in zip(shape, image_shape, strict=True)):
        raise InputError(
            f"--decomposition.coarse_shape {' '.join(map(str, shape))}: expected no more pixels than the images of "
            f"{'x'.join(map(str, image_shape))} have"
        )
    return shape
