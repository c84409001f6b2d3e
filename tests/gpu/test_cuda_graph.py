"""Steps that are captured as a CUDA graph: the same training as one kernel after the other."""

import numpy as np
import pytest
import torch
from torch import nn

from ddhpc.config import Local
from ddhpc.method import cuda_graph
from ddhpc.method.cuda_graph import CudaGraph
from ddhpc.method.local import LocalProblem, train_local
from ddhpc.method.windows import channels_last, hold
from ddhpc.models import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible: torch.cuda.device_count() is 0"),
]


class Waits(nn.Module):
    """Reads a value of its input, for which the processor has to wait."""

    def forward(self, x):
        return x * (1 + 0 * x.mean().item())


def train(waits=False, **options):
    """The history of a short training of a narrow CNN on images of two classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 512)
    pixels = (rng.normal(100, 20, (512, 1, 14, 14)) + 30 * labels[:, None, None, None]).clip(0, 255).astype(np.uint8)
    core = (slice(1, 13), slice(1, 13))
    images = hold([pixels], 512, core, np.array([110.0]), np.array([25.0]), "cuda")
    config = Local(**{"epochs": 3, "batch_size": 32, "shift": 1, "precision": "float32", **options})
    torch.manual_seed(0)
    cnn = build("resnet", channels=1, classes=2, window=(12, 12), width=8)
    cnn = nn.Sequential(Waits(), cnn) if waits else cnn
    cnn = cnn.to("cuda", memory_format=channels_last(4))
    problem = LocalProblem(images=images, labels=labels, config=config, captured=True)
    return train_local(cnn, problem, lambda fraction, history, state: None), cnn


def captures(monkeypatch):
    """A list that gets each work when it is captured."""
    found, capture = [], CudaGraph._capture

    def noted(self, inputs):
        found.append(self)
        capture(self, inputs)

    monkeypatch.setattr(CudaGraph, "_capture", noted)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bfloat16"},
        {"flip": True, "rotate": 10, "intensity": 0.2},
        {"optimizer": "adamw", "clip": 0.5, "class_weight": "balanced", "label_smoothing": 0.1},
    ],
    ids=["plain", "bfloat16", "augmented", "adamw"],
)
def test_a_captured_training_is_that_of_one_step_after_the_other(options, monkeypatch):
    captured = captures(monkeypatch)
    found, cnn = train(**options)
    assert len(captured) == 1
    monkeypatch.setattr(cuda_graph, "EAGER_CALLS", 10**9)
    expected, _ = train(**options)
    assert len(captured) == 1
    assert found.accuracy[-1] > 0.8
    assert found.loss == pytest.approx(expected.loss, rel=0.02, abs=0.002)
    assert found.learning_rate == expected.learning_rate
    steps = {name: values.item() for name, values in cnn.named_buffers() if name.endswith("num_batches_tracked")}
    assert set(steps.values()) == {3 * 512 // 32}, (
        "each step once, those before the capture and the first replay as well"
    )


def test_a_network_that_waits_for_the_gpu_is_not_captured(monkeypatch):
    captured = captures(monkeypatch)
    found, _ = train(waits=True)
    assert captured == []
    assert found.loss == pytest.approx(train()[0].loss, rel=0.02, abs=0.002)


def test_dropout_draws_anew_in_each_replay():
    drop, seen = nn.Dropout(0.5), torch.zeros(20, 1000, device="cuda")
    place = torch.zeros((), dtype=torch.int64, device="cuda")

    def work(ones):
        seen.index_copy_(0, place[None], drop(ones)[None])
        place.add_(1)

    graph = CudaGraph(work)
    for _ in range(20):
        graph(torch.ones(1000, device="cuda"))
    assert place.item() == 20
    assert len(torch.unique(seen, dim=0)) == 20
    assert seen.mean().item() == pytest.approx(1, abs=0.05)
