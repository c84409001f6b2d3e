"""A trained model as data: all that applying it needs, except its weights. No MPI."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ddhpc import models
from ddhpc.config import Balance, Coarse
from ddhpc.method.decomposition import Window, extent, sides, whole
from ddhpc.method.problem import Problem

if TYPE_CHECKING:
    from torch import nn

    from ddhpc.models.dnn import Dnn


@dataclass(frozen=True, kw_only=True)
class Network:
    """The local CNN of a subdomain."""

    name: str
    """See `config.Model`."""
    depth: int | None
    """See `config.Model`."""
    width: int
    """Channels of the first stage."""
    present: bool
    """False for an absent subdomain: there is no network, and its local outputs are zeros."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a trained CNN-DNN is, beside its weights."""

    classes: tuple[str, ...]
    channels: int
    image_shape: tuple[int, ...]
    """Spatial, in pixels (voxels)."""
    dtype: str
    """Of the stored images; those of a coarse image are rounded where it is an integer type."""
    mean: tuple[float, ...]
    """[C] of the training images in stored units."""
    std: tuple[float, ...]
    """[C] likewise."""
    grid: tuple[int, ...]
    overlap: int
    balance: Balance
    decomposition: list[Window]
    """Windows of the subdomains in the image; with a coarse image the last is the whole image."""
    coarse_shape: tuple[int, ...] | None
    """Pixels of the coarse image, which the last subdomain sees; None without one."""
    networks: tuple[Network, ...]
    """Of each subdomain."""
    features: int
    """F, local features of each subdomain that the coarse DNN takes."""
    coarse: Coarse | None
    """How the coarse DNN is built; None where there is a single subdomain, whose decision is the final one."""
    coherent: bool
    """Whether there are networks of the coherent CNN-DNN as well."""
    temperature: float | None = None
    """That calibrates the final decisions, fitted on val; None where none is best, or an older version made it."""
    coherent_temperature: float | None = None
    """The same of the coherent CNN-DNN."""
    precision: str
    """See `config.Local`."""
    preparation: str
    """What `prepare` did to the files of the training images, JSON; empty where the packed file does not tell."""

    @property
    def subdomains(self) -> int:
        """N, with the coarse image."""
        return len(self.decomposition)

    @property
    def sides(self) -> list[list[slice]]:
        """Of the blocks, by dimension of the image, see `decomposition.sides`."""
        return sides(self.image_shape, self.grid, self.overlap, self.balance)

    @property
    def image_bytes(self) -> int:
        """Of a whole image as it is stored."""
        return np.dtype(self.dtype).itemsize * self.channels * prod(self.image_shape)

    def sees_coarse_image(self, subdomain: int) -> bool:
        """Whether the image of a subdomain is the coarse image, of which its window is all."""
        return self.coarse_shape is not None and subdomain == self.subdomains - 1

    def extent(self, subdomain: int) -> tuple[int, ...]:
        """Pixels that the local CNN of a subdomain sees along each dimension."""
        shape = self.coarse_shape if self.sees_coarse_image(subdomain) else None
        return shape or extent(self.decomposition[subdomain])

    def window(self, subdomain: int) -> Window:
        """The window of a subdomain in its image, which may be the coarse image."""
        if self.sees_coarse_image(subdomain):
            return whole(self.extent(subdomain))
        return self.decomposition[subdomain]

    def local_cnn(self, subdomain: int) -> nn.Module:
        """A network as the local CNN of a subdomain is, its weights drawn at random, on the CPU, for evaluation.

        InputError if it cannot be built here, as one of a module that is missing.
        """
        from ddhpc.method.windows import channels_last

        network = self.networks[subdomain]
        cnn = models.build(
            network.name,
            channels=self.channels,
            classes=len(self.classes),
            window=self.extent(subdomain),
            width=network.width,
            depth=network.depth,
        )
        return cnn.to(memory_format=channels_last(2 + len(self.image_shape))).eval()

    def coarse_dnn(self) -> Dnn:
        """A network as the coarse DNN is, its weights drawn at random, on the CPU, for evaluation."""
        from ddhpc.method.coarse import coarse_dnn

        assert self.coarse is not None, "a single subdomain decides alone"
        network = coarse_dnn(self.subdomains, len(self.classes), self.features, self.coarse)
        network.eval()
        return network


def trained(problem: Problem, present: np.ndarray) -> Trained:
    """What the training of a problem gives, where [N] bool tells the subdomains that could be trained."""
    config, packed = problem.config, problem.packed
    networks = (
        Network(name=config.model.name, depth=config.model.depth, width=problem.width_of(n), present=bool(present[n]))
        for n in range(problem.subdomains)
    )
    return Trained(
        classes=packed.classes,
        channels=packed.channels,
        image_shape=packed.image_shape,
        dtype=packed.dtype.name,
        mean=tuple(packed.mean.tolist()),
        std=tuple(packed.std.tolist()),
        grid=config.decomposition.grid,
        overlap=config.decomposition.overlap,
        balance=config.decomposition.balance,
        decomposition=problem.decomposition,
        coarse_shape=problem.coarse.image_shape if problem.coarse else None,
        networks=tuple(networks),
        features=problem.features,
        coarse=config.coarse if problem.subdomains > 1 else None,
        coherent=config.coherent.start != "none",
        precision=config.local.precision,
        preparation=packed.preparation,
    )
