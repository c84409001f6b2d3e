"""The memory that a subdomain needs on its device and beside it, predicted. No MPI."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch

from ddhpc.method.coarse_images import CoarseImages
from ddhpc.method.decomposition import extent
from ddhpc.method.local import decision_batch
from ddhpc.method.network_memory import NetworkMemory, Work, network_memory
from ddhpc.method.problem import Problem
from ddhpc.method.windows import AHEAD


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a subdomain needs on its device, and beside it."""

    network: NetworkMemory
    windows: int
    """Of all splits; where they are streamed, of the batches that are read ahead, which a GPU leaves in main memory."""
    streamed: int
    """What `windows` would be if they were streamed."""
    main: int
    """At most in main memory, without the program; on a CPU what the device needs is in it."""

    @property
    def device(self) -> int:
        """At most on the device, without the program."""
        return self.computing + self.windows

    @property
    def computing(self) -> int:
        """At most in training and in making decisions, without the windows that are held."""
        return max(self.network.step, self.network.decisions)


def device_kind(device: str) -> str:
    """cpu or cuda, for a value of `run.device`; `auto` is what this process sees."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def subdomain_memory(problem: Problem, kind: str) -> list[Memory] | None:
    """What each subdomain needs on this kind of device; None where the step of its network cannot be followed.

    The step is that of the largest window, which is a little too much for the others.
    """
    steps = dict[bool, NetworkMemory]()
    for n in sorted(range(problem.subdomains), key=lambda n: -prod(extent(problem.padded("train", n)[0]))):
        whole = isinstance(problem.images(n), CoarseImages)
        if whole not in steps:
            try:
                steps[whole] = network_memory(problem.local_cnn(n), _work(problem, n), kind)
            except (RuntimeError, TypeError):  # tensors without memory have no values to read
                return None
    return [
        _memory(problem, n, kind, steps[problem.images(n) is not problem.packed]) for n in range(problem.subdomains)
    ]


def _work(problem: Problem, subdomain: int) -> Work:
    images, (padded, core) = problem.images(subdomain), problem.padded("train", subdomain)
    config = problem.config.local
    return Work(
        padded=extent(padded),
        core=core,
        channels=images.channels,
        dtype=images.dtype,
        classes=len(problem.packed.classes),
        config=replace(config, batch_size=min(config.batch_size, images.samples["train"])),
        features=problem.features,
    )


def _memory(problem: Problem, subdomain: int, kind: str, network: NetworkMemory) -> Memory:
    """What a subdomain needs whose network needs so much."""
    images, read, work = problem.images(subdomain), problem.window_bytes(subdomain), _work(problem, subdomain)
    image = work.batch_bytes // work.config.batch_size
    block = images.chunk_samples * image
    if isinstance(images, CoarseImages):
        block += images.chunk_samples * 8 * images.channels * prod(images.read_shape)
    # those ahead, and one that is read; the step counts its own
    ahead = (AHEAD + 1) * max(work.config.batch_size, decision_batch(extent(work.core), kind)) * image
    on_device, streamed = 0 if kind == "cuda" else ahead, problem.streamed(subdomain)
    windows = on_device if streamed else sum(read.values())
    needed = Memory(network=network, windows=windows, streamed=on_device, main=max(block, ahead * streamed))
    if kind == "cpu":
        needed = replace(needed, main=max(block + windows * (not streamed), needed.device))
    return needed
