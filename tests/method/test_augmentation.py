"""Augmentation against independent computations: NumPy's padding, SciPy's rotation."""

from math import degrees, radians

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, rotate

from ddhpc.config import Local
from ddhpc.method.augmentation import augment_geometry, augment_intensity, draw_changes, rotated
from ddhpc.method.decomposition import extent, grow, rotation_margins


def geometry(pixels, core, config):
    return augment_geometry(pixels, core, config, draw_changes(config, len(pixels), len(core)))


def intensity(pixels, config):
    return augment_intensity(pixels, config, draw_changes(config, len(pixels), pixels.ndim - 2))


@pytest.mark.parametrize("shape", [(9, 11), (5, 7, 6)])
def test_shifts_show_real_pixels_and_repeat_the_edge_of_the_image(shape):
    """Each augmented window equals a window of the edge-padded image at an offset within the shift."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 2, *shape), dtype=np.uint8)
    core = (slice(2, shape[0] - 1), *(slice(1, size - 2) for size in shape[1:]))
    shift = 2
    padded = np.pad(pixels, [(0, 0), (0, 0)] + [(shift, shift)] * len(shape), mode="edge")
    batch = torch.tensor([3, 0, 0, 2])
    torch.manual_seed(0)
    seen = set()
    for _ in range(40):
        out = geometry(torch.tensor(pixels)[batch], core, Local(shift=shift)).numpy()
        for image, window in zip(batch.tolist(), out, strict=True):
            matches = [
                offset
                for offset in np.ndindex(*[2 * shift + 1] * len(shape))
                if np.array_equal(
                    window,
                    padded[image][
                        (
                            slice(None),
                            *(slice(s.start + o, s.stop + o) for s, o in zip(core, offset, strict=True)),
                        )
                    ],
                )
            ]
            assert matches
            seen.update(matches)
    assert {offset[0] for offset in seen} == set(range(5))
    assert {offset[-1] for offset in seen} == set(range(5))


def test_flips_mirror_the_last_dimension_of_about_half():
    pixels = np.arange(2 * 1 * 3 * 4, dtype=np.uint8).reshape(2, 1, 3, 4)
    torch.manual_seed(0)
    batch = torch.tensor(pixels)[torch.zeros(400, dtype=torch.int64)]
    out = geometry(batch, (slice(0, 3), slice(0, 4)), Local(flip=True)).numpy()
    mirrored = (out == pixels[0][..., ::-1]).all(axis=(1, 2, 3))
    plain = (out == pixels[0]).all(axis=(1, 2, 3))
    assert (mirrored ^ plain).all()
    assert 150 < mirrored.sum() < 250


def test_without_augmentation_the_images_are_as_they_are():
    pixels = torch.rand(3, 1, 4, 4)
    state = torch.get_rng_state()
    assert torch.equal(geometry(pixels, (slice(0, 4), slice(0, 4)), Local()), pixels)
    assert torch.equal(intensity(pixels, Local()), pixels)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_share_of_a_batch_is_changed_as_it_is_within_the_batch():
    pixels, core = torch.rand(7, 2, 12, 11), (slice(2, 10), slice(2, 9))
    config = Local(shift=1, flip=True, rotate=8, intensity=0.3)

    changes = draw_changes(config, 7, 2)
    assert len(torch.unique(changes, dim=0)) == 7

    def changed(rows):
        return augment_intensity(augment_geometry(pixels[rows], core, config, changes[rows]), config, changes[rows])

    whole = changed(slice(None))
    for rows in (slice(0, 3), slice(3, 7)):
        assert torch.equal(changed(rows), whole[rows])


def smooth(shape, seed=0):
    """Images [2, 2, *shape] float64 that change slowly, so that linear interpolation is not all there is to see."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij"))
    waves = rng.normal(size=(2, 2, len(shape)))
    return 100 * np.sin(np.tensordot(waves, places, 1) + rng.uniform(0, 6, (2, 2, *[1] * len(shape))))


@pytest.mark.parametrize("shape", [(14, 11), (12, 9, 5)])
@pytest.mark.parametrize("angle", [0.0, 7.0, -21.5, 90.0])
def test_rotations_are_those_of_scipy(shape, angle):
    """scipy.ndimage.rotate turns about the centre of the whole image, edges repeated, as the rotation of a window."""
    pixels = smooth(shape)
    margins = rotation_margins(shape, abs(angle))
    padding = [(0, 0), (0, 0), *((margin, margin) for margin in margins)]
    grown = torch.tensor(np.pad(pixels, padding, mode="edge"))
    found = rotated(grown, torch.full((2,), radians(angle)), shape).numpy()
    expected = rotate(pixels, angle, axes=(3, 2), reshape=False, order=1, mode="nearest")
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(30, 26), (24, 28, 7)])
def test_a_rotated_and_shifted_window_shows_what_the_image_has_beyond_it(shape, dtype):
    """Against an affine transform of the whole image, whose window is cut out afterwards, with edges repeated.

    The windows are a corner of the image and one in its middle; found are the angle and the shift that explain the
    result, drawn again from the same random numbers.
    """
    config = Local(rotate=15, shift=2)
    image = (smooth(shape) + 120).astype(dtype)
    for window in [
        tuple(slice(0, size // 2) for size in shape),
        tuple(slice(size // 3, size - size // 5) for size in shape),
    ]:
        margins = [2 + margin for margin in rotation_margins(extent(window), 15)]
        padded, core = grow(window, margins, shape)
        torch.manual_seed(5)
        found = geometry(torch.tensor(image[(slice(None), slice(None), *padded)]), core, config).numpy()
        torch.manual_seed(5)
        offsets = torch.randint(-2, 3, (len(shape), 2, 1)).numpy()[..., 0]
        torch.rand(2, 1)
        angles = radians(15) * (2 * torch.rand(2) - 1).numpy()
        assert abs(degrees(angles[0])) > 1
        centre = np.array([(side.start + side.stop - 1) / 2 for side in window])
        for n, angle in enumerate(angles):
            matrix = np.eye(len(shape))
            matrix[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
            offset = centre - matrix @ centre + offsets[:, n]
            for channel in range(2):
                whole = image[n, channel].astype(np.float64)
                expected = affine_transform(whole, matrix, offset, order=1, mode="nearest")[window]
                assert np.abs(found[n, channel] - expected).max() < 2e-3


def test_angles_fill_the_whole_range():
    """The angle of a long thin window is read off where its single bright line ends up."""
    torch.manual_seed(0)
    window = (slice(30, 31), slice(10, 51))
    pixels = torch.zeros(500, 1, 61, 61)
    pixels[:] = torch.arange(61.0)[:, None]
    out = geometry(pixels, window, Local(rotate=20))[:, 0, 0].numpy()
    angles = np.degrees(np.arcsin((out[:, -1] - out[:, 0]) / 40))
    assert -20 <= angles.min() < -19
    assert 19 < angles.max() <= 20
    assert abs(angles.mean()) < 2


def test_rotation_leaves_shifts_and_flips_as_they_are_drawn():
    pixels = torch.rand(8, 1, 12, 12)
    core = (slice(2, 10), slice(2, 10))
    torch.manual_seed(3)
    plain = geometry(pixels, core, Local(shift=2, flip=True))
    torch.manual_seed(3)
    assert torch.allclose(geometry(pixels, core, Local(shift=2, flip=True, rotate=1e-4)), plain, atol=1e-4)


@pytest.mark.parametrize("shape", [(200, 2, 5, 4), (200, 1, 5, 4, 3)])
def test_contrast_and_brightness_change_within_their_limits(shape):
    torch.manual_seed(0)
    pixels = torch.randn(shape)
    changed = intensity(pixels, Local(intensity=0.2))
    before, after = pixels.flatten(1), changed.flatten(1)
    factor = after.std(1) / before.std(1)
    offset = after.mean(1) - factor * before.mean(1)
    assert torch.allclose(after, factor[:, None] * before + offset[:, None], atol=1e-5)
    for values, middle in ((factor, 1), (offset, 0)):
        assert -0.2 - 1e-5 <= (values - middle).min() < -0.15
        assert 0.15 < (values - middle).max() <= 0.2 + 1e-5
    assert np.corrcoef(factor, offset)[0, 1] ** 2 < 0.1
