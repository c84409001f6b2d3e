"""What each input of the second level brought: the bits are those of runs without it, and the page shows them."""

import re

import numpy as np
import pytest

from ddhpc.errors import InputError
from ddhpc.method.metrics import compare
from ddhpc.report.page import write_report
from ddhpc.report.section import Asked
from ddhpc.results import SCORED, open_results, verify
from ddhpc.results.reader import digest
from ddhpc.solver.ablation import Inputs, ablate, decisions_with, stored_inputs
from ddhpc.wording import percent
from tests.jobs.starting import mpirun
from tests.report.conftest import finished
from tests.report.test_page import Page, changed

pytestmark = pytest.mark.slow  # trains

DECISIONS, FEATURES, COARSE_IMAGE, BOTH = (
    Inputs(features=features, coarse_image=image) for image in (False, True) for features in (False, True)
)


@pytest.fixture(scope="module")
def enriched(small, tmp_path_factory):
    """The run of `run` with a coarse image, whose CNN is wider than the others and so has more features."""
    options = ["--decomposition.grid", 3, 2, "--decomposition.coarse_image", "true", "--model.coarse_width", 6]
    return finished(2, small, tmp_path_factory.mktemp("enriched") / "run", *options)


@pytest.fixture(scope="module")
def without(enriched, run):
    """Finished runs by what their coarse DNN takes."""
    runs = {FEATURES: run, BOTH: enriched}
    for inputs, source in ((DECISIONS, run), (COARSE_IMAGE, enriched)):
        runs[inputs] = source.parent / f"{source.name}-decisions"
        solved = mpirun(
            0, "coarse", source, "--coarse.inputs", "decisions", "--output", runs[inputs], cwd=source.parent
        )
        assert solved.returncode == 0, solved.stderr
    return runs


@pytest.mark.parametrize("inputs", [DECISIONS, FEATURES, COARSE_IMAGE, BOTH])
def test_the_coarse_dnn_is_that_of_a_run_without_the_input(inputs, enriched, without):
    with open_results(enriched) as file, open_results(without[inputs]) as other:
        assert stored_inputs(file) == [DECISIONS, FEATURES, COARSE_IMAGE, BOTH]
        assert stored_inputs(other)[-1] == inputs
        found = decisions_with(file, inputs, "cpu")
        for split in SCORED:
            assert np.array_equal(found[split], other[f"coarse/{split}/decision"][...])


def test_the_table_is_of_these_decisions(enriched, without, tmp_path):
    found = Page(write_report(enriched, None, tmp_path, Asked(ablation=True)))
    head, *rows = found.tables["ablation"]
    assert head == ["inputs", "accuracy on val", "above decisions", "accuracy on test", "above decisions"]
    assert [row[0] for row in rows] == ["decisions", "+ features", "+ coarse image", "+ both", "coarse image alone"]
    with open_results(enriched) as file:
        image = {split: file[f"local/{split}/decision"][-1] for split in SCORED}
        labels = {split: file[f"samples/{split}/label"][...] for split in SCORED}
    final = []
    for inputs in (DECISIONS, FEATURES, COARSE_IMAGE, BOTH):
        with open_results(without[inputs]) as file:
            final.append({split: file[f"coarse/{split}/decision"][...] for split in SCORED})
    for row, decided in zip(rows, [*final, image], strict=True):
        for place, split in enumerate(SCORED):
            known = compare(decided[split], final[0][split], labels[split])
            interval = " to ".join(percent(share) for share in known.interval)
            assert row[1 + 2 * place] == f"{percent(known.accuracy)} ({interval})"
            low, high = known.above_interval
            expected = f"{100 * known.above:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            assert row[2 + 2 * place] == (expected if row[0] != "decisions" else "")
    words = found.words["ablation"]
    assert "With all inputs, the final decisions on val and test have the bits of the run's own." in words
    alone = compare(image["test"], final[-1]["test"], labels["test"])
    assert f"alone differs on test from all inputs together by {100 * alone.above:+.1f} (" in words
    assert "Where it is as good alone, the data did not need the resolution." in words


def test_unasked_the_page_tells_how(enriched, without, tmp_path):
    found = Page(write_report(enriched, None, tmp_path / "page"))
    assert "report RUN --ablation shows it" in found.words["ablation"]
    assert "ablation" not in found.tables
    assert "ablation" not in Page(write_report(without[DECISIONS], None, tmp_path / "page")).words


def test_a_run_with_one_more_input_has_two_rows(run, without):
    for inputs in (FEATURES, COARSE_IMAGE):
        with open_results(without[inputs]) as file:
            found = ablate(file)
        assert list(found.with_inputs) == [DECISIONS, inputs]
        assert found.differing == 0
        assert bool(found.coarse_image) == inputs.coarse_image


def test_from_a_mapped_file_the_numbers_are_the_same(enriched, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def limit(file):
        file.attrs["config"] = file.attrs["config"].replace("memory_limit: null\n  allow", "memory_limit: 0.0\n  allow")
        assert "memory_limit: 0.0" in file.attrs["config"]

    mapped = changed(enriched, tmp_path / "mapped", limit)
    with open_results(enriched) as file, open_results(mapped) as other:
        assert ablate(file) == ablate(other)


def test_decisions_of_another_machine_are_told(enriched, tmp_path):
    def disturb(file):
        stored = file["coarse/test/decision"]
        stored[:5] = np.nextafter(stored[:5], np.float32(0))
        stored.attrs["sha256"] = digest(stored[...])

    found = Page(write_report(changed(enriched, tmp_path / "other", disturb), None, None, Asked(ablation=True)))
    assert "on val and test, 5 do not have the bits of the run's own: here they were" in found.words["ablation"]
    assert re.search(r"computed by torch \d\S* on cpu, 1 thread\.", found.words["ablation"])


def test_an_absent_coarse_image_decides_nothing_alone(enriched, tmp_path):
    def lose(file):
        for split in ("train", "val", "test"):
            for kind in ("decision", "feature"):
                file[f"local/{split}/{kind}"][-1] = 0
            file[f"local/{split}/sha256"][-1] = digest(file[f"local/{split}/decision"][-1])
            file[f"local/{split}/feature_sha256"][-1] = digest(file[f"local/{split}/feature"][-1])
            file[f"local/{split}/accuracy"][-1] = np.nan

    absent = changed(enriched, tmp_path / "absent", lose)
    assert verify(absent) == []
    found = Page(write_report(absent, None, None, Asked(ablation=True)))
    assert [row[0] for row in found.tables["ablation"][1:]] == ["decisions", "+ features", "+ coarse image", "+ both"]
    assert "resolution" not in found.words["ablation"]


def test_what_is_not_enriched_gets_one_line(baseline, without, tmp_path):
    completed = mpirun(0, "report", baseline, "--ablation", "--output", "page", cwd=tmp_path)
    assert completed.returncode == 2
    assert completed.stderr.count("\n") == 1
    assert "of a run of the global CNN; expected one with local features or a coarse image" in completed.stderr
    with pytest.raises(
        InputError, match=r"^--ablation: .*results.h5 is of a run whose coarse DNN takes decisions alone"
    ):
        write_report(without[DECISIONS], None, tmp_path / "page", Asked(ablation=True))
    assert not (tmp_path / "page").exists()


def test_the_command_is_that_of_the_page(run, tmp_path):
    completed = mpirun(2, "report", run, "--ablation", "--output", "page", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert [row[0] for row in Page(tmp_path / "page/index.html").tables["ablation"][1:]] == ["decisions", "+ features"]


def test_the_coarse_image_stands_beside_the_grid(enriched, tmp_path):
    found = Page(write_report(enriched, None, tmp_path))
    *_, last = found.tables["dependence"]
    assert last[0] == "6 (coarse image)"
    assert (
        f"The coarse image stands beside, in the same colours; it has {float(last[1]):.1f}" in found.words["dependence"]
    )
    assert "coarse image beside" in found.images["dependence"]["alt"]
    assert (tmp_path / "dependence.svg").read_text().count("<!-- coarse image -->") == len(last) - 2
