import numpy as np
import pytest
import torch

from ddhpc.coarse import mean, train_dnn, vote
from ddhpc.config import Coarse
from ddhpc.metrics import accuracy


def decisions(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def test_mean_is_the_average_probability():
    local = decisions(5, 7, 3)
    assert np.allclose(mean(local), sum(local.astype(np.float64)) / 5)


def test_vote_counts_one_vote_a_subdomain():
    local = decisions(9, 200, 4)
    for sample in range(200):
        counts = np.bincount(local[:, sample].argmax(axis=1), minlength=4)
        assert counts[vote(local)[sample].argmax()] == counts.max()


def test_a_tie_goes_to_the_class_with_the_higher_average_probability():
    local = np.array([[[0.5, 0.4, 0.1]], [[0.1, 0.9, 0.0]]], dtype=np.float32)
    assert vote(local)[0].argmax() == 1


@pytest.mark.parametrize("fusion", [mean, vote])
def test_final_decisions_are_probabilities(fusion):
    final = fusion(decisions(6, 50, 10))
    assert final.dtype == np.float32
    assert (final >= 0).all()
    assert np.allclose(final.sum(axis=1), 1, atol=1e-5)


def informative_subdomain(samples, seed):
    """Two classes, told by subdomain 2 of 8 alone; the others are noise that outvotes it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)
    local = decisions(8, samples, 2, seed=seed + 1)
    right = 0.6 * np.eye(2, dtype=np.float32)[labels] + 0.2
    local[2] = right
    return local, labels


def test_dnn_finds_the_subdomain_that_knows():
    local, labels = {}, {}
    for seed, split in enumerate(("train", "val", "test")):
        local[split], labels[split] = informative_subdomain(600, 10 * seed)
    torch.manual_seed(0)
    final, history = train_dnn(local, labels, Coarse(epochs=40), "cpu")
    assert accuracy(final["test"], labels["test"]) > 0.97
    assert accuracy(vote(local["test"]), labels["test"]) < 0.9
    assert np.allclose(final["test"].sum(axis=1), 1, atol=1e-5)
    assert len(history["loss"]) == 40
    assert history["loss"][-1] < history["loss"][0]


def test_the_same_seed_gives_the_same_bits():
    local, labels = informative_subdomain(300, 0)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(train_dnn({"train": local}, {"train": labels}, Coarse(epochs=2), "cpu"))
    assert np.array_equal(results[0][0]["train"], results[1][0]["train"])
    assert results[0][1] == results[1][1]
