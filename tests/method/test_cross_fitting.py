import numpy as np
import pytest

from ddhpc.config import Coarse, Config, Data
from ddhpc.errors import InputError
from ddhpc.method.cross_fitting import FOLDS, HELD_OUT, fits, folds
from ddhpc.method.problem import open_problem
from ddhpc.tables.plan import print_plan

CLASSES = ("few", "some", "many")
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [6, 50, 200]))


def test_in_sample_fits_and_decides_every_image_once():
    fold = folds(LABELS, "in_sample", 0, CLASSES)
    (fit,) = fits(fold, "in_sample")
    assert (fold == 0).all()
    assert np.array_equal(fit.images, np.arange(256))
    assert np.array_equal(fit.decides, np.arange(256))


def test_held_out_images_are_kept_from_the_local_cnns_in_equal_shares_of_the_classes():
    fold = folds(LABELS, "held_out", 0, CLASSES)
    (fit,) = fits(fold, "held_out")
    assert not np.isin(np.flatnonzero(fold >= 0), fit.images).any()
    assert len(fit.images) + (fold >= 0).sum() == 256
    assert np.bincount(LABELS[fold >= 0]).tolist() == [max(1, round(HELD_OUT * count)) for count in (6, 50, 200)]


def test_cross_fitted_decisions_come_from_a_cnn_that_did_not_see_the_image():
    fold = folds(LABELS, "cross_fitted", 0, CLASSES)
    *crossed, last = fits(fold, "cross_fitted")
    assert len(crossed) == FOLDS
    assert np.array_equal(np.sort(np.concatenate([fit.decides for fit in crossed])), np.arange(256))
    for number, fit in enumerate(crossed):
        assert not np.isin(fit.decides, fit.images).any()
        assert len(fit.images) + len(fit.decides) == 256
        assert (fold[fit.decides] == number).all()
        assert abs(np.bincount(LABELS[fit.decides]) - np.array([6, 50, 200]) / FOLDS).max() <= 1
    assert len({fit.key for fit in (*crossed, last)}) == FOLDS + 1
    assert np.array_equal(last.images, np.arange(256))
    assert len(last.decides) == 0


@pytest.mark.parametrize("decisions", ["held_out", "cross_fitted"])
def test_folds_are_drawn_from_the_seed(decisions):
    first, again, other = (folds(LABELS, decisions, seed, CLASSES) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("decisions", ["held_out", "cross_fitted"])
def test_a_class_that_cannot_be_divided_is_named(decisions):
    with pytest.raises(InputError, match="class 'few' has 1 training sample, too few to draw"):
        folds(np.array([0, 1, 1, 1, 1, 2, 2, 2, 2]), decisions, 0, CLASSES)


def test_plan_tells_the_work(small, capsys):
    config = Config(data=Data(file=str(small)), coarse=Coarse(decisions="cross_fitted"))
    print_plan(open_problem(config), 2)
    assert "cross_fitted decisions: each local CNN is trained 4 times, 3.0 times the work" in capsys.readouterr().out
