"""Restricted images are means over boxes, whatever the boxes' edges cut."""

import numpy as np
import pytest

from ddhpc.data.packed.pyramid import level, levels, restrict, restriction


@pytest.mark.parametrize(("size", "parts"), [(32, 16), (28, 11), (7, 7), (5, 1), (13, 8)])
def test_each_pixel_counts_in_full_and_each_mean_is_one(size, parts):
    weights = restriction(size, parts)
    assert weights.sum(axis=1) == pytest.approx(np.ones(parts))
    assert weights.sum(axis=0) == pytest.approx(np.full(size, parts / size))
    fine = (
        np.repeat(np.eye(size), parts, axis=1).reshape(size, parts, size).mean(axis=2)
    )  # parts x size small intervals
    assert weights == pytest.approx(fine.T, abs=1e-12)


def test_boxes_of_whole_pixels_are_their_means():
    images = np.random.default_rng(0).integers(0, 255, (3, 2, 12, 8, 6)).astype(np.uint8)
    found = restrict(images, (4, 2, 3))
    expected = images.reshape(3, 2, 4, 3, 2, 4, 3, 2).mean(axis=(3, 5, 7))
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_whole_shape_changes_nothing():
    images = np.random.default_rng(0).normal(size=(2, 3, 7, 9)).astype(np.float32)
    assert np.array_equal(restrict(images, (7, 9)), images)


def test_a_level_is_of_the_type_of_the_images_and_integers_are_rounded():
    images = np.random.default_rng(0).integers(0, 255, (2, 1, 9, 6)).astype(np.uint8)
    assert levels((9, 6)) == [(5, 3)]
    found = level(images, (5, 3))
    assert found.dtype == np.uint8
    assert np.abs(found - restrict(images, (5, 3))).max() <= 0.5
    real = images.astype(np.float32)
    assert np.array_equal(level(real, (5, 3)), restrict(real, (5, 3)))


@pytest.mark.parametrize(("shape", "parts"), [((33, 27), (17, 14)), ((9, 11, 13), (5, 6, 7)), ((8, 9), (3, 9))])
def test_sums_are_made_in_a_fixed_order_whatever_machine_and_batch(shape, parts):
    """Matrix products fuse multiplications and additions on some processors."""
    images = np.random.default_rng(1).normal(size=(50, 1, *shape)).astype(np.float32)
    expected = images.astype(np.float64)
    for axis, (size, count) in enumerate(zip(shape, parts, strict=True), 2):
        sums = np.zeros((*expected.shape[:axis], count, *expected.shape[axis + 1 :]))
        for part, weights in enumerate(restriction(size, count)):
            for pixel in np.flatnonzero(weights):
                before = (slice(None),) * axis
                sums[(*before, part)] += weights[pixel] * expected[(*before, pixel)]
        expected = sums
    assert np.array_equal(restrict(images, parts), expected.astype(np.float32))
    assert all(np.array_equal(restrict(images[n : n + 1], parts), restrict(images, parts)[n : n + 1]) for n in range(5))
