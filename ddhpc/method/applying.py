"""A trained model applied to images block by block, subdomain by subdomain, with the bits of the training. No MPI.

No more than one local CNN, and the windows of one block of images in one subdomain, are in memory beside the images
themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ddhpc.data.packed import Packed
from ddhpc.method import coarse
from ddhpc.method.coarse_images import CoarseImages, coarse_image
from ddhpc.method.decomposition import Window, extent, whole
from ddhpc.method.local import local_outputs
from ddhpc.method.trained import Trained
from ddhpc.method.windows import hold

if TYPE_CHECKING:
    from torch import nn

Load = Callable[["nn.Module", "int | None"], None]
"""Sets the weights of a network to those of the local CNN of a subdomain, or of the coarse DNN for None."""


class Block(ABC):
    """Some whole images in stored units."""

    @abstractmethod
    def __len__(self) -> int:
        """Images, n."""

    @abstractmethod
    def read(self, window: Window) -> np.ndarray:
        """A window of all of them, [n, C, *window] of the stored dtype."""

    @abstractmethod
    def coarse(self, shape: tuple[int, ...]) -> np.ndarray:
        """All of them restricted, [n, C, *shape] float32."""


@dataclass(frozen=True, kw_only=True)
class Stored(Block):
    """Images of a packed file, of which windows alone are read."""

    packed: Packed
    split: str
    images: slice
    """Of the split, with start and stop."""

    def __len__(self) -> int:
        return int(self.images.stop - self.images.start)

    def read(self, window: Window) -> np.ndarray:
        """See `Block`."""
        return self.packed.read(self.split, window, self.images)

    def coarse(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Block`."""
        return CoarseImages(packed=self.packed, image_shape=shape).read(self.split, whole(shape), self.images)


@dataclass(frozen=True, kw_only=True)
class Decoded(Block):
    """Images in memory.

    Example:
        >>> block = Decoded(pixels=np.zeros((3, 1, 28, 28), np.uint8))
        >>> block.read((slice(0, 14), slice(0, 10))).shape, block.coarse((7, 7)).shape
        ((3, 1, 14, 10), (3, 1, 7, 7))
    """

    pixels: np.ndarray
    """[n, C, *spatial] of the stored dtype."""

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, window: Window) -> np.ndarray:
        """See `Block`."""
        return self.pixels[(slice(None), slice(None), *window)]

    def coarse(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Block`."""
        return coarse_image(self.pixels, shape)


@dataclass(kw_only=True)
class Applied:
    """A trained model at work on a device.

    Example::

        model = open_model(Path("runs/latest"))
        applied = Applied(trained=model.trained, load=model.load, device="cpu")
        outputs = applied.outputs(Decoded(pixels=np.zeros((1, 1, 28, 28), np.uint8)))
        applied.fuse(outputs)                                                    # [1, 10] float32
    """

    trained: Trained
    load: Load
    device: str
    _networks: dict[tuple[tuple[int, ...], int], nn.Module] = field(default_factory=dict)
    """The last network, whose weights those of the next subdomain replace where it is alike."""
    _coarse: nn.Module | None = None

    def outputs(self, block: Block, after_each: Callable[[], None] = lambda: None) -> np.ndarray:
        """The local outputs [N, n, K + F] float32 for a block of images; calls `after_each` subdomain.

        On a CPU with one thread those for an image do not depend on the others of the block, and have the bits of those
        that the training has stored. Those of absent subdomains are zeros.
        """
        trained = self.trained
        shape = (trained.subdomains, len(block), len(trained.classes) + trained.features)
        outputs = np.zeros(shape, np.float32)
        for n, network in enumerate(trained.networks):
            if network.present:
                outputs[n] = self._local_outputs(block, n)
            after_each()
        return outputs

    def fuse(self, outputs: np.ndarray) -> np.ndarray:
        """The final decisions [n, K] float32 for local outputs [N, n, K + F]."""
        return outputs[0] if self.trained.coarse is None else coarse.decide(self._coarse_dnn(), outputs)

    def _local_outputs(self, block: Block, subdomain: int) -> np.ndarray:
        trained = self.trained
        if trained.sees_coarse_image(subdomain):
            pixels = block.coarse(trained.extent(subdomain))
        else:
            pixels = block.read(trained.window(subdomain))
        core, mean, std = whole(extent(trained.window(subdomain))), np.array(trained.mean), np.array(trained.std)
        images = hold([pixels], len(block), core, mean, std, self.device)
        return local_outputs(self._local_cnn(subdomain), images, trained.precision, trained.features)

    def _local_cnn(self, subdomain: int) -> nn.Module:
        alike = (self.trained.extent(subdomain), self.trained.networks[subdomain].width)
        if alike not in self._networks:
            self._networks.clear()
            self._networks[alike] = self.trained.local_cnn(subdomain).to(self.device)
        cnn = self._networks[alike]
        self.load(cnn, subdomain)
        return cnn

    def _coarse_dnn(self) -> nn.Module:
        if self._coarse is None:
            self._coarse = self.trained.coarse_dnn().to(self.device)
            self.load(self._coarse, None)
        return self._coarse
