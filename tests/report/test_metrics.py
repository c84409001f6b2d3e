"""The sections on metrics, of results files made by hand."""

import h5py
import numpy as np
import pytest

from ddhpc.data.hdf5 import text
from ddhpc.report.metrics import metrics
from ddhpc.results import evaluated
from ddhpc.tables.metrics import shown
from tests.method.test_metrics import noisy


@pytest.fixture
def results(tmp_path):
    """Makes what the sections read, of so many classes."""
    file = h5py.File(tmp_path / "results.h5", "w")

    def make(classes, labels=None):
        file["classes"] = text([f"class {k}" for k in range(classes)])
        for seed, split in enumerate(("val", "test")):
            decisions, drawn = noisy(120, classes, seed=seed, strength=1.5)
            file[f"coarse/{split}/decision"] = decisions
            file[f"samples/{split}/label"] = drawn if labels is None else labels
        return file

    yield make
    file.close()


def test_of_two_classes_there_is_one_table_and_three_figures(results):
    file = results(2)
    table, roc, precision, reliability = metrics(file)
    found = evaluated(file).against_rest[1]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["class 1 (positive) against class 0"] == ("", "")
    assert rows["AUC"] == tuple(shown(found["auc"][split]) for split in ("val", "test"))
    assert table.figure is None
    assert roc.rows == [("class 1", *(shown(found[name]["test"]) for name in ("auc", "threshold")), *roc.rows[0][3:])]
    assert "positive is class 1" in roc.caption
    assert "positive is class 0" in metrics(file, "class 0")[1].caption
    (line, *_) = reliability.figure.axes[0].get_lines()[1:]
    assert f"ECE {shown(found['ece']['test'])}" in line.get_label()
    assert all(row[3] for row in reliability.rows)
    for section in (roc, precision, reliability):
        assert section.figure is not None
        assert len(section.alt) > 20


def test_of_many_classes_the_lowest_are_named(results):
    file = results(10)
    table, by_class, roc, *_ = metrics(file)
    assert [row[0] for row in by_class.rows] == [f"class {k}" for k in range(10)]
    areas = {k: one["auc"]["test"].value for k, one in evaluated(file).against_rest.items()}
    lowest = sorted(areas, key=areas.get)[:6]
    legend = [words.get_text() for words in roc.figure.legends[0].get_texts()]
    assert legend == ["the other 4 classes", *(f"class {k}: {roc.rows[k][1]}" for k in lowest)]
    assert len(table.rows) < 14


def test_curves_that_are_not_defined_are_left_out(results):
    _, roc, precision, reliability = metrics(results(2, np.zeros(120, int)))
    assert roc.figure is None
    assert precision.figure is None
    assert "It is not defined" in roc.caption
    assert reliability.figure is not None
