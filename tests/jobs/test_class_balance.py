"""Classes of unequal size, in whole jobs."""

import re

import h5py
import numpy as np
import pytest

from ddhpc.data.packed import Contents, Split, open_packed, write_packed
from tests.conftest import striped
from tests.jobs.starting import decisions, mpirun

pytestmark = pytest.mark.slow

OPTIONS = ["--decomposition.grid", 1, 2, "--local.batch_size", 16, "--model.global_width", 8, "--run.threads", 1]
SIZES = {"train": (70, 12, 6), "val": (20, 5, 4), "test": (10, 10, 10)}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Striped images, of which most are of the first class."""
    path, splits = tmp_path_factory.mktemp("packed") / "unequal.h5", {}
    for seed, (split, sizes) in enumerate(SIZES.items()):
        pixels, labels = striped(3 * max(sizes), (16, 14), seed)
        kept = np.sort(np.concatenate([np.flatnonzero(labels == kind)[:size] for kind, size in enumerate(sizes)]))
        ids = [f"{split}/{n}" for n in kept]
        splits[split] = Split(labels=labels[kept], ids=ids, images=pixels[kept])
    shape = {"image_shape": (16, 14), "channels": 1, "dtype": "uint8"}
    write_packed(path, Contents(classes=("rows", "columns", "none"), splits=splits, source="stripes", **shape))
    return path


def test_balanced_draws_have_the_same_bits_on_any_number_of_ranks(unequal, tmp_path):
    """Also those of the coherent CNN-DNN, and with weights in the coarse DNN's loss."""
    options = [*OPTIONS, "--local.epochs", 2, "--coarse.epochs", 3, "--local.sampling", "balanced"]
    options += ["--coarse.class_weight", "balanced", "--coherent.start", "scratch", "--coherent.epochs", 2]
    found = {}
    for ranks in (0, 2):
        completed = mpirun(ranks, "--data.file", unequal, *options, "--output", f"on-{ranks}", cwd=tmp_path)
        assert completed.returncode == 0, completed.stderr
        found[ranks] = decisions(tmp_path / f"on-{ranks}")
        with h5py.File(tmp_path / f"on-{ranks}/results.h5") as file:
            found[ranks]["coherent"] = file["coherent/test/decision"][...]
    for name, values in found[0].items():
        assert np.array_equal(values, found[2][name]), name


def test_a_class_that_is_never_chosen_is_told_everywhere(unequal, tmp_path):
    """After few epochs nothing is of the smallest class, at least."""
    options = [*OPTIONS, "--local.epochs", 4, "--local.learning_rate", 0.01, "--coarse.epochs", 5]
    trained = mpirun(0, "--data.file", unequal, *options, "--output", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    told = r"[nN]ever chosen on val: \d of 3 classes \((columns, )?none; 4( to 5)? samples there\); classes have 6 to"
    assert re.search(f"ddhpc: warning: {told}", trained.stderr)
    inspected = mpirun(0, "inspect", "run", cwd=tmp_path)
    assert re.search(told, " ".join(inspected.stdout.split()))
    assert "chosen on val" in inspected.stdout
    assert re.search(r"│ none +│ +6 │ +4 │ +10 │ +6.8 % │ +0 │", inspected.stdout)
    reported = mpirun(0, "report", "run", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert re.search(told, " ".join((tmp_path / "run/report/index.html").read_text().split()))
    planned = mpirun(0, "plan", "--data.file", unequal, *options, "--local.class_weight", "balanced", cwd=tmp_path)
    weight = len(open_packed(unequal).labels["train"]) / (3 * 70)
    assert re.search(rf"│ rows +│ +70 │ +20 │ +10 │ +79.5 % │ +{weight:.2f} │", planned.stdout)
