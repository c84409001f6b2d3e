"""What the table of a run says besides its numbers."""

import io
import shutil

import h5py
import numpy as np

from ddhpc.method.metrics import confusion, scores
from ddhpc.tables.run import binary_table, print_tables, shortfall, unchosen
from ddhpc.terminal import PlainConsole


def test_few_positives_are_told_below_the_table(tmp_path):
    labels = (np.arange(200) < 2).astype(int)
    decisions = np.random.default_rng(0).dirichlet((1, 1), 200)
    with h5py.File(tmp_path / "results.h5", "w") as file:
        for fusion in ("mean", "vote", "dnn"):
            group = file.create_group(f"fusion/{fusion}/test")
            group["confusion"] = confusion(decisions, labels)
            group.attrs.update(found := scores(decisions, labels))
        caption = binary_table(file).caption
    assert 1650 < found["sensitivity_resamples"] < 1800  # 1 - exp(-2) of them have a positive
    assert caption.startswith("2 positive and 198 negative samples; ")
    assert f"{found['sensitivity_resamples']:,} of 2,000" in caption


def test_older_files_have_a_thousand_resamples(tmp_path):
    labels = np.arange(40) % 2
    decisions = np.random.default_rng(0).dirichlet((1, 1), 40)
    with h5py.File(tmp_path / "results.h5", "w") as file:
        group = file.create_group("fusion/mean/test")
        group["confusion"] = confusion(decisions, labels)
        group.attrs.update({name: value for name, value in scores(decisions, labels).items() if name != "resamples"})
        for name in ("roc_auc", "sensitivity", "specificity"):
            group.attrs[f"{name}_resamples"] = 1000
        for fusion in ("vote", "dnn"):
            file[f"fusion/{fusion}"] = file["fusion/mean"]
        assert "resamples" not in binary_table(file).caption


def test_a_coarse_dnn_below_mean_is_told_of_a_run(tmp_path):
    with h5py.File(tmp_path / "results.h5", "w") as file:
        found = file.create_group("fusion/dnn")
        assert shortfall(file) == []
        found.create_group("val")
        assert shortfall(file) == []
        found["val"].attrs.update(above_mean=-0.02, above_mean_error=0.03)
        assert shortfall(file) == []
        found["val"].attrs.update(above_mean=-0.05)
        assert shortfall(file)[0].startswith("the coarse DNN is 5.0 points below mean on val (standard error 3.0)")


def test_classes_that_are_never_chosen_are_told_of_a_run(tmp_path):
    with h5py.File(tmp_path / "results.h5", "w") as file:
        found = file.create_group("fusion/dnn")
        assert unchosen(file) == []
        file["classes"], file["samples/train/label"] = [b"healthy", b"ill\x1b[31m"], np.repeat([0, 1], [9, 1])
        found["val/confusion"] = np.array([[7, 0], [2, 0]])
        (told,) = unchosen(file)
        assert told.startswith("never chosen on val: 1 of 2 classes (ill\\x1b[31m; 2 samples there); ")
        found["val/confusion"][...] = [[6, 1], [2, 0]]
        assert unchosen(file) == []


def test_a_grid_wider_than_the_terminal_is_told_by_its_extremes(finished, tmp_path):
    shutil.copy(finished / "results.h5", tmp_path)
    shown = {}
    with h5py.File(tmp_path / "results.h5", "r+") as file:
        file["decomposition"].attrs["grid"] = [1, 4]
        for width in (28, 80):
            out = PlainConsole(width=width, file=io.StringIO())
            print_tables(file, out)
            shown[width] = out.file.getvalue()
        shares = 100 * file["local/test/accuracy"][...]
    assert "laid out as the grid" in shown[80]
    assert "highest" not in shown[80]
    assert "laid out" not in shown[28]
    for line in ("highest", f"{shares.max():.1f}", "lowest", f"{shares.min():.1f}", "median"):
        assert line in shown[28]
