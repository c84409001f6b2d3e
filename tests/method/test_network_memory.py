from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ddhpc.config import Local
from ddhpc.method.network_memory import HOLES, NetworkMemory, Work, network_memory
from ddhpc.models.layers import GlobalAveragePool

INT, FLOAT, HALF = 8, 4, 2


def work(edge: int, batch: int, **local: object) -> Work:
    config = Local(batch_size=batch, precision="float32")
    return Work(
        padded=(edge, edge),
        core=(slice(0, edge), slice(0, edge)),
        channels=1,
        dtype=np.dtype(np.uint8),
        classes=3,
        config=replace(config, **local),
    )


def test_a_network_that_can_be_counted_by_hand():
    """A dense layer: the most lives while pixels are normalised, as integers, floats, centred, and scaled.

    Weights, old gradients and momentum are alike; beside them are the sums of an epoch and its order of images.
    """
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    weights, pixels, order, sums = 64 * 3 * FLOAT, 600 * 64, INT, FLOAT + INT
    drawn, before = torch.get_rng_state(), cnn[1].weight.clone()
    live = 3 * weights + order + pixels + 600 * (2 + 4) * FLOAT + 3 * FLOAT * pixels
    weighed = 3 * weights + order + sums
    expected = NetworkMemory(weights=weighed, step=round(HOLES * live), decisions=0)
    assert network_memory(cnn, work(8, 600), "cpu") == expected
    # a graph keeps its inputs; adamw has two of each weight, and a count of its steps; the best weights are kept
    assert network_memory(cnn, work(8, 600), "cuda") == replace(expected, step=live + pixels)
    assert network_memory(cnn, work(8, 600, optimizer="adamw"), "cpu").weights == weighed + weights + FLOAT
    assert network_memory(cnn, work(8, 600, keep="best"), "cpu").step == round(HOLES * live) + weights
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(cnn[1].weight, before)
    assert cnn[1].weight.grad is None


def test_what_the_backward_pass_keeps_of_more_than_any_machine_has():
    """The output of a convolution, the gradient behind the pooling and the one before ReLU are alike.

    In bfloat16 the most lives a step before, with the integers of the pooling and the gradient that it takes, of a
    quarter of the numbers each.
    """
    layers = nn.Conv2d(1, 16, 1, bias=False), nn.ReLU(inplace=True), nn.MaxPool2d(2), GlobalAveragePool()
    cnn = nn.Sequential(*layers, nn.Linear(16, 3))
    pixels = 64 * 8192**2
    numbers = 16 * pixels
    most = [
        network_memory(cnn, work(8192, 64, precision=precision), kind).step
        for kind, precision in (("cpu", "auto"), ("cuda", "float32"), ("cuda", "auto"))
    ]
    live = 3 * FLOAT * numbers + (1 + FLOAT) * pixels
    half = 2 * HALF * numbers + (INT + HALF) * numbers / 4 + (1 + FLOAT + HALF) * pixels
    assert most == pytest.approx([live, live + pixels, half + pixels], rel=1e-5)


def test_decisions_may_need_more_than_a_step():
    """A GPU decides on 512 images at once: integers, floats, and floats centred."""
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    needed = network_memory(cnn, work(8, 4), "cuda")
    images = 512 * 64 * (1 + 3 * FLOAT)
    assert needed.decisions == pytest.approx(images, rel=0.02)
    assert needed.step < needed.decisions
    more = network_memory(cnn, work(8, 511), "cuda")
    assert needed.decisions < more.decisions < more.step
