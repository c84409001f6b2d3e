"""What a run cost, where several jobs worked on it."""

from math import nan

import h5py
import numpy as np
import pytest

from ddhpc.results.cost import critical_path
from ddhpc.tables.comparison import Row, cells


@pytest.mark.parametrize(
    ("ranks", "total", "jobs", "kind"),
    [
        (2, 9.0, {}, "measured"),
        (2, 9.0, {"jobs": 1}, "measured"),
        (1, 9.0, {}, "projected"),
        (2, 9.0, {"jobs": 2}, "projected"),
        (2, nan, {"jobs": 1}, "projected"),
    ],
)
def test_a_path_is_measured_only_where_one_job_trained_each_subdomain_on_its_rank(ranks, total, jobs, kind, tmp_path):
    """The ranks of the last job say nothing of those before it."""
    with h5py.File(tmp_path / "results.h5", "w") as file:
        file.attrs.update(ranks=ranks, cores=8, hosts=np.array([b"a"] * ranks))
        file["local/device"] = np.array([b"CPU", b"CPU"])
        file["local/seconds"] = file["local/path_seconds"] = [3.0, 4.0]
        file.create_group("timing").attrs.update(coarse=1.0, total=total, **jobs)
        path = critical_path(file)
    assert (path.slowest, path.seconds, path.kind) == (1, 5.0, kind)


def row(wall):
    text = dict.fromkeys(("run", "data", "grid", "network", "settings", "data_digest", "code"), "x")
    whole = dict.fromkeys(("overlap", "epochs", "seed", "parameters"), 1)
    shares = ("best_local", "mean", "vote", "dnn", "dnn_low", "dnn_high", "coherent", "critical_path", "compute")
    return Row(**text, **whole, **dict.fromkeys(shares, 0.5), wall=wall)


def test_seeds_of_which_one_was_not_timed_have_no_median():
    assert cells([row(3.0), row(5.0), row(4.0)])["wall"] == "4.0 s"
    assert cells([row(nan), row(5.0), row(4.0)])["wall"] == "not timed"
    assert cells([row(5.0), row(4.0), row(nan)])["wall"] == "not timed"
