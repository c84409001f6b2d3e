"""The memory that a local CNN needs in training, predicted without allocating it. No MPI.

The real step, `LocalTraining.update`, runs on tensors that have shapes but no memory (torch's FakeTensorMode), while
every block that torch asks for, and gives back, is counted: what autograd keeps for the backward pass, gradients,
temporaries, momentum, in their order. benchmarks/README.md, "Largest volume", compares it with what was measured.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddhpc.config import Local
from ddhpc.method.decomposition import Window, extent
from ddhpc.method.local import LocalProblem, LocalTraining, decision_batch, output
from ddhpc.method.training import autocast
from ddhpc.method.windows import Held, channels_last, torch_dtype

MAPPED = 32 * 2**20
"""Bytes of a block from which on glibc's malloc gives it back to the system when it is freed (the largest value of its
M_MMAP_THRESHOLD). Smaller ones come from a heap that seldom shrinks."""
HOLES = 1.4
"""Size of that heap by the largest sum of the blocks in it, measured: 0.9 to 1.7 in six networks. There are no holes
with MALLOC_MMAP_THRESHOLD_=65536 in the environment (benchmarks/README.md, "Largest volume")."""

HALVED = (
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(linear, scaled_dot_product_attention),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, Tensor.matmul, Tensor.__matmul__),
)
"""What autocast computes in bfloat16 on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a local CNN works on, and how."""

    padded: tuple[int, ...]
    """Pixels of a window with its margins, see `Problem.padded`."""
    core: Window
    """The window within."""
    channels: int
    dtype: np.dtype
    """Of the images as they are held."""
    classes: int
    config: Local
    features: int = 0
    """Of a local output."""

    @property
    def batch_bytes(self) -> int:
        """Of the images of a step as they are held."""
        return self.config.batch_size * self.channels * prod(self.padded) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class NetworkMemory:
    """Bytes that a network needs on its device, without the windows that are held there."""

    weights: int
    """Weights, gradients and what the optimizer keeps of each, between the steps."""
    step: int
    """At most in a step, with the weights."""
    decisions: int
    """At most where it makes decisions; 0 where its batches are no larger than those of a step."""


class Blocks(TorchDispatchMode):
    """Counts the bytes of the tensors that live, each block of memory once, while torch works under it.

    Example:
        >>> with FakeTensorMode(), Blocks() as blocks:
        ...     one = torch.empty(1024)
        ...     two = one[:512] + 1
        ...     del one
        >>> blocks.now, blocks.peak
        (2048, 6144)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.alive: set[int] = set()
        self.parts = {False: 0, True: 0}
        """Bytes that live by whether their block is MAPPED; `tops` are the largest."""
        self.tops = {False: 0, True: 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator, and count what it gives."""
        given = func(*args, **(kwargs or {}))
        for each in tree_leaves(given):
            if isinstance(each, Tensor):
                self.add(each)
        return given

    def add(self, tensor: Tensor) -> None:
        """Count the block of a tensor, until nothing uses it."""
        block = tensor.untyped_storage()
        key, size = block._cdata, block.nbytes()
        if key in self.alive:
            return
        self.alive.add(key)
        self._change(size, 1)
        weakref.finalize(block, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self._change(size, -1)

    def _change(self, size: int, sign: int) -> None:
        mapped = size >= MAPPED
        self.now += sign * size
        self.parts[mapped] += sign * size
        self.peak = max(self.peak, self.now)
        self.tops[mapped] = max(self.tops[mapped], self.parts[mapped])

    def needed(self, kind: str) -> int:
        """At most since the start, on a CPU as a heap with holes and blocks of their own."""
        return self.peak if kind == "cuda" else round(HOLES * self.tops[False]) + self.tops[True]

    def start_again(self) -> None:
        """Start again from what lives now; a heap stays as it is."""
        self.peak, self.tops[True] = self.now, self.parts[True]


class Autocast(TorchFunctionMode):
    """The bfloat16 autocast of a GPU where there is none; that of a CPU makes pooling and what follows float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, with bfloat16 where it is HALVED."""

        def half(given: Any) -> Any:
            return given.to(torch.bfloat16) if isinstance(given, Tensor) and given.is_floating_point() else given

        kwargs = kwargs or {}
        if func in HALVED:
            args, kwargs = tuple(map(half, args)), {name: half(each) for name, each in kwargs.items()}
        return func(*args, **kwargs)


def in_bfloat16(precision: str, kind: str) -> bool:
    """Whether a network is trained in bfloat16 with this `local.precision`; a GPU is taken to have it."""
    return precision == "bfloat16" or (precision == "auto" and kind == "cuda")


def network_memory(cnn: nn.Module, work: Work, kind: str) -> NetworkMemory:
    """What a network needs in training.

    On a GPU the workspaces of cuDNN come in addition; precision `auto` is taken to be bfloat16 there.

    Args:
        cnn: on the CPU; it stays as it is.
        work: what it works on.
        kind: of the device, cpu or cuda.

    Raises:
        RuntimeError: the network reads values of tensors, of which there are none here.
    """
    halved = kind == "cuda" and in_bfloat16(work.config.precision, kind)
    if halved:
        work = replace(work, config=replace(work.config, precision="float32"))
    fake, order = FakeTensorMode(allow_non_fake_inputs=True), channels_last(2 + len(work.padded))
    # of another order they could not be replaced once a block is watched
    network = deepcopy(cnn).to(memory_format=order)._apply(fake.from_tensor)
    # a captured step keeps its inputs (`CudaGraph`); the best weights wait in main memory
    more = work.batch_bytes if kind == "cuda" else 0
    if kind == "cpu" and work.config.keep == "best":
        more = sum(each.nbytes for each in cnn.state_dict().values())
    with torch.random.fork_rng(devices=[]), Blocks() as blocks, Autocast() if halved else nullcontext():
        for weights in (*network.parameters(), *network.buffers()):
            blocks.add(weights)
        between = _step(network, work, fake, blocks)
        step, decisions = blocks.needed(kind) + more, 0
        if decision_batch(extent(work.core), kind) > work.config.batch_size:
            blocks.start_again()
            with fake, torch.no_grad():
                _decisions(network, work, kind)
            decisions = blocks.needed(kind) + more
    return NetworkMemory(weights=between, step=step, decisions=decisions)


def _step(network: nn.Module, work: Work, fake: FakeTensorMode, blocks: Blocks) -> int:
    """A step that is not the first, so that there are momentum and old gradients; the bytes that live after it."""
    batch, dimensions = work.config.batch_size, len(work.padded)
    one = fake.from_tensor(torch.ones([1] * (dimensions + 1)))
    images = Held(core=work.core, mean=one, std=one, pixels=one)
    labels = np.arange(batch) % work.classes
    training = LocalTraining(network, LocalProblem(images=images, labels=labels, config=work.config))
    for name in ("loss", "right", "target"):
        setattr(training, name, fake.from_tensor(getattr(training, name)))
    with fake:
        for weights in network.parameters():
            weights.grad = torch.zeros_like(weights)
        training.optimizer.step()
        padded = torch.empty((batch, work.channels, *work.padded), dtype=torch_dtype(work.dtype))
        training.update(padded, training.target, torch.empty(batch, dimensions + 4))
        del padded
    return blocks.now


def _decisions(network: nn.Module, work: Work, kind: str) -> None:
    """A batch of `local_outputs`."""
    network.eval()
    window = extent(work.core)
    size = decision_batch(window, kind)
    padded = torch.empty((size, work.channels, *work.padded), dtype=torch_dtype(work.dtype))
    batch = torch.empty((size, work.channels, *window), memory_format=channels_last(padded.ndim))
    batch.copy_(padded[(slice(None), slice(None), *work.core)].to(torch.float32) - 1)
    with autocast(work.config.precision, "cpu"):
        output(network, batch, work.features)
