"""Enhanced DICOM files become the volumes that their frames are."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless

from ddhpc.data.sources.dicom import read_dicom, read_geometry
from ddhpc.data.sources.inputs import list_inputs
from ddhpc.data.sources.preparation import Preparation
from ddhpc.data.sources.volume_formats import volume_of
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from tests.data.sources.packing import packed_by
from tests.data.sources.test_dicom import SPACING, hounsfield, write_series


def group(**values) -> pydicom.Sequence:
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def write_enhanced(path: Path, voxels: np.ndarray, *, rescaled_each: bool = False) -> Path:
    """The series of `write_series` as one file, its frames in no order of place."""
    slices = [pydicom.dcmread(each) for each in sorted(write_series(path.with_suffix(""), voxels).iterdir())]
    slices = [slices[i] for i in np.random.default_rng(1).permutation(len(slices))]
    whole = copy.deepcopy(slices[0])
    whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    del whole.RescaleType
    whole.NumberOfFrames, whole.PatientID = len(slices), "P7"
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=slices[0].PixelSpacing, SliceThickness=SPACING[2])
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=slices[0].ImageOrientationPatient)
    whole.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    frames, pixels = [], []
    for number, each in enumerate(slices):
        slope, intercept = (1 + number % 2, 10 * number - 1024) if rescaled_each else (1, -1024)
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=each.ImagePositionPatient)
        frame.FrameContentSequence = group(StackID="1", InStackPositionNumber=number + 1)
        frame.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
        frames.append(frame)
        pixels.append(((each.pixel_array.astype(int) - 1024 - intercept) // slope).astype(np.uint16))
    whole.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    whole.PixelData = np.stack(pixels).tobytes()
    whole.save_as(path, enforce_file_format=True)
    for each in path.with_suffix("").iterdir():
        each.unlink()
    path.with_suffix("").rmdir()
    return path


def edit(path: Path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_one_file_with_all_slices(tmp_path, syntax):
    path = write_enhanced(tmp_path / "x.dcm", hounsfield())
    edit(path, lambda dataset: dataset.compress(syntax) if syntax.is_compressed else None)
    for source in (path, tmp_path):
        found = read_dicom(source)
        assert np.array_equal(found.voxels, hounsfield())
        assert (found.spacing, found.axes, found.patient) == (SPACING, "LPS", "P7")
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(path))  # by GDCM, in order of the frames
    heights = [
        float(each.PlanePositionSequence[0].ImagePositionPatient[2])
        for each in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    assert np.array_equal(found.voxels, pixels[np.argsort(heights)].T[::-1, ::-1])
    series = write_series(tmp_path / "series", hounsfield())
    assert read_geometry(path)[0] == read_geometry(series)[0]
    assert np.array_equal(read_geometry(path)[1], read_geometry(series)[1])


def test_frames_may_be_scaled_each_in_its_own_way(tmp_path):
    voxels = 2 * (hounsfield() // 2)
    found = read_dicom(write_enhanced(tmp_path / "x.dcm", voxels, rescaled_each=True))
    assert np.array_equal(found.voxels, voxels)


def first(dataset: pydicom.Dataset) -> pydicom.Dataset:
    return dataset.PerFrameFunctionalGroupsSequence[0]


BAD = {
    r"duplicated slice: x.dcm, frame [12] and x.dcm, frame [12] lie at the same": (
        lambda dataset: setattr(
            first(dataset).PlanePositionSequence[0],
            "ImagePositionPatient",
            dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient,
        )
    ),
    "2 values of ImageOrientationPatient": lambda dataset: setattr(
        first(dataset), "PlaneOrientationSequence", group(ImageOrientationPatient=[0, 1, 0, 1, 0, 0])
    ),
    "2 values of StackID": lambda dataset: setattr(first(dataset).FrameContentSequence[0], "StackID", "2"),
    "2 values of TemporalPositionIndex": lambda dataset: setattr(
        first(dataset).FrameContentSequence[0], "TemporalPositionIndex", 2
    ),
    "x.dcm, frame 1 lacks ImagePositionPatient": lambda dataset: delattr(first(dataset), "PlanePositionSequence"),
    "2 values of RescaleType, none in x.dcm, frame 1 and HU in x.dcm, frame 2": lambda dataset: delattr(
        first(dataset), "PixelValueTransformationSequence"
    ),
    "4 frames with 3 places": lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(),
    "4 frames with 0 places": lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"),
    "one slice, expected a volume|lacks": lambda dataset: setattr(dataset, "NumberOfFrames", 1),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_not_one_regular_volume(tmp_path, reason):
    path = write_enhanced(tmp_path / "x.dcm", hounsfield())
    edit(path, BAD[reason])
    with pytest.raises(ValueError, match=reason):
        read_dicom(path)


def test_enhanced_files_lie_side_by_side_and_are_predicted_so(tmp_path):
    for i in range(8):
        write_enhanced(tmp_path / f"in/{'ab'[i % 2]}/{i}.dcm", hounsfield(i))
    series = write_series(tmp_path / "in/a/8", hounsfield(8), PatientID="P7")
    assert volume_of(tmp_path / "in/a/0.dcm") == tmp_path / "in/a/0.dcm"
    assert volume_of(series / "1.dcm") == series
    packed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5").packed
    ids = {name: packed.sample(split, i) for split in packed.splits for i, name in enumerate(packed.ids(split))}
    assert sorted(ids) == ["a/0.dcm", "a/2.dcm", "a/4.dcm", "a/6.dcm", "a/8", *(f"b/{i}.dcm" for i in (1, 3, 5, 7))]
    (tmp_path / "x.csv").write_text("path,label\n" + "".join(f"in/{name},{name[0]}\n" for name in ids))
    listed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "x.csv", tmp_path / "y.h5").packed
    assert sum(listed.samples.values()) == 9
    preparation = Preparation.from_json(packed.preparation)
    for source in ([tmp_path / "in"], [tmp_path / "x.csv"], [tmp_path / "in" / name for name in sorted(ids)]):
        found = list_inputs(source, preparation).samples
        assert {each.path.relative_to(tmp_path / "in").as_posix() for each in found} == set(ids)
    for name, voxels in ids.items():
        assert np.array_equal(preparation.apply(tmp_path / "in" / name), voxels)
        assert np.array_equal(voxels[0], hounsfield(int(name[2])))
