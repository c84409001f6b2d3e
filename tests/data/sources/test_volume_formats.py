"""One volume in files of every kind, written by SimpleITK, GDCM and nibabel, is one volume."""

from __future__ import annotations

import locale
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ddhpc.data.sources.inputs import list_inputs
from ddhpc.data.sources.preparation import Preparation, UnusableFile
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.data.sources.volume_formats import DATA, parts, read_volume, volume_of
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by

SIZE = (7, 6, 5)
SPACING = (0.7, 1.3, 2.9)
TURN = np.radians(25)
DIRECTION = (  # columns run to the patient's back, rows to the right, slices down, all oblique
    np.array([[0, -1, 0], [1, 0, 0], [0, 0, -1]])
    @ np.array([[np.cos(TURN), 0, np.sin(TURN)], [0, 1, 0], [-np.sin(TURN), 0, np.cos(TURN)]])
    @ np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
)
SINGLE = (
    "x.nii.gz",
    "x.hdr",
    "x.hdr.gz",
    "x.mha",
    "packed.mha",
    "x.mhd",
    "packed.mhd",
    "x.nrrd",
    "packed.nrrd",
    "x.nhdr",
)


def image_of(seed: int = 0) -> sitk.Image:
    voxels = np.random.default_rng(seed).integers(-1000, 1000, SIZE[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    image.SetOrigin((-12.5, 40.25, 103.0))
    image.SetDirection(DIRECTION.ravel())
    return image


def write(path: Path, image: sitk.Image) -> Path:
    """A file of the kind that its name tells, compressed where that is packed; a directory without an ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.suffix:
        return write_series(path, image)
    if ".hdr" in path.name:
        data = path.with_name(path.name.replace(".hdr", ".img"))
        sitk.WriteImage(image, path.with_name("whole.nii"))
        whole = nib.load(path.with_name("whole.nii"))
        nib.save(nib.Nifti1Pair(np.asarray(whole.dataobj), whole.affine, whole.header), data)
        path.with_name("whole.nii").unlink()
    else:
        sitk.WriteImage(image, path, useCompression=path.name.startswith("packed"))
    return path


def write_series(directory: Path, image: sitk.Image) -> Path:
    """As GDCM writes it, one file a slice; it leaves the process in the locale C, where text of UTF-8 is unreadable."""
    directory.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    for z in range(image.GetDepth()):
        plane = image[:, :, z]
        position = image.TransformIndexToPhysicalPoint((0, 0, z))
        for tag, value in {
            "0008|0060": "CT",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0020|0052": "1.2.826.0.1.3680043.2.1125.3",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "\\".join(str(direction[i]) for i in (0, 3, 6, 1, 4, 7)),
            "0020|0013": str(z + 1),
        }.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(directory / f"{z}.dcm"))
        writer.Execute(plane)
    locale.setlocale(locale.LC_ALL, before)
    return directory


def expected(image: sitk.Image) -> np.ndarray:
    """Left to right, posterior to anterior, inferior to superior: turned by SimpleITK."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")).T[::-1, ::-1]


@pytest.mark.parametrize("name", [*SINGLE, "series"])
def test_every_kind_gives_the_same_volume(name, tmp_path):
    path = write(tmp_path / name, image_of())
    found = read_volume(path)
    assert np.array_equal(found.voxels, expected(image_of()))
    assert found.spacing == (1.3, 0.7, 2.9)
    assert found.axes == ("PRS" if name == "series" else "PRI")
    assert not found.remarks


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Two classes of volumes in files of every kind."""
    folder = tmp_path_factory.mktemp("mixed")
    for k, label in enumerate("ab"):
        for i, name in enumerate([*SINGLE, "series"]):
            write(folder / label / f"{k}{i}" / name, image_of(20 * k + i))
    return folder


def test_a_set_of_all_kinds_is_packed_as_one_of_nifti_alone_and_predicted_so(mixed, tmp_path):
    for k, label in enumerate("ab"):
        for i in range(len(SINGLE) + 1):
            write(tmp_path / f"nifti/{label}/{k}{i}/x.nii", image_of(20 * k + i))
    options = {"spacing": (1.0, 1.4, 1.0), "shape": (8, 6, 12), "window": (-900.0, 800.0)}
    prepared = packed_by(prepare_volumes, VolumeOptions, mixed, tmp_path / "mixed.h5", **options)
    assert not prepared.skipped
    packed = prepared.packed
    alone = packed_by(prepare_volumes, VolumeOptions, tmp_path / "nifti", tmp_path / "nifti.h5", **options).packed
    preparation = Preparation.from_json(packed.preparation)
    assert preparation == Preparation.from_json(alone.preparation)
    inputs = {each.path.relative_to(mixed).as_posix(): each.path for each in list_inputs([mixed], preparation).samples}
    assert sorted(inputs) == sorted(name for split in packed.splits for name in packed.ids(split))
    count = 0
    for split in packed.splits:
        assert [name.split("/")[1] for name in packed.ids(split)] == [name.split("/")[1] for name in alone.ids(split)]
        for index, name in enumerate(packed.ids(split)):
            assert np.array_equal(packed.sample(split, index), alone.sample(split, index)), name
            assert np.array_equal(packed.sample(split, index), preparation.apply(inputs[name])), name
            count += 1
    assert count == 22


def test_files_that_hold_voxels_alone_belong_to_their_headers(mixed):
    data = [path for path in sorted(mixed.rglob("*")) if path.name.endswith((".img", ".img.gz", "raw"))]
    assert len(data) == 10
    assert {volume_of(path) for path in data} == {DATA}
    assert volume_of(data[0].with_name("other.img")) == "No such file or directory"
    headers = [path for path in mixed.rglob("*") if path.name.endswith((".hdr", ".hdr.gz", ".mhd", ".nhdr"))]
    assert sorted(parts(path)[1] for path in headers) == data


def test_other_voxels_of_the_same_header_are_decoded_anew(tmp_path):
    for k, label in enumerate("ab"):
        for i in range(4):
            write(tmp_path / f"in/{label}/{i}.mhd", image_of(10 * k + i))

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5", progress=interrupt)
    write(tmp_path / "other/0.mhd", image_of(99))
    (tmp_path / "other/0.raw").replace(tmp_path / "in/a/0.raw")
    resumed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5").packed
    assert resumed.digest == packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "y.h5").packed.digest


def nrrd(fields: str, voxels: np.ndarray) -> bytes:
    """As the definition of NRRD has it, not as ITK writes it."""
    sizes = " ".join(map(str, voxels.shape))
    header = f"NRRD0005\n# made by hand\ntype: int16\ndimension: {voxels.ndim}\nsizes: {sizes}\nendian: little\n"
    return (header + fields + "\n\n").encode() + voxels.tobytes(order="F")


PLACED = "space: RAS\nspace directions: (0,0,-2) (0.5,0,0) (0,1.5,0)\nspace origin: (1,2,3)\nencoding: raw"
VOXELS = np.random.default_rng(0).integers(0, 9, (3, 4, 5)).astype(np.int16)


def test_nrrd_counts_to_right_and_anterior_where_it_says_so(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(nrrd(PLACED, VOXELS))
    found = read_volume(tmp_path / "x.nrrd")
    assert np.array_equal(found.voxels, VOXELS.transpose(1, 2, 0)[:, :, ::-1])
    assert (found.spacing, found.axes) == ((0.5, 1.5, 2.0), "IRA")


BAD_NRRD = {
    "no space": PLACED.replace("space: RAS", "space dimension: 3"),
    "space scanner-xyz": PLACED.replace("RAS", "scanner-xyz"),
    "space units um, expected mm": PLACED + '\nspace units: "um" "um" "um"',
    "its voxels are in LIST": PLACED + "\ndata file: LIST\na.raw",
    "sheared: axes": PLACED.replace("(0,1.5,0)", "(0,1.5,1)"),
}


@pytest.mark.parametrize("reason", BAD_NRRD)
def test_nrrd_that_says_too_little(reason, tmp_path):
    (tmp_path / "x.nrrd").write_bytes(nrrd(BAD_NRRD[reason], VOXELS))
    with pytest.raises(ValueError, match=reason):
        read_volume(tmp_path / "x.nrrd")


def edited(name: str, old: bytes, new: bytes):
    def edit(folder: Path) -> Path:
        path = write(folder / name, image_of())
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
        return path

    return edit


def cut(name: str, size: int, written: str = ""):
    def edit(folder: Path) -> Path:
        path = write(folder / name, image_of())
        damaged = folder / (written or name)
        damaged.write_bytes(damaged.read_bytes()[:size])
        return path

    return edit


def flipped(name: str):
    def edit(folder: Path) -> Path:
        path = write(folder / name, image_of())
        data = bytearray(path.read_bytes())
        data[-60] ^= 255
        path.write_bytes(data)
        return path

    return edit


def many(image: sitk.Image, name: str):
    def edit(folder: Path) -> Path:
        sitk.WriteImage(image, folder / name)
        return folder / name

    return edit


def analyze(folder: Path) -> Path:
    nib.save(nib.AnalyzeImage(VOXELS, None), folder / "x.img")
    return folder / "x.hdr"


BAD = {
    "MHA without orientation": (edited("x.mha", b"TransformMatrix", b"Nothing"), "no orientation in the header"),
    "MHA without spacing": (edited("x.mha", b"ElementSpacing", b"Nothing"), "no spacing in the header"),
    "scaled MHA": (
        edited("x.mha", b"ElementType", b"ElementToIntensityFunctionSlope = 2\nElementType"),
        "intensities scaled by 2 and 0 in the header",
    ),
    "MHA of a spacing of 0": (edited("x.mha", b" 1.3", b" 0.0"), "(?i)spacing"),
    "short MHA": (cut("x.mha", -20), "damaged: 400 bytes of voxels, expected 420"),
    "short packed MHA": (cut("packed.mha", -20), "damaged: its compressed voxels break off"),
    "flipped MHA": (flipped("packed.mha"), "damaged: its compressed voxels do not unpack"),
    "MHA of half a header": (cut("x.mha", 100), "neither MetaImage nor NRRD"),
    "empty MHA": (cut("x.mha", 0), "empty file"),
    "short MHD": (cut("x.mhd", -2, "x.raw"), "damaged: 418 bytes of voxels, expected 420"),
    "MHD of another file": (edited("x.mhd", b"x.raw", b"y.raw"), "its voxels are in y.raw, which is no file"),
    "short NRRD": (cut("x.nrrd", -20), "damaged: 400 bytes of voxels, expected 420"),
    "flipped NRRD": (flipped("packed.nrrd"), "damaged: its compressed voxels do not unpack"),
    "vectors": (many(sitk.Image([3, 4, 5], sitk.sitkVectorUInt8, 3), "x.mha"), "3D with 3 numbers a voxel, expected"),
    "4D": (many(sitk.Image([3, 4, 5, 2], sitk.sitkUInt8), "x.mha"), "4D with 1 numbers a voxel, expected one 3D"),
    "2D": (many(sitk.Image([3, 4], sitk.sitkUInt8), "x.mha"), "2D with 1 numbers a voxel, expected one 3D"),
    "Analyze": (analyze, "not the header of a NIfTI pair; Analyze 7.5, which it may be, tells no orientation"),
    "short pair": (cut("x.hdr", -20, "x.img"), "420"),
    "half a pair": (lambda folder: cut("x.hdr", 0)(folder).rename(folder / "y.hdr"), "empty file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_volume_is_told_in_one_line(name, tmp_path, capfd):
    make, reason = BAD[name]
    path = make(tmp_path)
    preparation = VolumePreparation(
        shape=(4, 4, 4), resize="stretch", spacing=None, intensity_range=None, orientation="of the file", dtype="int16"
    )
    with pytest.raises(UnusableFile, match=reason) as error:
        preparation.apply(path)
    assert "\n" not in str(error.value)
    assert "itk" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_pair_without_its_voxels(tmp_path):
    path = write(tmp_path / "x.hdr", image_of())
    (tmp_path / "x.img").unlink()
    with pytest.raises(ValueError, match=r"header of a pair without x.img beside it"):
        read_volume(path)


def test_without_simpleitk_the_job_ends_with_the_command_that_brings_it(tmp_path, monkeypatch):
    for name in "ab":
        for i in range(4):
            write(tmp_path / f"in/{name}/{i}.mha", image_of(i + ord(name)))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"^SimpleITK is not installed; pip install 'ddhpc\[ct\]'"):
        packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5")


def test_simpleitk_is_imported_for_its_files_alone():
    code = "import sys, ddhpc.data.sources.volumes; assert not {'SimpleITK', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
