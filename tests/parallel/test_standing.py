"""What a person is told while local CNNs train is true of some subdomain, and estimates come from this job's steps."""

import math

import pytest

from ddhpc.parallel import standing as module
from ddhpc.parallel.standing import Accuracy, Pace, Standing


@pytest.fixture
def now(monkeypatch):
    """A clock that tests turn."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return clock


def test_one_rank_with_many_subdomains_speaks_of_the_one_in_training(now):
    standing = Standing([range(16)], epochs=10)
    for subdomain in range(3):
        standing.note(0, subdomain, 1, Accuracy(0.4, 0.35 - subdomain / 100), math.nan)
    standing.note(0, 3, 0.21, Accuracy(0.3), math.nan)
    assert "local CNNs 20%: 3 done, 1 in training, 12 waiting (slowest subdomain 3: epoch 2.1 of 10)" in standing.line()
    assert "training accuracy 30.0% to 40.0%, on val 33.0% to 35.0%, " in standing.line()
    assert standing.line().endswith("estimating the time left")


def test_slowest_and_fastest_are_of_those_in_training(now):
    standing = Standing([range(4, 8)], epochs=10)
    for subdomain, fraction in ((4, 1.0), (5, 0.5), (6, 0.25)):
        standing.note(0, subdomain, fraction, Accuracy(0.5), 60)
    now[0] += 61
    expected = (
        "1:01  local CNNs 44%: 1 done, 2 in training, 1 waiting "
        "(slowest subdomain 6: epoch 2.5 of 10, fastest subdomain 5: epoch 5.0 of 10)"
    )
    assert expected in standing.line()
    assert "on val" not in standing.line()
    assert not standing.done


def test_an_estimate_is_of_the_steps_of_this_job(now):
    """200 s for each of four; the first step took a minute, and two were finished by an earlier job, one half."""
    pace = Pace(4)
    pace.step(0, 1)
    pace.step(1, 1)
    assert pace.left() != pace.left()
    now[0] += 60
    pace.step(2, 0.5)
    for done in range(1, 10):
        now[0] += 2
        pace.step(2, 0.5 + done / 100)
        left = pace.left()
        assert left == pytest.approx((0.5 - done / 100 + 1) * 200) if done >= 5 else left != left
    pace.step(2, 1)
    pace.step(3, 1)
    assert pace.left() == 0


def test_the_job_takes_as_long_as_its_slowest_rank(now):
    standing = Standing([range(1), range(1, 2), range(2, 2)], epochs=1)
    standing.note(0, 0, 0.2, Accuracy(), 80)
    assert standing.time_left() == "estimating the time"
    standing.note(1, 1, 0.3, Accuracy(), 999)
    assert standing.time_left() == "16:39"
