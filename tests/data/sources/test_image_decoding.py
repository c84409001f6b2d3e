"""Image files of every kind become arrays of one kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from ddhpc.data.sources import image_decoding
from ddhpc.data.sources.image_decoding import ImagePreparation, common_mode, endings, examine

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(
    path: Path, mode: image_decoding.Mode, size: tuple[int, int], resize: image_decoding.Resize, white: int = 0
) -> np.ndarray:
    white = white or (255 if mode == "grey" else 65535)
    return image_decoding.decoded(path, ImagePreparation(mode=mode, white=white, size=size, resize=resize))


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@settings(max_examples=30)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))),
    st.sampled_from(["crop", "stretch"]),
)
def test_images_of_the_wanted_size_are_kept_as_they_are(array, resize):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    found = pixels(file, "colour", array.shape[:2], resize)
    assert np.array_equal(found, array.transpose(2, 0, 1))


@settings(max_examples=200)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_the_part_that_is_seen_is_what_pillow_fits(array, size):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    fitted = ImageOps.fit(Image.fromarray(array), size[::-1], Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(file, "grey", size, "crop")[0], fitted)


def test_a_picture_is_the_whole_image_upright(tmp_path):
    array = np.arange(6, dtype=np.uint16).reshape(2, 3) * 800
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    path = save(tmp_path / "x.png", Image.fromarray(array), exif=exif)
    target = ImagePreparation(mode="16-bit grey", white=4095, size=(4, 4), resize="crop")
    shown = image_decoding.picture(path, target)
    assert shown.mode == "L"
    assert np.array_equal(shown, np.rint(array[::-1].T / 4095 * 255))
    assert image_decoding.seen(shown.size, target) == (0, 0.5, 2, 2.5)


@pytest.mark.parametrize("name", ["x.png", "x.pgm", "x.tif", "x.bmp", "x.gif", "x.jpg", "x.webp"])
def test_grey_files_of_every_format(tmp_path, name):
    array = np.full((9, 7), 100, np.uint8)
    path = save(tmp_path / name, Image.fromarray(array))
    assert name[1:] in endings()
    assert examine(path).size == (9, 7)
    mode = common_mode({examine(path).mode})  # GIF has colours, if only greys
    found = pixels(path, mode, (9, 7), "crop")
    assert found.dtype == np.uint8
    assert found.shape == (1 if mode == "grey" else 3, 9, 7)
    np.testing.assert_allclose(found, np.broadcast_to(array, found.shape), atol=2)


def test_crop_keeps_the_centre_and_stretch_all(tmp_path):
    array = np.zeros((10, 30), np.uint8)
    array[:, 10:20] = 200
    path = save(tmp_path / "x.png", Image.fromarray(array))
    assert (pixels(path, "grey", (10, 10), "crop") == 200).all()
    stretched = pixels(path, "grey", (10, 15), "stretch")[0, 0, [0, 7, 14]]
    np.testing.assert_allclose(stretched, [0, 200, 0], atol=2)
    assert pixels(path, "grey", (4, 8), "crop").shape == (1, 4, 8)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_shrinking_averages(tmp_path, resize):
    board = np.indices((64, 64)).sum(0) % 2 * 200
    path = save(tmp_path / "x.png", Image.fromarray(board.astype(np.uint8)))
    np.testing.assert_allclose(pixels(path, "grey", (8, 8), resize), 100, atol=4)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0))])
def test_exif_orientation_is_applied(tmp_path, orientation, corner):
    array = np.zeros((16, 16), np.uint8)
    array[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.jpg", Image.fromarray(array), exif=exif, quality=100)
    found = pixels(path, "grey", (2, 2), "stretch")[0]
    assert np.unravel_index(found.argmax(), (2, 2)) == corner


def test_palettes_and_transparency(tmp_path):
    palette = save(tmp_path / "p.png", Image.new("RGB", (4, 4), RED).convert("P"))
    clear = save(tmp_path / "a.png", Image.new("RGBA", (4, 4), (*RED, 0)))
    opaque = save(tmp_path / "b.png", Image.new("RGBA", (4, 4), (*RED, 255)))
    grey = save(tmp_path / "c.png", Image.new("LA", (4, 4), (10, 0)))
    for path, mode, colour in [
        (palette, "P", RED),
        (clear, "RGBA", WHITE),
        (opaque, "RGBA", RED),
        (grey, "LA", WHITE),
    ]:
        assert examine(path).mode == mode
        assert pixels(path, "colour", (4, 4), "crop")[:, 0, 0].tolist() == list(colour)
    assert pixels(grey, "grey", (4, 4), "crop")[0, 0, 0] == 255


def test_cmyk(tmp_path):
    path = save(tmp_path / "x.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    np.testing.assert_allclose(pixels(path, "colour", (8, 8), "crop")[:, 0, 0], RED, atol=3)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_sixteen_bits_are_kept(tmp_path, name):
    array = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    path = save(tmp_path / name, Image.fromarray(array))
    mode = examine(path).mode
    assert common_mode({mode, "L"}) == "16-bit grey"
    deep = pixels(path, "16-bit grey", (16, 16), "crop")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep[0], array)
    assert np.array_equal(pixels(path, "colour", (16, 16), "crop")[1], np.rint(array / 257))
    shallow = save(tmp_path / "8.png", Image.new("L", (4, 4), 255))
    assert pixels(shallow, "16-bit grey", (4, 4), "crop")[0, 0, 0] == 65535


def test_sixteen_bits_are_resized_like_eight(tmp_path):
    edge = np.zeros((32, 32), np.uint8)
    edge[:, 16:] = 255
    path = save(tmp_path / "8.png", Image.fromarray(edge))
    deep = save(tmp_path / "16.png", Image.fromarray(edge * np.uint16(257)))
    found = pixels(deep, "16-bit grey", (24, 24), "crop") / 257
    np.testing.assert_allclose(found, pixels(path, "grey", (24, 24), "crop"), atol=1)


def test_resized_sixteen_bits_are_rounded(tmp_path):
    path = save(tmp_path / "x.png", Image.fromarray(np.array([[1000, 1001, 1001]], np.uint16)))
    assert pixels(path, "16-bit grey", (1, 1), "stretch").item() == 1001


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0, 255), (255, 255), (256, 511), (1000, 1023), (4000, 4095), (4095, 4095), (4096, 8191), (65535, 65535)],
)
def test_white_is_the_largest_value_of_as_many_bits(largest, expected):
    assert image_decoding.white(largest) == expected


def test_twelve_bits_have_the_grey_of_eight(tmp_path):
    """The same gradient as 8-bit PNG and, as an export from DICOM has it, with 12 bits in 16."""
    gradient = np.linspace(0, 1, 256).reshape(16, 16)
    shallow = save(tmp_path / "8.png", Image.fromarray(np.rint(gradient * 255).astype(np.uint8)))
    deep = save(tmp_path / "12.png", Image.fromarray(np.rint(gradient * 4095).astype(np.uint16)))
    assert examine(deep).largest == 4095
    eight, twelve = (pixels(path, "colour", (16, 16), "crop", 4095)[0] for path in (shallow, deep))
    np.testing.assert_allclose(twelve.astype(int), eight, atol=1)
    eight, twelve = (pixels(path, "16-bit grey", (16, 16), "crop", 4095)[0] for path in (shallow, deep))
    assert twelve.max() == eight.max() == 4095
    np.testing.assert_allclose(twelve.astype(int), eight, atol=9)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({"L"}, "grey"),
        ({"1", "LA"}, "grey"),
        ({"L", "I;16"}, "16-bit grey"),
        ({"I"}, "16-bit grey"),
        ({"L", "P"}, "colour"),
        ({"RGB", "I;16"}, "colour"),
    ],
)
def test_common_mode(modes, expected):
    assert common_mode(modes) == expected


@pytest.mark.parametrize("value", [np.float32(0.5), np.int32(70000), np.int32(-1)])
def test_pixels_without_a_known_range_are_refused(tmp_path, value):
    path = save(tmp_path / "x.tif", Image.fromarray(np.full((4, 4), value)))
    with pytest.raises(ValueError, match="pixels"):
        examine(path)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.gif", "x.pgm", "x.bmp"])
def test_truncated_files_do_not_pass(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (80, 60), np.uint8)
    path = save(tmp_path / name, Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(Exception, match=r"truncated|broken|not enough"):
        examine(path)


def test_progressive_and_colour_jpeg_are_read_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    path = save(tmp_path / "x.jpg", Image.fromarray(noise), progressive=True)
    assert examine(path).mode == "RGB"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match="truncated"):
        examine(path)


def test_images_beyond_pillows_limit_are_read(tmp_path):
    path = save(tmp_path / "x.png", Image.new("1", (20000, 9500)))
    assert examine(path).size == (9500, 20000)
