"""Samples become splits."""

from __future__ import annotations

import numpy as np
import pytest

from ddhpc.data.sources.source import SourceOptions
from ddhpc.data.sources.splits import check_patients, counted, divide, drop_copies, stratified
from ddhpc.errors import InputError

FRACTIONS = {"val": 0.2, "test": 0.2}


def test_samples_of_their_own_are_drawn_as_by_class():
    labels = np.array([0, 1] * 10)
    owners = [f"{9 - i % 10}/{i}" for i in range(20)]
    drawn = divide([""] * 20, labels, owners, FRACTIONS, 3, ("a", "b"))
    expected = stratified(labels, FRACTIONS, 3, ("a", "b"))
    assert drawn == {name: index.tolist() for name, index in expected.items()}


def test_owners_stay_together_and_every_class_is_drawn():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [80, 20])
    owners = [f"P{n}" for n in [*rng.integers(0, 30, 80), *rng.integers(20, 35, 20)]]
    drawn = divide([""] * 100, labels, owners, FRACTIONS, 0, ("a", "b"))
    assert sorted(i for index in drawn.values() for i in index) == list(range(100))
    homes = [{owners[i] for i in index} for index in drawn.values()]
    assert sum(map(len, homes)) == len(set.union(*homes))
    assert all({0, 1} == set(labels[index].tolist()) for index in drawn.values())


@pytest.mark.parametrize("seed", range(8))
def test_a_class_that_few_owners_have_beside_another_is_in_every_split(seed):
    labels = np.array([0] * 60 + [1] * 6)
    owners = [f"P{n % 20}" for n in range(66)]
    drawn = divide([""] * 66, labels, owners, FRACTIONS, seed, ("common", "rare"))
    assert all(1 in labels[index] for index in drawn.values())


def test_given_splits_stay():
    given = ["", "train", "test", "", "", "test", "train", ""]
    drawn = divide(given, np.array([0, 1] * 4), list("abcdefgh"), {"val": 0.2}, 0, ("x", "y"))
    assert drawn["test"] == [2, 5]
    assert sorted(drawn["train"] + drawn["val"]) == [0, 1, 3, 4, 6, 7]
    assert len(drawn["val"]) == 2
    all_given = ["train", "val", "test", ""]
    assert divide(all_given, np.array([0, 0, 0, 1]), list("abcd"), {}, 0, ("x", "y")) == {
        "train": [0, 3],
        "val": [1],
        "test": [2],
    }


def test_too_few_to_draw_from():
    with pytest.raises(InputError, match="class 'b' has 2 training samples"):
        divide([""] * 8, np.array([0] * 6 + [1] * 2), list("abcdefgh"), FRACTIONS, 0, ("a", "b"))


def test_copies_of_earlier_splits_go():
    divided = {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    kept, copies = drop_copies(divided, list("abcdef"), [b"1", b"1", b"2", b"1", b"2", b"3"])
    assert kept == {"train": [0, 1], "val": [2], "test": [5]}
    assert copies == {"d": "copy of b", "e": "copy of c"}


def test_a_patient_in_two_splits():
    divided = {"train": [0, 1, 2], "val": [3], "test": [4]}
    check_patients(divided, list("abcde"), ["P", "P", "", "", "Q"])
    with pytest.raises(InputError, match=r"^patient 'P' is in train \(b\) and in test \(e\); expected"):
        check_patients(divided, list("abcde"), ["Q", "P", "", "", "P"])


def test_counting():
    steps: list[tuple[int, int]] = []
    assert list(counted("ab", lambda *step: steps.append(step), 3, 9)) == ["a", "b"]
    assert steps == [(4, 9), (5, 9)]


@pytest.mark.parametrize(
    ("val", "test", "seed", "message"),
    [
        (0, 0.1, 0, "--val-fraction 0: expected a number between 0 and 1"),
        (0.1, 1, 0, "--test-fraction 1"),
        (0.5, 0.5, 0, "leave nothing to train on"),
        (0.1, 0.1, -1, "--seed -1"),
    ],
)
def test_options_for_drawing(val, test, seed, message):
    with pytest.raises(InputError, match=message):
        SourceOptions(val_fraction=val, test_fraction=test, seed=seed).check()


def test_too_few_patients_are_called_patients():
    """Four images of two patients are not two images."""
    owners = [*(f"P{n}" for n in range(20)), "Q0", "Q0", "Q1", "Q1"]
    with pytest.raises(InputError, match="class 'rare' has 2 training patients, too few to draw"):
        divide([""] * 24, np.repeat([0, 1], [20, 4]), owners, FRACTIONS, 0, ("usual", "rare"))
