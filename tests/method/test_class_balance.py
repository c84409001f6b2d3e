import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from ddhpc.method.class_balance import Loss, class_weights, drawn, weighted_loss

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 10, 4]))
EVEN = np.resize([0, 1, 2], 54)


def test_balanced_weights_are_those_that_people_know():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert np.allclose(class_weights(LABELS, "balanced", 3), expected)


@pytest.mark.parametrize(("kind", "ratio"), [("balanced", 10), ("sqrt", 10**0.5)])
def test_weights_have_the_mean_1_over_the_training_images(kind, ratio):
    weights = class_weights(LABELS, kind, 3)
    assert weights[LABELS].mean() == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(ratio)


def test_where_nothing_is_to_be_weighted_there_are_no_weights():
    assert class_weights(LABELS, "none", 3) is class_weights(EVEN, "balanced", 3) is class_weights(EVEN, "sqrt", 3)
    assert weighted_loss(EVEN, "balanced", 3, "cpu").weights is None


def test_a_class_without_images_changes_nothing_for_the_others():
    weights = class_weights(LABELS, "balanced", 5)
    assert np.allclose(weights[:3], class_weights(LABELS, "balanced", 3))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losses_of_parts_add_up_to_that_of_the_batch(smoothing):
    """As torch's weighted mean, divided by the sum of the weights of each part, would not."""
    torch.manual_seed(0)
    logits, target = torch.randn(len(LABELS), 3), torch.from_numpy(LABELS)
    loss = weighted_loss(LABELS, "balanced", 3, "cpu", smoothing)
    whole, parts = loss(logits, target), [slice(0, 7), slice(7, 30), slice(30, 54)]
    total = sum(loss(logits[part], target[part]) * len(target[part]) / 54 for part in parts)
    assert total.item() == pytest.approx(whole.item(), rel=1e-6)
    # Over all training images, of mean weight 1, it is torch's.
    assert whole.item() == pytest.approx(
        cross_entropy(logits, target, loss.weights, label_smoothing=smoothing).item(), rel=1e-6
    )


def test_without_weights_the_loss_has_torchs_bits():
    logits, target = torch.randn(9, 3), torch.tensor([0, 1, 2] * 3)
    assert torch.equal(Loss(label_smoothing=0.1)(logits, target), cross_entropy(logits, target, label_smoothing=0.1))


def test_balanced_draws_show_each_class_as_often():
    for epoch in range(5):
        chosen = drawn(LABELS, "balanced", 3, epoch)
        assert len(chosen) == len(LABELS)
        assert np.bincount(LABELS[chosen]).tolist() == [18, 18, 18]
        times = np.bincount(chosen, minlength=len(LABELS))
        assert times[LABELS == 0].max() == 1
        assert set(times[LABELS == 1]) == {1, 2}
        assert set(times[LABELS == 2]) == {4, 5}


def test_what_is_left_over_goes_to_other_classes_in_other_epochs():
    labels = LABELS[:53]
    assert {int(np.bincount(labels[drawn(labels, "balanced", 0, epoch)]).argmin()) for epoch in range(30)} == {0, 1, 2}


def test_over_the_epochs_no_image_is_left_out():
    epochs = 300
    times = sum(np.bincount(drawn(LABELS, "balanced", 0, epoch), minlength=54) for epoch in range(epochs)) / epochs
    assert np.allclose(times[LABELS == 0], 18 / 40, atol=0.1)
    assert np.allclose(times[LABELS == 2], 18 / 4, atol=0.1)


def test_draws_depend_on_the_seed_and_the_epoch_alone():
    torch.manual_seed(1)
    first = drawn(LABELS, "balanced", 0, 2)
    torch.manual_seed(2)
    assert np.array_equal(first, drawn(LABELS, "balanced", 0, 2))
    assert not np.array_equal(first, drawn(LABELS, "balanced", 0, 3))
    assert not np.array_equal(first, drawn(LABELS, "balanced", 1, 2))


@pytest.mark.parametrize(("labels", "sampling"), [(LABELS, "natural"), (EVEN, "balanced")])
def test_else_an_epoch_is_every_image_once(labels, sampling):
    assert drawn(labels, sampling, 0, 0).tolist() == list(range(54))
