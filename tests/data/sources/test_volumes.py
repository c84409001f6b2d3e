"""Labelled volumes become packed files, and bad ones are named."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from ddhpc.data.packed import open_packed
from ddhpc.data.sources.nifti import read_nifti
from ddhpc.data.sources.source import Prepared
from ddhpc.data.sources.volume_formats import EXPECTED
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

REAL = os.environ.get("DDHPC_DATA")
SHAPE = (6, 5, 4)


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def load(path: Path) -> np.ndarray:
    """The voxels as stored, in memory: the file may be written again."""
    return np.asanyarray(nib.load(path, mmap=False).dataobj)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six volumes."""
    for i in range(6):
        save(tmp_path / "in/CT-0" / f"{i}.nii.gz", noise(i))
        save(tmp_path / "in/CT-1" / f"{i}.nii", noise(10 + i))
    return tmp_path / "in"


def prepare(source: Path, **options) -> Prepared:
    return packed_by(prepare_volumes, VolumeOptions, source, source.parent / "x.h5", **options)


def whole(prepared: Prepared) -> dict[str, np.ndarray]:
    """All packed volumes by id."""
    packed = prepared.packed
    everything = (slice(None),) * 3
    return {
        name: voxels[0]
        for split in packed.splits
        for name, voxels in zip(packed.ids(split), packed.read(split, everything), strict=True)
    }


def table(path: Path, *rows: str, columns: str = "path,label,patient,split") -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def test_class_folders(folder):
    prepared = prepare(folder, val_fraction=0.2, test_fraction=0.2)
    packed = prepared.packed
    assert packed.classes == ("CT-0", "CT-1")
    assert packed.samples == {"train": 8, "val": 2, "test": 2}
    assert (packed.image_shape, packed.channels, packed.dtype) == (SHAPE, 1, np.int16)
    assert not prepared.skipped
    for name, voxels in whole(prepared).items():
        assert np.array_equal(voxels, load(folder / name))
    for split in packed.splits:
        names = [packed.classes[label] for label in packed.labels[split]]
        assert names == [name[:4] for name in packed.ids(split)]


def test_two_runs_give_the_same_data_and_the_seed_another(folder):
    first, second, third = (prepare(folder, seed=seed) for seed in (0, 0, 1))
    assert first.packed.digest == second.packed.digest != third.packed.digest
    assert first.notes == second.notes


def test_given_splits_are_kept(tmp_path):
    for i in range(6):
        save(tmp_path / f"in/train/a/{i}.nii", noise(i))
        save(tmp_path / f"in/train/b/{i}.nii", noise(10 + i))
    save(tmp_path / "in/test/b/7.nii", noise(20))
    prepared = prepare(tmp_path / "in")
    assert prepared.packed.samples == {"train": 10, "val": 2, "test": 1}
    assert prepared.packed.ids("test") == ["test/b/7.nii"]
    assert any(note.startswith("val: 15% of each class") for note in prepared.notes)


def test_copies_in_a_later_split_are_left_out_however_they_are_stored(tmp_path):
    for i in range(6):
        save(tmp_path / f"in/train/a/{i}.nii", noise(i))
        save(tmp_path / f"in/train/b/{i}.nii", noise(10 + i))
    save(tmp_path / "in/test/a/new.nii", noise(20))
    save(tmp_path / "in/test/b/again.nii.gz", noise(10)[::-1], np.diag([-1, 1, 1, 1]))
    prepared = prepare(tmp_path / "in", val_fraction=0.3)
    (reason,) = prepared.skipped.values()
    assert list(prepared.skipped) == ["test/b/again.nii.gz"]
    assert reason.startswith("copy of train/b/0.nii") or reason.startswith("copy of val/")
    assert prepared.packed.samples["test"] == 1


def test_a_table_with_patients(folder):
    rows = [f"in/CT-{k}/{i}.nii{'.gz' * (k == 0)},grade {k},P{i // 2 + 3 * k}," for k in (0, 1) for i in range(6)]
    prepared = prepare(table(folder.parent / "labels.csv", *rows))
    packed = prepared.packed
    assert packed.classes == ("grade 0", "grade 1")
    assert packed.samples == {"train": 4, "val": 4, "test": 4}
    patient = {row.split(",")[0]: row.split(",")[2] for row in rows}
    groups = [{patient[name] for name in packed.ids(split)} for split in packed.splits]
    assert [len(group) for group in groups] == [2, 2, 2]
    assert len(set.union(*groups)) == 6


def test_patients_with_volumes_of_all_classes_are_drawn_too(folder):
    rows = [f"in/CT-{k}/{i}.nii{'.gz' * (k == 0)},{k},P{i}" for k in (0, 1) for i in range(6)]
    packed = prepare(table(folder.parent / "x.csv", *rows, columns="path,label,patient")).packed
    assert packed.samples == {"train": 8, "val": 2, "test": 2}
    assert sorted(packed.labels["val"]) == [0, 1]


def test_a_table_as_spreadsheets_save_it(folder):
    path = folder.parent / "table.csv"
    rows = [f'"in/CT-{k}/{i}.nii{".gz" * (k == 0)}" , krank {k}ä' for k in (0, 1) for i in range(6)]
    path.write_bytes(("\ufeffpath,label\r\n" + "\r\n".join(rows) + "\r\n").encode())
    assert prepare(path).packed.classes == ("krank 0ä", "krank 1ä")


def test_a_patient_in_two_splits_is_refused_unless_allowed(folder):
    ends = {0: ".nii.gz", 1: ".nii"}
    rows = [f"in/CT-{k}/{i}{ends[k]},{k},P{i}{k},train" for k in (0, 1) for i in range(4)]
    rows += [f"in/CT-{k}/4{ends[k]},{k},P4{k},val" for k in (0, 1)]
    rows += [f"in/CT-{k}/5{ends[k]},{k},P1{k},test" for k in (0, 1)]
    source = table(folder.parent / "labels.csv", *rows)
    with pytest.raises(InputError, match=r"^patient 'P10' is in train \(in/CT-0/1.nii.gz\) and in test \(.*--allow"):
        prepare(source)
    assert prepare(source, allow_shared_patients=True).packed.samples == {"train": 8, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path:label", "a:b"], "has columns 'path:label'; expected path,label"),
        ([], "has columns ''"),
        (["path,label", "a.nii,x"], "has 1 labels; expected at least two"),
        (["path,label,split", "in/CT-0/0.nii.gz,x,both"], "line 2 has split 'both'"),
        (["path,label", "\xff"], "expected a CSV table in UTF-8"),
    ],
)
def test_tables_that_are_none(folder, lines, message):
    path = folder.parent / "labels.csv"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_rows_without_a_file_and_files_without_a_label(folder):
    ends = {0: ".nii.gz", 1: ".nii"}
    rows = [f"in/CT-{k}/{i}{ends[k]},{k}" for k in (0, 1) for i in range(5)]
    rows += ["in/CT-0/5.nii.gz,", "in/gone.nii,1", ",1", "in/CT-0/0.nii.gz,1", "labels.csv,0"]
    source = table(folder.parent / "labels.csv", *rows, columns="path,label")
    prepared = prepare(source)
    assert prepared.skipped == {
        "in/CT-0/5.nii.gz": "no label in line 12 of labels.csv",
        "in/gone.nii": "no such file, though line 13 of labels.csv gives it a label",
        "labels.csv line 14": "label without a path",
        "labels.csv line 15": "in/CT-0/0.nii.gz is listed before",
        "labels.csv": f"expected {EXPECTED}",
    }
    with h5py.File(prepared.packed.path) as file:
        stored = file["skipped"].asstr()[...].tolist()
    assert stored == [f"{name}: {reason}" for name, reason in sorted(prepared.skipped.items())]
    with pytest.raises(InputError, match=r"labels.csv: in/CT-0/5.nii.gz: no label in line 12.*--on-error skip"):
        prepare(source, on_error="stop")


def test_groups_of_classes(folder):
    for i in range(6):
        save(folder / "CT-2" / f"{i}.nii", noise(20 + i))
        save(folder / "a,b ü" / f"{i}.nii", noise(30 + i))
    prepared = prepare(folder, groups=("a,b ü", "CT-0,CT-2"))
    packed = prepared.packed
    assert packed.classes == ("a,b ü", "CT-0,CT-2")
    assert sum(packed.samples.values()) == 18
    assert "class CT-1 is in no group: 6 volumes" in prepared.notes
    for split in packed.splits:
        assert [name.startswith("CT-") for name in packed.ids(split)] == packed.labels[split].astype(bool).tolist()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("CT-0",), "--groups CT-0: expected at least two groups"),
        (("CT-0", "CT-7"), "--groups CT-7: no class 'CT-7'; there are CT-0, CT-1"),
        (("CT-0", "CT-1,CT-0"), "names class 'CT-0' twice"),
    ],
)
def test_bad_groups_are_named(folder, groups, message):
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(folder, groups=groups)
    assert message in str(error.value)


def test_values_decide_what_is_stored(folder):
    assert prepare(folder).packed.dtype == np.int16
    for path in folder.glob("*/*"):
        save(path, load(path) + 40_000.0)
    assert prepare(folder).packed.dtype == np.uint16
    assert prepare(folder, window=(39_500, 40_500)).packed.dtype == np.uint16
    for path in folder.glob("*/*"):
        save(path, load(path) - 39_990.0)
    assert prepare(folder, window=(0, 200)).packed.dtype == np.uint8
    half = nib.Nifti1Image(noise(0) / 3, np.eye(4))
    half.to_filename(folder / "CT-0/0.nii.gz")
    assert prepare(folder).packed.dtype == np.float32
    assert prepare(folder, window=(-1, 1), shape=(5, 4, 3)).packed.dtype == np.float32
    assert prepare(folder, window=(-1000, 400)).packed.dtype == np.int16


def test_values_outside_of_the_window_are_clipped(folder):
    original = load(folder / "CT-0/0.nii.gz")
    prepared = prepare(folder, window=(-300, 200))
    assert np.array_equal(whole(prepared)["CT-0/0.nii.gz"], original.clip(-300, 200))
    assert "clipped to -300 to 200" in prepared.notes


def test_scaled_values_are_read_in_their_units(folder):
    for path in folder.glob("*/*"):
        image = nib.Nifti1Image(load(path), np.eye(4))
        image.header.set_slope_inter(1, -24)
        image.to_filename(path)
    assert read_nifti(path).voxels.dtype == np.float32
    prepared = prepare(folder)
    assert prepared.packed.dtype == np.int16
    assert np.array_equal(whole(prepared)["CT-0/3.nii.gz"], nib.load(folder / "CT-0/3.nii.gz").get_fdata())


def test_shapes_and_spacings(folder):
    assert prepare(folder, shape=(3, 7, 2)).packed.image_shape == (3, 7, 2)
    assert prepare(folder, spacing=(2, 1, 0.5)).packed.image_shape == (3, 5, 8)
    both = prepare(folder, spacing=(1, 1, 1), shape=(8, 3, 4))
    original = load(folder / "CT-0/0.nii.gz")
    packed = whole(both)["CT-0/0.nii.gz"]
    assert np.array_equal(packed[1:7], original[:, 1:4])
    assert (packed[[0, 7]] == original.min()).all()
    clipped = prepare(folder, spacing=(1, 1, 1), shape=(8, 3, 4), window=(-2000, 400))
    assert (whole(clipped)["CT-0/0.nii.gz"][[0, 7]] == -2000).all()


def test_volumes_of_several_shapes_need_one(folder):
    save(folder / "CT-1/other.nii", noise(30, (6, 5, 7)), np.diag([1, 1, 4 / 7, 1]))
    with pytest.raises(InputError, match=r"volumes of 2 shapes, 6x5x4 \(CT-0/0.nii.gz\) and 6x5x7 \(CT-1/other.nii\)"):
        prepare(folder)
    assert prepare(folder, spacing=(1, 1, 1)).packed.image_shape == SHAPE
    save(folder / "CT-1/other.nii", noise(30, (6, 5, 7)))
    with pytest.raises(InputError, match=r"2 shapes at --spacing, 6x5x2 \(.*--shape X Y Z"):
        prepare(folder, spacing=(1, 1, 2))


def test_an_output_that_exists_is_not_replaced_unasked(folder):
    prepare(folder)
    with pytest.raises(InputError, match="--overwrite"):
        prepare(folder, overwrite=False)


def broken(path: Path, kind: str) -> Path:
    """A file that is no usable volume, each in its own way."""
    voxels = noise(99)
    if kind == "truncated":
        save(path, noise(99, (40, 40, 40)))
        path.write_bytes(path.read_bytes()[:40_000])
    elif kind == "header cut off":
        path.write_bytes(save(path, voxels).read_bytes()[:200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no volume")
    elif kind == "4D":
        save(path, noise(99, (6, 5, 4, 3)))
    elif kind == "2D":
        save(path, voxels[:, :, 0])
    elif kind == "one slice":
        save(path, voxels[:, :, :1])
    elif kind == "NaN":
        save(path, np.where(voxels == voxels[0, 0, 0], np.nan, voxels.astype(np.float32)))
    elif kind == "constant":
        save(path, np.full(SHAPE, 7, np.int16))
    elif kind == "RGB":
        save(path, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    elif kind == "complex":
        save(path, voxels.astype(np.complex64))
    elif kind == "zero spacing":
        plain = save(path.with_name("plain.nii"), voxels)
        data = bytearray(plain.read_bytes())
        data[84:88] = np.float32(0).tobytes()
        plain.unlink()
        path.write_bytes(data)
    elif kind == "singular affine":
        image = nib.Nifti1Image(voxels, None)
        image.header["sform_code"] = 1
        image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = [0, 1, 0, 0]
        image.to_filename(path)
    return path


BROKEN = [
    ("truncated", ".nii", "Expected 128000 bytes, got"),
    ("truncated", ".nii.gz", "end-of-stream"),
    ("header cut off", ".nii", ""),
    ("empty", ".nii", "empty file"),
    ("empty", ".nii.gz", "empty file"),
    ("text", ".nii", "not a NIfTI file"),
    ("text", ".nii.gz", "not a NIfTI file"),
    ("4D", ".nii", "4D of shape 6x5x4x3, expected one 3D volume"),
    ("2D", ".nii", "2D of shape 6x5, expected one 3D volume"),
    ("one slice", ".nii", "one slice of shape 6x5x1"),
    ("NaN", ".nii", "holds NaN or infinity"),
    ("constant", ".nii", "constant, every voxel is 7"),
    ("RGB", ".nii", "RGB voxels"),
    ("complex", ".nii", "complex voxels"),
    ("zero spacing", ".nii", "voxel spacing 1 x 0 x 1 mm, expected positive numbers"),
    ("singular affine", ".nii", "expected"),
]


@pytest.mark.parametrize(("kind", "ending", "reason"), BROKEN)
def test_bad_volumes_are_left_out_or_stop(folder, caplog, kind, ending, reason):
    path = broken(folder / f"CT-1/größe{ending}", kind)
    prepared = prepare(folder)
    name = f"CT-1/größe{ending}"
    assert list(prepared.skipped) == [name]
    assert reason in prepared.skipped[name]
    assert "\n" not in prepared.skipped[name]
    assert "1 left out: unusable" in prepared.notes
    assert sum(prepared.packed.samples.values()) == 12
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        prepare(folder, on_error="stop")
    assert str(error.value).startswith(f"{folder}: {name}: {prepared.skipped[name]}")
    assert path.exists()
    assert not caplog.records


def test_constant_inside_the_window(folder):
    save(folder / "CT-0/air.nii", noise(5).clip(-950, -900))
    assert prepare(folder, window=(0, 400)).skipped == {
        "CT-0/air.nii": "constant between 0 and 400, voxels are -950 to -900"
    }


def test_a_fourth_axis_of_one_is_no_axis(folder):
    voxels = load(folder / "CT-0/0.nii.gz")
    save(folder / "CT-0/0.nii.gz", voxels[..., None])
    assert np.array_equal(whole(prepare(folder))["CT-0/0.nii.gz"], voxels)


def test_stray_files_stop_nothing_but_unlabelled_volumes_do(folder):
    (folder / "CT-0/readme.txt").write_text("hello")
    (folder / "CT-0/._0.nii").write_text("")
    (folder / "labels.csv").write_text("path,label\n")
    harmless = {
        "CT-0/._0.nii": "hidden",
        "CT-0/readme.txt": "no kind of volume",
        "labels.csv": "in no class directory",
    }
    assert prepare(folder, on_error="stop").skipped == harmless
    save(folder / "stray.nii", noise(50))
    assert prepare(folder).skipped == {**harmless, "stray.nii": "in no class directory"}
    with pytest.raises(InputError, match="stray.nii: in no class directory"):
        prepare(folder, on_error="stop")


def test_link_loops_and_broken_links(folder):
    (folder / "CT-0/loop").symlink_to(folder)
    (folder / "CT-1/nowhere.nii").symlink_to("gone.nii")
    prepared = prepare(folder)
    assert sum(prepared.packed.samples.values()) == 12
    assert prepared.skipped["CT-1/nowhere.nii"] == "broken link or special file"
    with pytest.raises(InputError, match="link"):
        prepare(folder, on_error="stop")


@pytest.fixture
def nobody(folder: Path) -> Iterator[None]:
    """Without root's rights, which no permission stops."""
    if os.geteuid() != 0:
        pytest.skip("only root can drop its rights for a while")
    above = [folder, *folder.parents]
    modes = {path: path.stat().st_mode for path in above}
    for path in above:
        os.chmod(path, modes[path] | 0o055)
    os.chmod(folder.parent, 0o777)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            os.chmod(path, mode)


def test_no_permission(folder, request):
    (folder / "CT-0/0.nii.gz").chmod(0)
    (folder / "CT-0/series").mkdir()
    (folder / "CT-0/series/1").write_bytes(bytes(128) + b"DICM")
    (folder / "CT-0/series/1").chmod(0)
    (folder / "CT-1/closed").mkdir(0)
    request.getfixturevalue("nobody")
    prepared = prepare(folder)
    assert list(prepared.skipped) == ["CT-0/0.nii.gz", "CT-0/series/1", "CT-1/closed"]
    assert all("ermission denied" in reason for reason in prepared.skipped.values())


def test_odd_names(folder):
    odd = folder / "Größe '1\", [x] #%\t"
    for i in range(6):
        save(odd / f"日本 {i}.nii", noise(60 + i))
    prepared = prepare(folder)
    assert odd.name in prepared.packed.classes
    assert f"{odd.name}/日本 3.nii" in whole(prepared)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"shape": (1, 8, 8)}, "--shape 1 8 8"),
        ({"shape": (8, 8)}, "--shape 8 8"),
        ({"spacing": (1, 0, 1)}, "--spacing 1 0 1"),
        ({"spacing": (1, float("nan"), 1)}, "--spacing 1 nan 1"),
        ({"window": (400, -1000)}, "--window 400 -1000: expected a lower and a higher number"),
        ({"window": (0, float("inf"))}, "--window 0 inf"),
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


@pytest.mark.parametrize("name", ["gone", "file.txt"])
def test_a_source_that_is_none(tmp_path, name):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(InputError, match=rf"{name}: .*; expected a directory of class directories, or a .csv"):
        prepare(tmp_path / name)


def test_empty_folders_are_named(folder):
    (folder / "CT-2").mkdir()
    with pytest.raises(InputError, match="class 'CT-2' has no training volumes"):
        prepare(folder)
    for n, split in enumerate(("train", "val", "test")):
        for k in range(2):
            save(folder.parent / f"given/{split}/CT-{k}/0.nii", noise(50 + 2 * n + k))
    folder = folder.parent / "given"
    (folder / "train/CT-2").mkdir()
    (folder / "train/CT-2/bad.nii").write_text("text")
    with pytest.raises(InputError, match="class 'CT-2' has no training.*; train/CT-2/bad.nii: not a NIfTI file"):
        prepare(folder)
    assert prepare(folder, groups=("CT-0", "CT-1")).packed.classes == ("CT-0", "CT-1")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="holds 0 class directories"):
        prepare(folder)


def test_progress_counts_every_volume_twice(folder):
    (folder / "CT-0/bad.nii").write_text("")
    steps: list[tuple[int, int]] = []
    prepare(folder, progress=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(1, 26))
    assert (steps[0], steps[-1]) == ((1, 26), (25, 25))


def test_every_volume_is_decoded_once(folder):
    """Once all are decoded the source is not looked at again."""

    def remove(done: int, total: int) -> None:
        if done == 12:
            shutil.rmtree(folder)

    expected = prepare(folder).packed.digest
    assert prepare(folder, progress=remove).packed.digest == expected


@pytest.mark.skipif(not REAL, reason="DDHPC_DATA does not name the directory of the real data sets")
def test_real_brain_structures_split_by_person(tmp_path):
    brain = Path(REAL) / "brain_structures"
    rows = [
        f"{path},{name},{path.name[:4]},{split.replace('train', '')}"
        for name in ("brain_stem", "putamen")
        for split in ("train", "test")
        for path in sorted((brain / split / name).iterdir())
    ]
    prepared = prepare(table(tmp_path / "labels.csv", *rows))
    packed = prepared.packed
    assert packed.samples == {"train": 156, "val": 24, "test": 240}
    assert (packed.image_shape, packed.dtype) == ((32, 32, 32), np.uint8)
    people = [{Path(name).name[:4] for name in packed.ids(split)} for split in packed.splits]
    assert [len(group) for group in people] == [13, 2, 20]
    name = packed.ids("val")[0]
    assert np.array_equal(whole(prepared)[name], load(name))


def tubes(seed: int) -> np.ndarray:
    """Bright tubes of 3x3 voxels through a dark cube of 64^3: two grey values."""
    voxels = np.zeros((64, 64, 64), np.uint8)
    for x, y in np.random.default_rng(seed).integers(0, 61, (12, 2)):
        voxels[x : x + 3, y : y + 3] = 1
    return voxels


def test_whole_numbers_of_small_range_are_not_rounded_when_they_are_resampled(tmp_path):
    for i in range(8):
        save(tmp_path / f"in/{'ab'[i % 2]}/{i}.nii.gz", tubes(i))
    prepared = prepare(tmp_path / "in", shape=(16, 16, 16))
    assert prepared.packed.dtype == np.float32
    for name, voxels in whole(prepared).items():
        original = load(tmp_path / "in" / name)
        blocks = original.reshape(16, 4, 16, 4, 16, 4).mean(axis=(1, 3, 5))
        assert voxels.mean() == pytest.approx(original.mean(), rel=0.05)
        assert np.corrcoef(voxels.ravel(), blocks.ravel())[0, 1] > 0.9


def test_whole_numbers_stay_exact_where_nothing_is_resampled(tmp_path):
    for i in range(8):
        save(tmp_path / f"in/{'ab'[i % 2]}/{i}.nii.gz", tubes(i))
    prepared = prepare(tmp_path / "in")
    assert prepared.packed.dtype == np.uint8
    for name, voxels in whole(prepared).items():
        assert np.array_equal(voxels, load(tmp_path / "in" / name))


def test_a_narrow_window_keeps_the_fractions_of_resampling(folder):
    narrow = prepare(folder, window=(0, 80), shape=(5, 4, 3)).packed
    assert narrow.dtype == np.float32
    values = narrow.read("train", (slice(None),) * 3)
    assert (values != np.rint(values)).mean() > 0.5
    assert prepare(folder, window=(-1000, 400), shape=(5, 4, 3)).packed.dtype == np.int16


def test_an_object_that_a_crop_removes_is_named(folder):
    for n, path in enumerate(sorted(folder.glob("*/*"))):
        voxels = np.zeros((20, 20, 20), np.int16)
        voxels[:10, 5:15, 5:15] = np.random.default_rng(n).integers(0, 500, (10, 10, 10))
        save(path, voxels)
    lost = np.zeros((20, 20, 20), np.int16)
    lost[:3] = 400
    save(folder / "CT-1/lost.nii", lost)
    prepared = prepare(folder, spacing=(1, 1, 1), shape=(10, 20, 20))
    assert (
        prepared.skipped["CT-1/lost.nii"]
        == "constant once it is prepared, every voxel is 0, 50% of it does not fit into 10x20x20 voxels"
    )
    assert "cut off by --shape: up to 50% of 12 of 12 volumes" in prepared.notes
    for voxels in whole(prepared).values():
        assert voxels.min() < voxels.max()


def sheared(degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(degrees))
    return affine


def test_a_sheared_affine_is_refused(folder):
    save(folder / "CT-0/0.nii.gz", noise(0), sheared(20))
    save(folder / "CT-0/1.nii.gz", noise(1), sheared(0.5))
    (name, reason), *others = prepare(folder).skipped.items()
    assert not others
    assert name == "CT-0/0.nii.gz"
    assert reason.startswith("sheared: axes 2 and 3 of the affine meet at 70.0 degrees, expected 90")


@pytest.mark.parametrize("where", ["voxels", "checksum", "length"])
def test_a_compressed_file_is_read_to_its_checksum(folder, where):
    path = save(folder / "CT-0/0.nii.gz", noise(0, (30, 30, 30)))
    data = bytearray(path.read_bytes())
    if where == "length":
        data = data[:-4]
    elif where == "checksum":
        data[-8] ^= 1
    else:
        stored = gzip.compress(gzip.decompress(bytes(data)), compresslevel=0)
        data = bytearray(stored)
        data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (reason,) = prepare(folder, shape=SHAPE).skipped.values()
    assert reason.startswith("damaged gzip stream: ")


@pytest.mark.parametrize(("unit", "factor"), [("meter", 0.001), ("micron", 1000)])
def test_other_units_of_length_become_millimetres(folder, unit, factor):
    for path in folder.glob("*/*"):
        image = nib.Nifti1Image(load(path), np.diag([2 * factor, 3 * factor, 4 * factor, 1]))
        image.header.set_xyzt_units(unit)
        image.to_filename(path)
    assert read_nifti(folder / "CT-0/0.nii.gz").spacing == pytest.approx((2, 3, 4), rel=1e-6)
    prepared = prepare(folder)
    named = {"meter": "metres", "micron": "micrometres"}[unit]
    assert f"12 of 12 volumes: {named} converted to mm" in prepared.notes
    assert any("spacings between 2 and 4 mm" in note for note in prepared.notes)


def without_orientation(path: Path) -> None:
    image = nib.Nifti1Image(load(path), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


def test_volumes_without_orientation_are_said_to_be_and_not_mixed_with_others(folder):
    paths = sorted(folder.glob("*/*"))
    for path in paths[:3]:
        without_orientation(path)
    with pytest.raises(InputError, match=r"3 of 12 volumes tell no orientation \(CT-0/0.nii.gz\), others do"):
        prepare(folder)
    for path in paths[3:]:
        without_orientation(path)
    assert "12 of 12 volumes: no orientation in the header, taken as LAS" in prepare(folder).notes


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.dtype(">i2"), np.int32])
def test_copies_are_known_whatever_type_holds_them(tmp_path, kind):
    for i in range(6):
        save(tmp_path / f"in/train/a/{i}.nii", noise(i))
        save(tmp_path / f"in/train/b/{i}.nii", noise(10 + i))
    save(tmp_path / "in/test/a/new.nii", noise(20))
    image = nib.Nifti1Image(noise(10).astype(kind), np.eye(4), nib.Nifti1Header(endianness=">"))
    image.to_filename(tmp_path / "in/test/b.nii")
    (tmp_path / "in/test/b").mkdir()
    (tmp_path / "in/test/b.nii").rename(tmp_path / "in/test/b/again.nii")
    assert list(prepare(tmp_path / "in", val_fraction=0.3).skipped) == ["test/b/again.nii"]


def test_the_same_content_under_two_labels_is_named(folder):
    save(folder / "CT-1/3.nii", noise(2).astype(np.float32))
    expected = {
        "CT-0/2.nii.gz": "same content as CT-1/3.nii, which has another label",
        "CT-1/3.nii": "same content as CT-0/2.nii.gz, which has another label",
    }
    assert prepare(folder).skipped == expected
    with pytest.raises(InputError, match="CT-0/2.nii.gz: same content as CT-1/3.nii, which .*--on-error"):
        prepare(folder, on_error="stop")


def test_a_pattern_tells_the_patients(tmp_path):
    for i in range(24):
        save(tmp_path / f"in/{'ab'[i % 2]}/sub-{i // 4:02}_scan{i}.nii", noise(i))
    prepared = prepare(tmp_path / "in", patients=r"sub-(\d+)", val_fraction=0.2, test_fraction=0.2)
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
    with pytest.raises(InputError, match=r"--patients \(: .*; expected a regular expression"):
        prepare(tmp_path / "in", patients="(")
    with pytest.raises(InputError, match="--patients sub-1: finds no patient in a/sub-00_scan0.nii"):
        prepare(tmp_path / "in", patients="sub-1")


def test_without_patients_that_is_said(folder):
    assert (
        "every volume is taken as independent of the others; --patients tells which are of one patient"
        in prepare(folder).notes
    )


def test_too_few_volumes_are_found_before_any_is_read(folder):
    rows = ["in/CT-0/0.nii.gz,a,P0", "in/CT-1/0.nii,b,P1", "in/CT-1/1.nii,b,P1"]
    seen = []
    with pytest.raises(InputError, match="class 'a' has 1 training patient, too few"):
        prepare(
            table(folder.parent / "two.csv", *rows, columns="path,label,patient"),
            progress=lambda *step: seen.append(step),
        )
    assert seen == []


@pytest.mark.parametrize("sign", [";", "\t"])
def test_tables_with_other_separators(folder, sign):
    rows = [f"in/CT-{k}/{i}.nii{'.gz' * (k == 0)}{sign}grade {k}, mild" for k in (0, 1) for i in range(6)]
    prepared = prepare(table(folder.parent / "labels.csv", *rows, columns=f"path{sign}label"))
    assert prepared.packed.classes == ("grade 0, mild", "grade 1, mild")


def test_folds_keep_both_scans_of_a_patient_together(folder):
    rows = [
        f"in/CT-{kind}/{i}.nii{'' if kind else '.gz'},CT-{kind},P{kind}{i // 2}" for kind in (0, 1) for i in range(6)
    ]
    source = table(folder.parent / "x.csv", *rows, columns="path,label,patient")
    prepared = prepare(source, folds=3)
    assert "3 folds of all samples of all splits: 4, 4, 4; seed 0" in prepared.notes
    packed = open_packed(prepared.packed.path, 2)
    assert packed.samples == {"train": 4, "val": 4, "test": 4}
    homes = [set(packed.patients(split)) for split in packed.splits]
    assert [len(home) for home in homes] == [2, 2, 2]
    assert len(set.union(*homes)) == 6
    with pytest.raises(InputError, match=r"^--folds 4: class 'CT-0' has 3 patients; expected one for each fold$"):
        prepare(source, folds=4)
