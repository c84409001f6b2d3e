"""Cross-validation from the packed file to the metrics of all folds together."""

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from sklearn.metrics import recall_score, roc_auc_score

import ddhpc
from ddhpc.cli import main
from ddhpc.data.hdf5 import decoded
from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.errors import InputError
from ddhpc.report.picture import pictures
from ddhpc.results import pool
from ddhpc.tables.pooled import print_pooled
from tests.conftest import pack_small
from tests.jobs.starting import decisions, mpirun

FOLDS = 3
OPTIONS = {
    **{"data.file": "x.h5", "decomposition.grid": [1, 2], "decomposition.coarse_image": True, "run.threads": 1},
    **{"local.epochs": 1, "coarse.epochs": 4, "model.global_width": 4, "run.report": False},
}
STUDY = {"recipe": "faces", "options": OPTIONS, "vary": {"data.fold": list(range(FOLDS))}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a packed file of three folds, and the runs of a study of these, trained in this process."""
    home = tmp_path_factory.mktemp("study")
    pack_small(home / "x.h5", patients=3, folds=FOLDS)
    (home / "study.yaml").write_text(yaml.safe_dump(STUDY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for fold in range(FOLDS):
            ddhpc.train(ddhpc.Config.from_recipe("faces", {**OPTIONS, "data.fold": fold}), f"runs/fold-{fold}")
    return home


@pytest.fixture
def runs(study: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(study)
    return [f"runs/fold-{fold}" for fold in range(FOLDS)]


def out_of_fold(study: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Final decisions and labels of the test samples of all runs, and their ids."""
    found = []
    for fold in range(FOLDS):
        with h5py.File(study / f"runs/fold-{fold}/results.h5") as file:
            test = file["samples/test"]
            found.append((file["coarse/test/decision"][...], test["label"][...], decoded(test["id"])))
    return (
        np.concatenate([each[0] for each in found]),
        np.concatenate([each[1] for each in found]),
        [name for each in found for name in each[2]],
    )


def test_each_run_tests_its_fold(study, runs):
    with h5py.File("x.h5") as file:
        expected = {
            fold: {
                name
                for split in SPLITS
                for name, number in zip(decoded(file[f"{split}/id"]), file[f"{split}/fold"][...], strict=True)
                if number == fold
            }
            for fold in range(FOLDS)
        }
    for fold, run in enumerate(runs):
        with h5py.File(f"{run}/results.h5") as file:
            assert file.attrs["folds"] == FOLDS
            for split, of_fold in {"test": fold, "val": (fold + 1) % FOLDS, "train": (fold + 2) % FOLDS}.items():
                assert set(decoded(file[f"samples/{split}/id"])) == expected[of_fold]


def test_the_metrics_are_those_of_all_samples_once(study, runs, tmp_path, capsys):
    main(["inspect", *reversed(runs), "--pool", "--write", str(tmp_path / "m")], 0)
    said = " ".join(capsys.readouterr().out.split())
    final, labels, ids = out_of_fold(study)
    assert len(set(ids)) == len(ids) == 96 + 30 + 33
    lines = list(csv.DictReader((tmp_path / "m.csv").read_text().splitlines()))
    assert {(line["split"], line["owners"]) for line in lines} == {("test", "53")}
    value = {(line["class"], line["metric"]): float(line["value"] or "nan") for line in lines}
    assert value["", "accuracy"] == pytest.approx((final.argmax(1) == labels).mean())
    assert value["", "balanced_accuracy"] == pytest.approx(recall_score(labels, final.argmax(1), average="macro"))
    assert value["columns", "auc"] == pytest.approx(roc_auc_score(labels == 1, final[:, 1]))
    assert not {metric for _, metric in value if "threshold" in metric or "temper" in metric}
    assert "2,000 draws of whole patients (53 on test)" in said
    assert "Test is each of 159 samples once, decided by the run of 3 that has not seen it." in said


def test_one_positive_class_of_another_fusion(study, runs):
    found = pool([Path(run) for run in runs], "mean", "rows")
    assert list(found.evaluation.against_rest) == [0]
    assert np.bincount(found.fold).tolist() == [57, 54, 48]
    assert not np.array_equal(found.decided.decisions, out_of_fold(study)[0])


def test_a_sweep_pools_what_it_has_trained(study, runs, capsys):
    main(["sweep", "study.yaml", "--output", "runs"], 0)
    said = capsys.readouterr().out
    assert "cross-validation of fold-0, fold-1, fold-2" in said
    final, labels, _ = out_of_fold(study)
    lines = list(csv.DictReader(Path("runs/pooled.csv").read_text().splitlines()))
    assert float(lines[0]["value"]) == pytest.approx((final.argmax(1) == labels).mean())


def test_a_sweep_of_some_folds_pools_nothing(study, runs, capsys):
    (study / "some.yaml").write_text(yaml.safe_dump({**STUDY, "vary": {"data.fold": [0, 2]}}))
    main(["sweep", "some.yaml", "--output", "runs"], 0)
    assert "cross-validation" not in capsys.readouterr().out


def changed(run: str, directory: Path, change) -> str:
    """A copy of the results of a run, with a change."""
    with h5py.File(shutil.copy(f"{run}/results.h5", directory / "results.h5"), "r+") as file:
        change(file)
    return str(directory / "results.h5")


def configured(file: h5py.File, section: str, option: str, value: object) -> None:
    config = yaml.safe_load(file.attrs["config"])
    config[section][option] = value
    file.attrs["config"] = yaml.safe_dump(config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda file: configured(file, "coarse", "epochs", 9),
            r"coarse.epochs is 4 in runs/fold-0 and 9 in .*; expected runs that differ in data.fold alone",
        ),
        (
            lambda file: file.attrs.__setitem__("data_digest", "0" * 64),
            r"data_digest is \w{12} in runs/fold-0 and 000000000000 in .*; expected runs that differ",
        ),
        (lambda file: file.attrs.__setitem__("git_commit", "abc"), r"git_commit is .* in runs/fold-0 and abc in "),
        (
            lambda file: configured(file, "data", "fold", None),
            r".*results.h5: trained on the splits as they are stored; expected runs with --data.fold",
        ),
        (
            lambda file: configured(file, "data", "fold", 1),
            r"runs/fold-1 and .*results.h5 both have data.fold 1; expected one run of each fold",
        ),
        (
            lambda file: file["samples/test/id"].__setitem__(0, file["samples/test/id"][1]),
            r"train/\d+ is tested [02] times in all runs together; expected 1",
        ),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path, change, said):
    (tmp_path / "{a}").mkdir()
    other = changed(runs[2], tmp_path / "{a}", change)
    with pytest.raises(InputError, match=rf"^{said}"):
        pool([Path(run) for run in (*runs[:2], other)])


def test_a_missing_fold_is_said_in_one_line(runs, capsys):
    with pytest.raises(SystemExit) as left:
        main(["inspect", runs[2], runs[0], "--pool"], 0)
    assert left.value.code == 2
    assert capsys.readouterr() == ("", "ddhpc: there is no run with data.fold 1; expected one of each of 0 to 2\n")


def test_a_damaged_run_is_named_after_the_table(runs, tmp_path):
    other = changed(runs[2], tmp_path, lambda file: file["coarse/test/decision"].__setitem__((0, 0), 0.4321))
    with pytest.raises(InputError, match=r"^damaged results: .*results.h5: /coarse/test/decision: differs from its"):
        print_pooled([Path(run) for run in (*runs[:2], other)])


def test_other_verbs_take_a_run_with_a_fold(runs, tmp_path, capsys):
    """The model gives the same decisions for the same samples of the packed file."""
    main(["inspect", runs[1]], 0)
    main(["coarse", runs[1], "--coarse.epochs", "2", "--output", str(tmp_path / "again")], 0)
    main(["inspect", runs[1], str(tmp_path / "again")], 0)
    main(["plan", "--data.file", "x.h5", "--data.fold", "1"], 0)
    assert "57 train, 48 val, 54 test" in capsys.readouterr().out
    predicted = ddhpc.predict(runs[1], ["x.h5"])
    of_id = dict(zip(predicted.ids, predicted.decisions, strict=True))
    with h5py.File(f"{runs[1]}/results.h5") as file:
        ids, final = decoded(file["samples/test/id"]), file["coarse/test/decision"][...]
    home = {name: split for split in SPLITS for name in open_packed("x.h5").ids(split)}
    assert np.array_equal([of_id[f"{home[name]}/{name}"] for name in ids], final)


def test_the_report_shows_the_test_images_of_the_fold(runs):
    packed = open_packed("x.h5", 2)
    with h5py.File(f"{runs[2]}/results.h5") as file:
        shown = pictures(file)
        place = 40
        assert decoded(file["samples/test/id"])[place] == packed.ids("test")[place]
    split, number = packed.ids("test")[place].split("/")
    with h5py.File("x.h5") as file:
        image = file[f"{split}/image"][int(number), 0].astype(float)
    low, high = np.percentile(image, (1, 99))
    np.testing.assert_allclose(shown.of(place), ((image - low) / (high - low)).clip(0, 1))


@pytest.mark.slow
def test_a_fold_has_the_same_bits_on_several_ranks_and_streamed(study, tmp_path):
    options = {**OPTIONS, "data.file": str(study / "x.h5"), "data.fold": 2, "data.memory_limit": 0}
    (tmp_path / "mine.yaml").write_text(ddhpc.Config.from_recipe("faces", options).to_yaml())
    done = mpirun(3, "--config", "mine.yaml", "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = decisions(study / "runs/fold-2")
    for name, values in decisions(tmp_path / "run").items():
        assert np.array_equal(values, expected[name]), name


@pytest.mark.slow
def test_the_report_shows_all_folds_together(study, runs, tmp_path, capsys):
    main(["report", runs[1], "--pool", *runs, "--output", str(tmp_path)], 0)
    page = (tmp_path / "index.html").read_text()
    section = page.split('id="cross_validation"')[1].split("</section>")[0]
    final, labels, _ = out_of_fold(study)
    assert f"<td>{(final.argmax(1) == labels).mean():.3f} (" in section
    assert f"AUC {roc_auc_score(labels == 1, final[:, 1]):.3f} (" in section
    figures = [tmp_path / f"cross_validation.{suffix}" for suffix in ("png", "svg")]
    assert all(figure.exists() for figure in figures)
    main(["report", runs[1], "--output", str(tmp_path)], 0)
    assert "report RUN --pool RUN... shows it" in (tmp_path / "index.html").read_text()
    assert not any(figure.exists() for figure in figures), "of an earlier report"
    with pytest.raises(SystemExit):
        main(["report", runs[1], "--pool", *runs[::2], "--output", str(tmp_path / "other")], 0)
    assert "ddhpc: --pool: runs/fold-1 is not among runs/fold-0, runs/fold-2; expected" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
