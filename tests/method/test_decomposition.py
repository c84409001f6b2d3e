from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddhpc.errors import InputError
from ddhpc.method.decomposition import (
    block,
    bounds,
    count_pixels,
    extent,
    grow,
    owned,
    rotation_margins,
    sides,
    team_of,
    windows,
)


@st.composite
def images_and_grids(draw, balance="blocks", with_overlap=True):
    """An image shape in 2D or 3D, a grid that fits it, and an overlap that its blocks allow."""
    dimensions = draw(st.sampled_from((2, 3)))
    shape = tuple(draw(st.integers(1, 23)) for _ in range(dimensions))
    grid = tuple(draw(st.integers(1, size)) for size in shape)
    more = 2 if balance == "even" else 0
    limits = [size // (parts + more * (parts > 2)) for size, parts in zip(shape, grid, strict=True) if parts > 1]
    return shape, grid, draw(st.integers(0, min(limits, default=5))) if with_overlap else 0


@given(images_and_grids(with_overlap=False))
def test_without_overlap_every_pixel_is_covered_exactly_once(case):
    shape, grid, _ = case
    covered = np.zeros(shape, dtype=int)
    for window in windows(shape, grid):
        covered[window] += 1
    assert (covered == 1).all()


@given(images_and_grids())
def test_overlap_grows_each_window_on_interior_sides_only(case):
    shape, grid, overlap = case
    for inner, outer in zip(windows(shape, grid), windows(shape, grid, overlap), strict=True):
        for block_side, side, size in zip(inner, outer, shape, strict=True):
            assert side.start == (0 if block_side.start == 0 else block_side.start - overlap)
            assert side.stop == (size if block_side.stop == size else block_side.stop + overlap)


@given(images_and_grids(with_overlap=False))
def test_numbering_is_row_major_and_blocks_are_balanced(case):
    shape, grid, _ = case
    lower, upper = bounds(windows(shape, grid))
    assert sorted(map(tuple, lower)) == list(map(tuple, lower))
    assert ((upper - lower).max(axis=0) - (upper - lower).min(axis=0) <= 1).all()


@given(st.sampled_from(("blocks", "even")).flatmap(lambda each: st.tuples(images_and_grids(each), st.just(each))))
def test_blocks_cover_every_pixel_once_and_windows_are_blocks_with_their_overlap(case):
    (shape, grid, overlap), balance = case
    covered = np.zeros(shape, dtype=int)
    within = list(product(*sides(shape, grid, overlap, balance)))
    for inner, outer, place in zip(within, windows(shape, grid, overlap, balance), np.ndindex(grid), strict=True):
        covered[inner] += 1
        for block_side, side, index, parts in zip(inner, outer, place, grid, strict=True):
            assert block_side.start - side.start == overlap * (index > 0)
            assert side.stop - block_side.stop == overlap * (index < parts - 1)
    assert (covered == 1).all()


@given(images_and_grids("even"))
def test_even_windows_differ_by_a_pixel_and_none_is_larger_than_the_largest_of_equal_blocks(case):
    shape, grid, overlap = case
    even = np.array([extent(window) for window in windows(shape, grid, overlap, "even")])
    assert (even.max(axis=0) - even.min(axis=0) <= 1).all()
    equal_blocks = np.array([extent(window) for window in windows(shape, grid, overlap)])
    assert (even.max(axis=0) <= equal_blocks.max(axis=0)).all()


@given(images_and_grids("even"))
def test_no_even_window_reaches_past_its_neighbour(case):
    shape, grid, overlap = case
    within = [side for along in sides(shape, grid, overlap, "even") if len(along) > 1 for side in along]
    assert all(side.stop - side.start >= max(overlap, 1) for side in within)


def test_the_largest_overlap_of_even_windows_leaves_a_block_inside():
    assert windows((24,), (4,), 4, "even")[1] == (slice(4, 16),)
    with pytest.raises(InputError, match=r"--decomposition.overlap 5: expected 0 to 4 pixels"):
        windows((24,), (4,), 5, "even")


def test_without_overlap_even_windows_are_equal_blocks():
    assert windows((23, 9), (4, 2), 0, "even") == windows((23, 9), (4, 2), 0)


def test_a_window_that_touches_its_neighbours_far_side_is_the_largest():
    assert windows((8, 8), (2, 1), 4)[0] == (slice(0, 8), slice(0, 8))
    with pytest.raises(InputError, match=r"--decomposition.overlap 5: expected 0 to 4 pixels"):
        windows((8, 8), (2, 1), 5)


def test_overlap_does_not_matter_where_nothing_is_cut():
    assert windows((8, 9), (1, 1), 100) == [(slice(0, 8), slice(0, 9))]
    with pytest.raises(InputError, match=r"--decomposition.overlap -1: expected 0 or more pixels"):
        windows((8, 9), (1, 1), -1)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((4,), "expected 2 numbers for images of 28x30"),
        ((4, 4, 4), "expected 2 numbers"),
        ((29, 1), "1 to as many subdomains as pixels"),
        ((0, 4), "1 to as many"),
        ((-1, 4), "1 to as many"),
    ],
)
def test_bad_grids(grid, message):
    with pytest.raises(InputError, match=message):
        windows((28, 30), grid)


@given(st.integers(1, 200), st.data())
def test_ranks_share_subdomains_evenly_in_order(subdomains, data):
    ranks = data.draw(st.integers(1, subdomains))
    shares = [owned(subdomains, ranks, rank) for rank in range(ranks)]
    assert [n for share in shares for n in share] == list(range(subdomains))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 60), st.data())
def test_more_ranks_than_subdomains_form_teams_whose_first_rank_owns(subdomains, data):
    ranks = data.draw(st.integers(subdomains, 4 * subdomains))
    teams = [team_of(subdomains, ranks, rank) for rank in range(ranks)]
    assert [subdomain for subdomain, _ in teams] == sorted(subdomain for subdomain, _ in teams)
    for rank, (subdomain, members) in enumerate(teams):
        assert [other for other, (theirs, _) in enumerate(teams) if theirs == subdomain] == list(members)
        assert list(owned(subdomains, ranks, rank)) == ([subdomain] if rank == members[0] else [])
    sizes = {len(members) for _, members in teams}
    assert max(sizes) - min(sizes) <= 1
    # The bounds of the shares rise, for what is gathered in the order of the ranks.
    shares = [owned(subdomains, ranks, rank) for rank in range(ranks)]
    ends = [end for share in shares for end in (share.start, share.stop)]
    assert ends == sorted(ends)
    assert ends[-1] == subdomains


def test_block_matches_numpy():
    for size, parts in ((10, 3), (7, 7), (28, 4), (5, 1)):
        expected = np.array_split(np.arange(size), parts)
        assert [block(size, parts, i) for i in range(parts)] == [(e[0], e[-1] + 1) for e in expected]


@given(images_and_grids(), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_growing_keeps_the_window_inside(case, margins):
    shape, grid, overlap = case
    margins = margins[: len(shape)]
    image = np.arange(np.prod(shape)).reshape(shape)
    for window in windows(shape, grid, overlap):
        grown, core = grow(window, margins, shape)
        assert (image[grown][core] == image[window]).all()
        for side, outer, size, margin in zip(window, grown, shape, margins, strict=True):
            assert side.start - outer.start == min(margin, side.start)
            assert outer.stop - side.stop == min(margin, size - side.stop)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.floats(0, 90))
def test_rotations_look_no_farther_than_their_margins(window, degrees):
    """Against the corners of the rotated window, at many angles up to the largest."""
    margins = rotation_margins(window, degrees)
    angles = np.radians(np.linspace(-degrees, degrees, 721))
    row, column = ((size - 1) / 2 for size in window[:2])
    for sign in (-1, 1):
        reach = np.abs(np.cos(angles) * row + sign * np.sin(angles) * column).max()
        assert reach <= row + margins[0] + 1e-6
        reach = np.abs(np.cos(angles) * column + sign * np.sin(angles) * row).max()
        assert reach <= column + margins[1] + 1e-6
    least = np.abs(np.cos(angles) * row + np.sin(np.abs(angles)) * column).max() - row
    assert margins[0] < least + 1.01
    assert not any(margins[2:])


def test_extent_and_pixels():
    window = (slice(2, 9), slice(0, 5))
    assert extent(window) == (7, 5)
    assert count_pixels(window) == 35
