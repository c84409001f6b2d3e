"""How the image domain is shown: volumes of patients as radiologists look at them."""

import numpy as np
import pytest

from ddhpc.method.decomposition import windows
from ddhpc.report.figures.view import Domain, panels

SHAPE, GRID = (7, 10, 6), (2, 3, 2)


def domain(patient=True):
    return Domain(shape=SHAPE, grid=GRID, overlap=1, patient=patient)


def test_the_right_of_a_patient_is_at_the_left_and_the_front_at_the_top():
    image = np.zeros(SHAPE)
    image[-1, -1, 2] = 1  # farthest to the right and to the front
    image[0, 0, 2] = 2
    seen = domain().seen(image)
    assert seen.shape == (10, 7, 6) == domain().shown_shape
    assert (seen[0, 0, 2], seen[-1, -1, 2]) == (1, 2)
    assert np.array_equal(domain(patient=False).seen(image), image)


@pytest.mark.parametrize("patient", [True, False])
def test_windows_and_blocks_are_shown_over_their_pixels(patient):
    shown = domain(patient)
    for found, stored in ((shown.windows, windows(SHAPE, GRID, 1)), (shown.blocks, windows(SHAPE, GRID))):
        for n, window in enumerate(stored):
            image, expected = np.zeros(SHAPE), np.zeros(shown.shown_shape)
            image[window] = 1
            expected[found[n]] = 1
            assert np.array_equal(shown.seen(image), expected)


@pytest.mark.parametrize("patient", [True, False])
def test_the_grid_is_laid_out_as_the_blocks_are(patient):
    shown = domain(patient)
    for layer in range(2):
        cells = shown.cells(layer, np.arange(12))
        assert cells.shape == shown.shown_grid[:2]
        for (row, column), n in np.ndenumerate(cells):
            block = shown.blocks[n]
            assert sum(shown.blocks[m][0].start < block[0].start for m in cells[:, column]) == row
            assert sum(shown.blocks[m][1].start < block[1].start for m in cells[row]) == column


def test_slices_of_a_patient_are_marked_and_seen_from_the_front_stand_upright():
    image = np.zeros(SHAPE)
    image[-1, :, -1] = 1  # at the right, on top
    *layers, front = panels(domain(), image)
    assert [panel.marks for panel in layers] == ["RLAP"] * 2
    assert (front.marks, front.upward, front.sides, front.title) == ("RLSI", True, (2, 1), "from the front: y 4")
    assert front.picture.shape == (6, 7)
    assert np.argwhere(front.picture).tolist() == [[5, 0]], "the last row, which is drawn at the top, at the left"
    assert set(front.members) == {n for n in range(12) if n // 2 % 3 == 1}
    assert all(panel.marks == "" for panel in panels(domain(patient=False), image))
    untold = Domain(shape=SHAPE, grid=GRID, overlap=1, patient=True, marked=False)
    assert all(panel.marks == "" for panel in panels(untold, image))


def test_images_are_shown_as_they_are():
    image = np.arange(12.0).reshape(3, 4)
    flat = Domain(shape=(3, 4), grid=(1, 2), overlap=0)
    (panel,) = panels(flat, image)
    assert np.array_equal(panel.picture, image)
    assert (panel.sides, panel.marks, list(panel.members)) == ((0, 1), "", [0, 1])
