import numpy as np
import torch

from ddhpc.config import Coarse
from ddhpc.method import coarse
from ddhpc.report.dependence import drops, examples


def only_subdomain_one(local):
    """Final decisions that are the local ones of subdomain 1."""
    return local[1]


def test_only_the_subdomain_that_is_listened_to_counts():
    local = np.random.default_rng(0).dirichlet(np.ones(4), (3, 50)).astype(np.float32)
    usual = local.mean(axis=1)
    found = drops(only_subdomain_one, local, usual)
    assert found.shape == (50, 3)
    assert not found[:, [0, 2]].any()
    decided = local[1].argmax(axis=1)
    assert np.allclose(found[:, 1], local[1].max(axis=1) - usual[1][decided], atol=1e-6)


def test_what_is_taken_apart_is_left_as_it_was():
    local = np.random.default_rng(0).dirichlet(np.ones(3), (2, 5)).astype(np.float32)
    before = local.copy()
    drops(only_subdomain_one, local, local.mean(axis=1))
    assert np.array_equal(local, before)


def test_a_subdomain_that_says_what_it_usually_does_drove_nothing():
    local = np.random.default_rng(0).dirichlet(np.ones(3), (4, 7)).astype(np.float32)
    local[2] = (0.2, 0.5, 0.3)
    found = drops(coarse.mean, local, local.mean(axis=1))
    assert np.allclose(found[:, 2], 0, atol=1e-6)
    assert np.abs(found[:, [0, 1, 3]]).max() > 0.01


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
