import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from ddhpc.method import metrics, resampling
from ddhpc.method.metrics import accuracy, all_scores, below_mean, compare, confusion, margin, never_chosen, scores
from ddhpc.method.resampling import RESAMPLES, wilson

PINNED = {
    "accuracy_low": 0.7198443579766537,
    "accuracy_high": 0.8210116731517509,
    "roc_auc_low": 0.7928030841167815,
    "roc_auc_high": 0.884691605864014,
    "sensitivity_low": 0.7036344755970925,
    "sensitivity_high": 0.8527131782945736,
    "specificity_low": 0.6879432624113475,
    "specificity_high": 0.8333333333333334,
}
"""Of 257 noisy decisions, from 1,000 draws at once."""


def noisy(samples, classes, seed=0, strength=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes)) + strength * np.eye(classes)[labels]
    weights = np.exp(logits)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32), labels


def test_accuracy_of_one_and_of_many():
    decisions, labels = noisy(100, 4)
    assert accuracy(decisions, labels) == sum(d.argmax() == y for d, y in zip(decisions, labels, strict=True)) / 100
    both = np.stack([decisions, np.eye(4, dtype=np.float32)[labels]])
    assert accuracy(both, labels).tolist() == [accuracy(decisions, labels), 1]


def test_confusion_counts_true_classes_in_rows():
    decisions = np.eye(3)[[0, 1, 1, 2]]
    assert confusion(decisions, np.array([0, 0, 1, 1])).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_many_classes_have_balanced_accuracy_and_an_interval():
    decisions, labels = noisy(300, 5)
    found = scores(decisions, labels)
    recalls = [(decisions[labels == k].argmax(1) == k).mean() for k in range(5)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert set(found) == {"balanced_accuracy", "accuracy_low", "accuracy_high"}
    assert found["accuracy_low"] < accuracy(decisions, labels) < found["accuracy_high"]


def test_the_interval_is_that_of_the_binomial_distribution():
    decisions, labels = noisy(1000, 2)
    found, share = scores(decisions, labels), float(accuracy(decisions, labels))
    width = 1.96 * np.sqrt(share * (1 - share) / 1000)
    assert found["accuracy_low"] == pytest.approx(share - width, abs=0.006)
    assert found["accuracy_high"] == pytest.approx(share + width, abs=0.006)


def test_two_classes_have_auc_sensitivity_and_specificity():
    decisions, labels = noisy(200, 2)
    found = scores(decisions, labels)
    positive, negative = decisions[labels == 1, 1], decisions[labels == 0, 1]
    assert found["roc_auc"] == pytest.approx((positive[:, None] > negative).mean(), abs=1e-6)
    assert found["sensitivity"] == (positive > 0.5).mean()
    assert found["specificity"] == (negative <= 0.5).mean()
    for name in ("roc_auc", "sensitivity", "specificity"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert found == scores(decisions, labels)


def test_the_resampled_statistics_are_those_of_the_library():
    decisions, labels = noisy(80, 2, seed=3)
    score = np.round(decisions[:, 1], 1)  # with ties
    tied = np.stack([1 - score, score], axis=1)
    found, predicted = scores(tied, labels), tied.argmax(1)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, score))
    assert found["sensitivity"] == recall_score(labels, predicted, pos_label=1)
    assert found["specificity"] == recall_score(labels, predicted, pos_label=0)


def test_one_class_only_gives_nan_and_no_error():
    decisions, _ = noisy(20, 2)
    found = scores(decisions, np.zeros(20, dtype=int))
    for name in ("roc_auc", "sensitivity"):
        assert np.isnan([found[name], found[f"{name}_low"], found[f"{name}_high"]]).all()
        assert found[f"{name}_resamples"] == 0
    assert found["specificity_resamples"] == RESAMPLES


def library(decisions, labels, name):
    """A statistic by the library, NaN where it is not defined."""
    if name == "accuracy":
        return (decisions.argmax(1) == labels).mean()
    if name == "roc_auc":
        return roc_auc_score(labels, decisions[:, 1]) if len(set(labels)) == 2 else np.nan
    return recall_score(labels, decisions.argmax(1), pos_label=int(name == "sensitivity"), zero_division=np.nan)


@pytest.mark.parametrize("positives", [1, 6, 100])
def test_intervals_are_those_of_the_resamples_that_have_the_class(positives, monkeypatch):
    """Against the same draws, all at once, and the library's statistics of each."""
    monkeypatch.setattr(resampling, "BLOCK", 1500)  # 7 resamples
    monkeypatch.setattr(resampling, "RESAMPLES", 150)
    decisions, _ = noisy(200, 2, seed=5)
    labels = (np.arange(200) < positives).astype(np.int64)
    drawn = np.random.default_rng(0).integers(0, 200, (150, 200))
    found = scores(decisions, labels)
    for name in ("accuracy", "roc_auc", "sensitivity", "specificity"):
        each = np.array([library(decisions[one], labels[one], name) for one in drawn])
        low, high = np.nanpercentile(each, (2.5, 97.5))
        if name == "sensitivity" and positives == 1:  # all draws agree
            low, high = wilson(low, 1)
        assert found[f"{name}_low"] == pytest.approx(low, abs=1e-12)
        assert found[f"{name}_high"] == pytest.approx(high, abs=1e-12)
        assert found.get(f"{name}_resamples", 150) == np.isfinite(each).sum()


def test_intervals_where_every_resample_has_both_classes_keep_their_bits(monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)
    decisions, labels = noisy(257, 2, seed=11)
    found = scores(decisions, labels)
    assert {name: found[name] for name in PINNED} == PINNED


def test_memory_grows_by_a_byte_for_each_sample_of_a_resample():
    decisions, labels = noisy(4000, 2)
    tracemalloc.start()
    scores(decisions, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < RESAMPLES * 4000 + 12 * 2**20


def test_the_margin_is_paired():
    decisions, labels = noisy(500, 3, seed=1)
    other = noisy(500, 3, seed=2)[0]
    above, error = margin(decisions, other, labels)
    assert above == pytest.approx(accuracy(decisions, labels) - accuracy(other, labels))
    better = ((decisions.argmax(1) == labels) & (other.argmax(1) != labels)).mean()
    worse = ((decisions.argmax(1) != labels) & (other.argmax(1) == labels)).mean()
    assert error == pytest.approx(np.sqrt((better + worse - (better - worse) ** 2) / 500))  # as McNemar's
    assert margin(decisions, decisions, labels) == (0, 0)


def test_compared_decisions_have_the_interval_of_the_paired_difference():
    decisions, labels = noisy(500, 3, seed=1)
    other = noisy(500, 3, seed=2)[0]
    found, (above, error), scored = (
        compare(decisions, other, labels),
        margin(decisions, other, labels),
        scores(decisions, labels),
    )
    assert found.accuracy == accuracy(decisions, labels)
    assert found.interval == (scored["accuracy_low"], scored["accuracy_high"])
    assert found.above == above
    assert found.above_interval == pytest.approx((above - 1.95996 * error, above + 1.95996 * error), abs=1e-6)
    drawn = np.random.default_rng(0).integers(0, 500, (2000, 500))
    right, its = (each.argmax(1) == labels for each in (decisions, other))
    resampled = (right[drawn].astype(float) - its[drawn]).mean(1)
    assert found.above_interval == pytest.approx(np.percentile(resampled, (2.5, 97.5)), abs=0.01)


def test_the_margin_of_patients_is_that_of_their_sums():
    decisions, labels = noisy(300, 3, seed=1)
    other = noisy(300, 3, seed=2)[0]
    patients = [f"p{n // 3}" for n in range(300)]
    above, error = margin(decisions, other, labels, patients)
    differences = (decisions.argmax(1) == labels).astype(float) - (other.argmax(1) == labels)
    means = differences.reshape(100, 3).mean(1)
    assert above == pytest.approx(means.mean())
    assert error == pytest.approx(means.std() / 10)


def test_scores_of_patients_have_wider_intervals():
    decisions, labels = (np.repeat(each, 5, axis=0) for each in noisy(80, 2))
    found, alone = scores(decisions, labels, [f"p{n // 5}" for n in range(400)]), scores(decisions, labels)
    for name in ("accuracy", "roc_auc", "sensitivity"):
        wide, narrow = (each[f"{name}_high"] - each[f"{name}_low"] for each in (found, alone))
        assert 1.8 < wide / narrow < 2.8
    assert found["roc_auc"] == alone["roc_auc"]


def test_a_dnn_below_mean_is_told_with_what_to_try():
    assert below_mean(0.02, 0.01) == below_mean(-0.01, 0.01) == below_mean(0, 0) == ""
    told = below_mean(-0.123, 0.01)
    assert told.startswith("the coarse DNN is 12.3 points below mean on val (standard error 1.0); try more --local")


def test_classes_that_are_never_chosen_are_told_with_what_to_try():
    """Of five classes val lacks one, which is not told, and two are never chosen."""
    counts = np.array([[5, 0, 0, 0, 0], [3, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 0, 0, 0]])
    classes = ("a", "b", "c", "d", "e")
    told = never_chosen(counts, np.array([50, 5, 10, 10, 10]), classes)
    never = "never chosen on val: 2 of 5 classes (b, c; 2 to 3 samples there); "
    assert told.startswith(f"{never}classes have 5 to 50 training samples: try another --local.class_weight")
    assert never_chosen(counts, np.array([9, 8, 9, 9, 9]), classes) == f"{never}try more --local.epochs"
    assert never_chosen(np.eye(5, dtype=int), np.array([50, 5, 10, 10, 10]), classes) == ""


def test_several_decisions_for_the_same_samples_are_measured_by_the_same_draws(monkeypatch):
    rng = np.random.default_rng(0)
    labels, patients = rng.integers(0, 2, 60), [f"p{n // 3}" for n in range(60)]
    fusions = {name: rng.dirichlet((1, 1), 60).astype(np.float32) for name in ("mean", "dnn")}
    alone = {name: scores(decisions, labels, patients) for name, decisions in fusions.items()}
    drawn, draw = [], metrics.draws
    monkeypatch.setattr(metrics, "draws", lambda owner: drawn.append(len(owner)) or draw(owner))
    assert all_scores(fusions, labels, patients) == alone
    assert drawn == [60]
