"""All decisions of a run as CSV: the numbers of the file, whole or absent, nothing replaced unasked."""

import csv
import os
import resource
import shutil
import signal
import stat

import h5py
import numpy as np
import pytest

import ddhpc
from ddhpc.cli import main
from ddhpc.errors import InputError
from ddhpc.tables.decisions import write_decisions
from tests.conftest import SMALL


def test_every_sample_has_a_row_with_the_bits_of_the_file(finished, tmp_path, capsys):
    path = tmp_path / "all.csv"
    main(["inspect", str(finished), "--decisions", str(path)], 0)
    assert f"{path}: {sum(SMALL.values())} rows" in capsys.readouterr().out
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    run = ddhpc.open_run(finished)
    for split in SMALL:
        own = [row for row in rows if row["split"] == split]
        assert [row["id"] for row in own] == run.ids(split)
        assert [run.classes.index(row["label"]) for row in own] == run.labels(split).tolist()
        assert [run.classes.index(row["decision"]) for row in own] == run.decisions(split).argmax(1).tolist()
        for fusion in ("dnn", "mean", "vote"):
            found = np.array([[row[f"{fusion}_{name}"] for name in run.classes] for row in own], np.float32)
            assert np.array_equal(found, run.decisions(split, fusion))


def test_a_file_is_not_replaced_unasked(finished, tmp_path, capsys):
    path = tmp_path / "all.csv"
    path.write_text("mine")
    with pytest.raises(SystemExit):
        main(["inspect", str(finished), "--decisions", str(path)], 0)
    assert capsys.readouterr().err == f"ddhpc: --decisions {path}: exists; choose another name, or --overwrite " + (
        "to replace it\n"
    )
    assert path.read_text() == "mine"
    main(["inspect", str(finished), "--decisions", str(path), "--overwrite"], 0)
    assert path.read_text().startswith("split,id,label,decision,dnn_rows,dnn_columns,dnn_none,mean_rows")


def test_a_file_that_is_no_regular_one_is_never_replaced(finished, tmp_path, capsys):
    """Neither of decisions nor of tables; an export likewise, see test_export."""
    for name in ("pipe.csv", "pipe.tex"):
        os.mkfifo(tmp_path / name)
    for asked in (["--decisions", tmp_path / "pipe.csv"], ["--metrics", "--write", tmp_path / "pipe"]):
        with pytest.raises(SystemExit):
            main(["inspect", str(finished), *map(str, asked), "--overwrite"], 0)
        assert capsys.readouterr().err.endswith("pipe.csv: is no regular file; expected the name of a file\n")
    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe.csv").st_mode)


def test_tables_replace_nothing_unasked(finished, tmp_path, capsys):
    stem, mine = tmp_path / "table", tmp_path / "table.csv"
    mine.write_text("mine")
    for asked in ([], ["--metrics"]):
        with pytest.raises(SystemExit):
            main(["inspect", str(finished), *asked, "--write", str(stem)], 0)
        assert capsys.readouterr().err == f"ddhpc: --write {mine}: exists; choose another name, or --overwrite " + (
            "to replace it\n"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
        assert mine.read_text() == "mine"
    main(["inspect", str(finished), "--metrics", "--write", str(stem), "--overwrite"], 0)
    assert mine.read_text() != "mine"


@pytest.mark.parametrize("more", [["RUN"], ["--write", "x"], ["--metrics"], ["--pool"]])
def test_one_run_has_decisions(more, finished):
    with pytest.raises(InputError, match="^--decisions x.csv: expected it with one run, and without --write, --met"):
        main(["inspect", str(finished), *more, "--decisions", "x.csv"], 0)


def test_a_damaged_run_leaves_no_file(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    with h5py.File(run / "results.h5", "r+") as file:
        file["local/val/decision"][0] = 0.5
    with pytest.raises(InputError, match=r"local/val/decision of subdomain 0 differs from its checksum$"):
        write_decisions(run, tmp_path / "all.csv")
    with pytest.raises(SystemExit):
        main(["inspect", str(run), "--decisions", str(tmp_path / "all.csv")], 0)
    assert "differs from its checksum" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


def test_a_disk_that_takes_no_more_leaves_no_file(finished, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match=r"^--decisions [^\n]*: cannot be written: File too large; expected"):
            write_decisions(finished, tmp_path / "all.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
