"""The windows of all images of a split: held on the device, or streamed from a scratch file. No MPI."""

from __future__ import annotations

import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ddhpc.config import Local
from ddhpc.data.hdf5 import reason
from ddhpc.data.packed import Packed
from ddhpc.errors import InputError
from ddhpc.method.augmentation import augment_geometry, augment_intensity
from ddhpc.method.coarse_images import CoarseImages
from ddhpc.method.decomposition import Window, extent

AHEAD = 3
"""Batches that are read while the device computes."""


@dataclass(frozen=True, kw_only=True)
class Images(ABC):
    """The windows of all images of a split, in stored units.

    They are padded by what augmentation may look at and the image has; `core` are the slices of the window within.
    `mean` and `std` are [C, 1, ...] on the device, of the whole training images, so that all subdomains see the same
    scale.
    """

    core: Window
    mean: Tensor
    std: Tensor

    @abstractmethod
    def __len__(self) -> int:
        """S, the images of the split."""

    @abstractmethod
    def batches(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The padded windows [B, C, *padded] on the device, channels last, of each batch of indices [B] int64."""

    def augmented(self, padded: Tensor, config: Local, changes: Tensor) -> Tensor:
        """What a CNN in training sees, [B, C, *window] float32, of padded windows and their changes [B, D + 4]."""
        windows = self.normalised(augment_geometry(padded, self.core, config, changes))
        return augment_intensity(windows, config, changes)

    def normalised(self, pixels: Tensor) -> Tensor:
        """[B, C, *window] float32 in channels-last order with mean 0 and standard deviation 1."""
        pixels = pixels.to(dtype=torch.float32, memory_format=channels_last(pixels.ndim))
        return (pixels - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class Held(Images):
    """All windows as one tensor on the device."""

    pixels: Tensor
    """[S, C, *padded], channels last."""

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Images`."""
        return (self.pixels[batch] for batch in batches)


@dataclass(frozen=True, kw_only=True)
class Streamed(Images):
    """All windows in an uncompressed file, one image after the other; a thread reads the next batches.

    A packed file does not serve here: its chunks hold many images, which would all be decompressed for each one
    of a random batch.
    """

    file: BinaryIO
    """Of [S, *padded, C] in stored dtype."""
    shape: tuple[int, ...]
    """S, *padded, C."""
    dtype: np.dtype

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Images`; no more than AHEAD batches and the one in use are in memory."""
        device = self.mean.device
        ahead: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for batch in batches:
                ahead.append(thread.submit(self._read, batch.tolist()))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result().to(device, non_blocking=True)
            while ahead:
                yield ahead.popleft().result().to(device, non_blocking=True)

    def _read(self, batch: list[int]) -> Tensor:
        """[B, C, *padded] on the CPU, channels last."""
        size = prod(self.shape[1:]) * self.dtype.itemsize
        raw = torch.empty((len(batch), size), dtype=torch.uint8, pin_memory=self.mean.is_cuda)
        for image, place in zip(raw.numpy(), batch, strict=True):
            if os.preadv(self.file.fileno(), [image], place * size) != size:
                raise OSError(f"temporary file ends before image {place}")
        return raw.view(torch_dtype(self.dtype)).reshape(len(batch), *self.shape[1:]).movedim(-1, 1)


def hold(
    blocks: Iterable[np.ndarray], samples: int, core: Window, mean: np.ndarray, std: np.ndarray, device: str
) -> Held:
    """Images of which no more than one block is in memory twice.

    Args:
        blocks: [n, C, *padded] of any real dtype, in order, `samples` images in all.
        samples: S.
        core: slices of the window within the padded one.
        mean: [C].
        std: [C].
        device: where they stay, integers as integers.
    """
    pixels, done = torch.empty(0), 0
    for block in blocks:
        if not done:
            order = channels_last(block.ndim)
            pixels = torch.empty(
                (samples, *block.shape[1:]), dtype=torch_dtype(block.dtype), device=device, memory_format=order
            )
        pixels[done : done + len(block)] = torch.from_numpy(block)
        done += len(block)
    return Held(
        pixels=pixels, core=core, mean=_channels(mean, pixels.ndim, device), std=_channels(std, pixels.ndim, device)
    )


def load_windows(
    packed: Packed | CoarseImages, split: str, padded: Window, core: Window, device: str, *, streamed: bool
) -> Images:
    """The images of a split, held on the device or `streamed` from a temporary file in TMPDIR.

    The packed file is read by blocks of as many images as its chunks hold, so each chunk is read once. The temporary
    file has no name and vanishes with the process. InputError where there is no room for it.
    """
    samples = packed.samples[split]
    starts = range(0, samples, packed.chunk_samples)
    blocks = (packed.read(split, padded, slice(start, start + packed.chunk_samples)) for start in starts)
    if not streamed:
        return hold(blocks, samples, core, packed.mean, packed.std, device)
    shape = (samples, *extent(padded), packed.channels)
    size = prod(shape) * packed.dtype.itemsize
    mean, std = (_channels(values, len(shape), device) for values in (packed.mean, packed.std))
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the images close it
        images = Streamed(file=file, shape=shape, dtype=packed.dtype, core=core, mean=mean, std=std)
        os.posix_fallocate(file.fileno(), 0, size)
        for block in blocks:
            np.moveaxis(block, 1, -1).tofile(file)
    except OSError as error:
        raise InputError(
            f"--data.memory_limit: no temporary file in {tempfile.gettempdir()}: {reason(error)}; expected room for "
            f"{size / 2**30:.2f} GiB of the {split} split of each subdomain in training; TMPDIR names another directory"
        ) from error
    return images


def channels_last(ndim: int) -> torch.memory_format:
    """The memory order in which convolutions of [B, C, *window] with `ndim` dimensions are fastest."""
    return torch.channels_last if ndim == 4 else torch.channels_last_3d


def _channels(values: np.ndarray, ndim: int, device: str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(-1, *[1] * (ndim - 2))


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """torch's name of a dtype of NumPy."""
    return torch.from_numpy(np.empty(0, dtype)).dtype
