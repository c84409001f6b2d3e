"""What the table of a run says besides its numbers."""

import io
import re
import shutil

import h5py
import numpy as np
import pytest

from ddhpc.method.metrics import confusion, scores
from ddhpc.results import SCORED
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


def shown_of(file, width):
    out = PlainConsole(width=width, file=io.StringIO())
    print_tables(file, out)
    return out.file.getvalue()


@pytest.fixture
def row_of_four(finished, tmp_path):
    """A results file of a grid 1x4, to be changed."""
    with h5py.File(shutil.copy(finished / "results.h5", tmp_path), "r+") as file:
        file["decomposition"].attrs["grid"] = [1, 4]
        yield file


def test_a_grid_is_laid_out_where_its_cells_are_whole(row_of_four):
    """One column fewer would break them at their spaces."""
    cells = [" / ".join(f"{100 * row_of_four[f'local/{split}/accuracy'][n]:.1f}" for split in SCORED) for n in range(4)]
    width = sum(map(len, cells)) + 3 * 4 + 1
    assert "  ".join(cells) in re.sub(r"\s*[│┃|]\s*", "  ", shown_of(row_of_four, width))
    for narrower in (width - 1, 28):
        shown = shown_of(row_of_four, narrower)
        assert "laid out as the grid" not in shown
        assert "median" in shown


def test_a_grid_of_volumes_is_laid_out_layer_by_layer(row_of_four):
    row_of_four["decomposition"].attrs["grid"] = [1, 2, 2]
    shown = shown_of(row_of_four, 80)
    assert re.search(r"layer 0\W+layer 1\W+layer 0\W+layer 1\W+column 0\W+column 0\W+column 1\W+column 1", shown)


def test_a_grid_wider_than_the_terminal_is_told_by_its_extremes(row_of_four):
    row_of_four["local/val/accuracy"][...] = [0.1, 0.2, 0.4, 0.8]
    row_of_four["local/test/accuracy"][...] = [0.25, 0.75, 0.15, 0.35]
    shown = shown_of(row_of_four, 55)
    assert re.search(r"highest\W+80.0 .subdomain 3.\W+75.0 .subdomain 1.", shown)
    assert re.search(r"lowest\W+10.0 .subdomain 0.\W+15.0 .subdomain 2.", shown)
    assert re.search(r"median\W+30.0\W+30.0", shown)
    row_of_four["decomposition"].attrs["grid"] = [1, 3]
    row_of_four["decomposition"].attrs["coarse_image"] = True
    shown = shown_of(row_of_four, 40)
    assert re.search(r"highest\W+40.0\W+75.0\W", shown), "the last is the coarse image"
    for split in SCORED:
        row_of_four[f"local/{split}/accuracy"][:3] = np.nan
    assert re.search(r"all\W+absent\W+absent", shown_of(row_of_four, 30))
