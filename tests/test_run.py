"""A finished run in Python: what it gives is what the file holds, and nothing that is not whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import ddhpc
from ddhpc.cli import main
from ddhpc.results import FUSIONS
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def run(finished):
    return ddhpc.open_run(finished)


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("split", SMALL)
def test_it_gives_what_the_file_holds(split, run):
    with h5py.File(run.path / "results.h5", locking=False) as file:
        assert np.array_equal(run.local_decisions(split), file[f"local/{split}/decision"][...])
        assert np.array_equal(run.decisions(split), file[f"coarse/{split}/decision"][...])
        assert np.array_equal(run.labels(split), file[f"samples/{split}/label"][...])
    assert run.ids(split) == [f"{split}/{n}" for n in range(SMALL[split])]
    for fusion in FUSIONS:
        right = run.decisions(split, fusion).argmax(1) == run.labels(split)
        assert right.mean() == run.accuracy(split, fusion)


def test_it_tells_what_it_is(run, finished):
    assert ddhpc.open_run(str(finished / "results.h5")).classes == run.classes == ("rows", "columns", "none")
    assert run.config.decomposition.grid == (2, 2)
    assert repr(run).count("\n") == 0


def test_its_model_decides_as_it_did(run, small):
    packed = ddhpc.open_packed(small)
    images = packed.read("test", (slice(None), slice(None)))
    import torch

    with torch.inference_mode():
        final = run.model()(torch.from_numpy(images)).numpy()
    assert np.allclose(final, run.decisions("test"), atol=1e-5)


def test_its_model_takes_files(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 60, (30, 40, 3)) + np.array(colour)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f"photos/{name}/{number}.png")
    main(["prepare", "images", "photos", "--output", "photos.h5", "--size", "16", "16"], 0)
    options = {"data.file": "photos.h5", "local.epochs": 1, "coarse.epochs": 1, "decomposition.grid": (1, 2)}
    options |= {"run.report": False, "model.global_width": 8, "local.batch_size": 16}
    trained = ddhpc.train(ddhpc.Config.from_recipe("fashion_mnist", options), "photos")
    paths = [Path("photos", name) for name in trained.ids("test")]
    assert np.allclose(trained.model().predict(paths), trained.decisions("test"), atol=1e-5)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ddhpc.InputError, match="^text.png: "):
        trained.model().predict(["text.png"])
    with pytest.raises(ddhpc.InputError, match="does not tell how its images were prepared"):
        run.model().predict(["text.png"])


def test_what_is_unknown_is_refused(run):
    with pytest.raises(ddhpc.InputError, match=r"^split tset: expected one of train, val, test$"):
        run.labels("tset")
    with pytest.raises(ddhpc.InputError, match=r"^split tset: expected one of train, val, test$"):
        run.accuracy("tset")
    with pytest.raises(ddhpc.InputError, match=r"^fusion coherent: expected one of mean, vote, dnn$"):
        run.decisions("test", "coherent")


@pytest.mark.parametrize("name", ["local/test/decision", "coarse/test/decision"])
def test_damaged_decisions_are_not_given(name, copied):
    with h5py.File(copied / "results.h5", "r+") as file:
        file[name][..., 0] += 0.25
    run = ddhpc.open_run(copied)
    with pytest.raises(ddhpc.InputError, match=rf"^{copied}/results.h5: damaged: {name}.*differs from its checksum$"):
        run.local_decisions("test") if name.startswith("local") else run.decisions("test")


def test_what_is_no_finished_run_is_refused(copied, tmp_path):
    with pytest.raises(ddhpc.InputError, match="expected a run directory with results.h5"):
        ddhpc.open_run(tmp_path / "nix")
    with h5py.File(copied / "results.h5", "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(ddhpc.InputError, match=rf"^{copied}: is not complete"):
        ddhpc.open_run(copied)
    (copied / "results.h5").rename(copied / "results.h5.part")
    with pytest.raises(ddhpc.InputError, match=rf"^{copied}: the run is not finished[^\n]*$"):
        ddhpc.open_run(copied)


def test_a_run_that_is_overwritten_does_not_mix_with_the_new_one(copied):
    run = ddhpc.open_run(copied)
    other = copied / "other.h5"
    shutil.copy(copied / "results.h5", other)
    with h5py.File(other, "r+") as file:
        file["coarse/test/decision"][...] = 0
        file.attrs["model_sha256"] = "0" * 64
    other.replace(copied / "results.h5")
    for ask in (lambda: run.decisions("test"), run.accuracy, run.model, run._repr_html_):
        with pytest.raises(ddhpc.InputError, match=f"^{copied}: holds another run by now"):
            ask()


def test_a_notebook_shows_tables_and_figures(finished):
    run = ddhpc.open_run(finished)
    shown = run._repr_html_()
    assert "Accuracy of the final decision" in shown
    assert shown.count("<details>") == shown.count("data:image/png;base64,") >= 6
    assert run._repr_html_() is shown, "made once"


def test_a_notebook_without_matplotlib_shows_tables(finished):
    code = (
        "import sys; sys.modules['matplotlib'] = None; import ddhpc; "
        f"print(ddhpc.open_run({str(finished)!r})._repr_html_())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Accuracy of the final decision" in shown
    assert "pip install" in shown
    assert "<img" not in shown


def test_opening_a_run_needs_no_torch(finished):
    code = (
        f"import sys, ddhpc; run = ddhpc.open_run({str(finished)!r}); run.decisions('test'), repr(run); "
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
