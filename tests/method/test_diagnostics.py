"""Each metric against scikit-learn, with ties, absent classes, one sample, and draws as weights of the samples."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from ddhpc.method.diagnostics import COLUMNS, METRICS, OneAgainstRest, curve, many_classes, rates, statistic
from ddhpc.method.resampling import draws, owners
from tests.method.test_metrics import noisy


def library(task, weight):
    """All metrics but the calibration error by scikit-learn, NaN where it would make up a value."""
    y, said, score = task.positive, task.decided, task.score
    kept = weight > 0
    y, said, score, w = y[kept], said[kept], score[kept], weight[kept].astype(float)
    both = 0 < y.sum() < len(y)
    some, decided = y.any(), 0 < said.sum() < len(said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of = {"sample_weight": w, "zero_division": np.nan}
        return {
            "sensitivity": recall_score(y, said, **of),
            "specificity": recall_score(~y, ~said, **of),
            "ppv": precision_score(y, said, **of),
            "npv": precision_score(~y, ~said, **of),
            "f1": f1_score(y, said, sample_weight=w, zero_division=0) if some else np.nan,
            "mcc": matthews_corrcoef(y, said, sample_weight=w) if both and decided else np.nan,
            "auc": roc_auc_score(y, score, sample_weight=w) if both else np.nan,
            "average_precision": average_precision_score(y, score, sample_weight=w) if some else np.nan,
            "brier": brier_score_loss(y, score, sample_weight=w, labels=[False, True]),
        }


def tasks():
    """Binary tasks of all kinds, by name."""
    decisions, labels = noisy(60, 4, seed=7)
    fine = OneAgainstRest.of(decisions, labels, 2)
    tied = OneAgainstRest(positive=fine.positive, score=np.round(fine.score, 1), decided=fine.decided)
    flat = OneAgainstRest(positive=fine.positive, score=np.full(60, 0.25), decided=np.zeros(60, bool))
    rare = OneAgainstRest.of(decisions, np.where(np.arange(60) == fine.score.argsort()[45], 2, 0), 2)
    absent, only = (OneAgainstRest.of(decisions, np.full(60, k), 2) for k in (0, 2))
    one = OneAgainstRest.of(decisions[:1], labels[:1], int(labels[0]))
    return {
        **{"fine": fine, "tied": tied, "all alike": flat, "one positive": rare},
        **{"no positive": absent, "all positive": only, "one sample": one},
    }


@pytest.mark.parametrize("name", tasks())
def test_metrics_are_those_of_the_library(name):
    task = tasks()[name]
    samples = len(task.score)
    once = np.ones((1, samples), np.uint8)
    weights = np.concatenate([once, draws(owners(samples, [f"p{n // 3}" for n in range(samples)]))[:40]])
    found = statistic(task)(weights)
    for weight, row in zip(weights, found, strict=True):
        values = dict(zip(COLUMNS, row, strict=True))
        for metric, expected in library(task, weight).items():
            assert values[metric] == pytest.approx(expected, abs=1e-12, nan_ok=True), metric
    assert rates(task)(weights) == pytest.approx(found[:, 4:8], nan_ok=True)


def test_what_is_not_defined_is_never_zero():
    found = {
        name: dict(zip(COLUMNS, statistic(task)(np.ones((1, len(task.score))))[0], strict=True))
        for name, task in tasks().items()
    }
    undefined = {name: {metric for metric in METRICS if np.isnan(values[metric])} for name, values in found.items()}
    assert undefined["fine"] == undefined["tied"] == set()
    assert undefined["no positive"] == {"sensitivity", "f1", "mcc", "auc", "average_precision"}
    assert undefined["all positive"] == {"specificity", "mcc", "auc"}
    assert undefined["all alike"] == {"ppv", "mcc"}
    assert found["all alike"]["f1"] == 0  # all positive samples are missed


@pytest.mark.parametrize("name", ["fine", "tied", "one positive"])
def test_curves_are_those_of_the_library(name):
    task = tasks()[name]
    found = curve(task.positive, task.score)
    wrong, right, thresholds = roc_curve(task.positive, task.score, drop_intermediate=False)
    assert found.roc()[0] == pytest.approx(wrong)
    assert found.roc()[1] == pytest.approx(right)
    assert found.threshold == pytest.approx(thresholds[1:])
    precision, recall, _ = precision_recall_curve(task.positive, task.score)
    assert found.precision_recall()[0] == pytest.approx(recall[-2::-1])
    assert found.precision_recall()[1] == pytest.approx(precision[-2::-1])


@pytest.mark.parametrize("name", ["fine", "tied", "one positive"])
def test_the_threshold_is_the_best_of_the_roc_curve(name):
    task = tasks()[name]
    threshold = curve(task.positive, task.score).youden()
    wrong, right, thresholds = roc_curve(task.positive, task.score, drop_intermediate=False)
    decided = task.score >= threshold
    gain = decided[task.positive].mean() - decided[~task.positive].mean()
    assert gain == pytest.approx((right - wrong).max())
    equal = thresholds[np.isclose(right - wrong, (right - wrong).max())]
    lower = thresholds[thresholds < equal[-1]]
    assert threshold == pytest.approx((equal[-1] + lower[0]) / 2)


def test_without_a_threshold_better_than_chance_there_is_none():
    positive = np.array([True, True, False, False])
    assert np.isnan(curve(positive, np.array([0.1, 0.2, 0.8, 0.9])).youden())
    assert np.isnan(curve(positive, np.full(4, 0.5)).youden())
    assert np.isnan(curve(np.ones(4, bool), np.arange(4.0)).youden())
    assert curve(positive, np.array([0.8, 0.9, 0.1, 0.2])).youden() == pytest.approx(0.5)


def test_the_correlation_of_many_classes_is_that_of_the_library():
    decisions, labels = noisy(90, 5, seed=2)
    weights = np.concatenate([np.ones((1, 90), np.uint8), draws(owners(90))[:30]])
    columns = [statistic(OneAgainstRest.of(decisions, labels, k))(weights) for k in range(5)]
    expected = [matthews_corrcoef(labels, decisions.argmax(1), sample_weight=weight) for weight in weights]
    assert many_classes(columns) == pytest.approx(expected)
    same = [statistic(OneAgainstRest.of(decisions, np.zeros(90, int), k))(weights[:1]) for k in range(5)]
    assert np.isnan(many_classes(same)).all()
