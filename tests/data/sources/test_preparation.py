"""What `prepare` did to files, done to files again: the same pixels, bit for bit, or a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddhpc.data.packed import Packed, find, open_packed
from ddhpc.data.sources.cifar10 import Cifar10Options, prepare_cifar10
from ddhpc.data.sources.faces import FaceOptions, prepare_faces
from ddhpc.data.sources.image_decoding import ImagePreparation, white
from ddhpc.data.sources.image_folders import ImageOptions, prepare_images
from ddhpc.data.sources.preparation import Preparation, UnusableFile, orientation
from ddhpc.data.sources.volume import VolumePreparation
from ddhpc.data.sources.volumes import VolumeOptions, prepare_volumes
from ddhpc.errors import InputError
from tests.data.sources.packing import packed_by
from tests.data.sources.test_dicom import hounsfield, write_series

REAL = os.environ.get("DDHPC_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="DDHPC_DATA does not name the directory of the real data sets")
OTHERS = (".bad", ".info", ".LOG", "")
"""Endings of files beside the real ones."""
RNG = np.random.default_rng(0)


def preparation_of(packed: Packed) -> Preparation:
    """As a reader of the file alone makes it."""
    again = open_packed(packed.path)
    return Preparation.from_json(again.preparation, packed.path)


def check_same(packed: Packed, folder: Path) -> Preparation:
    """Every packed sample is what its preparation makes of its file; gives the preparation."""
    preparation, count = preparation_of(packed), 0
    for split in packed.splits:
        for index, name in enumerate(packed.ids(split)):
            found, stored = preparation.apply(folder / name), packed.sample(split, index)
            assert found.dtype == stored.dtype == preparation.stored_dtype
            assert np.array_equal(found, stored), name
            count += 1
    assert count == sum(packed.samples.values()) > 0
    assert (preparation.channels, *preparation.image_shape) == (packed.channels, *packed.image_shape)
    return preparation


def draw(path: Path, mode: str, size: tuple[int, int] = (20, 16), **options) -> Path:
    """Noise of a mode of Pillow, height and width given; "12 bit" is I;16 up to 4095."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands()) if mode != "12 bit" else 1
    if mode in ("I;16", "12 bit"):
        deep = RNG.integers(0, 65536 if mode == "I;16" else 4096, size)
        deep[0, 0] = 65535 if mode == "I;16" else 4095
        image = Image.fromarray(deep.astype(np.uint16))
    else:
        noise = RNG.integers(0, 256, (*size, bands), np.uint8)
        kind = {"1": "L", "P": "L"}.get(mode, mode)
        image = Image.fromarray(noise[:, :, 0] if bands == 1 else noise, kind if bands != 2 else None).convert(mode)
    image.save(path, **options)
    return path


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


MIXED = {
    "grey": ["L", "1", "LA"],
    "16-bit grey": ["12 bit", "L", "1"],
    "colour": ["RGB", "L", "P", "RGBA", "12 bit"],
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("mode", MIXED)
def test_images_of_mixed_modes_and_sizes(tmp_path, mode, resize):
    for label in ("bee", "cat"):
        for number in range(12):
            own = MIXED[mode][number % len(MIXED[mode])]
            draw(tmp_path / "in" / label / f"{number}.png", own, (14 + number, 30 - number))
        draw(tmp_path / "in" / label / "turned.jpg", "L" if "grey" in mode else "RGB", (9, 40), exif=turned())
    packed = packed_by(
        prepare_images, ImageOptions, tmp_path / "in", tmp_path / "x.h5", size=(12, 17), resize=resize
    ).packed
    preparation = check_same(packed, tmp_path / "in")
    assert (preparation.mode, preparation.resize) == (mode, resize)
    assert preparation.white == (255 if mode == "grey" else 4095)


def test_faces(tmp_path):
    for subject in ("yaleB01", "yaleB02"):
        for number in range(8):
            path = tmp_path / "in" / subject / f"{subject}_P00A+0{number}0E+00.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (24, 21), np.uint8)).save(path)
    packed = packed_by(prepare_faces, FaceOptions, tmp_path / "in", tmp_path / "x.h5", size=(12, 10)).packed
    assert check_same(packed, tmp_path / "in").mode == "grey"


def test_fashion_mnist_takes_grey_images(tmp_path):
    preparation = preparation_of(open_packed(find("fashion_mnist.h5")))
    assert preparation == ImagePreparation(mode="grey", white=255, size=(28, 28), resize="crop")
    packed = open_packed(find("fashion_mnist.h5"))
    Image.fromarray(packed.sample("test", 3)[0]).save(tmp_path / "x.png")
    assert np.array_equal(preparation.apply(tmp_path / "x.png"), packed.sample("test", 3))


LAS = np.diag([-1.5, 1.0, 2.0, 1.0])
SHAPES = {
    "as read": {},
    "stretched": {"shape": (5, 8, 4)},
    "of one spacing": {"spacing": (2.0, 2.0, 2.0)},
    "centred": {"spacing": (2.0, 1.5, 1.5), "shape": (5, 6, 7)},
}


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("scale", "dtype"), [(1, "int16"), (1e-3, "float32")])
def test_nifti(tmp_path, options, scale, dtype):
    for number in range(12):
        path = tmp_path / "in" / ("no", "yes")[number % 2] / f"{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = RNG.integers(-1000, 1000, (7, 6, 5)).astype(np.int16)
        voxels = voxels if scale == 1 else (voxels * scale).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, LAS), path)
    options = {**options, "window": (-900 * scale, 700 * scale)}
    packed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5", **options).packed
    assert packed.dtype == dtype
    preparation = check_same(packed, tmp_path / "in")
    assert preparation.intensity_range == options["window"]
    assert preparation.orientation == "of the file"


def test_dicom(tmp_path):
    for number in range(8):
        write_series(tmp_path / "in" / ("no", "yes")[number % 2] / f"{number}", hounsfield(number))
    packed = packed_by(prepare_volumes, VolumeOptions, tmp_path / "in", tmp_path / "x.h5", shape=(4, 6, 5)).packed
    assert check_same(packed, tmp_path / "in").dtype == "int16"


def images(mode: str = "grey", white: int = 255) -> ImagePreparation:
    return ImagePreparation(mode=mode, white=white, size=(8, 8), resize="crop")


@pytest.mark.parametrize(
    ("preparation", "mode", "reason"),
    [
        (images(), "RGB", "colour (mode RGB), expected grey as the images of the set are"),
        (images(), "P", "colour (mode P), expected grey as the images of the set are"),
        (images(), "12 bit", "16-bit grey (mode I;16), expected grey as the images of the set are"),
        (images("16-bit grey", 4095), "RGB", "colour (mode RGB), expected 16-bit grey as the images of the set are"),
        (images("16-bit grey", 4095), "I;16", "pixels up to 65,535, expected at most 4,095, which is white in the set"),
        (images("colour"), "12 bit", "pixels up to 4,095, expected at most 255, which is white in the set"),
    ],
)
def test_images_that_would_make_another_set_are_refused(tmp_path, preparation, mode, reason):
    path = draw(tmp_path / "x.png", mode)
    with pytest.raises(UnusableFile) as error:
        preparation.apply(path)
    assert (str(error.value), error.value.reason, error.value.path) == (f"{path}: {reason}", reason, path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text.png").write_text("text")
    whole = draw(tmp_path / "whole.png", "L", (50, 50)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii").write_text("text")
    for name, reason in {
        "absent.png": "No such file or directory",
        "text.png": "not an image",
        "cut.png": "image file is truncated",
    }.items():
        with pytest.raises(UnusableFile) as error:
            images().apply(tmp_path / name)
        assert error.value.reason.startswith(reason)
    for name, reason in {"absent.nii": "No such file or directory", "text.nii": "not a NIfTI file"}.items():
        with pytest.raises(UnusableFile) as error:
            volumes().apply(tmp_path / name)
        assert error.value.reason == reason


def volumes(**changes) -> VolumePreparation:
    values = {"shape": (4, 5, 6), "resize": "none", "spacing": None, "intensity_range": None}
    return VolumePreparation(**values | {"orientation": "of the file", "dtype": "uint8"} | changes)


def ramp(low: float, high: float, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("preparation", "voxels", "reason"),
    [
        (volumes(), ramp(-1, 255), "voxels from -1 to 255, which uint8, the type of the set, does not hold"),
        (volumes(), ramp(0, 256), "voxels from 0 to 256, which uint8, the type of the set, does not hold"),
        (volumes(dtype="int16"), ramp(0, 1), "fractions between 0 and 1, which would be lost in int16"),
        (volumes(), ramp(0, 255, (5, 4, 6)), "5x4x6 voxels, expected 4x5x6 as the volumes of the set have"),
        (
            volumes(spacing=(1.0, 1.0, 2.0)),
            ramp(0, 255),
            "4x5x3 voxels at 1x1x2 mm, expected 4x5x6 as the volumes of the set have",
        ),
        (volumes(orientation="taken as LAS"), ramp(0, 255), "tells its orientation, the volumes of the set do not"),
        (volumes(intensity_range=(300.0, 400.0)), ramp(0, 255), "constant between 300 and 400, voxels are 0 to 255"),
    ],
)
def test_volumes_that_would_make_another_set_are_refused(tmp_path, preparation, voxels, reason):
    path = tmp_path / "x.nii"
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(UnusableFile) as error:
        preparation.apply(path)
    assert error.value.reason.startswith(reason)


def test_volumes_of_whole_numbers_and_of_a_large_range_are_taken(tmp_path):
    voxels = ramp(0, 255)
    for taken in (voxels, voxels.round(), (voxels / 50).round()):
        nib.save(nib.Nifti1Image(taken, np.eye(4)), tmp_path / "x.nii")
        assert np.array_equal(volumes().apply(tmp_path / "x.nii"), taken.round().astype(np.uint8)[None])


def test_a_volume_without_orientation_among_others_is_refused(tmp_path):
    image = nib.Nifti1Image(ramp(0, 255), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "x.nii")
    with pytest.raises(UnusableFile, match="tells no orientation, the volumes of the set do"):
        volumes().apply(tmp_path / "x.nii")
    assert volumes(orientation="taken as LAS").apply(tmp_path / "x.nii").shape == (1, 4, 5, 6)


numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
whites = st.integers(0, 65535).map(white)
image_preparations = st.builds(
    lambda mode, of_mode, size, resize: ImagePreparation(mode=mode, white=of_mode, size=size, resize=resize),
    st.sampled_from(["16-bit grey", "colour"]),
    whites,
    st.tuples(st.integers(1), st.integers(1)),
    st.sampled_from(["crop", "stretch"]),
)
volume_preparations = st.builds(
    lambda spacing, given, kept, **more: volumes(
        spacing=spacing,
        resize=("centre" if spacing else "stretch") if given else "none",
        intensity_range=tuple(sorted(kept)) if kept else None,
        **more,
    ),
    spacing=st.none() | st.tuples(positive, positive, positive),
    given=st.booleans(),
    kept=st.none() | st.sets(numbers, min_size=2, max_size=2),
    shape=st.tuples(*[st.integers(2)] * 3),
    orientation=st.sampled_from(["of the file", "taken as LAS"]),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
)


@given(image_preparations | volume_preparations)
def test_json_gives_the_same(preparation):
    again = Preparation.from_json(preparation.to_json())
    assert again == preparation
    assert again.to_json() == preparation.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2; expected 1; a newer ddhpc wrote it"),
        ({"version": True}, "has version True; expected 1"),
        ({"version": None}, "has version None; expected 1"),
        ({"kind": "sounds"}, "is of files of kind 'sounds'; expected images or volumes"),
        ({"kind": ["images"]}, "is of files of kind ['images']; expected images or volumes"),
        ({"kind": "volumes"}, "lacks shape"),
        ({"blur": 3}, "has an unknown field 'blur'"),
        ({"mode": "red"}, "has mode 'red'; expected grey or 16-bit grey or colour"),
        ({"mode": []}, "has mode []; expected grey or"),
        ({"white": 255.0}, "has white 255.0; expected a whole number"),
        ({"white": True}, "has white True; expected a whole number"),
        ({"white": 300}, "has white 300 in grey; expected 255"),
        ({"size": [8]}, "has size [8]; expected a list of 2 whole numbers"),
        ({"size": 8}, "has size 8; expected a list of 2 whole numbers"),
        ({"size": [8, "8"]}, "has size [8, '8']; expected a list of 2 whole numbers"),
        ({"size": [8, 0]}, "has size [8, 0]; expected at least 1 pixel along each axis"),
        ({"filter": "box"}, "has filter 'box'; expected lanczos"),
    ],
)
def test_other_json_of_images_is_refused(change, message):
    text = json.dumps(json.loads(images().to_json()) | change)
    with pytest.raises(InputError) as error:
        Preparation.from_json(text, "x.h5")
    assert str(error.value).startswith("x.h5: the preparation ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 0, 4]}, "has shape [1, 0, 4]; expected at least 1 along each axis"),
        ({"resize": "stretch", "spacing": [1, 1, 1]}, "expected centre with spacings only"),
        ({"resize": "centre"}, "expected centre with spacings only"),
        ({"spacing": [1, 1]}, "has spacing [1, 1]; expected a list of 3 numbers or null"),
        ({"spacing": [1, 1, 0]}, "expected millimetres above 0"),
        ({"spacing": [1, 1, 10**400]}, "expected a list of 3 numbers"),
        ({"intensity_range": [3, 3]}, "has intensity_range [3.0, 3.0]; expected a lower and a higher number"),
        ({"axes": "LPS"}, "has axes 'LPS'; expected RAS"),
        ({"dtype": "float64"}, "has dtype 'float64'; expected uint8 or int16"),
    ],
)
def test_other_json_of_volumes_is_refused(change, message):
    text = json.dumps(json.loads(volumes().to_json()) | change)
    with pytest.raises(InputError) as error:
        Preparation.from_json(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.h5: does not tell how its files were prepared; `prepare` it again"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is []; expected a JSON object"),
        (images().to_json().replace("255", "NaN"), "NaN is no number"),
        (images().to_json().replace('"filter"', '"mode": "grey", "filter"'), "a field stands twice in it"),
        (volumes(intensity_range=(0.0, 1.0)).to_json().replace("1.0]", "1e999]"), "expected a list of 2 numbers"),
    ],
    ids=range(7),
)
def test_other_text_is_refused(text, message):
    with pytest.raises(InputError, match="x.h5: ") as error:
        Preparation.from_json(text, "x.h5")
    assert message in str(error.value)


def test_older_packed_files_tell_none(small, tmp_path):
    assert open_packed(small).preparation == ""
    for name, value in {"number.h5": 3, "list.h5": ["a"]}.items():
        (tmp_path / name).write_bytes(small.read_bytes())
        with h5py.File(tmp_path / name, "r+") as file:
            file.attrs["preparation"] = value
        assert open_packed(tmp_path / name).preparation == ""


def class_folders(root: Path) -> list[Path]:
    train = root / "train"
    parents = [train, root / "test"] if "cifar10" in root.name else [train if train.is_dir() else root]
    return [path for parent in parents for path in parent.iterdir() if path.is_dir()]


@needs_real
@pytest.mark.parametrize("kind", ["tf_flowers", "extended_yale_b", "brain_structures", "cifar10"])
def test_real_files(tmp_path, kind):
    """A dozen files of each real set, and two of each of the directories of CIFAR-10, which has to be complete."""
    prepare, options, more = {
        "tf_flowers": (prepare_images, ImageOptions, {"size": (32, 32)}),
        "extended_yale_b": (prepare_faces, FaceOptions, {"size": (32, 28)}),
        "brain_structures": (prepare_volumes, VolumeOptions, {"shape": (12, 12, 12)}),
        "cifar10": (prepare_cifar10, Cifar10Options, {"val_fraction": 0.4}),
    }[kind]
    folder = tmp_path / kind
    classes = sorted(class_folders(Path(REAL) / kind))
    for source in classes if kind == "cifar10" else classes[:2]:
        names = [path for path in sorted(source.iterdir()) if "Ambient" not in path.name and path.suffix not in OTHERS]
        for path in names[: 2 if kind == "cifar10" else 6]:
            link = folder / path.relative_to(Path(REAL) / kind)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    check_same(packed_by(prepare, options, folder, tmp_path / "x.h5", **more).packed, folder)


def test_where_the_sides_come_from_is_told_without_the_libraries_that_read_volumes():
    told, assumed = (volumes(orientation=kind).to_json() for kind in ("of the file", "taken as LAS"))
    code = (
        "import sys; sys.modules['nibabel'] = None; from ddhpc.data.sources.preparation import orientation; "
        "print([orientation(text) for text in sys.argv[1:]])"
    )
    texts = [told, assumed, images().to_json(), ""]
    found = subprocess.run([sys.executable, "-c", code, *texts], capture_output=True, text=True, check=True)
    assert found.stdout == "['of the file', 'taken as LAS', None, None]\n"
    with pytest.raises(InputError, match="the preparation of its files is no JSON"):
        orientation("{")
