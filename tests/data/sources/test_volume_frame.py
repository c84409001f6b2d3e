"""Maps over the voxels of a file: where its own viewer shows them is where the network has seen them."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from nibabel.affines import apply_affine

from ddhpc.data.sources.crop import Crop
from ddhpc.data.sources.preparation import UnusableFile
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.data.sources.volume_frame import compressed, frame, packed_frame
from ddhpc.method.decomposition import sides, windows
from ddhpc.method.dependence import spread
from tests.data.sources.test_dicom import SHAPE as SERIES
from tests.data.sources.test_dicom import write_series

GRID = (2, 3, 2)
VALUES = np.arange(1.0, 13.0)
SHAPE = (20, 14, 17)
TURN = np.radians(17)
OBLIQUE = np.array(  # voxels of 1.25 x 2 x 0.8 mm whose axes run to anterior, inferior and left, tilted by 17 degrees
    [
        [0, 0, -0.8, 31.5],
        [1.25 * np.cos(TURN), 2 * np.sin(TURN), 0, -80.0],
        [1.25 * np.sin(TURN), -2 * np.cos(TURN), 0, 412.25],
        [0, 0, 0, 1],
    ]
)
PREPARATIONS = {
    "cut and filled": {"shape": (12, 16, 14), "resize": "centre", "spacing": (1.0, 1.9, 2.0)},
    "stretched": {"shape": (9, 18, 25), "resize": "stretch", "spacing": None},
    "resampled": {"shape": (7, 25, 28), "resize": "none", "spacing": (1.95, 1.0, 1.0)},
}


def preparation(**fields):
    return VolumePreparation(**fields, intensity_range=None, orientation="of the file", dtype="float32")


def saved(path, voxels, affine=OBLIQUE, kind=nib.Nifti1Image):
    image = kind(voxels, affine)
    image.set_qform(affine, 2)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"name of a patient"
    nib.save(image, path)
    return path


def mapped(path, prepared):
    """The map of a file, read as others do, and the file."""
    where = frame(path, prepared)
    data = compressed(where, spread(VALUES, sides(prepared.shape, GRID), where.seen), "what it is")
    target = path.with_name(f"map of {path.name}.nii.gz")
    target.write_bytes(data)
    assert data == compressed(where, spread(VALUES, sides(prepared.shape, GRID), where.seen), "what it is")
    return nib.load(target)


def agreeing(path, write, prepared, shape):
    """Share of the prepared voxels whose value in the map is that of their block.

    `write` stores volumes whose voxels hold their own place along an axis: what is prepared tells where in the file
    each prepared voxel is from, as interpolation keeps a linear function.
    """
    places = np.indices(shape)
    from_file = []
    for place in places:
        write((100 * place).astype(np.int16))
        from_file.append(prepared.apply(path)[0] / 100)
    found = np.asarray(mapped(path, prepared).dataobj)
    expected = np.zeros(prepared.shape)
    for value, block in zip(VALUES, windows(prepared.shape, GRID), strict=True):
        expected[block] = value
    there = np.ones(prepared.shape, bool)
    for axis, (have, between) in enumerate(zip(prepared.shape, from_file[0].shape, strict=True)):
        assert have == between
        step = np.abs(np.stack([np.diff(each, axis=axis) for each in from_file])).sum(0)
        moving = np.pad(step > 0.01, [(1, 1) if n == axis else (0, 0) for n in range(3)])
        there &= moving.take(range(have), axis) | moving.take(range(1, have + 1), axis)  # neither filled nor clamped
    at = tuple(np.rint(each[there]).astype(int) for each in from_file)
    return (found[at] == expected[there]).mean(), there.mean()


@pytest.mark.parametrize("name", PREPARATIONS)
def test_prepared_voxels_have_the_value_of_their_block_where_they_come_from(name, tmp_path):
    prepared, path = preparation(**PREPARATIONS[name]), tmp_path / "x.nii.gz"
    right, there = agreeing(path, lambda voxels: saved(path, voxels), prepared, SHAPE)
    assert there > 0.2
    assert right > 0.93, "all but a voxel of the file that two blocks meet in"


@pytest.mark.parametrize("name", ["cut and filled", "stretched"])
def test_so_have_those_of_the_box_of_a_mask(name, tmp_path):
    """Voxels outside of the box were not seen."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:17, 2:11, 4:15] = 1
    saved(tmp_path / "x_mask.nii.gz", mask)
    prepared = preparation(**PREPARATIONS[name], crop=Crop(by="mask", margin=0, threshold=None))
    path = tmp_path / "x.nii.gz"
    right, there = agreeing(path, lambda voxels: saved(path, voxels), prepared, SHAPE)
    assert there > 0.1
    assert right > 0.88, "all but a voxel of the file that two blocks meet in"
    assert (np.asarray(mapped(path, prepared).dataobj)[mask == 0] == 0).all()


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nhdr"])
def test_a_map_over_a_file_of_itk_lies_as_that_over_its_nifti(ending, tmp_path):
    prepared = preparation(**PREPARATIONS["cut and filled"])
    path = saved(tmp_path / "x.nii.gz", np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE))
    expected = mapped(path, prepared)
    other = tmp_path / f"y.{ending}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(path), other)
    found = mapped(other, prepared)
    corners = np.array([[0, 0, 0], [19, 13, 16]])
    assert np.allclose(apply_affine(found.affine, corners), apply_affine(expected.affine, corners), atol=1e-3)
    assert np.array_equal(found.dataobj, expected.dataobj)


def test_a_map_over_a_pair_is_that_over_a_single_file(tmp_path):
    prepared, voxels = preparation(**PREPARATIONS["stretched"]), np.arange(np.prod(SHAPE), dtype=np.float32)
    single = saved(tmp_path / "x.nii", voxels.reshape(SHAPE))
    pair = saved(tmp_path / "y.hdr", voxels.reshape(SHAPE), kind=nib.Nifti1Pair)
    expected, found = mapped(single, prepared), mapped(pair, prepared)
    assert np.array_equal(found.affine, expected.affine)
    assert np.array_equal(found.dataobj, expected.dataobj)


def test_so_have_those_of_a_dicom_series(tmp_path):
    prepared = preparation(shape=(12, 10, 8), resize="stretch", spacing=None)
    series = tmp_path / "series"
    # It is given left to right and posterior to anterior, and stores columns and rows the other way round.
    right, there = agreeing(series, lambda voxels: write_series(series, voxels[::-1, ::-1]), prepared, SERIES)
    assert there > 0.2
    assert right == pytest.approx(0.9), "in one voxel of five along y two blocks meet"


def test_the_corner_of_a_block_is_where_the_file_has_it_in_the_patient(tmp_path):
    """By hand: twice as fine along x, cut by 3 voxels of 2 mm at both ends of z, filled by 2 of y."""
    affine = OBLIQUE.copy()
    affine[:3, 0] /= 1.25  # 1 mm to anterior
    affine[:3, 2] /= 0.8  # 1 mm to left
    path = saved(tmp_path / "x.nii", np.arange(12 * 16 * 10, dtype=np.int16).reshape(12, 16, 10), affine)
    prepared = preparation(shape=(20, 16, 10), resize="centre", spacing=(0.5, 1.0, 2.0))
    made = mapped(path, prepared)
    found = np.asarray(made.dataobj)
    # Subdomain (1, 2, 0): right half of x, the last third of y [11, 16), the lower half of z [0, 5).
    inside = np.argwhere(found == 1 + 1 * 6 + 2 * 2 + 0)
    # x: voxels 10 to 19 of 0.5 mm are 5 to 9 of 1 mm from the left, which the file counts from the right: 0 to 4.
    # y: voxels 11 to 13 are 9 to 11 of the file, 14 and 15 are filled.
    # z: 0 to 4 are 3 to 7 from below, 8 to 12 from above.
    assert inside.min(0).tolist() == [9, 8, 0]
    assert inside.max(0).tolist() == [11, 12, 4]
    assert len(inside) == 3 * 5 * 5
    corner = apply_affine(made.affine, inside.min(0) - 0.5)
    turn = np.array([[np.cos(TURN), np.sin(TURN)], [np.sin(TURN), -np.cos(TURN)]])  # anterior and superior, by axis
    assert np.allclose(corner[0], 31.5 + 0.5)
    assert np.allclose(corner[1:], [-80, 412.25] + turn @ [8.5, 2 * 7.5])
    assert (found[:, :3] == 0).all(), "above what the network has seen"
    assert (found[:, 13:] == 0).all(), "below it"
    assert (found[:, 3:13] > 0).all()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("coded", [(2, 1), (0, 1), (1, 0)])
def test_it_lies_over_the_file_to_the_bit_and_names_nobody(kind, coded, tmp_path):
    path = saved(tmp_path / "x.nii.gz", np.zeros((*SHAPE, 1), np.int16), kind=kind)
    image = nib.load(path)
    image.header["qform_code"], image.header["sform_code"] = coded
    image = kind(np.asarray(image.dataobj), None, image.header)
    nib.save(image, path)
    before = nib.load(path)
    made = mapped(path, preparation(shape=(9, 18, 25), resize="stretch", spacing=None))
    assert type(made) is kind
    assert np.array_equal(made.affine, before.affine)
    for form in ("get_qform", "get_sform"):
        affine, code = getattr(made, form)(coded=True)
        expected, known = getattr(before, form)(coded=True)
        assert code == known
        assert affine is expected is None or np.array_equal(affine, expected)
    assert made.shape == before.shape
    assert made.header.get_zooms() == before.header.get_zooms()
    assert made.header.get_xyzt_units() == ("mm", "sec")
    assert made.get_data_dtype() == np.float32
    assert made.header["descrip"].item() == b"what it is"
    assert (float(made.header["cal_min"]), float(made.header["cal_max"])) == (-12, 12)
    assert b"patient" not in gzip.decompress(Path(made.get_filename()).read_bytes())


def test_without_an_orientation_it_has_none_either(tmp_path):
    path = tmp_path / "x.nii"
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header.set_zooms((2.0, 3.0, 4.0))
    nib.save(image, path)
    made = mapped(path, preparation(shape=(9, 18, 25), resize="stretch", spacing=None))
    assert np.array_equal(made.affine, nib.load(path).affine)
    assert (made.header["qform_code"], made.header["sform_code"]) == (0, 0)


def test_a_series_is_placed_as_its_slices_say(tmp_path):
    series = write_series(tmp_path / "series", np.zeros(SERIES, np.int16))
    made = mapped(series, preparation(shape=(4, 6, 4), resize="stretch", spacing=None))
    last = pydicom.dcmread(series / "1.dcm")  # the topmost
    place = apply_affine(made.affine, (0, 0, SERIES[2] - 1)) * (-1, -1, 1)  # DICOM counts to left and posterior
    assert np.allclose(place, last.ImagePositionPatient)
    assert made.shape == (last.Columns, last.Rows, SERIES[2])
    assert np.allclose(made.get_qform(), made.affine)


def test_a_prepared_volume_has_its_spacing(tmp_path):
    target = tmp_path / "map.nii.gz"
    for spacing, zooms in (((2.0, 1.0, 0.5), (2.0, 1.0, 0.5)), (None, (1.0, 1.0, 1.0))):
        where = packed_frame((4, 6, 8), spacing)
        values = spread(VALUES, sides((4, 6, 8), GRID), where.seen)
        target.write_bytes(compressed(where, values, ""))
        made = nib.load(target)
        assert np.array_equal(np.asarray(made.dataobj), values)
        assert np.array_equal(made.affine, np.diag([*zooms, 1]))


def test_what_is_no_volume_is_named(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"x")
    with pytest.raises(UnusableFile, match=r"x.nii: not a NIfTI file$"):
        frame(tmp_path / "x.nii", preparation(shape=(9, 18, 25), resize="stretch", spacing=None))
