"""One orientation and one grid for all volumes."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch

from ddhpc.data.sources.resampling import Volume, grid, oriented, resampled

SHAPE = (7, 6, 5)


def volume(voxels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    return Volume(voxels=voxels, affine=np.diag([*spacing, 1.0]), spacing=spacing, axes="RAS")


def ramp(shape: tuple[int, int, int], axis: int) -> np.ndarray:
    """The position of each voxel centre, in voxels of extent 1 for the whole axis."""
    position = (np.arange(shape[axis]) + 0.5) / shape[axis]
    return np.broadcast_to(position.reshape([-1 if n == axis else 1 for n in range(3)]), shape)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_all_48_orientations_give_the_same_array(order, signs):
    """Voxels that hold their own place in the patient: x + 100 y + 10000 z millimetres."""
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    standard = x + 100 * y + 10_000 * z
    stored = standard.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    spacing = (0.5, 2.0, 3.0)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[world]
        if sign < 0:
            affine[world, 3] = spacing[world] * (SHAPE[world] - 1)
    affine[3, 3] = 1
    found = oriented(stored, affine)
    assert np.array_equal(found.voxels, standard)
    assert (found.spacing, found.shape) == (spacing, SHAPE)
    assert found.axes == "".join(nib.aff2axcodes(affine))


def test_an_oblique_volume_is_turned_to_the_nearest_axes():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    voxels = np.arange(24).reshape(2, 3, 4)
    found = oriented(voxels[::-1], turn @ np.diag([-2.0, 1, 1, 1]))
    assert np.array_equal(found.voxels, voxels)
    assert np.allclose(found.spacing, (2, 1, 1))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_spacing_must_be_positive_and_finite(bad):
    with pytest.raises(ValueError, match="voxel spacing"):
        oriented(np.zeros(SHAPE), np.diag([1, bad, 1, 1]))


def test_axes_must_differ():
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 1] = affine[:3, 0]
    with pytest.raises(ValueError, match="parallel"):
        oriented(np.zeros(SHAPE), affine)


def test_the_grid_covers_the_volume():
    assert grid((512, 512, 40), (0.7, 0.7, 8.0), (2, 2, 4)) == (179, 179, 80)
    assert grid((10, 10, 10), (1, 1, 1), (100, 1, 3)) == (1, 10, 3)


def test_growing_is_trilinear_interpolation():
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    found = resampled(volume(voxels), shape=(12, 13, 9), spacing=None, window=None)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(voxels)[None, None], (12, 13, 9), mode="trilinear", align_corners=False
    )
    assert np.allclose(found, expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 12, 8), (40, 48, 32), (33, 13, 50)])
@pytest.mark.parametrize("axis", range(3))
def test_a_ramp_stays_where_it_is(shape, axis):
    found = resampled(volume(ramp((20, 24, 16), axis)), shape=shape, spacing=None, window=None)
    inner = tuple(slice(n // 4, -(n // 4)) for n in shape)
    assert np.allclose(found[inner], ramp(shape, axis)[inner], atol=1e-3)


def test_shrinking_does_not_alias():
    stripes = np.zeros((32, 8, 8), np.float32)
    stripes[::2] = 100
    found = resampled(volume(stripes), shape=(9, 8, 8), spacing=None, window=None)
    assert np.ptp(found[1:-1]) < 10
    assert abs(found.mean() - 50) < 2


def test_spacing_alone_gives_the_voxels_it_needs():
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    found = resampled(volume(voxels, (2, 1, 1)), shape=None, spacing=(1, 1, 1), window=None)
    assert found.shape == (6, 4, 5)
    assert found.dtype == np.float32
    assert found[:, 0, 0].tolist() == [0, 5, 15, 25, 35, 40]


def test_clipping_comes_first():
    voxels = np.array([-3000, 0, 0, 3000], np.int16).reshape(4, 1, 1)
    found = resampled(volume(voxels), shape=(2, 1, 1), spacing=None, window=(-100, 100))
    assert found.min() >= -100
    assert found.max() <= 100
    assert found[0, 0, 0] == -found[1, 0, 0]


def test_integers_survive_where_nothing_changes():
    voxels = np.random.default_rng(0).integers(-1024, 3071, SHAPE).astype(np.int16)
    found = resampled(volume(voxels), shape=SHAPE, spacing=(1, 1, 1), window=None)
    assert np.array_equal(found, voxels)
