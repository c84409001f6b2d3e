import numpy as np
import torch

from ddhpc.config import Coarse
from ddhpc.method import coarse
from ddhpc.report.dependence import examples
from ddhpc.report.figures.domain import Driven, dependence
from ddhpc.report.figures.view import Domain


def test_examples_are_of_all_kinds():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    final = np.eye(2)[[0, 0, 1, 1, 1, 0, 1]]
    vote = np.eye(2)[[0, 1, 1, 1, 0, 0, 1]]
    moved = np.ones((7, 3))
    assert examples(labels, final, vote, moved, 3) == [0, 1, 2]  # right, right against the vote, wrong
    assert examples(labels, final, vote, moved, 6) == [0, 1, 2, 3, 4, 5]
    assert examples(labels, np.eye(2)[labels], np.eye(2)[labels], moved, 2) == [0, 1]


def test_examples_are_first_those_that_a_subdomain_moves():
    labels = np.zeros(5, np.int64)
    sure = np.eye(2)[labels]
    moved = np.array([[0.01, 0.0], [0.0, -0.2], [0.0, 0.0], [0.3, 0.0], [0.0, 0.0]])
    assert examples(labels, sure, sure, moved, 2) == [1, 3]
    assert examples(labels, sure, sure, moved, 3) == [0, 1, 3]


def test_a_restored_coarse_dnn_decides_as_the_trained_one():
    rng = np.random.default_rng(0)
    local = {split: rng.dirichlet(np.ones(3), (4, 60)).astype(np.float32) for split in ("train", "val", "test")}
    labels = {split: rng.integers(0, 3, 60) for split in local}
    config = Coarse(epochs=3, hidden=(7, 5))
    torch.manual_seed(0)
    solution = coarse.solve(local, labels, 3, config, "cpu")
    weights = {name: values.numpy() for name, values in solution.network.state_dict().items()}
    network = coarse.restored(weights, config)
    assert np.array_equal(coarse.decide(network, local["test"]), solution.fusions["dnn"]["test"])
    shapes = {name: values.shape for name, values in weights.items()}
    assert shapes == coarse.weight_shapes(4, 3, 0, config)


def test_a_colour_image_is_grey_as_bright_as_it_is():
    """Beside a grey one, of which black and white are the darkest and brightest pixel."""
    colour = np.full((4, 6, 3), 0.5)
    colour[0] = (0.25, 0.5, 1.0)
    area = Domain(shape=(4, 6), grid=(1, 2), overlap=0)
    driven = {"title": "", "coarse_image": None, "drops": np.array([1.0, -1.0])}
    drawn = dependence(area, [Driven(image=image, **driven) for image in (colour, colour[..., 0])])
    first, second = (axes.images[0] for axes in drawn.axes)
    assert first.get_array().dtype == np.uint8
    assert np.unique(first.get_array()[1:]).tolist() == [128]
    assert np.ptp(first.get_array(), axis=2).max() == 0
    assert first.get_array()[0, 0, 0] == round(255 * (0.299 * 0.25 + 0.587 * 0.5 + 0.114))
    assert second.get_array().shape == (4, 6)
