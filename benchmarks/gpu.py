"""Local CNNs on one GPU: the loop of ddhpc against a bare one, and ways to train many narrow CNNs at once.

    python benchmarks/gpu.py [--quick]

Narrow CNNs on small windows are bound by the launches of their kernels, not by arithmetic. For each problem this
measures one training step, median of repeats, GPU synchronised:

- loop: `ddhpc.method.local.train_local`, as a rank runs it, a subdomain a step;
- bare: what a person would write, without schedule, history and checks;
- graph: the bare step captured in a CUDA graph and replayed;
- fused: the CNNs of k subdomains of equal windows as one batched network (torch.func, vmap over weights; the idea is
  HFTA's, arXiv:2102.02344), given for one subdomain: the step of all over k;
- fused graph: the same, captured;
- processes: k ranks that share the GPU, each with a loop of its own; the step of one over k.

Prints card, versions and a table. What a way cannot do fails there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from ddhpc.config import Local
from ddhpc.method.local import LocalProblem, train_local
from ddhpc.method.windows import channels_last, hold
from ddhpc.models import build
from ddhpc.models.resnet import ZeroPadShortcut


@dataclass(frozen=True)
class Case:
    """A local problem."""

    family: str
    window: tuple[int, ...]
    channels: int
    width: int
    batch: int

    def __str__(self) -> str:
        extent = "x".join(map(str, self.window))
        return f"{self.family} {extent}, {self.channels} ch., w{self.width}, batch {self.batch}"


CASES = (
    Case("resnet", (11, 11), 1, 8, 64),
    Case("resnet", (24, 24), 3, 16, 64),
    Case("resnet", (64, 64), 3, 32, 64),
    Case("cnn3d", (24, 24, 24), 1, 11, 8),
    Case("cnn3d", (72, 72, 36), 1, 11, 2),
    Case("cnn3d", (128, 128, 64), 1, 64, 2),
)
SUBDOMAINS = 16
Batch = tuple[torch.Tensor, torch.Tensor]
CLASSES = 10
BLOCK_SECONDS = 0.1
DEVICE = "cuda"


def network(case: Case, seed: int = 0) -> torch.nn.Module:
    """A local CNN on the GPU, its weights drawn from the seed."""
    torch.manual_seed(seed)
    cnn = build(case.family, channels=case.channels, classes=CLASSES, window=case.window, width=case.width)
    return cnn.to(DEVICE, memory_format=channels_last(2 + len(case.window)))


def batch_of(case: Case) -> Batch:
    """Random windows [B, C, *window] and labels [B] on the GPU."""
    inputs = torch.randn(case.batch, case.channels, *case.window, device=DEVICE)
    return inputs.to(memory_format=channels_last(inputs.ndim)), torch.randint(CLASSES, (case.batch,), device=DEVICE)


def milliseconds(step: Callable[[], object], repeats: int) -> float:
    """Median over blocks of steps, each of about BLOCK_SECONDS, after three steps to warm up."""

    def seconds(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps

    seconds(3)
    steps = 1 + int(BLOCK_SECONDS / seconds(1))
    return 1000 * statistics.median(seconds(steps) for _ in range(repeats))


def precision(bfloat16: bool) -> torch.autocast | nullcontext[None]:
    """Of the arithmetic within."""
    return torch.autocast("cuda", torch.bfloat16) if bfloat16 else nullcontext()


def sgd(parameters: object) -> torch.optim.Optimizer:
    """The optimizer of a local CNN, with weights that stay put."""
    return torch.optim.SGD(parameters, 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def bare_step(case: Case, bfloat16: bool, seed: int = 0, batch: Batch | None = None) -> Callable[[], torch.Tensor]:
    """One training step of a network, which gives its loss [] on the GPU."""
    inputs, target = batch or batch_of(case)
    cnn = network(case, seed)
    optimizer = sgd(cnn.parameters())

    def step() -> torch.Tensor:
        with precision(bfloat16):
            loss = cross_entropy(cnn(inputs), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def fused_step(case: Case, bfloat16: bool, batch: Batch | None = None) -> Callable[[], torch.Tensor]:
    """One training step of SUBDOMAINS networks at once, which gives their losses [k] on the GPU."""
    inputs, target = batch or batch_of(case)
    many = torch.stack([inputs.contiguous()] * SUBDOMAINS)
    # torch has no batch normalisation of channels_last tensors under vmap on GPUs
    cnns = [network(case, seed).to(memory_format=torch.contiguous_format) for seed in range(SUBDOMAINS)]
    for layer in cnns[0].modules():
        if isinstance(layer, ZeroPadShortcut):
            layer.register_forward_hook(lambda module, given, output: output.contiguous())
    parameters, buffers = stack_module_state(cnns)
    optimizer = sgd(parameters.values())
    model = cnns[0]

    def loss_of(weights: dict, state: dict, pixels: torch.Tensor) -> torch.Tensor:
        with precision(bfloat16):
            return cross_entropy(functional_call(model, (weights, state), (pixels,)), target)

    every = vmap(grad_and_value(loss_of), randomness="different")

    def step() -> torch.Tensor:
        gradients, losses = every(parameters, buffers, many)
        for name, weights in parameters.items():
            weights.grad = gradients[name]
        optimizer.step()
        return losses.detach()

    return step


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """The step as a CUDA graph, after steps on a stream of its own to warm up, as torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def loop_milliseconds(case: Case, bfloat16: bool, steps: int) -> float:
    """A step of `train_local`, in its second epoch."""
    whole = tuple(slice(0, side) for side in case.window)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (case.batch * steps, case.channels, *case.window)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, len(pixels))
    mean, std = np.full(case.channels, 128.0), np.full(case.channels, 64.0)
    images = hold([pixels], len(pixels), whole, mean, std, DEVICE)
    kind = "bfloat16" if bfloat16 else "float32"
    config = Local(batch_size=case.batch, epochs=2, learning_rate=0.01, precision=kind)
    history = train_local(
        network(case),
        LocalProblem(images=images, labels=labels, config=config, captured=True),
        lambda fraction, history, state: None,
    )
    return history.seconds[-1] / steps * 1000


def share_gpu(case: Case, steps: int, barrier: Barrier, queue: Queue) -> None:
    """What each of the processes does: two epochs, once to warm up and once timed."""
    loop_milliseconds(case, True, 5)
    barrier.wait()
    started = time.perf_counter()
    loop_milliseconds(case, True, steps)
    queue.put(time.perf_counter() - started)


def processes_milliseconds(case: Case, steps: int) -> float:
    """A step of `train_local` in SUBDOMAINS processes that share the GPU, over their number."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(SUBDOMAINS), context.Queue()
    workers = [context.Process(target=share_gpu, args=(case, steps, barrier, queue)) for _ in range(SUBDOMAINS)]
    for worker in workers:
        worker.start()
    seconds = max(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    return seconds / (2 * steps) / SUBDOMAINS * 1000


def attempt(measure: Callable[[], float]) -> str:
    """A figure, or that there is none: a way that does not work for a network is a result too."""
    try:
        return f"{measure():.3f}"
    except (RuntimeError, ValueError, TypeError) as error:
        print("   ", type(error).__name__, " ".join(str(error).split())[:300], file=sys.stderr)
        return "fails"


def row(case: Case, bfloat16: bool, repeats: int, steps: int, processes: bool) -> list[str]:
    """The figures of one line of the table."""
    return [
        attempt(lambda: loop_milliseconds(case, bfloat16, steps)),
        attempt(lambda: milliseconds(bare_step(case, bfloat16), repeats)),
        attempt(lambda: milliseconds(captured(bare_step(case, bfloat16)), repeats)),
        attempt(lambda: milliseconds(fused_step(case, bfloat16), repeats) / SUBDOMAINS),
        attempt(lambda: milliseconds(captured(fused_step(case, bfloat16)), repeats) / SUBDOMAINS),
        attempt(lambda: processes_milliseconds(case, steps)) if processes and bfloat16 else "-",
    ]


def check() -> float:
    """Largest difference of the losses of fused networks from those of each alone over three steps, float32."""
    case = CASES[0]
    torch.manual_seed(1)
    inputs, target = batch_of(case)
    alone = [bare_step(case, False, seed, (inputs, target)) for seed in range(SUBDOMAINS)]
    fused = fused_step(case, False, (inputs, target))
    return max(float((fused() - torch.stack([step() for step in alone])).abs().max()) for _ in range(3))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the repeats, and no processes")
    quick = parser.parse_args().quick
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no GPU is visible to torch")
    repeats, steps = (3, 20) if quick else (9, 60)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"milliseconds of a step for one subdomain; {SUBDOMAINS} subdomains for fused and processes")
    print(f"largest difference of a loss, fused from alone, in three steps: {attempt(check)}")
    ways = ("loop", "bare", "graph", "fused", "f. graph", "processes")
    print(f"{'':45} {'precision':9}" + "".join(f"{way:>10}" for way in ways))
    for case in CASES:
        for bfloat16 in (False, True):
            figures = row(case, bfloat16, repeats, steps, not quick)
            kind = "bfloat16" if bfloat16 else "float32"
            print(f"{case!s:45} {kind:9}" + "".join(f"{figure:>10}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
