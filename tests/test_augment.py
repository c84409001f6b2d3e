"""Augmentation against independent computations."""

import numpy as np
import pytest
import torch

from ddhpc.augment import moved
from ddhpc.config import Local


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
        out = moved(torch.tensor(pixels)[batch], core, Local(shift=shift)).numpy()
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
    out = moved(batch, (slice(0, 3), slice(0, 4)), Local(flip=True)).numpy()
    mirrored = (out == pixels[0][..., ::-1]).all(axis=(1, 2, 3))
    plain = (out == pixels[0]).all(axis=(1, 2, 3))
    assert (mirrored ^ plain).all()
    assert 150 < mirrored.sum() < 250


def test_without_augmentation_the_images_are_as_they_are():
    pixels = torch.rand(3, 1, 4, 4)
    state = torch.get_rng_state()
    assert torch.equal(moved(pixels, (slice(0, 4), slice(0, 4)), Local()), pixels)
    assert torch.equal(torch.get_rng_state(), state)
