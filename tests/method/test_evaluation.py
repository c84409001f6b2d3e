import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from ddhpc.method.calibration import BINS, temperature, tempered
from ddhpc.method.evaluation import AT_THRESHOLD, TEMPERED, Decided, evaluate
from ddhpc.method.resampling import draws, owners, wilson
from tests.method.test_metrics import noisy


def decided(classes, *, patients=False, strength=1.0):
    found = {}
    for seed, (split, samples) in enumerate({"val": 150, "test": 200}.items()):
        decisions, labels = noisy(samples, classes, seed=seed, strength=strength)
        found[split] = Decided(
            decisions=decisions, labels=labels, patients=[f"p{n // 4}" for n in range(samples)] if patients else ()
        )
    return found


def calibration_error(said, came):
    shares, means = calibration_curve(came, said, n_bins=BINS)
    counts = np.histogram(said, np.linspace(0, 1, BINS + 1))[0]
    return np.average(np.abs(shares - means), weights=counts[counts > 0])


def test_all_classes_together_are_as_the_library_measures_them():
    given = decided(5)
    found = evaluate(given)
    for split, each in given.items():
        y, said, p = each.labels, each.decisions.argmax(1), each.decisions.astype(float)
        p /= p.sum(1, keepdims=True)
        values = {metric: by_split[split].value for metric, by_split in found.overall.items()}
        assert values["accuracy"] == (y == said).mean()
        assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, said))
        assert values["mean_f1"] == pytest.approx(f1_score(y, said, average="macro"))
        assert values["mcc"] == pytest.approx(matthews_corrcoef(y, said))
        assert values["mean_auc"] == pytest.approx(roc_auc_score(y, p, multi_class="ovr"))
        assert values["brier"] == pytest.approx(brier_score_loss(y, p, scale_by_half=False), abs=1e-6)
        assert values["ece"] == pytest.approx(calibration_error(each.decisions.max(1), said == y), abs=1e-6)
        scaled = tempered(each.decisions, found.temperature)
        assert values["ece_tempered"] == pytest.approx(calibration_error(scaled.max(1), said == y), abs=1e-6)
        for by_split in found.overall.values():
            assert by_split[split].low <= by_split[split].value <= by_split[split].high
    assert found.temperature == temperature(given["val"].decisions, given["val"].labels)
    assert list(found.against_rest) == [0, 1, 2, 3, 4]
    assert not found.by_patient
    assert found.owners == {"val": 150, "test": 200}


def test_of_two_classes_the_last_is_positive_unless_told_otherwise():
    given = decided(2)
    last, first = evaluate(given), evaluate(given, 0)
    assert (list(last.against_rest), list(first.against_rest)) == ([1], [0])
    y, said = given["test"].labels, given["test"].decisions.argmax(1)
    for table, mirror, k in (
        (last.against_rest[1], first.against_rest[0], 1),
        (first.against_rest[0], last.against_rest[1], 0),
    ):
        assert table["sensitivity"]["test"].value == recall_score(y, said, pos_label=k)
        assert table["sensitivity"]["test"] == mirror["specificity"]["test"]
        assert set(TEMPERED) < set(table)
    assert set(last.overall) == {"accuracy", "balanced_accuracy"}
    assert last.overall["balanced_accuracy"]["test"].value == pytest.approx(balanced_accuracy_score(y, said))
    assert list(evaluate(decided(3), 0).against_rest) == [0]


def test_the_threshold_of_val_is_applied_to_test():
    given = decided(2, strength=1.5)
    table = evaluate(given).against_rest[1]
    wrong, right, thresholds = roc_curve(given["val"].labels, given["val"].decisions[:, 1], drop_intermediate=False)
    best = (right - wrong).argmax()
    threshold = table["threshold"]["test"].value
    assert thresholds[best + 1] < threshold < thresholds[best]
    y, said = given["test"].labels, given["test"].decisions[:, 1] >= threshold
    at = [table[metric]["test"] for metric in AT_THRESHOLD[1:]]
    assert [one.value for one in at] == [recall_score(y, said), recall_score(~y.astype(bool), ~said)]
    assert all(one.low < one.value < one.high for one in at)


def test_intervals_are_of_whole_patients():
    given = decided(3, patients=True)
    found = evaluate(given)
    assert found.by_patient
    assert found.owners == {"val": 38, "test": 50}
    test = given["test"]
    weights = draws(owners(200, test.patients)).astype(float)
    shares = weights @ (test.decisions.argmax(1) == test.labels) / weights.sum(1)
    share = found.overall["accuracy"]["test"]
    assert (share.low, share.high) == pytest.approx(tuple(np.percentile(shares, (2.5, 97.5))))
    auc = [
        np.mean([roc_auc_score(test.labels == k, test.decisions[:, k], sample_weight=w) for k in range(3)])
        for w in weights[:120]
    ]
    area = found.overall["mean_auc"]["test"]
    assert (area.low, area.high) == pytest.approx(tuple(np.percentile(auc, (2.5, 97.5))), abs=0.015)
    assert evaluate(given).overall == found.overall


def test_a_class_that_a_split_lacks_is_not_defined_there():
    given = decided(3)
    val = given["val"]
    kept = val.labels < 2
    given["val"] = Decided(decisions=val.decisions[kept], labels=val.labels[kept])
    found = evaluate(given)
    table = found.against_rest[2]
    assert np.isnan([table[metric]["val"].value for metric in ("sensitivity", "f1", "auc", *AT_THRESHOLD)]).all()
    assert np.isnan([table[metric]["test"].value for metric in AT_THRESHOLD]).all()
    assert table["auc"]["test"].value > 0.5
    recalls = recall_score(val.labels[kept], val.decisions[kept].argmax(1), average=None, labels=[0, 1])
    assert found.overall["balanced_accuracy"]["val"].value == pytest.approx(recalls.mean())


def test_one_sample_has_values_and_no_intervals():
    given = {split: Decided(decisions=np.array([[0.3, 0.7]]), labels=np.array([1])) for split in ("val", "test")}
    found = evaluate(given)
    table = found.against_rest[1]
    assert table["sensitivity"]["test"].value == table["ppv"]["test"].value == 1
    assert np.isnan([table["sensitivity"]["test"].low, table["specificity"]["test"].value, found.temperature]).all()
    assert np.isnan(table["ece_tempered"]["test"].value)


def test_a_perfect_sensitivity_has_the_interval_of_as_many_patients():
    labels = np.repeat([1, 0], 40)
    decisions = np.eye(2)[np.where(np.arange(80) > 70, 1, labels)] * 0.8 + 0.1
    patients = [f"p{n // 4}" for n in range(80)]
    given = dict.fromkeys(("val", "test"), Decided(decisions=decisions, labels=labels, patients=patients))
    found = evaluate(given).against_rest[1]["sensitivity"]["test"]
    assert (found.value, (found.low, found.high)) == (1, wilson(1, 10))
