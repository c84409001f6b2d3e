"""Restricted images: what a packed file holds of them is what is computed without it."""

import hashlib
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest

from ddhpc.data.packed import SPLITS, Contents, Split, open_packed, write_packed, writer
from ddhpc.data.packed.pyramid import level, levels
from ddhpc.errors import InputError
from tests.conftest import make_older, make_unreadable, pack_small

STACKS = [((33, 27), 1, "uint8"), ((20, 17), 3, "uint16"), ((17, 11, 13), 1, "int16"), ((18, 21, 9), 2, "float32")]


def stack(samples, shape, channels, dtype):
    noise = np.random.default_rng(samples).normal(size=(samples, channels, *shape)) * 40 + 90
    return noise.astype(dtype)


def pack(path, images, **more):
    """The same images as every split."""
    split = Split(labels=np.arange(len(images)) % 2, ids=[f"i{n}" for n in range(len(images))], images=images)
    contents = Contents(
        classes=("a", "b"),
        splits=dict.fromkeys(SPLITS, split),
        image_shape=images.shape[2:],
        channels=images.shape[1],
        dtype=images.dtype,
        source="noise",
    )
    return write_packed(path, contents, **more)


def older(packed):
    """The same images in a file of format version 1."""
    path = packed.path.with_name("older.h5")
    shutil.copy(packed.path, path)
    return open_packed(make_older(path))


@pytest.mark.parametrize("stored_in", STACKS)
def test_stored_and_computed_have_the_same_bits(stored_in, tmp_path, monkeypatch):
    """Whatever numbers of images are restricted together, here 3 when they are stored, 5 when they are computed."""
    images = stack(23, *stored_in)
    monkeypatch.setattr(writer, "RESTRICTED_AT_ONCE", 3 * images[0].size)
    monkeypatch.setattr(writer, "choose_chunks", lambda shape, channels, itemsize: (5, channels, *[4] * len(shape)))
    packed = pack(tmp_path / "x.h5", images)
    computed = older(packed)
    assert list(packed.restricted) == levels(images.shape[2:])
    assert not computed.restricted
    assert len(packed.restricted) > 1
    for size in packed.restricted:
        for some in (slice(None), slice(2, 14), slice(7, 9), slice(22, 40), slice(9, 9), slice(1, 20, 3)):
            found, expected = (each.read_restricted("val", size, some) for each in (packed, computed))
            assert found.dtype == expected.dtype == images.dtype
            assert np.array_equal(found, expected)
            assert np.array_equal(found, level(images[some], size))


def test_images_that_are_restricted_one_by_one_are_the_same(tmp_path, monkeypatch):
    images = stack(7, (33, 27), 1, "float32")
    together = pack(tmp_path / "x.h5", images)
    monkeypatch.setattr(writer, "RESTRICTED_AT_ONCE", 100)
    assert pack(tmp_path / "y.h5", images).digest == together.digest


def test_chunks_hold_whole_images_and_attributes_their_checksum(tmp_path):
    images = stack(9, (20, 17), 3, "uint16")
    packed = pack(tmp_path / "x.h5", images)
    with h5py.File(packed.path) as file:
        assert sorted(file["val/restricted"]) == ["10x9", "5x5"]
        for size in packed.restricted:
            stored = file[f"val/restricted/{size[0]}x{size[1]}"]
            assert stored.chunks == (9, 3, *size)
            assert packed.restricted[size] == 9
            assert stored.attrs["sha256"] == hashlib.sha256(level(images, size).astype("<u2").tobytes()).hexdigest()
            assert (stored.compression, stored.shuffle, stored.fletcher32) == ("gzip", True, True)


def test_images_of_few_pixels_have_none(tmp_path):
    packed = pack(tmp_path / "x.h5", stack(9, (8, 6), 1, "uint8"))
    assert not packed.restricted
    assert older(packed).digest == packed.digest


def test_a_size_that_is_not_of_the_pyramid_is_refused(small):
    with pytest.raises(ValueError, match=r"size \(7, 7\) of images of \(16, 14\)"):
        open_packed(small).read_restricted("val", (7, 7))


def test_an_older_file_is_not_asked_for_them_and_is_the_data_that_it_was(tmp_path):
    """The digest is what the program of then gave; a group that somebody put there says nothing."""
    packed = older(pack(tmp_path / "x.h5", np.resize(np.arange(251, dtype=np.uint8), (9, 1, 20, 17))))
    assert packed.digest == "4ec9aa5aa2e45c78714365e16f7b6d91620c492d51336d04b54ee781d99799be"
    with h5py.File(packed.path, "r+") as file:
        file["val/restricted/10x9"] = np.zeros((9, 1, 10, 9), "u1")
    assert open_packed(packed.path).digest == packed.digest
    assert open_packed(packed.path).read_restricted("val", (10, 9)).any()


def test_damage_is_found_when_it_is_read(tmp_path):
    packed = open_packed(pack_small(tmp_path / "x.h5"))
    make_unreadable(packed.path, "test/restricted/8x7")
    packed.read_restricted("val", (8, 7))
    for look in (lambda: packed.read_restricted("test", (8, 7)), lambda: open_packed(packed.path)):
        with pytest.raises(InputError, match=rf"^{packed.path}: cannot be read: [^\n]*$"):
            look()


def test_they_are_read_where_whole_images_cannot_be(tmp_path):
    packed = open_packed(pack_small(tmp_path / "x.h5"))
    expected = packed.read_restricted("train", (8, 7))
    make_unreadable(packed.path, *(f"{split}/image" for split in SPLITS))
    assert np.array_equal(packed.read_restricted("train", (8, 7)), expected)
    with pytest.raises(InputError, match="cannot be read"):
        packed.read("train", (slice(0, 1), slice(0, 1)))


def test_values_that_are_changed_in_place_are_other_data(tmp_path):
    packed = open_packed(pack_small(tmp_path / "x.h5"))
    with h5py.File(packed.path, "r+") as file:
        file["train/restricted/8x7"][50, 0, 3, 3] ^= 1
    assert open_packed(packed.path).digest != packed.digest
    with pytest.raises(InputError, match="has changed since the job began"):
        packed.read_restricted("val", (8, 7))


def test_what_is_not_finite_names_split_and_sample(tmp_path):
    path = pack_small(tmp_path / "x.h5", dtype="float32")
    with h5py.File(path, "r+") as file:
        file["val/restricted/8x7"][11, 0, 3, 3] = np.nan
    packed = open_packed(path)
    packed.read_restricted("val", (8, 7), slice(0, 10))
    with pytest.raises(InputError, match="image 'val/11' of split val holds NaN or infinity"):
        packed.read_restricted("val", (8, 7), slice(10, 20))


@pytest.mark.parametrize("shape", [(96, 90), (64, 70, 66)])
def test_writing_them_takes_the_memory_of_the_small_images_alone(shape, tmp_path, monkeypatch):
    images = stack(12, shape, 1, "int16")

    def peak():
        tracemalloc.start()
        pack(tmp_path / "x.h5", images, overwrite=True)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    pack(tmp_path / "x.h5", images)
    whole, more = peak(), sum(2 * 12 * np.prod(size) for size in levels(shape))
    monkeypatch.setattr(writer, "levels", lambda shape: [])
    monkeypatch.setattr("ddhpc.data.packed.checks.levels", lambda shape: [])
    assert whole - peak() < more + 12 * writer.RESTRICTED_AT_ONCE
