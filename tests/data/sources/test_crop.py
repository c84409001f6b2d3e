"""Volumes are cut to an organ or to the body, as they are prepared and as they are predicted."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ddhpc.data.sources.crop import Crop, box_of, cropped, otsu
from ddhpc.data.sources.inputs import list_inputs
from ddhpc.data.sources.preparation import Preparation, UnusableFile
from ddhpc.data.sources.resampling import oriented
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.data.sources.volume_formats import MASK, mask_of, read_volume, volume_of
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by
from tests.data.sources.test_dicom import write_series

SHAPE = (20, 16, 12)
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])  # stored right to left
AFFINE[:3, 3] = 30, -20, 100


def chest(seed: int = 0) -> np.ndarray:
    """Air, a body and a table, in HU and as stored: [right to left, to anterior, to superior]."""
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[4:15, 5:12, 2:9] = np.random.default_rng(seed).integers(-100, 100, (11, 7, 7))
    voxels[2:18, 1:3, 0:12] = 300  # the table, in as many voxels, but fewer
    voxels[:, 2] = -1000
    voxels[6:10, 7:10, 4:7] = -900  # a lung
    return voxels


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def lung(voxels: np.ndarray) -> np.ndarray:
    return (voxels == -900).astype(np.uint8)


def crop(by: str, margin: float = 0.0, threshold: float | None = None) -> Crop:
    return Crop(by=by, margin=margin, threshold=threshold)


def box(path: Path, how: Crop) -> tuple[tuple[int, int], ...]:
    return tuple((part.start, part.stop) for part in box_of(path, read_volume(path), how))


@pytest.mark.parametrize("name", ["x_mask.nii.gz", "x-mask.nii", "x_mask.mha", "x_mask.nrrd"])
def test_the_box_of_a_mask(name, tmp_path):
    path, mask = save(tmp_path / "x.nii.gz", chest()), tmp_path / name
    save(tmp_path / "m.nii", lung(chest()))
    if mask.suffix in (".mha", ".nrrd"):  # turned: its axes run another way
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(tmp_path / "m.nii"), "SPL"), mask)
    else:
        save(mask, lung(chest()))
    assert mask_of(path) == mask
    # stored 6 to 10 of 20 from the right are 10 to 14 from the left
    assert box(path, crop("mask")) == ((10, 14), (7, 10), (4, 7))
    assert box(path, crop("mask", 4.0)) == ((6, 18), (5, 12), (2, 9))  # of voxels of 1, 2 and 3 mm
    kept = cropped(path, read_volume(path), crop("mask"))
    assert np.array_equal(kept.voxels, chest()[::-1][10:14, 7:10, 4:7])
    assert (kept.affine @ [0, 0, 0, 1]).tolist() == [30 - 9, -20 + 7 * 2, 100 + 4 * 3, 1]
    assert box(path, crop("mask", 1000.0)) == ((0, 20), (0, 16), (0, 12))


def test_the_box_of_the_foreground(tmp_path):
    path = save(tmp_path / "x.nii.gz", chest())
    assert box(path, crop("foreground")) == ((5, 16), (5, 12), (2, 9))
    assert box(path, crop("foreground", 2.0)) == ((3, 18), (4, 13), (1, 10))
    assert box(path, crop("foreground", threshold=200.0)) == ((2, 18), (1, 2), (0, 12))


def test_without_hounsfield_units_the_threshold_is_that_of_otsu(tmp_path):
    rng = np.random.default_rng(0)
    head = rng.normal(30, 10, (40, 40, 40))
    head[10:30, 8:31, 5:32] = rng.normal(200, 40, (20, 23, 27))
    image = sitk.GetImageFromArray(head.astype(np.float32).T)
    filtered = sitk.OtsuThresholdImageFilter()
    filtered.SetNumberOfHistogramBins(256)
    filtered.Execute(image)
    assert otsu(head) == pytest.approx(filtered.GetThreshold(), abs=np.ptp(head) / 256)
    path = save(tmp_path / "x.nii", head.astype(np.float32), np.eye(4))
    assert box(path, crop("foreground")) == ((10, 30), (8, 31), (5, 32))


def test_otsu_is_not_moved_by_a_few_bright_voxels():
    values = np.concatenate([np.full(900, 10.0), np.full(100, 100.0)])
    bright = values.copy()
    bright[-2:] = 1e6
    assert 10 <= otsu(values) < 100
    assert 10 <= otsu(bright) < 100


def test_the_box_is_resampled_where_it_lies(tmp_path):
    """A volume that holds its own places, in mm: what is packed is the box, at the spacing, centred in the shape."""
    places = [np.broadcast_to(each, SHAPE) for each in np.ix_(*(np.arange(size) for size in SHAPE))]
    preparation = VolumePreparation(
        shape=(12, 20, 29),
        resize="centre",
        spacing=(0.5, 1.0, 1.0),
        intensity_range=None,
        orientation="of the file",
        dtype="float32",
        crop=crop("mask", 2.0),
    )
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:14, 7:10, 4:7] = 1
    save(tmp_path / "x_mask.nii", mask, np.diag([1.0, 2.0, 3.0, 1.0]))
    starts, stops = np.array([8, 6, 3]), np.array([16, 11, 8])  # with 2, 1 and 1 voxels around
    for axis, size in enumerate((1.0, 2.0, 3.0)):
        save(tmp_path / "x.nii", (size * places[axis]).astype(np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
        found = preparation.apply(tmp_path / "x.nii")[0]
        middle = size * (starts[axis] + stops[axis] - 1) / 2
        at = [slice((n - 1) // 2, n // 2 + 1) for n in found.shape]
        assert found[tuple(at)].mean() == pytest.approx(middle)
        line = found[tuple(slice(None) if n == axis else size // 2 for n, size in enumerate(found.shape))]
        inner = line[(line > line.min() + 1e-3) & (line < line.max() - 1e-3)]
        assert np.allclose(np.diff(inner), preparation.spacing[axis], atol=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, label in enumerate("ab"):
        for i in range(4):
            voxels = chest(10 * k + i)
            save(tmp_path / f"in/{label}/{i}.nii.gz", voxels)
            save(tmp_path / f"in/{label}/{i}_mask.nii.gz", lung(voxels))
    return tmp_path / "in"


@pytest.mark.parametrize("by", ["mask", "foreground"])
def test_prepare_and_predict_crop_alike(by, folder):
    prepared = packed_by(prepare_volumes, VolumeOptions, folder, folder.parent / "x.h5", crop=by, crop_margin=3.0)
    packed = prepared.packed
    preparation = Preparation.from_json(packed.preparation)
    assert preparation.crop == crop(by, 3.0)
    inside = {"mask": np.s_[7:17, 5:12, 3:8], "foreground": np.s_[2:19, 3:14, 1:10]}[by]
    assert packed.image_shape == np.empty(SHAPE)[inside].shape
    count = 0
    for split in packed.splits:
        for index, name in enumerate(packed.ids(split)):
            seed = 10 * (name[0] == "b") + int(name[2])
            assert np.array_equal(packed.sample(split, index)[0], chest(seed)[::-1][inside])
            assert np.array_equal(packed.sample(split, index), preparation.apply(folder / name))
            count += 1
    assert count == 8
    share = np.prod(packed.image_shape) / np.prod(SHAPE)
    around = f"cropped to the {by} and 3 mm around it: {share:.0%} to {share:.0%} of a volume are kept"
    assert around in prepared.notes
    assert set(prepared.skipped.values()) == {MASK}
    assert len(list_inputs([folder], preparation).samples) == 8
    (folder / "a/0_mask.nii.gz").unlink()
    if by == "foreground":
        preparation.apply(folder / "a/0.nii.gz")
        return
    with pytest.raises(UnusableFile, match=r"a/0.nii.gz: no mask beside it, expected one 0_mask in a file such as"):
        preparation.apply(folder / "a/0.nii.gz")
    again = packed_by(prepare_volumes, VolumeOptions, folder, folder.parent / "y.h5", crop="mask")
    assert again.skipped["a/0.nii.gz"].startswith("no mask beside it")


def test_another_mask_is_decoded_anew(folder):
    def pack(name: str, **options):
        return packed_by(
            prepare_volumes, VolumeOptions, folder, folder.parent / name, shape=(4, 4, 4), **options
        ).packed

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack("x.h5", crop="mask", progress=interrupt)
    save(folder / "a/0_mask.nii.gz", (chest(0) == 300).astype(np.uint8))
    assert pack("x.h5", crop="mask").digest == pack("y.h5", crop="mask").digest


def test_the_mask_of_a_series_lies_beside_its_directory(tmp_path):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    series = write_series(tmp_path / "in/CT.1", voxels)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[1:4, 2:5, 1:3] = 1
    image = sitk.GetImageFromArray(mask[::-1, ::-1].T)  # columns to the left, rows to the back
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetOrigin((-30.0, -40.0, -100.0))
    sitk.WriteImage(image, tmp_path / "in/CT.1_mask.nrrd")
    assert box(series, crop("mask")) == ((1, 4), (2, 5), (1, 3))
    assert volume_of(tmp_path / "in/CT.1_mask.nrrd") == MASK
    image.SetOrigin((-30.0, -40.0, -97.0))
    sitk.WriteImage(image, tmp_path / "in/CT.1_mask.nrrd")
    with pytest.raises(ValueError, match=r"CT.1_mask.nrrd lies 3 mm aside of its volume, expected the same place"):
        box(series, crop("mask"))


def test_a_name_that_ends_as_that_of_a_mask_is_a_volume_where_it_is_of_none(tmp_path):
    path = save(tmp_path / "patient_with_mask.nii.gz", chest())
    assert volume_of(path) == path


def test_masks_that_cannot_be_used(tmp_path):
    path = save(tmp_path / "x.nii", chest())
    save(tmp_path / "x_mask.nii", lung(chest())[1:])
    with pytest.raises(ValueError, match="x_mask.nii and its volume have 19x16x12 and 20x16x12 voxels, expected the"):
        box(path, crop("mask"))
    save(tmp_path / "x_mask.nii", 0 * lung(chest()))
    with pytest.raises(ValueError, match="x_mask.nii is 0 everywhere"):
        box(path, crop("mask"))
    save(tmp_path / "x-mask.nii.gz", lung(chest()))
    with pytest.raises(ValueError, match=r"x_mask.nii and x-mask.nii.gz beside it, expected one x_mask in a file"):
        box(path, crop("mask"))
    with pytest.raises(ValueError, match="no voxel above 5000, the threshold of the foreground"):
        box(path, crop("foreground", threshold=5000.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_margin": 3.0}, "--crop-margin 3: expected millimetres, at least 0, with --crop"),
        ({"crop": "mask", "crop_margin": -1.0}, "--crop-margin -1: expected millimetres, at least 0, with --crop"),
        ({"crop": "mask", "crop_threshold": 0.0}, "--crop-threshold 0: expected a number, with --crop foreground"),
        ({"crop": "foreground", "crop_threshold": float("nan")}, "--crop-threshold nan: expected a number"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        packed_by(prepare_volumes, VolumeOptions, folder, folder.parent / "x.h5", **options)


def test_what_is_recorded():
    values = {"shape": (4, 5, 6), "resize": "stretch", "spacing": None, "intensity_range": None}
    values |= {"orientation": "of the file", "dtype": "int16"}
    text = VolumePreparation(**values).to_json()
    assert "crop" not in text, "as older versions wrote it, so that they read it"
    assert Preparation.from_json(text).crop is None
    cut = VolumePreparation(**values, crop=crop("foreground", 5.0, -300.0))
    assert Preparation.from_json(cut.to_json()) == cut
    for change, message in {
        '{"by": "mask", "margin": -1, "threshold": null}': "has margin -1.0; expected millimetres, at least 0",
        '{"by": "mask", "margin": 1, "threshold": 3}': "has threshold 3.0 by mask; expected a number, for the",
        '{"by": "hand", "margin": 1, "threshold": null}': "has by 'hand'; expected mask or foreground",
        '{"by": "mask", "threshold": null}': "lacks margin",
        '"mask"': "has crop 'mask'; expected a JSON object or null",
    }.items():
        bad = json.dumps(json.loads(text) | {"crop": json.loads(change)})
        with pytest.raises(InputError, match=f"^x.h5: the preparation of its files {message}"):
            Preparation.from_json(bad, "x.h5")
    assert oriented(np.zeros((2, 3, 4)), AFFINE).affine[:3, 3].tolist() == [29.0, -20.0, 100.0]
