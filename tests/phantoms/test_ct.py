"""Chest CT phantoms look like chests, are reproducible, and go through `prepare`."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ddhpc.data.sources.resampling import oriented
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from ddhpc.phantoms.chest import Grid, chest
from ddhpc.phantoms.ct import CYCLE, SEVERITY, STORED_AXES, Phantom, phantom, write_phantoms
from ddhpc.phantoms.disease import diseased, with_findings
from ddhpc.phantoms.trees import path, tree
from tests.data.sources.packing import packed_by

PATIENTS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "ct"
    steps: list[tuple[int, int]] = []
    counts = write_phantoms(out, patients=PATIENTS, seed=5, progress=lambda *step: steps.append(step))
    assert counts == {"CT-0": 6, "CT-2": 3, "CT-3": 3}
    assert steps == [(n, PATIENTS) for n in range(1, PATIENTS + 1)]
    return out


@pytest.fixture(scope="module")
def drawn() -> list[Phantom]:
    return [phantom(1, number) for number in range(1, 7)]


def small_grid() -> Grid:
    return Grid(shape=(70, 70, 28), spacing=(5.5, 5.5, 10.0), origin=(-190.0, -190.0, -45.0))


def test_a_phantom_depends_on_its_seed_and_number_alone(drawn):
    again = phantom(1, 3)
    assert np.array_equal(again.voxels, drawn[2].voxels)
    assert np.array_equal(again.affine, drawn[2].affine)
    for other in (phantom(2, 3), phantom(1, 4)):
        assert other.voxels.shape != again.voxels.shape or not np.array_equal(other.voxels, again.voxels)
    assert [one.label for one in drawn] == [*CYCLE, *CYCLE[:2]]


def test_another_scan_shows_the_same_body(drawn):
    """Voxel by voxel once both are turned alike: noise alone differs, and where the table and body are do not."""
    first, second = (oriented(one.voxels, one.affine).voxels for one in (drawn[1], phantom(1, 2, 2)))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    assert np.abs(first - second).mean() < 60
    other = drawn[0].voxels
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.97
    assert other.shape != first.shape or np.corrcoef(first.ravel(), other.ravel())[0, 1] < 0.97
    assert np.array_equal(phantom(1, 2, 1).voxels, drawn[1].voxels)


def test_all_scans_of_a_patient_are_written(tmp_path):
    assert write_phantoms(tmp_path / "x", patients=12, scans=2, seed=5) == {"CT-0": 12, "CT-2": 6, "CT-3": 6}
    with open(tmp_path / "x/labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["patient"] for row in rows) == {f"patient_{n:04}": 2 for n in range(1, 13)}
    assert rows[1]["path"] == f"{CYCLE[0]}/study_0001_scan_2.nii.gz"
    stored = nib.load(tmp_path / "x" / rows[1]["path"])
    assert np.array_equal(np.asanyarray(stored.dataobj), phantom(5, 1, 2).voxels)


def test_units_are_those_of_a_chest(drawn):
    for one in drawn:
        assert one.voxels.dtype == np.int16
        volume = oriented(one.voxels, one.affine)
        inner = volume.voxels[tuple(slice(size // 4, -size // 4) for size in volume.shape)]
        lung = inner[(inner > -980) & (inner < -600)]
        assert -920 < np.median(lung) < -740
        assert 0.1 < lung.size / inner.size < 0.75
        assert (inner > -20).mean() > 0.15
        assert 0.0005 < (volume.voxels > 250).mean() < 0.05
        assert (volume.voxels[0, 0] == -1024).all()


def test_the_table_is_at_the_back_and_the_heart_on_the_left_however_it_is_stored(drawn):
    assert {oriented(one.voxels, one.affine).axes for one in drawn} <= set(STORED_AXES)
    assert len({oriented(one.voxels, one.affine).axes for one in drawn}) > 1
    for one in drawn:
        volume = oriented(one.voxels, one.affine)
        x = np.linspace(-1, 1, volume.shape[0])
        y = np.linspace(-1, 1, volume.shape[1])
        dense = (volume.voxels > -300).mean(axis=2)
        assert dense[:, y < -0.6].sum() > dense[:, y > 0.6].sum()
        heart = (volume.voxels > -100)[:, (y > -0.1) & (y < 0.35)][..., volume.shape[2] // 3 : volume.shape[2] // 2]
        assert heart[(x > -0.35) & (x < -0.1)].mean() > heart[(x > 0.1) & (x < 0.35)].mean()


def test_sizes_vary(drawn):
    volumes = [oriented(one.voxels, one.affine) for one in drawn]
    assert len({volume.shape for volume in volumes}) > 3
    assert len({volume.spacing for volume in volumes}) > 3
    for volume in volumes:
        assert 2.6 < volume.spacing[0] < 4
        assert 4.4 < volume.spacing[2] < 7.4


def test_of_a_wanted_shape_the_chest_is_as_large():
    shapes = ((48, 48, 32), (96, 96, 64))
    drawn = [phantom(0, 2, shape=shape) for shape in shapes]
    assert tuple(each.voxels.shape for each in drawn) == shapes
    for each in drawn:
        width, depth, height = np.abs(each.affine[:3, :3]).sum(axis=0) * each.voxels.shape
        assert 379 < depth == width < 441
        assert 269 < height < 321
    air = [(each.voxels < -600).mean() for each in drawn]
    assert air[0] == pytest.approx(air[1], rel=0.1)


@pytest.mark.parametrize(("label", "most"), [("CT-2", 0.25), ("CT-3", 0.5)])
def test_disease_gathers_in_parts_of_the_lungs_only(label, most):
    shares, untouched = [], []
    for number in range(8):
        rng, grid = np.random.default_rng(number), small_grid()
        healthy = chest(rng, grid)
        before = with_findings(rng, grid, healthy)
        after = diseased(rng, grid, healthy, before, SEVERITY[label])
        assert np.array_equal(after[~healthy.lung], before[~healthy.lung])
        assert (after >= before - 1e-3).all()
        ill = (after - before > 100) & healthy.lung
        shares.append(ill.sum() / healthy.lung.sum())
        for part, lung in zip(np.array_split(ill, 4), np.array_split(healthy.lung, 4), strict=True):
            for corner, there in zip(np.array_split(part, 4, 1), np.array_split(lung, 4, 1), strict=True):
                if there.sum() > 100:
                    untouched.append(corner.sum() < 0.03 * there.sum())
    assert min(shares) > 0.01
    assert max(shares) < most
    assert 0.1 < np.mean(untouched) < 0.9


def test_healthy_people_have_findings_too():
    changed = []
    for number in range(12):
        rng, grid = np.random.default_rng(number), small_grid()
        healthy = chest(rng, grid)
        raised = with_findings(rng, grid, healthy) - healthy.voxels
        changed.append(((raised > 100) & healthy.lung).sum() / healthy.lung.sum())
    assert np.mean(np.array(changed) > 0.005) > 0.25


def test_points_fill_their_tubes():
    tubes = path([[0, 0, 0], [100, 0, 0]], 5.0)
    points = tubes.points(np.random.default_rng(0), 1.0)
    assert abs(len(points) - np.pi * 25 * 100) < 400
    away = np.hypot(points[:, 1], points[:, 2])
    assert away.max() <= 5
    assert abs(np.median(away) - 5 / np.sqrt(2)) < 0.1
    walls = tubes.points(np.random.default_rng(0), 1.0, wall=0.2)
    assert np.hypot(walls[:, 1], walls[:, 2]).min() >= 4
    grid = Grid(shape=(120, 20, 20), spacing=(1.0, 1.0, 1.0), origin=(-10.0, -10.0, -10.0))
    filled = grid.filled(points, 1.0)
    assert filled.max() == 1
    assert filled[:, :4].sum() == 0


def test_trees_fork_in_two():
    aims = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0]])
    branches = tree(np.random.default_rng(0), np.zeros(3), aims, radius=4, length=20, generations=4)
    assert len(branches.radius) == 3 * (1 + 2 + 4 + 8)
    assert np.allclose(branches.start[3:6], branches.end[:3])
    assert np.allclose(branches.start[6:9], branches.end[:3])
    assert branches.radius[-24:].max() < branches.radius[:3].max()


def test_what_is_written(written):
    with open(written / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PATIENTS
    assert len({row["patient"] for row in rows}) == PATIENTS
    files = {str(path.relative_to(written)) for path in written.glob("CT-*/*.nii.gz")}
    assert files == {row["path"] for row in rows}
    assert all(row["path"].startswith(f"{row['label']}/study_") for row in rows)
    assert "not patients" in (written / "README.md").read_text()
    third = phantom(5, 3)
    stored = nib.load(written / third.label / "study_0003.nii.gz")
    assert np.array_equal(np.asanyarray(stored.dataobj), third.voxels)
    assert np.allclose(stored.affine, third.affine, atol=1e-4)
    assert stored.get_data_dtype() == np.int16
    assert stored.header.get_xyzt_units()[0] == "mm"
    assert b"not a patient" in stored.header["descrip"].item()
    assert max(path.stat().st_size for path in written.glob("CT-*/*")) < 2.5e6


@pytest.mark.parametrize(
    ("shape", "told", "command"),
    [
        (None, "2.6 to 4 mm in plane", "THIS_FOLDER --output ct.h5 --groups"),
        (
            (32, 32, 40),
            "32x32x40 voxels, 12 to 14 mm in plane, 6.8 to 8 mm",
            " --output ct.h5 --shape 32 32 40 --groups",
        ),
    ],
)
def test_what_is_written_tells_its_voxels_and_how_to_keep_them(tmp_path, shape, told, command):
    write_phantoms(tmp_path / "x", patients=12, shape=shape)
    said = (tmp_path / "x/README.md").read_text()
    assert told in said
    assert command in said


def test_prepare_takes_the_folder_and_the_table(written, tmp_path):
    options = {"shape": (16, 16, 8), "groups": ("CT-0", "CT-2,CT-3"), "overwrite": True, "on_error": "stop"}
    folder = packed_by(prepare_volumes, VolumeOptions, written, tmp_path / "x.h5", **options)
    assert folder.packed.classes == ("CT-0", "CT-2,CT-3")
    assert folder.packed.samples == {"train": 8, "val": 2, "test": 2}
    assert folder.packed.dtype == np.int16
    assert set(folder.skipped) == {"README.md", "labels.csv"}
    table = packed_by(prepare_volumes, VolumeOptions, written / "labels.csv", tmp_path / "x.h5", **options)
    assert table.packed.samples == {"train": 8, "val": 2, "test": 2}
    assert not table.skipped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 11}, "--patients 11: expected at least 12"),
        ({"seed": -1}, "--seed -1: expected 0 or more"),
        ({"shape": (64, 48, 32)}, "--shape 64 48 32: expected three numbers of 32 or more, the first two equal"),
        ({"shape": (64, 64, 16)}, "--shape 64 64 16: expected three numbers of 32"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_phantoms(tmp_path / "new", **options)
    if "shape" in options:
        with pytest.raises(InputError, match=message):
            phantom(0, 2, **options)
    assert not (tmp_path / "new").exists()


def test_what_exists_is_kept(written, tmp_path):
    with pytest.raises(InputError, match="is not empty; expected a new directory"):
        write_phantoms(written)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/new"):
        with pytest.raises(InputError, match=f"^{out}: cannot be written: [^\n]*$"):
            write_phantoms(out)
    assert (tmp_path / "file").read_text() == "mine"
