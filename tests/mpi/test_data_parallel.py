"""The ranks of a team compute what one rank does."""

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from ddhpc.config import Local, Run
from ddhpc.method.local import LocalProblem, Validation, local_outputs, train_local
from ddhpc.method.team import ALONE
from ddhpc.method.windows import channels_last, hold
from ddhpc.models import build
from ddhpc.parallel import placement
from ddhpc.parallel.data_parallel import form_team
from ddhpc.parallel.synchronised_norm import SynchronisedNorm

pytestmark = pytest.mark.mpi

BATCH = 11


@pytest.fixture
def team(comm):
    """All ranks, on one subdomain."""
    with form_team(comm, 1, placement.place(comm, Run(device="cpu"))) as team:
        assert (team.rank, team.size) == (comm.rank, comm.size)
        yield team


@pytest.mark.parametrize("window", [(9, 8), (4, 5, 6)])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}])
def test_normalisation_sees_the_whole_batch(window, options, team):
    if team.size == 1:
        pytest.skip("one rank alone")
    torch.manual_seed(0)
    whole = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(window)](3, **options)
    for weights in whole.parameters():
        nn.init.uniform_(weights)
    spread = SynchronisedNorm(3, **options)
    spread.load_state_dict(whole.state_dict())
    rows = team.rows(BATCH)
    for _ in range(2):
        pixels = (3 * torch.randn(BATCH, 3, *window) + 5).to(memory_format=channels_last(2 + len(window)))
        slopes = torch.randn(pixels.shape)
        everything, mine = pixels.clone().requires_grad_(), pixels[rows].clone().requires_grad_()
        expected, found = whole(everything), spread(mine)
        assert torch.allclose(found, expected[rows], rtol=1e-4, atol=1e-4)
        expected.backward(slopes)
        found.backward(slopes[rows])
        assert torch.allclose(mine.grad, everything.grad[rows], rtol=1e-4, atol=1e-4)
    for our, their in zip(spread.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(team.total(our.grad), their.grad, rtol=1e-4, atol=1e-3)
    for our, their in zip(spread.buffers(), whole.buffers(), strict=True):
        assert torch.allclose(our, their, rtol=1e-4)
    whole.eval(), spread.eval()
    assert torch.allclose(spread(pixels), whole(pixels), rtol=1e-4, atol=1e-4)


def trained(team, network="resnet", dropout=0.0, **options):
    """History, weights and decisions of a training with augmentation and label smoothing."""
    draw = np.random.default_rng(0)
    labels = draw.choice(3, 50, p=(0.6, 0.3, 0.1))
    pixels = draw.normal(labels[:, None, None, None], 1, (50, 1, 12, 12)).astype(np.float32)
    core = (slice(1, 11), slice(1, 11))
    images = hold([pixels], 50, core, np.array([1.0]), np.array([1.3]), "cpu")
    torch.manual_seed(0)
    cnn = build(network, channels=1, classes=3, window=(10, 10), width=4, depth=None)
    cnn.append(nn.Dropout(dropout))
    cnn.to(memory_format=torch.channels_last)
    config = Local(epochs=3, batch_size=BATCH, shift=1, flip=True, intensity=0.1, label_smoothing=0.1, **options)
    validation = Validation(images=images, labels=labels)
    problem = LocalProblem(images=images, labels=labels, config=config, team=team, validation=validation)
    history = train_local(cnn, problem, lambda *step: None)
    return history, cnn.state_dict(), local_outputs(cnn, images, "float32", team=team)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        *(("resnet", {}), ("vgg", {}), ("resnet", {"class_weight": "balanced"}), ("resnet", {"sampling": "balanced"})),
        ("resnet", {"clip": 0.3, "warmup": 0.3, "schedule": "cosine"}),
        ("resnet", {"optimizer": "adamw"}),
    ],
)
def test_losses_weights_and_decisions_are_those_of_one_rank(network, options, team):
    (history, weights, decisions), (expected, its_weights, its_decisions) = (
        trained(team, network, **options),
        trained(ALONE, network, **options),
    )
    assert history.loss == pytest.approx(expected.loss, rel=1e-3)
    assert history.accuracy == pytest.approx(expected.accuracy, abs=0.03)
    assert history.val_loss[-1] == pytest.approx(expected.val_loss[-1], rel=1e-2)
    assert history.val_accuracy[-1] == pytest.approx(expected.val_accuracy[-1], abs=0.03)
    assert weights.keys() == its_weights.keys()
    for name, values in weights.items():
        assert torch.allclose(values, its_weights[name], rtol=1e-2, atol=1e-3), name
    assert np.allclose(decisions, its_decisions, atol=1e-2)


def test_dropout_is_drawn_by_each_rank_and_leaves_the_order_of_the_images_alike(team):
    """Unequal shares take unequal numbers from the generators; the weights are alike all the same."""
    history, weights, _ = trained(team, dropout=0.5)
    again, same, _ = trained(team, dropout=0.5)
    assert history.loss == again.loss
    for name, values in weights.items():
        everyone = MPI.COMM_WORLD.allgather(values.numpy())
        assert all(np.array_equal(everyone[0], each) for each in everyone), name
        assert torch.equal(values, same[name])
    with team.own_random(torch.device("cpu"), 0):
        drawn = MPI.COMM_WORLD.allgather(torch.rand(1).item())
    assert len(set(drawn)) == team.size
