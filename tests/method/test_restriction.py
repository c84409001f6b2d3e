"""The coarse image is the mean over boxes, whatever the boxes' edges cut."""

import numpy as np
import pytest

from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.data.packed import open_packed
from ddhpc.errors import InputError
from ddhpc.method.decomposition import extent, whole
from ddhpc.method.problem import open_problem
from ddhpc.method.restriction import CoarseImages, restrict, restriction
from ddhpc.models import parameters


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


def test_windows_of_coarse_images_are_parts_of_them(small):
    packed = open_packed(small)
    coarse = CoarseImages(packed=packed, image_shape=(8, 5))
    everything = coarse.read("val", whole((8, 5)))
    assert everything.shape == (30, 1, 8, 5)
    assert np.array_equal(everything, restrict(packed.read("val", whole((16, 14))), (8, 5)))
    assert np.array_equal(coarse.read("val", (slice(2, 6), slice(1, 5)), slice(3, 9)), everything[3:9, :, 2:6, 1:5])


@pytest.fixture
def problem(small):
    decomposition = Decomposition(grid=(2, 2), overlap=1, coarse_image=True)
    return open_problem(
        Config(data=Data(file=str(small)), decomposition=decomposition, model=Model(global_width=8, coarse_width=6))
    )


def test_the_coarse_image_is_the_last_subdomain(problem):
    """Of the extent of the largest window; its CNN has a width of its own, that of the others is as without it."""
    assert problem.subdomains == 5
    assert problem.decomposition[4] == whole((16, 14))
    assert extent(problem.window(4)) == problem.extent(4) == (9, 8)
    assert [problem.width_of(n) for n in range(5)] == [4, 4, 4, 4, 6]
    assert problem.images(3) is problem.packed
    assert problem.images(4).image_shape == (9, 8)
    assert problem.window_bytes(4) == {"train": 4 * 96 * 72, "val": 4 * 30 * 72, "test": 4 * 33 * 72}
    assert parameters(problem.local_cnn(4)) > parameters(problem.local_cnn(0))


def test_the_windows_and_networks_of_the_others_are_as_without_it(small, problem):
    plain = open_problem(
        Config(
            data=Data(file=str(small)),
            decomposition=Decomposition(grid=(2, 2), overlap=1),
            model=Model(global_width=8),
        )
    )
    assert problem.decomposition[:4] == plain.decomposition
    for n in range(4):
        mine, other = (next(each.local_cnn(n).parameters()).detach().numpy() for each in (problem, plain))
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (1, 1), "coarse_image": True}, "--decomposition.grid 1 1: expected more than one part"),
        ({"coarse_shape": (4, 4)}, "--decomposition.coarse_shape 4 4: expected --decomposition.coarse_image true"),
        ({"coarse_image": True, "coarse_shape": (4,)}, "coarse_shape 4: expected pixels along each dimension"),
        ({"coarse_image": True, "coarse_shape": (0, 4)}, "coarse_shape 0 4: expected pixels along each dimension"),
        ({"coarse_image": True, "coarse_shape": (17, 4)}, "coarse_shape 17 4: expected no more pixels than .* 16x14"),
    ],
)
def test_what_cannot_be_is_refused(options, message, small):
    with pytest.raises(InputError, match=message):
        open_problem(Config(data=Data(file=str(small)), decomposition=Decomposition(**options)))
