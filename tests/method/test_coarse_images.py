"""The coarse image is read from the pyramid, and is a subdomain like the others."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from ddhpc.config import Config, Data, Decomposition, Model
from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.data.packed.pyramid import level, restrict
from ddhpc.errors import InputError
from ddhpc.method.coarse_images import CoarseImages
from ddhpc.method.decomposition import extent, whole
from ddhpc.method.problem import open_problem
from ddhpc.method.windows import load_windows
from ddhpc.models import parameters
from tests.conftest import make_older, make_unreadable


def test_windows_of_coarse_images_are_parts_of_them(small):
    packed = open_packed(small)
    coarse = CoarseImages(packed=packed, image_shape=(8, 5))
    everything = coarse.read("val", whole((8, 5)))
    assert everything.shape == (30, 1, 8, 5)
    assert np.array_equal(everything, restrict(level(packed.read("val", whole((16, 14))), (8, 7)), (8, 5)))
    assert np.array_equal(coarse.read("val", (slice(2, 6), slice(1, 5)), slice(3, 9)), everything[3:9, :, 2:6, 1:5])


def test_finer_than_the_pyramid_they_are_made_of_whole_images(small):
    packed = open_packed(small)
    found = CoarseImages(packed=packed, image_shape=(8, 9)).read("val", whole((8, 9)))
    assert np.array_equal(found, restrict(packed.read("val", whole((16, 14))), (8, 9)))


@pytest.mark.parametrize("streamed", [False, True])
def test_no_whole_images_are_read(streamed, small, tmp_path):
    """They cannot be: the rank of the coarse image finds in what is stored small all that it trains on."""
    path = tmp_path / "x.h5"
    shutil.copy(small, path)
    packed = open_packed(path)
    coarse = CoarseImages(packed=packed, image_shape=(8, 5))
    expected = {split: coarse.read(split, whole((8, 5))) for split in SPLITS}
    for split in SPLITS:
        make_unreadable(path, f"{split}/image")
        images = load_windows(coarse, split, whole((8, 5)), whole((8, 5)), "cpu", streamed=streamed)
        (found,) = images.batches([torch.arange(packed.samples[split])])
        assert np.array_equal(found.numpy(), expected[split])
        with pytest.raises(InputError, match="cannot be read"):
            packed.read(split, (slice(0, 4), slice(0, 4)))


@pytest.mark.parametrize(("shape", "origin", "stored"), [((8, 5), (8, 7), True), ((8, 9), (16, 14), False)])
def test_what_they_are_made_of(shape, origin, stored, small, tmp_path):
    """Each chunk is read once; in an older file those of whole images are."""
    packed = open_packed(small)
    coarse = CoarseImages(packed=packed, image_shape=shape)
    with h5py.File(small) as file:
        chunks = file["train/restricted/8x7"].chunks if stored else file["train/image"].chunks
    assert (coarse.origin, coarse.read_shape, coarse.chunk_samples) == (origin, origin, chunks[0])
    path = tmp_path / "x.h5"
    shutil.copy(small, path)
    older = CoarseImages(packed=open_packed(make_older(path)), image_shape=shape)
    assert (older.origin, older.read_shape, older.chunk_samples) == (origin, (16, 14), packed.chunk_samples)
    for split in SPLITS:
        assert np.array_equal(older.read(split, whole(shape)), coarse.read(split, whole(shape)))


@pytest.fixture
def problem(small):
    decomposition = Decomposition(grid=(2, 2), overlap=1, coarse_image=True)
    return open_problem(
        Config(data=Data(file=str(small)), decomposition=decomposition, model=Model(global_width=8, coarse_width=6))
    )


def test_the_coarse_image_is_the_last_subdomain(problem):
    """Of half the image, which is less than the largest window. Its CNN has its own width, the others keep theirs."""
    assert problem.subdomains == 5
    assert problem.decomposition[4] == whole((16, 14))
    assert extent(problem.window(4)) == problem.extent(4) == (8, 7)
    assert [problem.width_of(n) for n in range(5)] == [4, 4, 4, 4, 6]
    assert problem.images(3) is problem.packed
    assert problem.images(4).image_shape == (8, 7)
    assert problem.window_bytes(4) == {"train": 4 * 96 * 56, "val": 4 * 30 * 56, "test": 4 * 33 * 56}
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
