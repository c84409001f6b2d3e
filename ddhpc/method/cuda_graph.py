"""Work on a GPU that is captured once as a CUDA graph and then launched as a whole. No MPI.

The steps of narrow CNNs are bound by the launches of their kernels, several hundred a step, not by arithmetic
(benchmarks/README.md, "On a GPU").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

EAGER_CALLS = 3
"""Calls before the capture: libraries choose their algorithms, optimizers make their state, gradients their memory."""


class CudaGraph:
    """Work that is called as it is EAGER_CALLS times, captured at the next call, and replayed from then on.

    Of what is replayed Python sees nothing any more: what the work decides in Python, it decides once. Work that makes
    the processor wait for the GPU cannot be captured, as that of a network which reads a value of a tensor; it stays as
    it is.

    Args:
        work: takes tensors, of the same shapes and dtypes at each call, and changes others in place.

    Example:
        >>> if torch.cuda.is_available():
        ...     total = torch.zeros(2, device="cuda")
        ...     add = CudaGraph(lambda values: total.add_(values))
        ...     for _ in range(10):
        ...         add(torch.ones(2, device="cuda"))
        ...     assert total.tolist() == [10, 10]
    """

    def __init__(self, work: Callable[..., None]) -> None:
        self.work = work
        self.calls = 0
        self.waits = False
        """Whether the work makes the processor wait."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        """Where the graph reads what the work takes."""

    def __call__(self, *inputs: Tensor) -> None:
        """Do the work, now or soon after."""
        self.calls += 1
        if self.calls <= EAGER_CALLS:
            self._call(inputs)
        elif self.waits:
            self.work(*inputs)
        else:
            if self.graph is None:
                self._capture(inputs)
            for place, given in zip(self.inputs, inputs, strict=True):
                place.copy_(given, non_blocking=True)
            assert self.graph is not None
            self.graph.replay()

    def _call(self, inputs: tuple[Tensor, ...]) -> None:
        """Work on a stream of its own, as a capture does, and see whether it waits."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        before = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(stream), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.work(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream().wait_stream(stream)
        waits = [each for each in told if "synchroniz" in str(each.message)]
        self.waits = bool(waits)  # the last of these calls tells; the first in a process wait for libraries to start
        for each in told:
            if each not in waits:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(each.clone() for each in inputs)
        graph = torch.cuda.CUDAGraph()
        # others may go on with theirs: the thread that reads the next batches takes pinned memory
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.work(*self.inputs)
        self.graph = graph
