"""Maps as pictures: colours where the blocks are in the file's own image."""

import numpy as np
from PIL import Image

from ddhpc.method.decomposition import sides
from ddhpc.solver.map_picture import FONT_SIZE, Picture, draw, points

GREY = 120
SPOKE, AGAINST = np.array([0xD5, 0x5E, 0x00]), np.array([0x00, 0x72, 0xB2])


def mixed(colour, opacity):
    return GREY + opacity * (colour - GREY)


def test_each_block_has_its_colour_where_the_image_was_seen():
    """50 x 40 pixels, ten each: the middle 40 x 40 became 8 x 7 pixels, cut into 4 + 4 columns and 3 + 2 + 2 rows."""
    image = Image.new("RGB", (50, 40), (GREY, GREY, GREY))
    values = np.array([0.5, -0.25, 0.001, 0.0, -0.5, 0.1])
    drawn = draw(Picture(image=image, seen=(5, 0, 45, 40)), sides((7, 8), (3, 2)), values, ["class", "more"])
    assert drawn.size == (500, 400 + 76)
    found = np.asarray(drawn).astype(float)
    rows, columns = [0, 400 * 3 / 7, 400 * 5 / 7, 400], [50, 250, 450]
    for n, value in enumerate(values):
        (top, bottom), (left, right) = rows[n // 2 : n // 2 + 2], columns[n % 2 : n % 2 + 2]
        inside = found[round(top) + 2 : round(bottom) - 3, left + 2 : right - 2].reshape(-1, 3)
        colour = mixed(SPOKE if value > 0 else AGAINST, 0.7 * abs(value) / 0.5)
        assert np.abs(np.median(inside, axis=0) - colour).max() <= 2
        written = (np.abs(inside - colour).max(1) > 30).any()
        assert written == (abs(value) >= 0.005)
    for beyond in (found[:400, :50], found[:400, 450:]):
        assert (beyond == GREY).all()


def test_small_values_are_pale_and_large_images_small():
    image = Image.new("L", (4000, 1000), GREY)
    values = np.array([0.001, -0.0005])
    drawn = np.asarray(draw(Picture(image=image, seen=(0, 0, 4000, 1000)), sides((10, 40), (1, 2)), values, [])).astype(
        float
    )
    assert drawn.shape == (256 + 36, 1024, 3)
    assert np.abs(drawn[128, 300] - mixed(SPOKE, 0.07)).max() <= 2
    assert np.abs(drawn[128, 800] - mixed(AGAINST, 0.035)).max() <= 2


def test_blocks_narrower_than_a_pixel_are_drawn():
    image = Image.new("L", (3, 4000), GREY)
    drawn = draw(Picture(image=image, seen=(0, 0, 3, 4000)), sides((4000, 3), (4000, 1)), np.linspace(-1, 1, 4000), [])
    assert drawn.size == (480, 1024 + 36)
    assert FONT_SIZE < 36


def test_points_are_whole():
    assert [points(value) for value in (0.123, -0.456, -0.001)] == ["+12", "-46", "+0"]
