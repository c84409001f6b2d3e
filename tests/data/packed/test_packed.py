"""The packed file: what is written is read, by window, and bad files are named."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ddhpc.data.packed.reader as module
from ddhpc.data.hdf5 import check_output
from ddhpc.data.packed import Contents, Packed, Split, chunks, digest, find, open_packed, write_packed, writer
from ddhpc.errors import InputError


def pack(path: Path, images: np.ndarray, *, labels: tuple[int, ...] = (0, 1), **more) -> Packed:
    """Packs the same images [S, C, *spatial] as every split, labels repeated."""
    labels = np.resize(labels, len(images))
    ids = [f"größe/{i}" for i in range(len(images))]
    given = {
        "classes": ("a", "ä"),
        "splits": {name: Split(labels=labels, ids=ids, images=images) for name in ("train", "val", "test")},
        "image_shape": images.shape[2:],
        "channels": images.shape[1],
        "dtype": images.dtype,
        "source": "test",
    }
    more = given | more
    overwrite = more.pop("overwrite", False)
    return write_packed(path, Contents(**more), overwrite=overwrite)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(dtype) if dtype == "float32" else rng.integers(0, 200, shape, dtype)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return pack(tmp_path / "x.h5", noise(5, 2, 6, 7)).path


def whole(packed: Packed) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in packed.image_shape)


def assert_one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# --- what is written is read ---


@st.composite
def stacks(draw):
    """Images [S, C, *spatial] in 2 or 3 dimensions of every dtype, not constant."""
    dtype = np.dtype(draw(st.sampled_from(module.DTYPES)))
    shape = (
        draw(st.integers(2, 7)),
        draw(st.sampled_from([1, 3])),
        *draw(st.lists(st.integers(2, 11), min_size=2, max_size=3)),
    )
    elements = st.floats(-1e6, 1e6, width=32) if dtype.kind == "f" else None
    images = draw(arrays(dtype, shape, elements=elements))
    images[0, :, 0], images[0, :, 1] = 0, 100
    return images


@settings(max_examples=40, deadline=None)
@given(stacks(), st.data())
def test_a_window_equals_that_part_of_the_image(images, data):
    window = []
    for size in images.shape[2:]:
        lower = data.draw(st.integers(0, size - 1))
        window.append(slice(lower, data.draw(st.integers(lower + 1, size))))
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(Path(folder) / "x.h5", images)
        found = packed.read("val", tuple(window))
        assert found.dtype == images.dtype
        assert np.array_equal(found, images[(slice(None), slice(None), *window)])
        assert np.array_equal(packed.read("test", whole(packed)), images)
        axes = (0, *range(2, images.ndim))
        np.testing.assert_allclose(packed.mean, images.mean(axes, np.float64), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(packed.std, images.std(axes, np.float64), rtol=1e-10)


def test_what_a_packed_file_tells(file):
    packed = open_packed(file)
    assert packed.image_shape == (6, 7)
    assert packed.channels == 2
    assert packed.dtype == np.uint8
    assert packed.classes == ("a", "ä")
    assert packed.samples == {"train": 5, "val": 5, "test": 5}
    assert packed.splits == ("train", "val", "test")
    assert packed.dimensions == 2
    assert packed.chunk_shape == (4, 4)
    assert packed.source == "test"
    assert packed.labels["val"].tolist() == [0, 1, 0, 1, 0]
    assert packed.labels["val"].dtype == np.int64
    assert packed.ids("test")[4] == "größe/4"


def test_rows_of_chunks_are_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "choose_chunks", lambda shape, channels, itemsize: (3, channels, 2, 2))
    images = noise(8, 1, 5, 5)
    alive = []

    def stream():
        for image in images:
            alive.append(image)
            yield image

    ids = [str(i) for i in range(8)]
    splits = {name: Split(labels=np.arange(8) % 2, ids=ids, images=stream()) for name in module.SPLITS}
    packed = pack(tmp_path / "x.h5", images, splits=splits)
    assert np.array_equal(packed.read("train", whole(packed)), images)
    assert len(alive) == 24


def test_the_digest_tells_data_apart(tmp_path):
    images = noise(5, 1, 4, 4)
    first = pack(tmp_path / "1.h5", images)
    assert pack(tmp_path / "2.h5", images).digest == first.digest == open_packed(first.path).digest
    brighter, renamed, relabelled = (
        pack(tmp_path / "3.h5", images + np.uint8(1)),
        pack(tmp_path / "4.h5", images, classes=("a", "b")),
        pack(tmp_path / "5.h5", images, labels=(1, 0)),
    )
    assert len({packed.digest for packed in (first, brighter, renamed, relabelled)}) == 4


def test_other_hdf5_programs_read_it(file):
    shown = subprocess.run(["h5dump", "-d", "/classes", file], capture_output=True, text=True, check=False)
    assert "CSET H5T_CSET_UTF8" in shown.stdout
    filters = subprocess.run(["h5dump", "-pH", "-d", "/train/image", file], capture_output=True, text=True, check=False)
    assert "COMPRESSION DEFLATE" in filters.stdout


# --- a file is whole or absent ---


def test_an_existing_output_is_kept_unless_asked(file):
    before = file.read_bytes()
    with pytest.raises(InputError) as error:
        pack(file, noise(5, 2, 6, 7))
    assert_one_line(error, str(file), "--overwrite")
    assert file.read_bytes() == before
    assert pack(file, noise(3, 1, 4, 4), overwrite=True).image_shape == (4, 4)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_writer_leaves_no_file_and_what_was_there(tmp_path, overwrite):
    output = tmp_path / "x.h5"
    images = noise(5, 1, 4, 4)
    before = pack(output, images).digest if overwrite else None

    def interrupted():
        yield images[0]
        raise KeyboardInterrupt

    splits = {name: Split(labels=np.array([0, 1]), ids=["0", "1"], images=interrupted()) for name in module.SPLITS}
    with pytest.raises(KeyboardInterrupt):
        pack(output, images, splits=splits, overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == [output] * overwrite
    if overwrite:
        assert open_packed(output).digest == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_not_packed(tmp_path, bad):
    images = noise(5, 1, 4, 4, dtype="float32")
    images[3, 0, 1, 2] = bad
    with pytest.raises(InputError) as error:
        pack(tmp_path / "x.h5", images)
    assert_one_line(error, "'größe/3'", "NaN or infinity")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"classes": ("only",), "labels": (0,)}, ("1 class (only)", "at least two")),
        ({"classes": ("a", "b", "c")}, ("class 'c'", "no training sample")),
        ({"labels": (0, 2)}, ("split train has label 2", "0 to 1")),
        ({"labels": (0, -1)}, ("label -1",)),
        ({"image_shape": (4, 5)}, ("'größe/0'", "(1, 4, 4)", "expected uint8 (1, 4, 5)")),
        ({"dtype": "uint16"}, ("uint8", "expected uint16")),
    ],
)
def test_inconsistent_data_is_not_packed(tmp_path, more, parts):
    with pytest.raises(InputError) as error:
        pack(tmp_path / "x.h5", noise(4, 1, 4, 4), **more)
    assert_one_line(error, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_constant_images_are_not_packed(tmp_path, dtype):
    with pytest.raises(InputError) as error:
        pack(tmp_path / "x.h5", np.full((4, 1, 4, 4), 0.1 if dtype == "float32" else 7, dtype))
    assert_one_line(error, "channel 0", "standard deviation", "not constant")
    assert not list(tmp_path.iterdir())


def test_an_empty_split_is_not_packed(tmp_path):
    images = noise(4, 1, 4, 4)
    full, empty = (Split(labels=np.arange(n) % 2, ids=[str(i) for i in range(n)], images=images[:n]) for n in (4, 0))
    with pytest.raises(InputError) as error:
        pack(tmp_path / "x.h5", images, splits={"train": full, "val": full, "test": empty})
    assert_one_line(error, "split test is empty")


@pytest.mark.parametrize(("name", "part"), [("absent/x.h5", "no directory"), ("", "is a directory")])
def test_an_impossible_output_is_named(tmp_path, name, part):
    with pytest.raises(InputError) as error:
        pack(tmp_path / name, noise(4, 1, 4, 4))
    assert_one_line(error, "--output", str(tmp_path), part)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_full_disk_is_named(tmp_path):
    output = tmp_path / "x.h5"
    output.with_name("x.h5.part").symlink_to("/dev/full")
    with pytest.raises(InputError) as error:
        pack(output, noise(4, 1, 4, 4))
    assert_one_line(error, "--output", str(output), "cannot be written")
    assert not list(tmp_path.iterdir())


# --- bad files ---


def test_files_that_are_no_packed_file(tmp_path, file):
    text, truncated, foreign = tmp_path / "text.h5", tmp_path / "truncated.h5", tmp_path / "foreign.h5"
    text.write_text("hello")
    truncated.write_bytes(file.read_bytes()[:-100])
    h5py.File(foreign, "w").close()
    for path, part in [
        (tmp_path / "absent.h5", "No such file"),
        (tmp_path, "Is a directory"),
        (text, "file signature not found"),
        (truncated, "truncated file"),
        (foreign, "not a packed file"),
    ]:
        with pytest.raises(InputError) as error:
            open_packed(path)
        assert_one_line(error, str(path), part)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its rights for a while")
def test_a_file_without_permission(file):
    os.chmod(file, 0)
    os.seteuid(65534)
    try:
        with pytest.raises(InputError) as error:
            open_packed(file)
    finally:
        os.seteuid(0)
    assert_one_line(error, str(file), "Permission denied")


def test_patients_are_stored_as_running_numbers_alone(tmp_path, file):
    images, labels, ids = noise(3, 1, 6, 7), np.array([0, 1, 1]), ["a", "b", "c"]
    owners = {"train": ["Smith^John", "", "Jones"], "val": ["Jones", "Jones", "Miller"], "test": ["", "", "Smith^John"]}
    splits = {
        split: Split(labels=labels, ids=ids, images=images, patients=patients) for split, patients in owners.items()
    }
    packed = pack(tmp_path / "y.h5", images, splits=splits)
    assert packed.patients("train") == ["patient 1", "", "patient 2"]
    assert packed.patients("val") == ["patient 2", "patient 2", "patient 3"]
    assert packed.patients("test") == ["", "", "patient 1"]
    stored = packed.path.read_bytes()
    assert not any(name in stored for name in (b"Smith", b"Jones", b"Miller"))
    assert open_packed(file).patients("train") == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda f: replace(f, "val/patient", None), "lacks the dataset /val/patient"),
        (lambda f: replace(f, "val/patient", np.array([b"x"] * 4)), "val/patient is |S1 (4,); expected a string an"),
        (
            lambda f: replace(f, "train/patient", np.arange(5)),
            "train/patient is int64 (5,); expected a string an image",
        ),
    ],
)
def test_patients_that_do_not_fit_are_named(tmp_path, change, part):
    split = Split(labels=np.resize([0, 1], 5), ids=list("abcde"), images=noise(5, 1, 6, 7), patients=list("ppqqr"))
    path = pack(tmp_path / "x.h5", noise(5, 1, 6, 7), splits=dict.fromkeys(("train", "val", "test"), split)).path
    with h5py.File(path, "r+") as changed:
        change(changed)
    with pytest.raises(InputError) as error:
        open_packed(path)
    assert_one_line(error, str(path), part)


def replace(file: h5py.File, name: str, data) -> None:
    del file[name]
    if data is not None:
        file.create_dataset(name, data=data, chunks=name.endswith("image") or None)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda f: f.attrs.update(format_version=3), ("format version 3", "expected 1 or 2")),
        (lambda f: f.attrs.pop("complete"), ("not complete",)),
        (lambda f: f.attrs.update(complete=False), ("not complete",)),
        (lambda f: replace(f, "classes", None), ("lacks the dataset /classes",)),
        (lambda f: replace(f, "val/id", None), ("lacks the dataset /val/id",)),
        (lambda f: replace(f, "statistics/std", None), ("lacks the dataset /statistics/std",)),
        (
            lambda f: (replace(f, "val/label", None), f.create_group("val/label")),
            ("lacks the dataset /val/label",),
        ),
        (
            lambda f: replace(f, "test/image", np.zeros((5, 2, 6, 8), "u1")),
            ("test/image", "(2, 6, 8)", "(2, 6, 7)"),
        ),
        (lambda f: replace(f, "test/image", np.zeros((5, 2, 6, 7), "u2")), ("test/image", "uint16")),
        (
            lambda f: replace(f, "train/image", np.zeros((5, 6, 7), "u1")),
            ("train/image", "2 or 3 dimensions"),
        ),
        (lambda f: replace(f, "train/image", np.zeros((5, 2, 6, 7), "f8")), ("float64", "float32")),
        (lambda f: replace(f, "val/label", np.zeros(4, "i8")), ("split val", "5 images", "(4,)")),
        (lambda f: replace(f, "val/label", np.zeros(5, "f8")), ("split val", "float64", "one integer")),
        (lambda f: f["val/label"].__setitem__(0, 2), ("split val", "label 2")),
        (lambda f: f["train/label"].__setitem__(slice(None), 0), ("class 'ä'", "no training sample")),
        (lambda f: replace(f, "statistics/std", np.array([1.0, 0.0])), ("channel 1", "standard deviation 0")),
        (lambda f: replace(f, "statistics/std", np.array([1.0, np.inf])), ("channel 1", "deviation inf")),
        (lambda f: replace(f, "statistics/mean", np.array([np.nan, 0.0])), ("channel 0", "mean nan")),
        (lambda f: replace(f, "statistics/mean", np.array([0.0])), ("statistics", "(1,)", "(2,)")),
        (lambda f: replace(f, "classes", np.array([b"a", b"\xff"])), ("cannot be read",)),
    ],
)
def test_inconsistent_files_are_named(file, change, parts):
    with h5py.File(file, "r+") as changed:
        change(changed)
    with pytest.raises(InputError) as error:
        open_packed(file)
    assert_one_line(error, str(file), *parts)


def test_empty_training_split_in_a_file(file):
    with h5py.File(file, "r+") as changed:
        for name, shape in (("image", (0, 2, 6, 7)), ("label", (0,)), ("id", (0,))):
            kept = changed[f"train/{name}"]
            del changed[f"train/{name}"]
            changed.create_dataset(
                f"train/{name}", shape, kept.dtype, chunks=(1, *shape[1:]), maxshape=(None, *shape[1:])
            )
    with pytest.raises(InputError) as error:
        open_packed(file)
    assert_one_line(error, str(file), "split train is empty")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_named(data):
    with tempfile.TemporaryDirectory() as folder:
        path = pack(Path(folder) / "x.h5", noise(5, 2, 6, 7)).path
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(InputError, match=re.escape(str(path))):
            open_packed(path)


def test_damaged_pixels_are_named(file):
    with h5py.File(file, "r+") as changed:
        chunk = changed["val/image"].id.get_chunk_info(0)
    content = bytearray(file.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        open_packed(file)
    assert_one_line(error, str(file), "cannot be read")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_window_that_is_not_finite_names_split_and_sample(tmp_path, bad):
    packed = pack(tmp_path / "x.h5", noise(5, 1, 6, 6, dtype="float32"))
    with h5py.File(packed.path, "r+") as changed:
        changed["test/image"][3, 0, 4, 4] = bad
    packed = open_packed(packed.path)
    assert packed.read("test", (slice(0, 4), slice(0, 6))).shape == (5, 1, 4, 6)
    with pytest.raises(InputError) as error:
        packed.read("test", (slice(2, 6), slice(2, 6)))
    assert_one_line(error, str(packed.path), "split test", "'größe/3'")


def test_reading_needs_no_lock(file):
    with file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        packed = open_packed(file)
        assert packed.read("train", whole(packed)).shape == (5, 2, 6, 7)


def test_a_window_of_other_dimensions_is_refused(file):
    with pytest.raises(ValueError, match="window of 3 axes into images of 2"):
        open_packed(file).read("train", (slice(0, 1),) * 3)


# --- the data that ships ---


def test_the_default_data_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = open_packed(find("fashion_mnist.h5"))
    assert packed.samples == {"train": 6000, "val": 1000, "test": 1500}
    assert packed.image_shape == (28, 28)
    assert packed.classes[0] == "T-shirt/top"
    assert packed.path.stat().st_size < 6e6
    for split, each in (("train", 600), ("val", 100), ("test", 150)):
        assert np.bincount(packed.labels[split]).tolist() == [each] * 10
    assert not set(packed.ids("train")) & set(packed.ids("val"))
    images = packed.read("train", whole(packed)).astype(np.float64)
    np.testing.assert_allclose([packed.mean[0], packed.std[0]], [images.mean(), images.std()])


def test_a_typed_path_goes_before_the_data_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack(tmp_path / "fashion_mnist.h5", noise(4, 1, 4, 4))
    assert open_packed(find("fashion_mnist.h5")).image_shape == (4, 4)
    assert find(str(tmp_path / "fashion_mnist.h5")) == tmp_path / "fashion_mnist.h5"


@pytest.mark.parametrize("name", ["absent.h5", "/absent/fashion_mnist.h5"])
def test_a_file_that_is_nowhere_names_the_option_and_the_places(name):
    with pytest.raises(InputError) as error:
        find(name)
    assert_one_line(error, f"--data.file {name}", "looked for", str(Path(name).absolute()))


def test_a_garbled_chunk_is_noticed(file: Path) -> None:
    with h5py.File(file) as opened:
        chunk = opened["train/image"].id.get_chunk_info(0)
    packed, data = open_packed(file), bytearray(file.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    file.write_bytes(data)
    for look in (lambda: open_packed(file), lambda: packed.read("train", whole(packed))):
        with pytest.raises(InputError) as error:
            look()
        assert_one_line(error, str(file), "cannot be read")


def swapped(images: np.ndarray) -> np.ndarray:
    """The same pixels, and so the same statistics, in another order."""
    other = images.copy()
    other[0, 0, 0, [0, 1]] = images[0, 0, 0, [1, 0]]
    assert not np.array_equal(other, images)
    return other


@pytest.mark.parametrize("old", [False, True])
def test_other_pixels_are_other_data(file, tmp_path, old):
    again, other = pack(tmp_path / "again.h5", noise(5, 2, 6, 7)), pack(tmp_path / "y.h5", swapped(noise(5, 2, 6, 7)))
    packed = open_packed(file)
    if old:
        for path in (file, other.path):
            with h5py.File(path, "r+") as stored:
                for split in packed.splits:
                    del stored[f"{split}/image"].attrs["sha256"]
        packed, other = open_packed(file), open_packed(other.path)
    else:
        assert packed.digest == again.digest
    assert np.allclose([packed.mean, packed.std], [other.mean, other.std])
    assert packed.digest != other.digest


@pytest.mark.parametrize("read", ["read", "ids", "sample"])
def test_a_file_that_is_replaced_while_a_job_runs_ends_it(file, read):
    packed = open_packed(file)
    arguments = {"read": ("val", whole(packed)), "sample": ("val", 0)}.get(read, ("val",))
    pack(file, noise(5, 2, 6, 7), overwrite=True)
    getattr(packed, read)(*arguments)
    pack(file, swapped(noise(5, 2, 6, 7)), overwrite=True)
    with pytest.raises(InputError) as error:
        getattr(packed, read)(*arguments)
    assert_one_line(error, str(file), "has changed since the job began; expected the same data to its end")


def test_a_folder_is_no_packed_file(tmp_path):
    with pytest.raises(InputError) as error:
        find(str(tmp_path))
    assert_one_line(
        error, f"--data.file {tmp_path}: is a directory", f"python -m ddhpc prepare images {tmp_path} --output"
    )


def test_pixels_that_are_changed_in_place_are_noticed(file):
    """The checksum that the writer left does not tell of it; the chunks do."""
    packed = open_packed(file)
    with h5py.File(file, "r+") as stored:
        stored["train/image"][...] = swapped(stored["train/image"][...])
    assert open_packed(file).digest != packed.digest
    with pytest.raises(InputError) as error:
        packed.read("val", whole(packed))
    assert_one_line(error, str(file), "has changed since the job began")


def test_large_files_without_checksums_are_told_apart(file, tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "SMALL_BYTES", 0)
    other = pack(tmp_path / "y.h5", swapped(noise(5, 2, 6, 7))).path
    for path in (file, other):
        with h5py.File(path, "r+") as stored:
            for split in module.SPLITS:
                del stored[f"{split}/image"].attrs["sha256"]
    assert open_packed(file).digest != open_packed(other).digest


def test_a_file_that_is_only_touched_is_described_once(file, monkeypatch):
    packed, described, describe = open_packed(file), [], module.describe
    monkeypatch.setattr(module, "describe", lambda *given: described.append(given) or describe(*given))
    os.utime(file, (1, 1))
    for _ in range(5):
        packed.read("val", whole(packed))
    assert len(described) == 1


def test_the_same_pixels_are_the_same_data_however_they_are_compressed(file, tmp_path):
    again = tmp_path / "again.h5"
    shutil.copy(file, again)
    with h5py.File(again, "r+") as stored:
        old = stored["train/image"]
        pixels, attributes, chunks = old[...], dict(old.attrs), old.chunks
        del stored["train/image"]
        new = stored.create_dataset("train/image", data=pixels, chunks=chunks, compression="lzf")
        new.attrs.update(attributes)
    assert open_packed(again).digest == open_packed(file).digest


def test_of_large_files_chunks_from_begin_to_end_are_looked_at(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("image", data=np.zeros((10, 1, 4, 5), np.uint8), chunks=(1, 1, 2, 2))
        before = chunks.sampled(stored, 3)
        stored[0, 0, 3, 4] = 1
        assert chunks.sampled(stored, 3) == before
        for place in ((0, 0, 0, 0), (9, 0, 3, 4)):
            stored[place] = 1
            assert chunks.sampled(stored, 3) != before
            stored[place] = 0


def test_nothing_but_a_regular_file_is_replaced(tmp_path):
    """A device would be lost to the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"--output .*/pipe: is no regular file; expected the name of a file"):
        check_output(tmp_path / "pipe", overwrite=True)
