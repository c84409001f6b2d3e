"""The image domain as it is shown: images as they are, volumes layer by layer along their last axis.

Volumes of a patient, whose axes go to the right, to the front and up (RAS), are shown as radiologists look at them: in
a slice the front (A) is at the top and the patient's right (R) at the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from ddhpc.config import Balance
from ddhpc.method.decomposition import Window, sides, windows


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The image domain and its decomposition, images as volumes of one layer.

    Places are those of the shown slices: rows from the top, columns from the left, slices. Subdomains keep their
    numbers.

    Example:
        >>> Domain(shape=(6, 8, 4), grid=(2, 1, 1), overlap=0, patient=True).blocks[0]
        (slice(0, 8, None), slice(3, 6, None), slice(0, 4, None))
    """

    shape: tuple[int, ...]
    """Pixels along each of the d stored dimensions."""
    grid: tuple[int, ...]
    """Subdomains along each stored dimension."""
    overlap: int
    """Pixels that a window extends beyond its block on interior sides."""
    balance: Balance = "blocks"
    """What is of equal extent."""
    coarse_shape: tuple[int, ...] = ()
    """Pixels of the coarse image along each dimension; empty where there is none."""
    patient: bool = False
    """Whether images are volumes with the axes RAS."""
    marked: bool = True
    """Whether the sides of a patient are written beside: not where the files did not tell them."""

    @property
    def marks(self) -> str:
        """The patient's sides at the left, right, top and bottom of a slice."""
        return "RLAP" if self.patient and self.marked else ""

    @property
    def layers(self) -> int:
        """Subdomains along the last axis of a volume; 1 for images."""
        return self.grid[2] if len(self.grid) == 3 else 1

    @property
    def shown_shape(self) -> tuple[int, ...]:
        """Rows, columns and slices."""
        return self.turned(self.shape)

    @property
    def shown_grid(self) -> tuple[int, ...]:
        """Subdomains along rows, columns and slices."""
        return self.turned(self.grid)

    @cached_property
    def windows(self) -> list[Window]:
        """Of the subdomains, with overlap."""
        return [self._shown(window) for window in windows(self.shape, self.grid, self.overlap, self.balance)]

    @cached_property
    def blocks(self) -> list[Window]:
        """Of the subdomains, without overlap."""
        along = sides(self.shape, self.grid, self.overlap, self.balance)
        return [self._shown(block) for block in product(*along)]

    def turned(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of the stored dimensions as numbers of rows, columns and slices."""
        return (sizes[1], sizes[0], *sizes[2:]) if self.patient else sizes

    def _shown(self, window: Window) -> Window:
        if not self.patient:
            return window
        ends = zip(self.shape[:2], window[:2], strict=True)
        columns, rows = (slice(size - side.stop, size - side.start) for size, side in ends)
        return (rows, columns, *window[2:])

    def seen(self, image: np.ndarray) -> np.ndarray:
        """A stored image [*shape] or [*shape, 3], or a coarse one, as rows, columns and slices."""
        return image.swapaxes(0, 1)[::-1, ::-1] if self.patient else image

    def members(self, layer: int) -> range:
        """The subdomains of a layer."""
        return range(layer, len(self.blocks), self.layers)

    def cells(self, layer: int, values: np.ndarray) -> np.ndarray:
        """Values [N] of the subdomains, those of a layer as it is shown: [rows, columns] of the grid."""
        return self.seen(values[list(self.members(layer))].reshape(self.grid[:2]))

    def cut(self, image: np.ndarray, layer: int) -> np.ndarray:
        """The picture [H, W] or [H, W, 3] of an image (itself) or a volume (amid the layer)."""
        seen = self.seen(image)
        if len(self.grid) == 2:
            return seen
        side = self.blocks[layer][2]
        return np.asarray(seen[:, :, (side.start + side.stop) // 2])

    def title(self, layer: int) -> str:
        """Which slice `cut` shows."""
        if len(self.grid) == 2:
            return ""
        side = self.blocks[layer][2]
        return f"layer {layer}: slice {(side.start + side.stop) // 2}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """A slice of the domain to be drawn."""

    title: str
    picture: np.ndarray | None
    """[H, W] or [H, W, 3]; None for an empty canvas."""
    sides: tuple[int, int]
    """Which of rows, columns and slices go down and to the right."""
    members: Sequence[int]
    """The subdomains whose blocks the slice meets."""
    marks: str = ""
    """Where the patient's sides are: letters for left, right, top and bottom of the picture."""
    upward: bool = False
    """Whether the first row is at the bottom."""


def panels(domain: Domain, image: np.ndarray | None) -> list[Panel]:
    """The slices of an image [*shape] or [*shape, 3] that show all subdomains; of a volume also one from the side."""
    found = [
        Panel(
            title=domain.title(layer),
            picture=None if image is None else domain.cut(image, layer),
            sides=(0, 1),
            members=domain.members(layer),
            marks=domain.marks,
        )
        for layer in range(domain.layers)
    ]
    return [*found, _from_the_side(domain, image)] if len(domain.grid) == 3 else found


def _from_the_side(domain: Domain, image: np.ndarray | None) -> Panel:
    """The slice amid a volume that shows all layers: of a patient seen from the front, with the head at the top."""
    axis = 0 if domain.patient else 1
    amid = domain.shown_shape[axis] // 2
    place = f"front: y {domain.shape[1] - 1 - amid}" if domain.patient else f"side: column {amid}"
    picture = None if image is None else np.take(domain.seen(image), amid, axis)
    return Panel(
        title=f"from the {place}",
        picture=picture.swapaxes(0, 1) if domain.patient and picture is not None else picture,
        sides=(2, 1) if domain.patient else (0, 2),
        members=[n for n, block in enumerate(domain.blocks) if block[axis].start <= amid < block[axis].stop],
        marks="RLSI" if domain.marks else "",
        upward=domain.patient,
    )
