import numpy as np

from ddhpc.method.decomposition import sides, windows
from ddhpc.method.dependence import drops, spread
from ddhpc.method.fusions import BLOCK, mean


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
    found = drops(mean, local, local.mean(axis=1))
    assert np.allclose(found[:, 2], 0, atol=1e-6)
    assert np.abs(found[:, [0, 1, 3]]).max() > 0.01


def test_many_samples_are_covered_one_subdomain_at_a_time():
    """More pairs of sample and subdomain than are decided at once."""
    local = np.random.default_rng(1).dirichlet(np.ones(3), (7, 2 * BLOCK // 7 + 5)).astype(np.float32)
    usual = local.mean(axis=1)
    found, final = drops(mean, local, usual), mean(local).astype(np.float64)
    decided = final.argmax(axis=1)
    for n in range(7):
        covered = local.copy()
        covered[n] = usual[n]
        lost = (final - mean(covered))[np.arange(len(decided)), decided]
        assert np.array_equal(found[:, n], lost)


def test_values_are_spread_over_blocks():
    """Blocks of several sizes, as seen by an image of its own, by one of twice its size, and by one that is larger."""
    shape, grid = (7, 5, 4), (3, 2, 1)
    values = np.arange(1.0, 7.0)
    own = spread(values, sides(shape, grid), [np.arange(size) for size in shape])
    assert (own.dtype, own.shape) == (np.float32, shape)
    for value, block in zip(values, windows(shape, grid), strict=True):
        assert (own[block] == value).all()
    twice = spread(values, sides(shape, grid), [np.arange(2 * size) // 2 for size in shape])
    assert np.array_equal(twice, own.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    larger = spread(values, sides(shape, grid), [np.array([-1, *range(size), -1]) for size in shape])
    assert np.array_equal(larger, np.pad(own, 1))
