"""Chunks: their shape keeps promises on size and amplification."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddhpc.data.packed.chunks import (
    CHUNK_BYTES,
    ROW_BYTES,
    SMALL_CHUNK_BYTES,
    choose_chunks,
    choose_whole_chunks,
    read_amplification,
)

shapes = st.one_of(
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 600)),
)


@pytest.mark.parametrize(
    ("image_shape", "channels", "itemsize", "expected"),
    [
        ((28, 28), 1, 1, (16384, 1, 4, 4)),
        ((32, 32, 32), 1, 4, (1024, 1, 4, 4, 4)),
        ((64, 64), 3, 1, (1365, 3, 8, 8)),
        ((128, 128, 64), 1, 4, (61, 1, 8, 8, 8)),
        ((512, 512, 300), 1, 2, (1, 1, 32, 32, 32)),
        ((3, 2), 1, 1, (43690, 1, 3, 2)),
    ],
)
def test_chunks_of_known_images(image_shape, channels, itemsize, expected):
    assert choose_chunks(image_shape, channels, itemsize) == expected


@given(shapes, st.sampled_from([1, 3]), st.sampled_from([1, 2, 4]))
def test_chunks_and_rows_of_them_are_bounded(image_shape, channels, itemsize):
    samples, stored_channels, *edges = choose_chunks(image_shape, channels, itemsize)
    chunk = samples * channels * math.prod(edges) * itemsize
    image = channels * math.prod(image_shape) * itemsize
    assert stored_channels == channels
    assert all(1 <= edge <= size for edge, size in zip(edges, image_shape, strict=True))
    assert samples == 1 or samples * image <= ROW_BYTES
    assert samples == 1 or chunk <= CHUNK_BYTES
    assert chunk >= SMALL_CHUNK_BYTES or tuple(edges) == image_shape


@pytest.mark.parametrize(
    ("image_shape", "channels", "itemsize", "expected"),
    [
        ((14, 14), 1, 1, (1337, 1, 14, 14)),
        ((512, 512), 1, 1, (1, 1, 512, 512)),
        ((512, 512), 3, 1, (1, 3, 170, 512)),
        ((256, 256, 150), 1, 2, (1, 1, 3, 256, 150)),
        ((9, 10**6), 1, 1, (1, 1, 1, 262144)),
    ],
)
def test_chunks_of_whole_images(image_shape, channels, itemsize, expected):
    assert choose_whole_chunks(image_shape, channels, itemsize) == expected


@given(shapes, st.sampled_from([1, 3]), st.sampled_from([1, 2, 4]))
def test_chunks_of_whole_images_are_bounded_and_cut_none_that_fits(image_shape, channels, itemsize):
    samples, stored_channels, *edges = choose_whole_chunks(image_shape, channels, itemsize)
    chunk = samples * channels * math.prod(edges) * itemsize
    whole = tuple(edges) == image_shape
    assert stored_channels == channels
    assert CHUNK_BYTES / 2 < chunk <= CHUNK_BYTES
    assert whole == (channels * math.prod(image_shape) * itemsize <= CHUNK_BYTES)
    assert whole or samples == 1


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((slice(0, 28), slice(0, 28)), 1),
        ((slice(4, 8), slice(8, 16)), 1),
        ((slice(3, 9), slice(4, 8)), 2),
        ((slice(25, 28), slice(0, 4)), 4 / 3),
    ],
)
def test_amplification_of_known_windows(window, expected):
    assert read_amplification(window, (4, 4), (28, 28)) == pytest.approx(expected)


@given(st.data(), shapes, st.integers(1, 40))
def test_amplification_counts_the_chunks_that_a_window_meets(data, image_shape, edge):
    axis = data.draw(st.integers(0, len(image_shape) - 1))
    lower = data.draw(st.integers(0, image_shape[axis] - 1))
    upper = data.draw(st.integers(lower + 1, image_shape[axis]))
    window = [slice(None)] * len(image_shape)
    window[axis] = slice(lower, upper)
    touched = {pixel for pixel in range(image_shape[axis]) if lower // edge <= pixel // edge <= (upper - 1) // edge}
    found = read_amplification(tuple(window), (edge,) * len(image_shape), image_shape)
    assert found == pytest.approx(len(touched) / (upper - lower))
