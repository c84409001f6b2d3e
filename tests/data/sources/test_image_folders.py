"""Folders of images become packed files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
import pytest
from PIL import Image

from ddhpc.data.sources.image_folders import ImageOptions, prepare_images
from ddhpc.data.sources.source import Packing, Prepared
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

REAL = os.environ.get("DDHPC_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="DDHPC_DATA does not name the directory of the real data sets")


def draw(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> None:
    """An image of noise of its own, of the given height and width."""
    seed = crc32("/".join(path.parts[-3:]).encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "L": ()}[mode]
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, *channels), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten colour images."""
    for i in range(10):
        draw(tmp_path / "in/ape" / f"{i}.png")
        draw(tmp_path / "in/bee" / f"{i}.png")
    return tmp_path / "in"


def prepare(folder: Path, **options) -> Prepared:
    return packed_by(prepare_images, ImageOptions, folder, folder.parent / "x.h5", **{"size": (8, 8), **options})


def whole(prepared: Prepared, split: str) -> np.ndarray:
    return prepared.packed.read(split, (slice(None), slice(None)))


def test_a_folder_of_classes(folder):
    packed = prepare(folder).packed
    assert packed.classes == ("ape", "bee")
    assert packed.samples == {"train": 16, "val": 2, "test": 2} or packed.samples == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    assert packed.image_shape == (8, 8)
    assert packed.channels == 3
    ids = [name for split in packed.splits for name in packed.ids(split)]
    assert sorted(ids) == sorted(f"{name}/{i}.png" for name in ("ape", "bee") for i in range(10))
    for split in packed.splits:
        assert [packed.classes[label] for label in packed.labels[split]] == [name[:3] for name in packed.ids(split)]


def test_pixels_belong_to_their_ids(folder):
    prepared = prepare(folder, size=(12, 10))
    for split in prepared.packed.splits:
        for name, image in zip(prepared.packed.ids(split), whole(prepared, split), strict=True):
            assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(folder / name)))


def test_two_runs_give_the_same_data_and_the_seed_another(folder):
    first, second, third = (prepare(folder, seed=seed) for seed in (0, 0, 1))
    assert first.packed.digest == second.packed.digest != third.packed.digest
    assert first.notes == second.notes
    assert "crop from 12x10 to 8x8" in first.notes
    assert not any("enlarged" in note for note in first.notes)


def test_given_splits_are_kept_and_a_missing_one_is_drawn(tmp_path):
    for i in range(10):
        for name in ("ape", "bee"):
            draw(tmp_path / "in/train" / name / f"{i}.png")
    draw(tmp_path / "in/val/bee/v.png")
    prepared = prepare(tmp_path / "in", test_fraction=0.3)
    assert prepared.packed.samples == {"train": 14, "val": 1, "test": 6}
    assert prepared.packed.ids("val") == ["val/bee/v.png"]
    assert np.bincount(prepared.packed.labels["test"]).tolist() == [3, 3]
    assert any("test: 30% of each class in train" in note for note in prepared.notes)
    assert not any("val: " in note for note in prepared.notes)
    assert "test: 30% of each class in train" in prepared.packed.source


def test_grey_images_stay_grey_until_one_has_colour(tmp_path):
    for i in range(8):
        draw(tmp_path / "in/a" / f"{i}.pgm", "L")
        draw(tmp_path / "in/b" / f"{i}.jpg", "L", (20, 30))
    assert prepare(tmp_path / "in").packed.channels == 1
    draw(tmp_path / "in/a/colour.png")
    prepared = prepare(tmp_path / "in", size=(16, 8))
    assert prepared.packed.channels == 3
    assert "crop from 2 sizes between 12x10 and 20x30 to 16x8" in prepared.notes
    assert "9 images were smaller and enlarged" in prepared.notes
    assert any("RGB 1" in note and "L 16" in note for note in prepared.notes)


def test_sixteen_bit_images_are_packed_as_such(tmp_path):
    for name, low in (("a", 0), ("b", 1000)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(4):
            array = np.random.default_rng(i).integers(low, 4096, (8, 8)).astype(np.uint16)
            Image.fromarray(array).save(tmp_path / "in" / name / f"{i}.png")
    prepared = prepare(tmp_path / "in")
    assert prepared.packed.dtype == np.uint16
    assert prepared.packed.channels == 1
    name = prepared.packed.ids("val")[0]
    assert np.array_equal(whole(prepared, "val")[0, 0], np.asarray(Image.open(tmp_path / "in" / name)))


def test_damaged_and_stray_files_are_named_and_stored(folder):
    content = (folder / "ape/0.png").read_bytes()
    (folder / "ape/cut.png").write_bytes(content[:200])
    (folder / "bee/text.jpg").write_text("no image")
    (folder / "bee/empty.jpg").write_text("")
    (folder / "bee/notes.txt").write_text("hello")
    prepared = prepare(folder)
    assert list(prepared.skipped) == ["ape/cut.png", "bee/empty.jpg", "bee/notes.txt", "bee/text.jpg"]
    assert prepared.skipped["bee/text.jpg"] == "not an image"
    assert "truncated" in prepared.skipped["ape/cut.png"]
    assert "3 files left out: unreadable or not an image" in prepared.notes
    assert sum(prepared.packed.samples.values()) == 20
    with h5py.File(prepared.packed.path) as file:
        stored = file["skipped"].asstr()[...].tolist()
    assert stored == [f"{name}: {reason}" for name, reason in prepared.skipped.items()]


def test_corrupt_jpegs_are_named(folder):
    draw(folder / "ape/good.jpg", size=(40, 40))
    content = (folder / "ape/good.jpg").read_bytes()
    (folder / "ape/cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "bee/header.jpg").write_bytes(content[:2] + bytes(len(content) - 2))
    prepared = prepare(folder)
    assert list(prepared.skipped) == ["ape/cut.jpg", "bee/header.jpg"]
    assert prepared.skipped["ape/cut.jpg"].startswith("image file is truncated")
    assert sum(prepared.packed.samples.values()) == 21


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ape/cut.png", "ape/cut.png: image file is truncated"),
        ("ape/text.png", "ape/text.png: not an image"),
        ("stray.png", "stray.png: in no class directory"),
        ("bee/gone.png", "bee/gone.png: broken link or special file"),
    ],
)
def test_stop_ends_at_a_file_that_cannot_be_used(folder, name, part):
    for harmless in (".hidden.png", "ape/notes.txt", "ape/.DS_Store"):
        (folder / harmless).write_text("hello")
    assert len(prepare(folder, on_error="stop").skipped) == 3
    (folder.parent / "x.h5").unlink()
    content = (folder / "ape/0.png").read_bytes()
    if name == "bee/gone.png":
        (folder / name).symlink_to("nowhere")
    else:
        (folder / name).write_bytes({"ape/cut.png": content[:200], "ape/text.png": b"hello"}.get(name, content))
    with pytest.raises(InputError, match="^[^\n]*; --on-error skip leaves such files out$") as error:
        prepare(folder, on_error="stop")
    assert f"{folder}: {part}" in str(error.value)
    assert not (folder.parent / "x.h5").exists()


def test_stop_does_not_read_on(folder):
    (folder / "ape/1.png").write_text("no image")
    steps: list[int] = []
    with pytest.raises(InputError, match="ape/1.png: not an image"):
        prepare(folder, on_error="stop", progress=lambda done, total: steps.append(done))
    assert steps == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its rights for a while")
def test_files_without_permission_are_named(folder, monkeypatch):
    os.chmod(folder / "ape/3.png", 0)
    os.chmod(folder, 0o777)
    monkeypatch.chdir(folder)
    os.seteuid(65534)
    try:
        prepared = prepare_images(Path(), ImageOptions(size=(8, 8)), Packing(output=Path("x.h5")))
    finally:
        os.seteuid(0)
    assert prepared.skipped == {"ape/3.png": "Permission denied"}


NAMES = ("pick-up, 'old' & \"new\"", "häuser", "日本", "a b ", "🐝", "-x", "%s {0}", "line\nbreak")


def test_odd_names_of_classes_and_files(tmp_path):
    for name in NAMES:
        for i in range(3):
            draw(tmp_path / "in" / name / f"{name} {i}.png")
    packed = prepare(tmp_path / "in").packed
    assert packed.classes == tuple(sorted(NAMES))
    ids = [name for split in packed.splits for name in packed.ids(split)]
    assert sorted(ids) == sorted(f"{name}/{name} {i}.png" for name in NAMES for i in range(3))
    (tmp_path / "in/empty\nfolder").mkdir()
    with pytest.raises(InputError, match=r"^[^\n]*: class 'empty\\nfolder' has no training images[^\n]*$"):
        prepare(tmp_path / "in")


def test_copies_in_later_splits_are_left_out(folder):
    given = folder.parent / "given"
    for split in ("train", "val", "test"):
        for name in ("ape", "bee"):
            draw(given / split / name / "own.png")
    draw(given / "val/ape/more.png")
    content = (given / "train/ape/own.png").read_bytes()
    (given / "train/ape/again.png").write_bytes(content)
    Image.open(given / "train/ape/own.png").save(given / "val/ape/copy.bmp")
    (given / "test/ape/copy.png").write_bytes((given / "val/ape/more.png").read_bytes())
    prepared = prepare(given)
    assert prepared.skipped == {
        "test/ape/copy.png": "copy of val/ape/more.png",
        "val/ape/copy.bmp": "copy of train/ape/own.png",
    }
    assert prepared.packed.samples == {"train": 3, "val": 3, "test": 2}
    assert "2 files left out: copy of an image of an earlier split" in prepared.notes


def test_the_same_image_under_two_labels_is_named(folder):
    Image.open(folder / "ape/1.png").save(folder / "bee/other.tif")
    assert prepare(folder).skipped == {
        "ape/1.png": "same content as bee/other.tif, which has another label",
        "bee/other.tif": "same content as ape/1.png, which has another label",
    }
    with pytest.raises(InputError, match="ape/1.png: same content as bee/other.tif, which has another label"):
        prepare(folder, on_error="stop")


@pytest.mark.parametrize(
    "names", [("Training", "valid", "Testing"), ("TRAIN", "Validation", "test"), ("train", "dev", "Test")]
)
def test_split_directories_by_other_names(folder, names):
    for split in names:
        for kind in ("ape", "bee"):
            draw(folder.parent / "given" / split / kind / "own.png")
    packed = prepare(folder.parent / "given").packed
    assert packed.classes == ("ape", "bee")
    assert packed.samples == {"train": 2, "val": 2, "test": 2}
    for split, name in zip(("train", "val", "test"), names, strict=True):
        assert packed.ids(split) == [f"{name}/ape/own.png", f"{name}/bee/own.png"]


def test_two_directories_for_a_split_are_refused(folder):
    for split in ("train", "val", "Validation"):
        draw(folder.parent / "given" / split / "ape/own.png")
    with pytest.raises(InputError, match="given: has Validation/ and val/, both for val; expected one of them"):
        prepare(folder.parent / "given")


def test_a_level_that_is_neither_split_nor_class_is_refused(folder):
    for part in ("fold1", "fold2"):
        for kind in ("ape", "bee"):
            for i in range(6):
                draw(folder.parent / "given" / part / kind / f"{i}.png")
    with pytest.raises(InputError, match="its directories fold1, fold2 all hold the same ones, ape, bee; expected"):
        prepare(folder.parent / "given")
    draw(folder.parent / "given/fold1/own.png")
    assert prepare(folder.parent / "given").packed.classes == ("fold1", "fold2")


def test_twelve_bits_beside_colour_keep_their_grey(folder):
    for i, path in enumerate(sorted(folder.glob("*/*.png"))):
        grey = np.random.default_rng(i).integers(0, 4096, (12, 10)).astype(np.uint16)
        grey[0, 0] = 4095
        Image.fromarray(grey).save(path)
    Image.fromarray(np.full((12, 10, 3), (255, 0, 0), np.uint8)).save(folder / "ape/colour.png")
    prepared = prepare(folder, size=(12, 10))
    assert "4,095 of I;16 taken as white, as 255 of the others" in prepared.notes
    assert any(re.search(r"modes of the files: I;16 \d+ \(up to 4,095\), RGB 1", note) for note in prepared.notes)
    packed = prepared.packed
    for split in packed.splits:
        for name, image in zip(packed.ids(split), packed.read(split, (slice(None),) * 2), strict=True):
            if name != "ape/colour.png":
                expected = np.asarray(Image.open(folder / name)) / 4095 * 255
                np.testing.assert_allclose(image[1], expected, atol=0.51)


def test_a_pattern_tells_the_patients(folder):
    for i in range(24):
        draw(folder.parent / f"given/{'ab'[i % 2]}/p{i // 4}_{i}.png")
    prepared = prepare(folder.parent / "given", patients=r"p(\d+)_", val_fraction=0.2, test_fraction=0.2)
    packed = prepared.packed
    homes = [{name.split("_")[0][2:] for name in packed.ids(split)} for split in packed.splits]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 6
    counts = f"{len(homes[0])} train, {len(homes[1])} val, {len(homes[2])} test"
    assert f"patients: {counts}; stored as running numbers, not by name" in prepared.notes
    for split in packed.splits:
        named = dict(zip((name.split("_")[0] for name in packed.ids(split)), packed.patients(split), strict=True))
        own = {name[2:]: number for name, number in named.items()}
        assert len(set(own.values())) == len(own)
        assert all(number.startswith("patient ") for number in own.values())


def test_a_patient_in_two_given_splits_is_refused_unless_allowed(folder):
    for split in ("train", "val", "test"):
        for i in range(8):
            draw(folder.parent / f"given/{split}/{'ab'[i % 2]}/p{i}_{split}.png")
    given, patients = folder.parent / "given", r"p(\d+)_"
    with pytest.raises(InputError, match="patient '0' is in train .*, or --allow-shared-patients"):
        prepare(given, patients=patients)
    packed = prepare(given, patients=patients, allow_shared_patients=True).packed
    assert packed.samples == {"train": 8, "val": 8, "test": 8}


@pytest.mark.parametrize("where", ["file", "class", "folder"])
def test_names_that_are_not_utf8(folder, where):
    bad = os.fsdecode(b"bad\xff")
    if where == "file":
        os.rename(folder / "ape/1.png", folder / f"ape/{bad}.png")
    elif where == "class":
        os.rename(folder / "ape", folder / bad)
    else:
        folder = folder.rename(folder.parent / bad)
    packed = prepare(folder).packed
    names = [name for split in packed.splits for name in packed.ids(split)]
    escaped = "bad\\udcff"
    assert any(escaped in name for name in names) == (where != "folder")
    assert (escaped in packed.classes) == (where == "class")
    assert (escaped in packed.source) == (where == "folder")


def test_progress_counts_every_file_three_times(folder):
    (folder / "ape/bad.png").write_text("")
    steps: list[tuple[int, int]] = []
    prepare(folder, progress=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(1, 62))
    assert steps[0] == (1, 63)
    assert steps[-1] == (61, 61)


def test_an_image_that_vanishes_while_packing_is_named(folder):
    def remove(done: int, total: int) -> None:
        if done == 20:
            shutil.rmtree(folder / "bee")

    with pytest.raises(InputError, match=r"bee/.*could be read before, but not any more"):
        prepare(folder, progress=remove)
    assert not (folder.parent / "x.h5").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": (0, 8)}, "--size 0 8"),
        ({"size": (8,)}, "--size 8"),
        ({"resize": "pad"}, "--resize pad: expected crop or stretch"),
        ({"on_error": "warn"}, "--on-error warn: expected skip or stop"),
        ({"val_fraction": 0.0}, "--val-fraction 0.0"),
        ({"test_fraction": float("nan")}, "--test-fraction nan"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_options_are_named(folder, options, part):
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(folder, **options)
    assert part in str(error.value)
    assert not (folder.parent / "x.h5").exists()


def test_an_existing_output_is_kept_unless_asked(folder):
    (folder.parent / "x.h5").write_text("mine")
    steps: list[int] = []
    with pytest.raises(InputError, match="--overwrite"):
        prepare(folder, overwrite=False, progress=lambda done, total: steps.append(done))
    assert not steps
    assert (folder.parent / "x.h5").read_text() == "mine"


def test_a_class_without_readable_training_images_is_named(folder):
    (folder / "cat").mkdir()
    for i in range(3):
        (folder / f"cat/{i}.png").write_text("no image")
    (folder / "ape/1.txt").write_text("stray")
    with pytest.raises(
        InputError, match=r"in: class 'cat' has no training images; expected at least one; cat/0.png: not an image"
    ):
        prepare(folder)


def test_a_class_that_is_too_small_to_be_divided_is_named(folder):
    draw(folder / "cat/1.png")
    draw(folder / "cat/2.png")
    with pytest.raises(InputError, match="class 'cat' has 2 training samples"):
        prepare(folder)


def test_a_split_of_copies_only_is_named(folder):
    given = folder.parent / "given"
    for name, source in (("train/ape", "ape"), ("train/bee", "bee")):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder / source, given / name)
    (given / "val/ape").mkdir(parents=True)
    (given / "val/ape/copy.png").write_bytes((given / "train/ape/1.png").read_bytes())
    with pytest.raises(InputError, match="split val is empty"):
        prepare(given)


@needs_real
def test_real_flowers(tmp_path):
    flowers = tmp_path / "flowers"
    for split in ("train", "val"):
        for name in ("roses", "sunflowers"):
            (flowers / split).mkdir(parents=True, exist_ok=True)
            (flowers / split / name).symlink_to(Path(REAL) / "tf_flowers" / split / name)
    prepared = prepare(flowers, size=(16, 16))
    assert prepared.packed.channels == 3
    given = sum(len(os.listdir(path)) for path in flowers.glob("*/*"))
    assert sum(prepared.packed.samples.values()) == given - 2
    assert "2 files left out: copy of an image of an earlier split" in prepared.notes


@needs_real
def test_real_faces_with_stray_files(tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    for name in ("yaleB01", "yaleB11"):
        (faces / name).symlink_to(Path(REAL) / "extended_yale_b" / name)
    prepared = prepare(faces, size=(24, 21))
    assert prepared.packed.channels == 1
    assert sum(prepared.packed.samples.values()) == 65 + 61
    assert {Path(name).suffix for name in prepared.skipped} == {".info", ".LOG", ".bad", ""}
    assert any("2 sizes between 192x168 and 480x640" in note for note in prepared.notes)
