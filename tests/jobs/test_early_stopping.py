"""Trainings that stop early and keep their best epoch, in whole jobs."""

import re

import h5py
import numpy as np
import pytest

from ddhpc.results import verify
from tests.jobs.starting import decisions, mpirun

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.grid", 1, 2, "--local.epochs", 12, "--local.batch_size", 16, "--model.global_width", 8),
    *("--run.threads", 1, "--coarse.decisions", "cross_fitted", "--data.memory_limit", 0, "--coarse.batch_size", 16),
    *("--coarse.epochs", 60, "--coarse.learning_rate", 0.1, "--coarse.keep", "best", "--coarse.patience", 3),
    *("--local.validate_every", 2, "--local.keep", "best", "--local.patience", 2),
]


def test_the_best_epoch_is_kept_on_any_number_of_ranks_and_told_everywhere(small, tmp_path):
    """Of streamed windows, by each of the trainings of `cross_fitted`."""
    found = {}
    for ranks in (0, 2):
        options = ["--data.file", small, *OPTIONS, "--output", f"on-{ranks}", "--log-dir", "log"]
        completed = mpirun(ranks, *options, cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        assert verify(tmp_path / f"on-{ranks}") == []
        found[ranks] = decisions(tmp_path / f"on-{ranks}")
    for name, values in found[0].items():
        assert np.array_equal(values, found[2][name]), name
    with h5py.File(tmp_path / "on-2/results.h5") as file:
        loss, on_train = (file[f"local/history/{name}"][...] for name in ("val_loss", "loss"))
        own = file["local/val/decision"][...][:, range(30), file["samples/val/label"][...]]
        coarse_loss, final = file["coarse/history/val_loss"][...], file["coarse/val/decision"][...]
        final = final[range(30), file["samples/val/label"][...]]
    assert np.nanmin(loss, axis=1) == pytest.approx(-np.log(own).mean(axis=1), rel=1e-6)
    trained, best = np.isfinite(on_train).sum(axis=1), np.nanargmin(loss, axis=1) + 1
    assert trained.min() < 12
    assert (np.isnan(on_train) == (np.arange(12) >= trained[:, None])).all()
    assert (trained[trained < 12] == best[trained < 12] + 2).all()
    first = int(trained.argmin())
    told = f"subdomain {first}: stopped after epoch {trained[first]} of 12, its loss on val was lowest after epoch"
    assert told in (tmp_path / f"log/rank-{first:05}.log").read_text()
    inspected = " ".join(mpirun(0, "inspect", "on-2", cwd=tmp_path).stdout.split())
    assert re.search(rf"{(trained < 12).sum()} of 2 local CNNs stopped after [\d to]+ of 12 epochs", inspected)
    assert re.search(rf"{(best < trained).sum()} of 2 local CNNs have the weights of epoch {best.min()}", inspected)
    kept, stop = np.nanargmin(coarse_loss) + 1, np.isfinite(coarse_loss).sum()
    assert stop == kept + 3 < 60
    assert np.nanmin(coarse_loss) == pytest.approx(-np.log(final).mean(), rel=1e-5)
    assert f"the coarse DNN stopped after {stop} of 60 epochs" in inspected
    assert f"the coarse DNN has the weights of epoch {kept}" in inspected
    assert mpirun(0, "report", "on-2", cwd=tmp_path).returncode == 0
    page = " ".join((tmp_path / "on-2/report/index.html").read_text().split())
    assert re.search(rf"{(trained < 12).sum()} of 2 local CNNs stopped after [\d to]+ of 12 epochs", page)
    assert "was trained for up to 12 epochs" in page or "were trained for up to 12 epochs" in page
