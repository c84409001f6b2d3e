import numpy as np
import pytest

from ddhpc.method import resampling
from ddhpc.method.resampling import RESAMPLES, draws, measured, owners, wilson


def test_whole_patients_are_drawn_and_nobody_is_alone():
    owner = owners(6, ["b", "", "a", "b", "", "a"])
    assert owner.tolist() == [0, 1, 2, 0, 3, 2]
    weights = draws(owner)
    assert weights.shape == (RESAMPLES, 6)
    assert (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, 2] == weights[:, 5]).all()
    assert (weights[:, 1] != weights[:, 4]).any()
    assert (weights[:, [0, 1, 2, 4]].sum(1) == 4).all()  # as many owners as there are
    assert (draws(owner) == weights).all()
    assert owners(3).tolist() == [0, 1, 2]


def test_draws_are_the_same_in_blocks(monkeypatch):
    owner = owners(50, [f"p{n % 20}" for n in range(50)])
    drawn = np.random.default_rng(0).integers(0, 20, (RESAMPLES, 20))
    counted = np.stack([np.bincount(one, minlength=20) for one in drawn])[:, owner]
    for block in (7, 333, 2**20):
        monkeypatch.setattr(resampling, "BLOCK", block)
        assert (draws(owner) == counted).all()


def test_the_interval_of_patients_is_that_of_the_textbook():
    """Where all samples of a patient agree, there are as many independent samples as patients."""
    rng = np.random.default_rng(4)
    truth = rng.random(150) < 0.8
    right = np.repeat(truth, 4)
    weights = draws(owners(600, [f"p{n // 4}" for n in range(600)])).astype(float)
    found = measured(right.mean(), weights @ right / weights.sum(1))
    width = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 150)
    assert found.low == pytest.approx(right.mean() - width, abs=0.01)
    assert found.high == pytest.approx(right.mean() + width, abs=0.01)
    alone = draws(owners(600)).astype(float)
    narrow = measured(right.mean(), alone @ right / 600)
    assert (found.high - found.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.1)


def test_wilson_is_that_of_the_paper():
    """Newcombe, Statistics in Medicine 17 (1998), Table I: score method without continuity correction."""
    for right, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert np.round(wilson(right / trials, trials), 4).tolist() == [low, high]
    assert wilson(1, 29) == pytest.approx((1 - 0.1170, 1), abs=1e-4)


def test_draws_that_agree_on_0_or_1_give_the_interval_of_wilson():
    certain = np.ones(RESAMPLES)
    found = measured(1.0, certain, 20)
    assert (found.low, found.high) == wilson(1, 20)
    assert measured(1.0, certain).low == 1  # no proportion
    assert measured(0.5, certain / 2, 20).low == 0.5


def test_draws_without_a_value_are_left_out():
    drawn = np.concatenate([np.linspace(0, 1, 101), [np.nan] * 5])
    found = measured(0.5, drawn)
    assert (found.low, found.high, found.resamples) == (pytest.approx(0.025), pytest.approx(0.975), 101)
    found = measured(np.nan, np.full(9, np.nan), 0)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.resamples == 0
