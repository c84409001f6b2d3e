"""Parts of the coarse DNN."""

import pytest
import torch

from ddhpc.models.dnn import Dropout


@pytest.mark.parametrize("share", [0.2, 0.5, 0.93])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    """Each number is dropped by itself: rows and columns vary as independent draws do."""
    torch.manual_seed(0)
    seen = Dropout(share)(torch.ones(1001, 999))
    dropped = (seen == 0).double()
    assert dropped.mean().item() == pytest.approx(share, abs=5e-4 * 4)
    assert seen.mean().item() == pytest.approx(1, abs=0.01)
    assert seen[seen != 0].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-3)
    for along in (0, 1):
        deviation = (share * (1 - share) / dropped.shape[along]) ** 0.5
        assert dropped.mean(along).std().item() == pytest.approx(deviation, rel=0.15)
    neighbours = torch.corrcoef(torch.stack([dropped[:, :-1].flatten(), dropped[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 5e-3


def test_dropout_follows_the_seed_and_leaves_evaluation_alone():
    """Also of numbers that are no multiple of four."""
    drop, x = Dropout(0.5), torch.randn(3, 7)
    torch.manual_seed(3)
    first = drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first)
    assert not torch.equal(drop(x), first)
    assert drop.eval()(x) is x


def test_dropout_of_nearly_all_is_finite():
    """The share that is kept is at least one of 65,536."""
    assert Dropout(0.9999999)(torch.ones(500, 500)).isfinite().all()
