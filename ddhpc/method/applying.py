"""A trained model applied to images block by block, subdomain by subdomain, with the bits of the training. No MPI.

No more than one local CNN, and the windows of one block of images in one subdomain, are in memory beside the images
themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ddhpc.data.packed import Packed
from ddhpc.method import coarse
from ddhpc.method.coarse_images import CoarseImages, coarse_image
from ddhpc.method.decomposition import extent, whole
from ddhpc.method.local import local_outputs
from ddhpc.method.trained import Trained
from ddhpc.method.windows import hold

if TYPE_CHECKING:
    from torch import nn

Load = Callable[["nn.Module", "int | None"], None]
"""Sets the weights of a network to those of the local CNN of a subdomain, or of the coarse DNN for None."""


class Block(ABC):
    """Some images in stored units."""

    @abstractmethod
    def __len__(self) -> int:
        """Images, n."""

    @abstractmethod
    def windows(self, trained: Trained, subdomain: int) -> np.ndarray:
        """What the local CNN of a subdomain sees of all of them, [n, C, *extent].

        Of the stored dtype; for the coarse image float32.
        """


@dataclass(frozen=True, kw_only=True)
class Stored(Block):
    """Images of a packed file, of which windows alone are read."""

    packed: Packed
    split: str
    images: slice
    """Of the split, with start and stop."""

    def __len__(self) -> int:
        return int(self.images.stop - self.images.start)

    def windows(self, trained: Trained, subdomain: int) -> np.ndarray:
        """See `Block`."""
        window = trained.window(subdomain)
        if trained.sees_coarse_image(subdomain):
            coarse = CoarseImages(packed=self.packed, image_shape=extent(window))
            return coarse.read(self.split, window, self.images)
        return self.packed.read(self.split, window, self.images)


@dataclass(frozen=True, kw_only=True)
class Decoded(Block):
    """Whole images in memory."""

    pixels: np.ndarray
    """[n, C, *spatial] of the stored dtype."""

    def __len__(self) -> int:
        return len(self.pixels)

    def windows(self, trained: Trained, subdomain: int) -> np.ndarray:
        """See `Block`."""
        if trained.sees_coarse_image(subdomain):
            return coarse_image(self.pixels, trained.extent(subdomain))
        return self.pixels[(slice(None), slice(None), *trained.window(subdomain))]


@dataclass(frozen=True, kw_only=True)
class Cut(Block):
    """The windows of some subdomains in memory, without the rest of the images."""

    count: int
    """Images."""
    held: Mapping[int, np.ndarray]
    """By subdomain, see `Block.windows`."""

    def __len__(self) -> int:
        return self.count

    def windows(self, trained: Trained, subdomain: int) -> np.ndarray:
        """See `Block`."""
        return self.held[subdomain]


@dataclass(kw_only=True)
class Applied:
    """A trained model at work on a device.

    Example::

        model = open_model(Path("runs/latest"))
        applied = Applied(trained=model.trained, load=model.load, device="cpu")
        outputs = applied.outputs(Decoded(pixels=np.zeros((1, 1, 28, 28), np.uint8)), range(4))
        applied.fuse(outputs)                                                    # [1, 10] float32
    """

    trained: Trained
    load: Load
    device: str
    _networks: dict[tuple[tuple[int, ...], int], nn.Module] = field(default_factory=dict)
    """The last network, whose weights those of the next subdomain replace where it is alike."""
    _coarse: nn.Module | None = None

    def outputs(self, block: Block, subdomains: range, after_each: Callable[[], None] = lambda: None) -> np.ndarray:
        """The local outputs of some subdomains, [their number, n, K + F] float32; calls `after_each`.

        On a CPU with one thread those for an image do not depend on the others of the block, and have the bits of those
        that the training has stored. Those of absent subdomains are zeros.
        """
        trained = self.trained
        shape = (len(subdomains), len(block), len(trained.classes) + trained.features)
        outputs = np.zeros(shape, np.float32)
        for row, n in enumerate(subdomains):
            if trained.networks[n].present:
                outputs[row] = self._local_outputs(block, n)
            after_each()
        return outputs

    def fuse(self, outputs: np.ndarray) -> np.ndarray:
        """The final decisions [n, K] float32 for local outputs [N, n, K + F]."""
        return outputs[0] if self.trained.coarse is None else coarse.decide(self._coarse_dnn(), outputs)

    def _local_outputs(self, block: Block, subdomain: int) -> np.ndarray:
        trained = self.trained
        pixels = block.windows(trained, subdomain)
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
