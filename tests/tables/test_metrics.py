"""`inspect RUN --metrics`, of a run on the images of patients."""

import csv
import re

import h5py
import numpy as np
import pytest
from sklearn.metrics import precision_score, roc_auc_score

from ddhpc.cli import main
from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method.calibration import temperature
from ddhpc.method.evaluation import Decided, evaluate
from ddhpc.method.fusions import vote
from ddhpc.parallel.communicator import world
from ddhpc.parallel.placement import place
from ddhpc.results import evaluated, open_results, patients, unchecked_decisions
from ddhpc.solver.second_level import solve_again
from ddhpc.tables.metrics import rare, remarks
from ddhpc.tables.run import print_run
from tests.conftest import pack_small
from tests.jobs.starting import mpirun

OPTIONS = ["--decomposition.grid", 1, 2, "--local.epochs", 2, "--coarse.epochs", 5, "--model.global_width", 4]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("patients")
    done = mpirun(0, "--data.file", pack_small(cwd / "x.h5", patients=3), *OPTIONS, "--output", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "interval over 11 whole patients" in done.stdout
    return cwd / "run"


def test_the_table_and_the_csv_have_the_metrics_of_the_decisions(run, tmp_path, capsys):
    main(["inspect", str(run), "--metrics", "--write", str(tmp_path / "m")], 0)
    said = capsys.readouterr().out
    for name in ("all classes", "rows (positive) against the rest", "none (positive) against the rest"):
        assert name in said
    with open_results(run) as file:
        labels, decisions = file["samples/test/label"][...], file["coarse/test/decision"][...]
    lines = list(csv.DictReader((tmp_path / "m.csv").read_text().splitlines()))
    value = {(line["class"], line["metric"], line["split"]): line for line in lines}
    area = roc_auc_score(labels == 1, decisions[:, 1])
    assert float(value["columns", "auc", "test"]["value"]) == pytest.approx(area)
    assert f"{area:.3f} (" in said
    ppv = precision_score(labels == 1, decisions.argmax(1) == 1, zero_division=np.nan)
    assert float(value["columns", "ppv", "test"]["value"] or "nan") == pytest.approx(ppv, nan_ok=True)
    assert value["", "accuracy", "test"]["owners"] == "11"
    assert value["", "accuracy", "val"]["owners"] == "10"
    assert "2,000 draws of whole patients (10 on val and 11 on test)" in " ".join(said.split())


def test_one_positive_class_of_another_fusion(run, capsys):
    main(["inspect", str(run), "--metrics", "--fusion", "mean", "--positive", "rows"], 0)
    said = capsys.readouterr().out
    assert "rows (positive) against the rest" in said
    assert "columns (positive)" not in said
    with open_results(run) as file:
        share = file["fusion/mean"].attrs["test"]
        assert np.array_equal(unchecked_decisions(file, "val", "vote"), vote(file["local/val/decision"][...]))
        assert evaluated(file, "vote").overall["accuracy"]["val"].value == file["fusion/vote"].attrs["val"]
    assert f"{share:.3f} (" in said


def test_all_fusions_of_the_global_cnn_are_its_own_decisions(tmp_path):
    """As the table of a run and --decisions have it: no votes are counted of one."""
    decisions = np.array([[[0.6, 0.4], [0.3, 0.7]]], np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["local/val/decision"], file["coarse/val/decision"] = decisions, decisions[0]
        for fusion in ("dnn", "mean", "vote"):
            assert np.array_equal(unchecked_decisions(file, "val", fusion), decisions[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--metrics", "--positive", "tumour"],
            "--positive tumour: no class of .*; expected one of rows, columns, none",
        ),
        (["--metrics", "--fusion", "coherent"], "--fusion coherent: .* has none; expected a run with --coherent.start"),
        (["--positive", "rows"], "--positive rows: is of the metrics; expected --metrics or --pool with it"),
        (["again", "--metrics"], "--metrics: expected one run, found 2"),
    ],
)
def test_what_there_is_not_is_refused(run, options, reason, capsys):
    with pytest.raises((SystemExit, InputError)) as left:
        main(["inspect", str(run), *options], 0)
    said = capsys.readouterr().err or str(left.value)
    assert "\n" not in said.strip()
    assert re.search(reason, said)


def test_a_damaged_run_is_told_after_the_table(run, tmp_path, capsys):
    (tmp_path / "results.h5").write_bytes((run / "results.h5").read_bytes())
    with h5py.File(tmp_path / "results.h5", "r+") as file:
        file["coarse/val/decision"][0] = [1, 0, 0]
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(tmp_path), "--metrics"], 0)
    said = capsys.readouterr()
    assert left.value.code == 2
    assert "all classes" in said.out
    assert "damaged: /coarse/val/decision: differs from its checksum" in said.err


def test_the_results_hold_pseudonyms_and_the_temperature(run):
    assert b"Smith" not in (run / "results.h5").read_bytes()
    with open_results(run) as file:
        assert patients(file, "test") == [f"patient {43 + n // 3}" for n in range(33)]
        kept = file["fusion/dnn"].attrs["temperature"]
        expected = temperature(file["coarse/val/decision"][...], file["samples/val/label"][...])
        assert kept == pytest.approx(expected, nan_ok=True)


def test_files_without_patients_are_taken_as_independent(run, tmp_path, capsys):
    (tmp_path / "results.h5").write_bytes((run / "results.h5").read_bytes())
    with h5py.File(tmp_path / "results.h5", "r+") as file:
        for split in ("train", "val", "test"):
            del file[f"samples/{split}/patient"]
        del file["fusion/dnn"].attrs["temperature"]
    with open_results(tmp_path) as file:
        found = evaluated(file)
        assert not found.by_patient
        assert found.owners["test"] == 33
        assert "samples (30 on val and 33 on test), taken as independent: the packed file tells no" in remarks(found)[0]
    print_run(tmp_path)
    assert "whole patients" not in capsys.readouterr().out


def test_draws_without_a_class_are_told():
    labels = (np.arange(200) < 2).astype(int)
    decisions = np.random.default_rng(0).dirichlet((1, 1), 200)
    found = evaluate(dict.fromkeys(("val", "test"), Decided(decisions=decisions, labels=labels)))
    fewest = found.against_rest[1]["auc"]["test"].resamples
    assert 1650 < fewest < 1800  # 1 - exp(-2) of them have a positive
    assert rare(found) == f"Of some metrics only {fewest:,} draws have a value; the others lack a class."
    some = evaluate(dict.fromkeys(("val", "test"), Decided(decisions=decisions, labels=np.arange(200) % 2)))
    assert rare(some) == ""


def test_the_second_level_solved_again_keeps_the_patients(run, tmp_path):
    with open_results(run) as file:
        config = Config.from_yaml(file.attrs["config"])
    solve_again(run, config.coarse, tmp_path / "again", place(world(), config.run))
    with open_results(run) as file, open_results(tmp_path / "again") as again:
        assert patients(again, "val") == patients(file, "val") != []
        assert dict(again["fusion/dnn/test"].attrs) == dict(file["fusion/dnn/test"].attrs)
