"""A training ends with its report, and never because of it."""

import pytest

from ddhpc.cli.options import configure, train_parser
from ddhpc.results import fingerprint, identity, verify
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow

OPTIONS = [
    *("--decomposition.grid", 1, 2, "--local.epochs", 1, "--coarse.epochs", 1, "--model.global_width", 8),
    *("--run.threads", 1, "--output", "run"),
]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A finished job of 2 ranks with a report."""
    cwd = tmp_path_factory.mktemp("trained")
    return cwd, mpirun(2, "--data.file", small, *OPTIONS, "--run.report", "true", cwd=cwd)


def test_the_last_line_tells_where_the_page_is(trained):
    cwd, done = trained
    assert done.returncode == 0, done.stderr
    assert "report" not in done.stderr
    assert done.stdout.splitlines()[-1] == "report run/report/index.html"
    assert "Accuracy of the final decision" in done.stdout, "the table is there before"
    assert (cwd / "run/report/index.html").stat().st_size > 10_000
    assert (cwd / "run/report/fusions.svg").exists()
    assert not list((cwd / "run").glob("*.lock"))


def test_without_it_the_run_is_the_same_and_an_old_page_goes(trained, small):
    cwd, _ = trained
    done = mpirun(2, "--data.file", small, *OPTIONS, "--overwrite", "--run.report", "false", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "index.html" not in done.stdout
    assert not (cwd / "run/report/index.html").exists(), "it was of the run before"
    runs = [configure(["--run.report", value], train_parser()).config for value in ("true", "false")]
    assert fingerprint(identity(runs[0], "0")) == fingerprint(identity(runs[1], "0"))


def absent_matplotlib(cwd):
    (cwd / "site").mkdir()
    (cwd / "site/matplotlib.py").write_text("raise ImportError('no such package')")
    return "pip install 'ddhpc[report]'"


def broken_matplotlib(cwd):
    (cwd / "site").mkdir()
    (cwd / "site/matplotlib.py").write_text("raise RuntimeError('broken\\nin two lines')")
    return "RuntimeError: broken in two lines"


def a_file_in_its_way(cwd):
    (cwd / "run").mkdir()
    (cwd / "run/report").write_text("mine")
    return "cannot write run/report: File exists"


def a_page_of_others(cwd):
    (cwd / "run/report").mkdir(parents=True)
    (cwd / "run/report/index.html").write_text("mine")
    return "run/report: holds an index.html that is no report"


@pytest.mark.parametrize("fault", [absent_matplotlib, broken_matplotlib, a_file_in_its_way, a_page_of_others])
def test_what_hinders_the_report_is_a_warning(fault, small, tmp_path, monkeypatch):
    said = fault(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")
    done = mpirun(0, "--data.file", small, *OPTIONS, "--run.report", "true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if "never chosen" not in line)  # of so short a training
    assert warning.startswith("ddhpc: warning: the run is finished, its report is not: ")
    assert said in warning
    assert warning.endswith("python -m ddhpc report run")
    assert verify(tmp_path / "run") == []
