"""DICOM series, written by pydicom, become volumes."""

from __future__ import annotations

import io
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ddhpc.data.sources.dicom import is_dicom, read_dicom, read_geometry
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

SHAPE = (6, 5, 4)
SPACING = (0.5, 2.0, 3.0)


def hounsfield(seed: int = 0) -> np.ndarray:
    """[x, y, z] left to right, posterior to anterior, inferior to superior."""
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)


def write_series(directory: Path, voxels: np.ndarray, *, names: str = "{}.dcm", **change) -> Path:
    """A series of axial slices, numbered from the head down; `change` replaces attributes of all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for number, z in enumerate(reversed(range(voxels.shape[2])), 1):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = pydicom.Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.Modality, slice_.SeriesInstanceUID, slice_.InstanceNumber = "CT", series, number
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-30.0, -40.0, SPACING[2] * z - 100]
        slice_.PixelSpacing = [SPACING[1], SPACING[0]]
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = 1, -1024, "HU"
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        # columns run from the patient's right to left, rows from front to back
        pixels = (voxels[::-1, ::-1, z].T.astype(np.int32) + 1024).astype(np.uint16)
        slice_.Rows, slice_.Columns = pixels.shape
        slice_.PixelData = np.ascontiguousarray(pixels).tobytes()
        slice_["PixelData"].VR = "OW"
        for name, value in change.items():
            setattr(slice_, name, value)
        slice_.save_as(directory / names.format(number), enforce_file_format=True)
    return directory


def edit(path: Path, **change) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in change.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.mark.parametrize("names", ["{}.dcm", "IM{}", "{}.IMA"])
def test_a_series(tmp_path, names):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = read_dicom(write_series(tmp_path, hounsfield(), names=names))
    assert np.array_equal(found.voxels, hounsfield())
    assert found.spacing == SPACING
    assert found.axes == "LPS"


def test_a_sagittal_series(tmp_path):
    voxels = hounsfield()
    write_series(tmp_path, voxels)
    for path in tmp_path.iterdir():
        z = 4 - pydicom.dcmread(path).InstanceNumber
        edit(path, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[SPACING[2] * z, 0, 0])
    # columns to posterior, rows to inferior, slices to the patient's left
    expected = voxels[::-1, ::-1].transpose(2, 0, 1)[::-1, ::-1, ::-1]
    found = read_dicom(tmp_path)
    assert np.array_equal(found.voxels, expected)
    assert found.spacing == (SPACING[2], SPACING[0], SPACING[1])


def tilt(directory: Path, along_y: float, along_x: float = 0.0) -> Path:
    """Slices move by so many mm to the patient's back and left, for each mm to the head."""
    for path in directory.iterdir():
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        edit(path, ImagePositionPatient=[x + along_x * z, y + along_y * z, z])
    return directory


def test_a_tilt_that_shifts_nothing_by_half_a_pixel_is_left_as_it_is(tmp_path):
    found = read_dicom(tilt(write_series(tmp_path, hounsfield()), 0.02))
    assert np.array_equal(found.voxels, hounsfield())
    assert found.remarks == ()


def test_slices_of_a_tilted_gantry_are_shifted_above_each_other(tmp_path):
    """By whole pixels: 2 mm, one row, to the back from slice to slice."""
    found = read_dicom(tilt(write_series(tmp_path, hounsfield()), SPACING[1] / SPACING[2]))
    expected = np.full((6, 5 + 3, 4), hounsfield().min(), np.float32)
    for z in range(4):
        expected[:, 3 - z : 8 - z, z] = hounsfield()[:, :, z]
    assert np.array_equal(found.voxels, expected)
    assert (found.spacing, found.axes) == (SPACING, "LPS")
    assert found.remarks == ("tilted gantry, slices shifted to lie above each other",)


@pytest.mark.parametrize(("degrees", "along_x"), [(20, 0.0), (-20, 0.21)])
def test_a_tilted_volume_has_the_values_of_its_places(degrees, along_x, tmp_path):
    """A linear function of the place in the patient, which interpolation keeps."""
    directory = tilt(write_series(tmp_path, np.zeros(SHAPE, np.int16)), np.tan(np.radians(degrees)), along_x)

    def value(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return 11 * x - 7 * y + 5 * z + 3000

    for path in directory.iterdir():
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        row, column = np.indices((dataset.Rows, dataset.Columns))
        exact = value(x + SPACING[0] * column, y + SPACING[1] * row, z)
        edit(path, RescaleSlope=0.125, RescaleIntercept=0, PixelData=np.rint(exact * 8).astype(np.uint16).tobytes())
    shape, affine = read_geometry(directory)
    voxels = read_dicom(directory).voxels[::-1, ::-1]  # as read_geometry counts: columns to the left, rows to the back
    assert voxels.shape == shape == (SHAPE[0] + (4 if along_x else 0), SHAPE[1] + 2, SHAPE[2])
    assert np.allclose(affine[:3, :3], np.diag([-SPACING[0], -SPACING[1], SPACING[2]]))
    places = np.einsum("ij,jxyz->ixyz", affine, np.concatenate([np.indices(shape), np.ones((1, *shape))]))
    exact = value(-places[0], -places[1], places[2])
    right = np.abs(voxels - exact) < 0.07
    # all voxels but those around a slice, each of which has lost an edge to interpolation
    assert (right.sum(axis=(0, 1)) >= (SHAPE[0] - 1) * (SHAPE[1] - 1)).all()


def test_slices_that_move_aside_half_way_are_refused(tmp_path):
    write_series(tmp_path, hounsfield())
    for number in (1, 2):
        x, y, z = pydicom.dcmread(tmp_path / f"{number}.dcm").ImagePositionPatient
        edit(tmp_path / f"{number}.dcm", ImagePositionPatient=[x + 12, y, z])
    with pytest.raises(ValueError, match=r"displaced slice: [12].dcm .* lies 12 mm aside of 4.dcm"):
        read_dicom(tmp_path)


def test_directions_have_to_be_perpendicular(tmp_path):
    write_series(tmp_path, hounsfield(), ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0])
    with pytest.raises(ValueError, match="ImageOrientationPatient is not two perpendicular directions"):
        read_dicom(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "2 values of PhotometricInterpretation, MONOCHROME1 in 1.dcm"),
        ({"PatientID": "P2"}, "2 values of PatientID, P2 in 1.dcm and P1 in 2.dcm"),
        ({"PatientID": ""}, "2 values of PatientID, none in 1.dcm and P1 in 2.dcm"),
        ({"Modality": "MR"}, "2 values of Modality"),
        ({"BitsStored": 12, "HighBit": 11}, "2 values of BitsStored"),
        ({"RescaleType": "US"}, "2 values of RescaleType"),
        ({"FrameOfReferenceUID": "1.2.3"}, "2 values of FrameOfReferenceUID, 1.2.3 in 1.dcm and none in 2.dcm"),
        ({"PixelSpacing": [2.5, 0.5]}, "2 values of PixelSpacing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_slices_that_differ_in_meaning_are_no_volume(tmp_path, change, reason):
    write_series(tmp_path, hounsfield(), PatientID="P1")
    edit(tmp_path / "1.dcm", **change)
    with pytest.raises(ValueError, match=reason):
        read_dicom(tmp_path)


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_tag_that_one_slice_lacks(tmp_path, name):
    write_series(tmp_path, hounsfield())
    dataset = pydicom.dcmread(tmp_path / "2.dcm")
    delattr(dataset, name)
    dataset.save_as(tmp_path / "2.dcm")
    with pytest.raises(ValueError, match=rf"2.dcm .* lacks {name}, which 1.dcm .* has"):
        read_dicom(tmp_path)


def test_slices_may_be_scaled_each_in_its_own_way(tmp_path):
    write_series(tmp_path, hounsfield())
    dataset = pydicom.dcmread(tmp_path / "1.dcm")
    pixels = dataset.pixel_array.astype(np.int64)
    edit(tmp_path / "1.dcm", RescaleSlope=0.5, RescaleIntercept=-1000)
    expected = hounsfield().astype(np.float64)
    expected[:, :, 3] = (pixels * 0.5 - 1000).T[::-1, ::-1]
    assert np.allclose(read_dicom(tmp_path).voxels, expected)


def test_series_of_a_patient_go_to_one_split(tmp_path):
    for i in range(24):
        write_series(tmp_path / f"in/{'ab'[i % 2]}/S{i}", hounsfield(i), PatientID=f"P{i // 4}")
    prepared = packed_by(
        prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5", val_fraction=0.2, test_fraction=0.2
    )
    packed = prepared.packed
    homes = [{int(name[3:]) // 4 for name in packed.ids(split)} for split in packed.splits]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 6
    counts = f"{len(homes[0])} train, {len(homes[1])} val, {len(homes[2])} test"
    assert f"patients: {counts}; stored as running numbers, not by name" in prepared.notes
    for split, home in zip(packed.splits, homes, strict=True):
        of = {(name[3:], number) for name, number in zip(packed.ids(split), packed.patients(split), strict=True)}
        assert len({number for _, number in of}) == len({(int(name) // 4, number) for name, number in of}) == len(home)


def test_a_patient_in_two_given_splits_is_refused(tmp_path):
    for n, split in enumerate(("train", "val", "test")):
        for i in range(4):
            patient = "train0" if (split, i) == ("test", 0) else f"{split}{i % 2}"
            write_series(tmp_path / f"in/{split}/{'ab'[i % 2]}/S{i}", hounsfield(4 * n + i), PatientID=patient)
    with pytest.raises(InputError, match="patient 'train0' is in train .* and in test"):
        packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5")
    packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5", allow_shared_patients=True)


def test_one_patient_for_all_series_tells_nothing(tmp_path):
    for i in range(8):
        write_series(tmp_path / f"in/{'ab'[i % 2]}/S{i}", hounsfield(i), PatientID="anonymous")
    prepared = packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5")
    assert any(note.startswith("every volume is taken as independent") for note in prepared.notes)


SAME_STUDY = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}  # GDCM draws them where there are none


def compress(directory: Path, syntax: str) -> None:
    """As GDCM does it, whose coder of JPEG 2000 corrupts memory on images of a few pixels."""
    for path in directory.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        steps = [reader.Read()]
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        steps.append(change.Change())
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        steps.append(writer.Write())
        del reader, change, writer  # which pytest cannot show where an assertion fails
        assert all(steps)


def by_simpleitk(directory: Path) -> np.ndarray:
    """A series left to right, posterior to anterior, inferior to superior, decoded by another library."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(directory)))
    return sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "LPS")).T[::-1, ::-1]


@pytest.mark.parametrize(
    ("syntax", "uid"),
    [
        ("RLELossless", pydicom.uid.RLELossless),
        ("JPEGLosslessProcess14_1", pydicom.uid.JPEGLosslessSV1),
        ("JPEGLosslessProcess14", pydicom.uid.JPEGLossless),
        ("JPEGLSLossless", pydicom.uid.JPEGLSLossless),
        ("JPEG2000Lossless", pydicom.uid.JPEG2000Lossless),
        ("JPEG2000", pydicom.uid.JPEG2000),
        ("DeflatedExplicitVRLittleEndian", pydicom.uid.DeflatedExplicitVRLittleEndian),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_slices(tmp_path, syntax, uid, signed):
    rescale = {"PixelRepresentation": 1, "RescaleSlope": 0.5, "RescaleIntercept": 24} if signed else {}
    voxels = np.random.default_rng(0).integers(-1000, 1000, (64, 72, 3)).astype(np.int16)
    write_series(tmp_path, voxels, **SAME_STUDY, **rescale)
    whole = read_dicom(tmp_path).voxels
    compress(tmp_path, syntax)
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in tmp_path.iterdir()} == {uid}
    found = read_dicom(tmp_path).voxels
    assert np.array_equal(found, whole)
    assert np.array_equal(found, by_simpleitk(tmp_path))
    assert np.array_equal(found, (voxels + 1024) / 2 + 24 if signed else voxels)


def test_lossy_jpeg_of_8_bits(tmp_path):
    x, y = np.meshgrid(np.arange(16), np.arange(8), indexing="ij")
    voxels = np.stack([8 * x + 4 * y + 10 * z for z in range(3)], axis=2)
    write_series(tmp_path, voxels - 1024)
    for path in tmp_path.iterdir():
        dataset, file = pydicom.dcmread(path), io.BytesIO()
        Image.fromarray(dataset.pixel_array.astype(np.uint8)).save(file, "JPEG", quality=95)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = pydicom.encaps.encapsulate([file.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.save_as(path)
    found = read_dicom(tmp_path).voxels
    assert np.abs(found - voxels + 1024).max() <= 2
    assert np.array_equal(found, by_simpleitk(tmp_path))


def test_without_a_decoder_the_job_ends_with_the_command_that_brings_it(tmp_path, monkeypatch):
    for i in range(8):
        write_series(tmp_path / f"in/{'ab'[i % 2]}/S{i}", hounsfield(i), **SAME_STUDY)
        compress(tmp_path / f"in/{'ab'[i % 2]}/S{i}", "JPEGLosslessProcess14_1")
    decoder = get_decoder(pydicom.uid.JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(InputError, match=r"dcm: is compressed as JPEG Lossless.*; pip install 'ddhpc\[ct\]' brings"):
        packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5")
    video = pydicom.uid.MPEG2MPML
    for path in (tmp_path / "in/a/S0").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = video
        dataset.save_as(path)
    with pytest.raises(ValueError, match=r"^1.dcm .* is compressed as MPEG2 .*, which is not read"):
        read_dicom(tmp_path / "in/a/S0")


def test_which_files_are_slices(tmp_path):
    write_series(tmp_path, hounsfield(), names="{}")
    (tmp_path / "short").write_bytes(b"DICM")
    assert is_dicom(tmp_path / "1")
    assert not is_dicom(tmp_path / "short")
    assert is_dicom(Path("gone.DCM"))


def spoil(directory: Path, kind: str) -> None:
    first, second, third = (directory / f"{n}.dcm" for n in (1, 2, 3))
    if kind == "missing":
        second.unlink()
    elif kind == "duplicated":
        (directory / "copy.dcm").write_bytes(second.read_bytes())
    elif kind == "one slice":
        for path in (first, second, third):
            path.unlink()
    elif kind == "none":
        for path in list(directory.iterdir()):
            path.unlink()
    elif kind == "two series":
        edit(first, SeriesInstanceUID=generate_uid())
    elif kind == "another size":
        edit(first, Rows=3, PixelData=bytes(36))
    elif kind == "RGB":
        edit(first, SamplesPerPixel=3)
    elif kind == "frames":
        edit(first, NumberOfFrames=2)
    elif kind == "no position":
        edit(first, ImagePositionPatient=None)
    elif kind == "zero spacing":
        for path in directory.iterdir():
            edit(path, PixelSpacing=[0, 1])
    elif kind == "truncated":
        third.write_bytes(third.read_bytes()[:-20])
    elif kind == "no DICOM":
        third.write_text("not at all")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "missing slice: 3.dcm (InstanceNumber 3) and 1.dcm (InstanceNumber 1) lie 6 mm apart, others 3 mm"),
        ("duplicated", "duplicated slice: 2.dcm (InstanceNumber 2) and copy.dcm (InstanceNumber 2) lie at the same"),
        ("one slice", "one slice, expected a volume"),
        ("two series", "slices with 2 values of SeriesInstanceUID"),
        ("another size", "slices with 2 values of Rows, 3 in 1.dcm and 5 in 2.dcm, expected one series"),
        ("RGB", "1.dcm (InstanceNumber 1) has 3 samples a pixel, expected 1 (grey)"),
        ("frames", "1.dcm (InstanceNumber 1) holds 2 frames, expected one file a slice"),
        ("no position", "1.dcm (InstanceNumber 1) lacks ImagePositionPatient"),
        ("zero spacing", "voxel spacing 1 x 0 x 3 mm, expected positive numbers"),
        ("truncated", "40"),
        ("no DICOM", "DICOM"),
    ],
)
def test_bad_series_are_named(tmp_path, kind, reason):
    source = tmp_path / "in"
    shape = (*SHAPE[:2], 5)
    for i in range(4):
        write_series(source / f"a/P{i}", np.resize(hounsfield(i), shape))
        write_series(source / f"b/Q{i}", np.resize(hounsfield(10 + i), shape))
    write_series(source / "b/bad", hounsfield(20))
    spoil(source / "b/bad", kind)
    prepared = packed_by(prepare_volumes, VolumeOptions, source, tmp_path / "x.h5")
    assert list(prepared.skipped) == ["b/bad"]
    assert reason in prepared.skipped["b/bad"]
    assert sum(prepared.packed.samples.values()) == 8
    with pytest.raises(InputError, match=f"^{source}: b/bad: [^\n]*$"):
        packed_by(prepare_volumes, VolumeOptions, source, tmp_path / "y.h5", on_error="stop")


def test_an_empty_directory_in_a_table(tmp_path):
    write_series(tmp_path / "P", hounsfield())
    spoil(tmp_path / "P", "none")
    with pytest.raises(ValueError, match="no DICOM files in the directory"):
        read_dicom(tmp_path / "P")


def test_series_of_class_folders_and_of_a_table_give_the_same(tmp_path):
    rows = ["path,label"]
    for n, name in enumerate("ab"):
        for i in range(4):
            write_series(tmp_path / f"{name}/P{i}/series", hounsfield(10 * n + i), names="{}")
            rows.append(f"{name}/P{i}/series,{name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    folder = packed_by(prepare_volumes, VolumeOptions, tmp_path, tmp_path / "x.h5").packed
    listed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "labels.csv", tmp_path / "y.h5").packed
    assert folder.digest == listed.digest
    assert folder.dtype == np.int16
    assert sorted(folder.ids("train"))[0].count("/") == 2
