"""Test images as pictures, where the packed file of a run is still there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from ddhpc.config import Config
from ddhpc.data.packed import Packed, find, open_packed
from ddhpc.data.packed.pictures import shown
from ddhpc.data.sources.preparation import orientation
from ddhpc.errors import InputError
from ddhpc.method.coarse_images import CoarseImages
from ddhpc.method.decomposition import whole
from ddhpc.results.model import open_model


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The test images of a run, or why there are none."""

    packed: Packed | None
    lacking: str
    """A sentence where there are none, else empty."""
    orientation: str | None
    """Where the sides of a patient come from, see `sources.preparation.orientation`; volumes have the axes RAS then."""

    def of(self, sample: int) -> np.ndarray | None:
        """A test image ready to be shown: [*spatial] float, or [*spatial, 3] for three channels, from 0 to 1."""
        if self.packed is None:
            return None
        return shown(self.packed.sample("test", sample))

    def coarse(self, sample: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """The coarse image of a test image, [*shape] or [*shape, 3] likewise; None without a shape as well."""
        if self.packed is None or not shape:
            return None
        images = CoarseImages(packed=self.packed, image_shape=shape)
        return shown(images.read("test", whole(shape), slice(sample, sample + 1))[0])


def pictures(file: h5py.File) -> Pictures:
    """The test images of the run that a results file tells of."""
    data = Config.from_yaml(file.attrs["config"]).data
    without = partial(Pictures, packed=None, orientation=orientation(_of_model(file)))
    try:
        packed = open_packed(find(data.file))
    except InputError:
        return without(lacking=f"The packed file {data.file} was not found, so the canvas is empty.")
    if packed.digest != file.attrs["data_digest"]:
        return without(lacking=f"{data.file} holds other data by now, so the canvas is empty.")
    return Pictures(packed=packed.of_fold(data.fold), lacking="", orientation=orientation(packed.preparation))


def _of_model(file: h5py.File) -> str:
    """How images were prepared, as the model of the run tells; empty where there is none."""
    try:
        return open_model(Path(file.filename).parent).trained.preparation
    except InputError:
        return ""
