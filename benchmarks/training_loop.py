"""The training loop of ddhpc against a bare loop: same network, same data, no logging, no checks.

    python benchmarks/training_loop.py [--window 11] [--width 8] [--repeats 7]

Both run in turn on one core, so that whatever else the machine does meets both. Prints median, range and the ratio of
the CPU seconds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch.nn.functional import cross_entropy

from ddhpc.config import Local
from ddhpc.data.packed import find, open_packed
from ddhpc.method.local import LocalProblem, train_local
from ddhpc.method.windows import channels_last, hold
from ddhpc.models import build
from ddhpc.results.provenance import processor


def bare(cnn, inputs, labels, epochs, batch_size):
    """What a person would write for this network and nothing else."""
    optimizer = torch.optim.SGD(cnn.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    steps = epochs * (len(inputs) // batch_size)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.25, cycle_momentum=False)
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            loss = cross_entropy(cnn(inputs[batch]), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            rate.step()


def main() -> None:
    """Time both loops and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=11, help="pixels of a side of the window")
    parser.add_argument("--width", type=int, default=8, help="channels of the first stage")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)

    packed = open_packed(find("fashion_mnist.h5"))
    window = (slice(0, given.window),) * 2
    images = hold([packed.read("train", window)], packed.samples["train"], window, packed.mean, packed.std, "cpu")
    labels = packed.labels["train"]
    inputs, targets = images.normalised(images.pixels), torch.from_numpy(labels)
    config = Local(epochs=1)

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        cnn = build("resnet", channels=1, classes=10, window=(given.window,) * 2, width=given.width)
        return cnn.to(memory_format=channels_last(4))

    loops = {
        "bare loop": lambda: bare(network(), inputs, targets, config.epochs, config.batch_size),
        "ddhpc": lambda: train_local(
            network(), LocalProblem(images=images, labels=labels, config=config), lambda fraction, history, state: None
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(given.repeats + 1):
        for name, loop in loops.items():
            started = time.process_time()
            loop()
            if repeat:  # the first round warms up
                seconds[name].append(time.process_time() - started)

    print(f"{processor()}, torch {torch.__version__}, Python {platform.python_version()}, one thread")
    print(f"resnet of width {given.width} on {given.window}x{given.window}, {len(labels)} images, 1 epoch, batch 64")
    for name, values in seconds.items():
        print(
            f"{name:10} {statistics.median(values):.3f} s CPU "
            f"({min(values):.3f} to {max(values):.3f}), n = {len(values)}"
        )
    ratios = [ours / floor for ours, floor in zip(seconds["ddhpc"], seconds["bare loop"], strict=True)]
    print(f"ratio      {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
