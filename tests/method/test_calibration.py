import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from ddhpc.method.calibration import BINS, excess, reliability, temperature, tempered
from tests.method.test_metrics import noisy


@pytest.mark.parametrize("digits", [1, 2, 9])
def test_reliability_is_that_of_the_library(digits):
    decisions, labels = noisy(500, 2, seed=3, strength=2)
    said = np.round(decisions[:, 1].astype(np.float64), digits)
    found = reliability(said, labels == 1)
    shares, means = calibration_curve(labels, said, n_bins=BINS)
    assert found.found == pytest.approx(shares)
    assert found.said == pytest.approx(means)
    assert found.samples.sum() == 500
    assert found.error == pytest.approx(np.abs(excess(said, labels == 1).sum(0)).sum() / 500)


def test_the_error_is_that_of_the_formula():
    """Samples of 0.2 and 0.9, of which half and all came true."""
    said, came = np.array([0.2, 0.2, 0.9, 0.9]), np.array([True, False, True, True])
    assert reliability(said, came).error == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)
    sure = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert (sure.error, sure.samples.tolist()) == (0, [1, 1])


@pytest.mark.parametrize(("classes", "sharpness"), [(2, 0.4), (5, 1.0), (12, 3.0)])
def test_the_temperature_is_that_of_the_least_loss(classes, sharpness):
    decisions, labels = noisy(800, classes, seed=1, strength=1.5)
    sharp = decisions.astype(np.float64) ** sharpness
    sharp /= sharp.sum(1, keepdims=True)

    def loss(logarithm):
        weights = sharp ** np.exp(-logarithm)
        return log_loss(labels, weights / weights.sum(1, keepdims=True))

    least = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    found = temperature(sharp, labels)
    assert found == pytest.approx(np.exp(least.x), rel=1e-4)
    assert log_loss(labels, tempered(sharp, found)) <= log_loss(labels, sharp)
    assert found == pytest.approx(sharpness * temperature(decisions, labels), rel=1e-4)


def test_the_temperature_keeps_decisions_and_brings_probabilities_nearer():
    decisions, labels = noisy(4000, 4, seed=2, strength=1.5)
    sharp = decisions.astype(np.float64) ** 4
    sharp = (sharp / sharp.sum(1, keepdims=True)).astype(np.float32)
    found = tempered(sharp, temperature(sharp, labels))
    assert (found.argmax(1) == sharp.argmax(1)).all()
    assert found.sum(1) == pytest.approx(1)
    before, after = (reliability(each.max(1), each.argmax(1) == labels).error for each in (sharp, found))
    assert after < before / 3


def test_where_no_temperature_is_best_there_is_none():
    labels = np.array([0, 1, 1])
    right = np.eye(2)[labels] * 0.6 + 0.2
    assert np.isnan(temperature(right, labels))  # surer is better
    assert np.isnan(temperature(right[:, ::-1], labels))  # less sure is better
    assert np.isnan(temperature(np.full((3, 2), 0.5), labels))
    assert (tempered(right, float("nan")) == right).all()


def test_probabilities_of_zero_are_taken():
    decisions = np.array([[1, 0], [0, 1], [1, 0], [0.7, 0.3]], np.float32)
    found = temperature(decisions, np.array([0, 1, 1, 0]))
    assert found > 10
    assert np.isfinite(tempered(decisions, found)).all()
