"""Names from outside are data: on the terminal, in CSV, LaTeX and HTML, and in figures."""

import csv
import io

import h5py
import numpy as np
import pytest

from ddhpc.cli import main
from ddhpc.data.packed import Contents, Split, write_packed
from ddhpc.results import open_results
from tests.conftest import striped
from tests.jobs.starting import mpirun

CLASSES = (
    *(
        "[/unknown]",
        "[benign]",
        "=1+1",
        "a&b_c%#{}$x^2~\\",
        ":smile: $\\frac{",
        "\x1b[31mred",
        "a\u202egnp",
        "<b>bold</b>",
        "😀 日本",
    ),
    "e" * 300,
)
SHOWN = ("[/unknown]", "[benign]", ":smile: $\\frac{", "\\x1b[31mred", "a\\u202egnp", "<b>bold</b>")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, named as a spreadsheet's formula, on classes of such names."""
    cwd = tmp_path_factory.mktemp("outside")
    splits = {}
    for seed, (split, count) in enumerate({"train": 90, "val": 27, "test": 27}.items()):
        pixels, _ = striped(count, (12, 12), seed)
        labels = np.resize(np.arange(len(CLASSES)), count)
        splits[split] = Split(labels=labels, ids=[f"[red]{split}/\x1b{n}" for n in range(count)], images=pixels)
    write_packed(
        cwd / "[x].h5",
        Contents(
            classes=CLASSES,
            splits=splits,
            image_shape=(12, 12),
            channels=1,
            dtype="uint8",
            source="[/x]",
        ),
    )
    options = ["--decomposition.grid", 1, 2, "--local.epochs", 1, "--coarse.epochs", 1, "--model.global_width", 4]
    done = mpirun(0, "--data.file", "[x].h5", *options, "--output", "=run[b]", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "run directory =run[b]" in done.stdout
    assert "\x1b" not in done.stdout
    return cwd / "=run[b]"


def test_the_terminal(run, capsys):
    main(["inspect", str(run)], 0)
    main(["inspect", str(run), str(run)], 0)
    out = capsys.readouterr().out
    assert out.count("=run[b]") >= 3
    assert "\x1b" not in out
    main(["inspect", str(run), "--metrics", "--write", str(run.parent / "metrics")], 0)
    out = capsys.readouterr().out
    assert "[benign] (positive)" in out
    assert "\x1b" not in out
    assert "\n'=1+1,sensitivity," in (run.parent / "metrics.csv").read_text()
    main(["plan", "--data.file", str(run.parent / "[x].h5"), "--decomposition.grid", "1", "2"], 0)
    assert "[x].h5" in capsys.readouterr().out


def test_tables_as_csv_and_latex(run, capsys):
    main(["inspect", str(run), "--write", str(run.parent / "table")], 0)
    with (run.parent / "table.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["run"], row["data"]) == ("'=run[b]", "[x]")
    latex = (run.parent / "table.tex").read_text()
    assert "\n=run{[}b]" in latex
    assert "=run[b]" in (run.parent / "table.txt").read_text()


def test_latex_shows_every_letter():
    from ddhpc.tables.comparison import latex_cell

    shown = r"\#\$\%\&\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert latex_cell("#$%&_{}~^\\") == shown
    assert latex_cell("\x1b\n") == r"\textbackslash{}x1b\textbackslash{}n"
    assert latex_cell("[2pt]*a--b") == "{[}2pt]{*}a{-}{-}b"


def test_csv_is_read_back():
    from ddhpc.tables.comparison import spreadsheet_cell

    cells = ["a,b", 'say "a"', "two\nlines", "=1+1", "@x", "-x", "\tx", "größe 日本", "\x1b[31m", "bad\udcff"]
    out = io.StringIO()
    csv.writer(out).writerow(map(spreadsheet_cell, cells))
    (found,) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert found[:3] == cells[:3]
    assert found[3:7] == [f"'{cell}" for cell in cells[3:7]]
    assert found[7:] == ["größe 日本", "\\x1b[31m", "bad\\udcff"]
    assert spreadsheet_cell(-0.5) == -0.5


def test_the_page(run):
    pytest.importorskip("matplotlib")
    main(["report", str(run)], 0)
    page = (run / "report/index.html").read_text()
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "\x1b" not in page
    assert "😀 日本" in page
    for svg in (run / "report").glob("*.svg"):
        assert "\x1b" not in svg.read_text()
    with open_results(run) as file:
        assert tuple(file["classes"].asstr()[...]) == CLASSES


def test_the_results_keep_the_names_as_they_are(run):
    with h5py.File(run / "results.h5") as file:
        assert file["samples/test/id"].asstr()[0] == "[red]test/\x1b0"
