"""Stratified division of samples into splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddhpc.data.sources.splits import stratified
from ddhpc.errors import InputError

PARTS = {"val": 0.2, "test": 0.1}


@given(st.lists(st.integers(0, 2), min_size=0, max_size=60), st.integers(0, 2**40))
def test_splits_share_out_every_sample_by_class(labels, seed):
    labels = np.array([*labels, *[0, 1, 2] * 4])
    splits = stratified(labels, PARTS, seed, "abc")
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(labels)))
    for split, part in PARTS.items():
        for label in range(3):
            assert np.sum(labels[splits[split]] == label) == max(1, round(part * np.sum(labels == label)))
    again = stratified(labels, PARTS, seed, "abc")
    assert all(np.array_equal(splits[split], again[split]) for split in splits)


def test_the_seed_decides_the_draw():
    labels = np.repeat([0, 1], 50)
    first, second = (stratified(labels, PARTS, seed, "ab")["val"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_classes_are_drawn_independently():
    drawn = stratified(np.repeat([0, 1], 50), PARTS, 0, "ab")["val"]
    assert not np.array_equal(drawn[:10], drawn[10:] - 50)


def test_a_class_does_not_change_with_the_others():
    alone, more = np.repeat([0, 1], 20), np.repeat([0, 1], [20, 33])
    assert set(stratified(alone, PARTS, 0, "ab")["val"]) & set(range(20)) == set(
        stratified(more, PARTS, 0, "ab")["val"]
    ) & set(range(20))


def test_nothing_missing_leaves_all_in_train():
    assert stratified(np.array([0, 1, 0]), {}, 0, "ab")["train"].tolist() == [0, 1, 2]


def test_too_small_a_class_is_named():
    with pytest.raises(InputError, match=r"class 'b' has 2 training samples, too few to draw val and test"):
        stratified(np.array([0, 0, 0, 1, 1]), PARTS, 0, "ab")
