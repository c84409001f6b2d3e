"""The Extended Yale Face Database B becomes a packed file: what is left out, and how faces are divided."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from zlib import crc32

import h5py
import numpy as np
import pytest
from PIL import Image

from ddhpc.data.sources.faces import FaceOptions, prepare_faces
from ddhpc.data.sources.source import Packing, Prepared
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

REAL = os.environ.get("DDHPC_DATA")
SUBJECTS = ("yaleB01", "yaleB02", "yaleB15")
SMALL = ("+000E+00", "+000E+90", "-010E-20", "+035E+65", "-035E-20", "+005E+10", "-025E+00", "+020E-40")
LARGE = ("+036E+00", "-050E-40", "+110E+65", "-130E+20")


def draw(path: Path, size: tuple[int, int] = (24, 21)) -> None:
    """A grey image of noise of its own, of the given height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(crc32(path.name.encode())).integers(0, 256, size, np.uint8)
    Image.fromarray(noise).save(path, format="PPM")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three subjects as distributed, under eight small and four large lights."""
    for name in SUBJECTS:
        folder = tmp_path / "in" / name
        for light in SMALL + LARGE:
            draw(folder / f"{name}_P00A{light}.pgm")
        draw(folder / f"{name}_P00_Ambient.pgm", (60, 80))
        draw(folder / f"{name}_P00A+095E+00.pgm.bad")
        (folder / f"{name}_P00.info").write_text("list")
        (folder / "WS_FTP.LOG").write_text("log")
    (tmp_path / "in/yaleB01/DEADJOE").write_text("stray")
    return tmp_path / "in"


def prepare(source: Path, **options) -> Prepared:
    return packed_by(prepare_faces, FaceOptions, source, source.parent / "x.h5", **options)


def test_only_frames_are_packed_and_the_rest_is_counted(faces):
    prepared = prepare(faces, on_error="stop")
    packed = prepared.packed
    assert packed.classes == SUBJECTS
    assert packed.image_shape == (96, 84)
    assert packed.channels == 1
    assert packed.dtype == np.uint8
    ids = [name for split in packed.splits for name in packed.ids(split)]
    assert sorted(ids) == sorted(f"{name}/{name}_P00A{light}.pgm" for name in SUBJECTS for light in SMALL + LARGE)
    for split in packed.splits:
        assert [packed.classes[label] for label in packed.labels[split]] == [name[:7] for name in packed.ids(split)]
    left_out = {note for note in prepared.notes if "left out" in note}
    assert left_out == {
        "3 files left out: ambient frame, without the light and not cropped",
        "3 files left out: marked as bad by its name",
        "3 files left out: list of frames",
        "3 files left out: log",
        "1 file left out: other kind of file by its name",
    }
    with h5py.File(packed.path) as file:
        stored = file["skipped"].asstr()[...].tolist()
    assert stored == [f"{name}: {reason}" for name, reason in prepared.skipped.items()]
    assert len(stored) == 13
    assert "yaleB15/yaleB15_P00A+095E+00.pgm.bad: marked as bad by its name" in stored


def test_pixels_belong_to_their_ids(faces):
    packed = prepare(faces, size=(24, 21)).packed
    for split in packed.splits:
        for name, image in zip(packed.ids(split), packed.read(split, (slice(None), slice(None))), strict=True):
            assert np.array_equal(image[0], np.asarray(Image.open(faces / name)))


def test_random_draws_the_same_number_of_each_subject(faces):
    prepared = prepare(faces, val_fraction=0.25, test_fraction=0.5)
    assert prepared.packed.samples == {"train": 9, "val": 9, "test": 18}
    assert np.bincount(prepared.packed.labels["test"]).tolist() == [6, 6, 6]
    assert "test: 50% of each class in train, seed 0" in prepared.notes
    assert prepare(faces, seed=1).packed.digest != prepare(faces, seed=0).packed.digest


def test_light_trains_on_small_azimuths_and_tests_on_large_ones(faces):
    prepared = prepare(faces, split="light", val_fraction=0.25)
    packed = prepared.packed
    lights = {split: Counter(name[-12:-4] for name in packed.ids(split)) for split in packed.splits}
    assert lights["test"] == dict.fromkeys(LARGE, 3)
    assert lights["train"] + lights["val"] == dict.fromkeys(SMALL, 3)
    assert packed.samples == {"train": 18, "val": 6, "test": 12}
    assert np.bincount(packed.labels["val"]).tolist() == [2, 2, 2]
    assert "test: lights of more than 35 degrees azimuth, any elevation" in prepared.notes
    assert "test: lights of more than 35 degrees" in packed.source
    assert not any(note.startswith("test: 15%") for note in prepared.notes)


@pytest.mark.parametrize(
    "name", ["yaleB01_P00A+35E-20.pgm", "yaleB02_P00A+035E-20.pgm", "yaleB01_P00A+035E-20_copy.pgm", "face.pgm"]
)
def test_names_that_do_not_tell_the_light(faces, name):
    draw(faces / "yaleB01" / name)
    reason = "does not tell the light; expected a name as yaleB01_P00A+035E-20.pgm"
    prepared = prepare(faces, split="light")
    assert prepared.skipped[f"yaleB01/{name}"] == reason
    assert f"1 file left out: {reason}" in prepared.notes
    assert sum(prepared.packed.samples.values()) == 36
    with pytest.raises(InputError, match=re.escape(f"yaleB01/{name}: {reason}; --on-error skip")):
        prepare(faces, on_error="stop")


def test_other_directories_are_left_out(faces):
    draw(faces / "backup/yaleB01_P00A+035E-20.pgm")
    prepared = prepare(faces)
    assert prepared.packed.classes == SUBJECTS
    assert prepared.skipped["backup/yaleB01_P00A+035E-20.pgm"] == "in no directory named as yaleB01 is"


def test_damaged_frames(faces):
    path = faces / f"yaleB02/yaleB02_P00A{SMALL[0]}.pgm"
    path.write_bytes(path.read_bytes()[:100])
    assert f"yaleB02/{path.name}" in prepare(faces).skipped
    with pytest.raises(InputError, match=f"yaleB02/{re.escape(path.name)}: .*; --on-error skip"):
        prepare(faces, on_error="stop")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["a/1.pgm", "b/1.pgm"], "holds 0 directories named as yaleB01 is; expected at least two"),
        (["yaleB01/1.pgm", "b/1.pgm"], "holds 1 directories named as yaleB01 is"),
        (["a.pgm"], "holds 0 class directories"),
    ],
)
def test_other_sources_are_named(tmp_path, names, part):
    for name in names:
        draw(tmp_path / "in" / name)
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(tmp_path / "in")
    assert f"{tmp_path / 'in'}: {part}" in str(error.value)


def test_a_subject_without_small_lights_is_named(faces):
    for light in SMALL:
        (faces / f"yaleB15/yaleB15_P00A{light}.pgm").unlink()
    with pytest.raises(InputError, match="class 'yaleB15' has no training images"):
        prepare(faces, split="light")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": (96, 0)}, "--size 96 0"),
        ({"split": "lamp"}, "--split lamp: expected random or light"),
        ({"on_error": "warn"}, "--on-error warn: expected skip or stop"),
        ({"val_fraction": 2.0}, "--val-fraction 2.0"),
        ({"seed": -1}, "--seed -1"),
        ({"overwrite": False}, "--overwrite"),
    ],
)
def test_bad_options_are_named(faces, options, part):
    (faces.parent / "x.h5").write_text("mine")
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(faces, **options)
    assert part in str(error.value)
    assert (faces.parent / "x.h5").read_text() == "mine"


@pytest.mark.skipif(not REAL, reason="DDHPC_DATA does not name the directory of the real data sets")
def test_the_real_database(tmp_path):
    prepared = prepare_faces(
        Path(REAL) / "extended_yale_b",
        FaceOptions(split="light", on_error="stop"),
        Packing(output=tmp_path / "x.h5"),
    )
    packed = prepared.packed
    assert len(packed.classes) == 38
    assert packed.samples == {"train": 1022, "val": 190, "test": 1202}
    assert all(abs(int(name[-11:-8])) > 35 for name in packed.ids("test"))
    assert Counter(prepared.skipped.values()) == {
        "ambient frame, without the light and not cropped": 38,
        "list of frames": 38,
        "log": 38,
        "marked as bad by its name": 18,
        "other kind of file by its name": 1,
    }
