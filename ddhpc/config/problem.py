"""Sections of the configuration on what is solved: the images, their decomposition, the networks."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from ddhpc.config.checks import require

Balance = Literal["blocks", "even"]
"""What is of equal extent, see `method.decomposition.sides`."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on."""

    file: str = "fashion_mnist.h5"
    """Packed file (HDF5) with the images; a bare name is also looked up among the data that ship with ddhpc."""

    fold: int | None = None
    """Cross-validation on a file of `prepare --folds K`: this fold, 0 to K - 1, is test, the next one is val (0 after
    the last), the others are train. null: the splits as they are stored."""

    memory_limit: float | None = None
    """GiB that the windows of a subdomain may take on its device, all splits together. Where they take more they are
    copied to a temporary file in TMPDIR and read from there batch by batch, with the same results. null: no limit."""

    def __post_init__(self) -> None:
        require(self.fold is None or self.fold >= 0, "data.fold", self.fold, "0 or more, or null")
        given = self.memory_limit
        require(given is None or given >= 0, "data.memory_limit", given, "0 or more GiB, or null")


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """How the image is cut into subdomains."""

    grid: tuple[int, ...] = (4, 4)
    """Subdomains along each dimension of the image, e.g. 4 4, or 4 4 2 for volumes; all ones is the global CNN."""

    overlap: int = 2
    """Pixels (voxels) that a subdomain extends beyond its block on every interior side."""

    balance: Balance = "blocks"
    """blocks, as in the paper: equal blocks, so that windows inside are larger than those at the edge of the image, by
    the overlap on one side more. even: equal windows, to a pixel, so that local CNNs take equally long; the blocks are
    smaller inside, the overlap stays."""

    coarse_image: bool = False
    """One more subdomain: the whole image, restricted to coarse_shape. It sees what no window shows."""

    coarse_shape: tuple[int, ...] | None = None
    """Pixels of the coarse image along each dimension; null is the extent of the largest window, at most half of the
    image."""

    def __post_init__(self) -> None:
        shown = " ".join(map(str, self.grid))
        require(bool(self.grid), "decomposition.grid", shown, "one number for each dimension of the image")
        require(min(self.grid) >= 1, "decomposition.grid", shown, "numbers of at least 1")
        require(self.overlap >= 0, "decomposition.overlap", self.overlap, "0 or more pixels")
        alone = self.coarse_image and max(self.grid) == 1
        require(not alone, "decomposition.grid", shown, "more than one part, with --decomposition.coarse_image true")
        if self.coarse_shape is not None:
            option, sizes = "decomposition.coarse_shape", " ".join(map(str, self.coarse_shape))
            require(self.coarse_image, option, sizes, "--decomposition.coarse_image true with it")
            fits = len(self.coarse_shape) == len(self.grid) and min(self.coarse_shape) >= 1
            require(fits, option, sizes, "pixels along each dimension of the image")

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

    width: int | Literal["auto", "wide"] = "auto"
    """Channels of the first stage of a local CNN. auto, as in the paper: global_width / sqrt(N) for N parts of the
    grid, so that all together have as many parameters as the global CNN. wide: global_width / N^(1/4), more accurate
    where objects fill the image, for about half as long again."""

    coarse_width: int | Literal["auto"] = "auto"
    """Channels of the first stage of the coarse image's CNN; auto is the width of the local CNNs."""

    weights: str | None = None
    """File of known weights from which each local CNN starts, safetensors or a torch state dict: tensors whose name
    and shape fit, but for the classifier. null: drawn at random."""

    def __post_init__(self) -> None:
        require(self.global_width >= 1, "model.global_width", self.global_width, "at least 1 channel")
        width, coarse = self.width, self.coarse_width
        require(isinstance(width, str) or width >= 1, "model.width", width, "auto, wide or at least 1 channel")
        require(isinstance(coarse, str) or coarse >= 1, "model.coarse_width", coarse, "auto or at least 1 channel")
