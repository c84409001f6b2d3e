"""What the page says is what the results file holds, and it needs nothing but itself."""

import base64
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from PIL import Image

from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.method import coarse
from ddhpc.method.dependence import drops
from ddhpc.method.metrics import scores
from ddhpc.report.page import write_report
from ddhpc.results import stored_outputs
from ddhpc.results.cost import check_baseline, critical_path
from ddhpc.wording import duration, percent
from tests.conftest import pack_small
from tests.jobs.starting import mpirun

pytestmark = pytest.mark.slow  # trains

FIGURES = (
    *("decomposition", "fusions", "roc", "precision_recall", "reliability", "local", "confusion", "dependence"),
    *("curves", "time", "speedup"),
)


class Page(HTMLParser):
    """The page as a browser takes it: words, images and tables by section."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        self.section, self.tag = "", ""
        self.words, self.images, self.tables = {}, {}, {}
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tag = tag
        attributes = dict(attributes)
        if tag == "section":
            self.section = attributes["id"]
        elif tag == "img":
            self.images[self.section] = attributes
        elif tag == "tr":
            self.tables.setdefault(self.section, []).append([])
        elif tag in ("th", "td"):
            self.tables[self.section][-1].append("")

    def handle_endtag(self, tag):
        self.tag = ""
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        self.words[self.section] = self.words.get(self.section, "") + data
        if self.tag in ("th", "td"):
            self.tables[self.section][-1][-1] += data


def changed(run, directory, change):
    """A copy of a run with a change to its results file."""
    shutil.copytree(run, directory, ignore=shutil.ignore_patterns("report", "checkpoints"))
    with h5py.File(directory / "results.h5", "r+") as file:
        change(file)
    return directory


@pytest.fixture(scope="module")
def page(run, baseline, tmp_path_factory):
    return write_report(run, baseline, tmp_path_factory.mktemp("page"))


def test_the_page_needs_nothing_else(page):
    found = Page(page)
    without_images = re.sub(r'src="data:[^"]*"', "", found.source)
    assert not re.search(r"https?:|//|url\(|@import|<script|<iframe|<object", without_images)
    assert not re.search(r'(src|href)="(?!data:)', found.source)
    assert sorted(found.images) == sorted(FIGURES)
    for name, image in found.images.items():
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (page.parent / f"{name}.png").read_bytes()
        with Image.open(page.parent / f"{name}.png") as picture:
            assert picture.width == 1080
        assert (page.parent / f"{name}.svg").read_text().rstrip().endswith("</svg>")
        assert len(image["alt"]) > 20


def test_its_numbers_are_those_of_the_results(page, run, baseline):
    found = Page(page)
    with h5py.File(run / "results.h5") as file, h5py.File(baseline / "results.h5") as other:
        labels = file["samples/test/label"][...]
        for fusion in ("dnn", "mean", "vote"):
            share = file[f"fusion/{fusion}"].attrs["test"]
            scored = file[f"fusion/{fusion}/test"].attrs
            interval = f"{percent(scored['accuracy_low'])} to {percent(scored['accuracy_high'])}"
            assert [fusion, percent(share), interval] in found.tables["fusions"]
            assert percent(share) in found.words[""]
        alone = scores(other["coarse/test/decision"][...], labels)
        interval = f"{percent(alone['accuracy_low'])} to {percent(alone['accuracy_high'])}"
        assert ["global CNN", percent(other["fusion/dnn"].attrs["test"]), interval] in found.tables["fusions"]

        counts = file["fusion/dnn/test/confusion"][...]
        assert [row[1:] for row in found.tables["confusion"][1:]] == [[str(n) for n in row] for row in counts]
        assert found.tables["confusion"][0] == ["true class", "rows", "columns", "none"]
        assert counts.sum() == len(labels) == 33
        accuracies = [file[f"local/{split}/accuracy"][...] for split in ("train", "val", "test")]
        expected = [[str(n), *map(percent, row)] for n, row in enumerate(np.transpose(accuracies))]
        assert found.tables["local"][1:] == expected
        assert found.tables["decomposition"][1] == ["0", "0 to 7", "0 to 8"]
        losses = [row[2] for row in found.tables["curves"][1:]]
        assert losses == [f"{loss:.4f}" for loss in file["local/history/loss"][:, -1]]
        validated = file["local/history/val_loss"][:, -1], file["local/val/accuracy"][...]
        expected = [[f"{loss:.4f}", f"{loss:.4f}", "2", percent(share)] for loss, share in zip(*validated, strict=True)]
        assert [row[6:] for row in found.tables["curves"][1:]] == expected
        assert "dashed after the epoch on val" in found.words["curves"]
        spent = file["timing/seconds"][...]
        assert [row[1:] for row in found.tables["time"][1:]] == [[duration(cell) for cell in row] for row in spent]

        path, its = (critical_path(each).seconds for each in (file, other))
        cpu = file["local/cpu_seconds"][...].max()
        assert path == cpu + file["timing"].attrs["coarse"]
        assert its == other["local/cpu_seconds"][0]
        assert found.tables["speedup"][1][1:4] == [duration(path), duration(its), f"{its / path:.1f}"]
        assert "projected" in found.tables["speedup"][1][0]
        assert f"a critical path of {duration(path)}, projected" in found.words[""]


def test_the_influence_of_subdomains_is_that_of_the_stored_dnn(page, run):
    with h5py.File(run / "results.h5") as file:
        weights = {name: values[...] for name, values in file["coarse/weights"].items()}
        config = Config.from_yaml(file.attrs["config"]).coarse
        outputs = stored_outputs(file)
        local, usual = outputs["test"], outputs["train"].mean(axis=1)
        final = file["coarse/test/decision"][...]
    network = coarse.restored(weights, config)
    assert np.array_equal(coarse.decide(network, local), final)
    expected = 100 * drops(lambda decisions: coarse.decide(network, decisions), local, usual)
    head, *rows = Page(page).tables["dependence"]
    assert [float(row[1]) for row in rows] == pytest.approx(expected.mean(axis=0), abs=0.006)
    sample = int(head[2].split(":")[0])
    assert [float(row[2]) for row in rows] == pytest.approx(expected[sample], abs=0.006)


def test_the_times_of_ranks_add_up(run):
    with h5py.File(run / "results.h5") as file:
        seconds, timing = file["timing/seconds"][...], file["timing"].attrs
        phases = file["timing/phase"].asstr()[...].tolist()
        assert seconds.shape == (2, len(phases))
        assert (seconds >= 0).all()
        assert (seconds[:, : phases.index("coarse")] > 0).all()
        assert seconds[0, phases.index("coarse")] == timing["coarse"]
        assert seconds[1, phases.index("coarse")] == 0
        assert seconds[:, phases.index("read")].max() == timing["read"]
        assert 0.8 * timing["total"] < seconds[0].sum() <= timing["total"]


def test_twice_gives_the_same_bytes(page, run, baseline, tmp_path):
    again = write_report(run, baseline, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in page.parent.iterdir())
    for path in page.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name


def test_volumes_are_shown_layer_by_layer(volumes_run):
    page = write_report(volumes_run, None, None)
    assert page == volumes_run / "report/index.html"
    found = Page(page)
    assert set(FIGURES) - set(found.images) == {"speedup"}
    assert "--baseline RUN" in found.words["speedup"]
    assert len(found.tables["local"]) == 7


def test_the_global_cnn_has_a_report_as_well(baseline, tmp_path):
    found = Page(write_report(baseline, None, tmp_path))
    assert set(FIGURES) - set(found.images) == {"local", "dependence", "speedup"}
    assert "This is the global CNN" in found.words["local"]


def test_an_old_file_gets_what_it_can_tell(run, tmp_path):
    def age(file):
        for name in ("coarse/weights", "timing/seconds", "fusion/dnn/test"):
            del file[name]

    write_report(run, None, tmp_path / "page")
    found = Page(write_report(changed(run, tmp_path / "old", age), None, tmp_path / "page"))
    for name in ("fusions", "confusion", "dependence", "time"):
        assert name not in found.images
        assert "older version" in found.words[name]
        assert not (tmp_path / f"page/{name}.png").exists()
    assert {"decomposition", "local", "curves"} <= set(found.images)


def test_without_its_packed_file_the_canvas_is_empty(run, tmp_path):
    def lose(file):
        file.attrs["config"] = re.sub(r"file: .*", "file: gone.h5", file.attrs["config"])

    found = Page(write_report(changed(run, tmp_path / "lost", lose), None, None))
    assert "gone.h5 was not found" in found.words["decomposition"]
    assert {"decomposition", "dependence"} <= set(found.images)


def test_other_data_in_its_place_are_not_shown(run, tmp_path):
    other = pack_small(tmp_path / "other.h5", (16, 18))

    def swap(file):
        file.attrs["config"] = re.sub(r"file: .*", f"file: {other}", file.attrs["config"])

    found = Page(write_report(changed(run, tmp_path / "swapped", swap), None, None))
    assert "holds other data by now" in found.words["decomposition"]


def test_absent_subdomains_are_told(run, tmp_path):
    """As `coarse.allow_missing` leaves them: zeros and NaN."""
    from ddhpc.results.reader import digest

    def lose(file):
        for split in ("train", "val", "test"):
            file[f"local/{split}/decision"][4] = 0
            file[f"local/{split}/sha256"][4] = digest(file[f"local/{split}/decision"][4])
            file[f"local/{split}/accuracy"][4] = np.nan
        for name in ("loss", "accuracy", "learning_rate", "seconds"):
            file[f"local/history/{name}"][4] = np.nan

    found = Page(write_report(changed(run, tmp_path / "lame", lose), None, None))
    assert "1 subdomain could not be trained and is absent" in found.words[""]
    assert found.tables["local"][5] == ["4", "absent", "absent", "absent"]
    assert set(FIGURES) - set(found.images) == {"speedup"}


def test_older_runs_without_validation_are_shown_as_they_are(run, tmp_path):
    def lose(file):
        del file["local/history/val_loss"], file["local/history/val_accuracy"]

    found = Page(write_report(changed(run, tmp_path / "older", lose), None, None))
    assert "on val" not in found.words["curves"]
    assert {len(row) for row in found.tables["curves"]} == {6}
    assert "curves" in found.images


def test_names_are_text_and_not_markup(run, tmp_path):
    def rename(file):
        file["classes"][1] = b"<i>&$x$"

    found = Page(write_report(changed(run, tmp_path / "named", rename), None, None))
    assert "<i>" not in found.source
    assert found.tables["confusion"][2][0] == "<i>&$x$"


def test_a_baseline_of_other_data_is_refused(run, baseline, tmp_path):
    def refused(change, message):
        other = changed(baseline, tmp_path / "other", change)
        with pytest.raises(InputError, match=message):
            write_report(run, other, tmp_path / "page")
        shutil.rmtree(other)

    with pytest.raises(InputError, match=r"has the grid 3x2; expected the global CNN"):
        write_report(run, run, tmp_path / "page")
    refused(lambda file: file["classes"].__setitem__(2, b"dots"), "has the classes rows, columns, dots; expected rows")
    refused(lambda file: file["samples/val/id"].__setitem__(7, b"val/x"), r"another id for val sample 7 \(val/x\)")
    refused(lambda file: file.attrs.modify("data_digest", "0" * 64), "has other pixels .000000000000")
    assert not (tmp_path / "page").exists()


def test_a_baseline_with_another_division_is_refused(run, baseline, tmp_path):
    def shorten(file):
        labels = file["samples/test/label"][:20]
        del file["samples/test/label"]
        file["samples/test/label"] = labels

    def relabel(file):
        file["samples/train/label"][3] = 7

    for change, message in (
        (shorten, "has 20 test samples; expected 33"),
        (relabel, "another label for train sample 3"),
    ):
        other = changed(baseline, tmp_path / "other", change)
        with (
            h5py.File(run / "results.h5") as file,
            h5py.File(other / "results.h5") as found,
            pytest.raises(InputError, match=message),
        ):
            check_baseline(file, found, other)
        shutil.rmtree(other)


def test_a_baseline_that_was_trained_otherwise_is_told(run, baseline, page, tmp_path):
    def longer(file):
        file.attrs["config"] = file.attrs["config"].replace("epochs: 2\n", "epochs: 15\n")

    found = Page(write_report(run, changed(baseline, tmp_path / "other", longer), tmp_path / "page"))
    for section in ("", "speedup"):
        assert "differ in more than the decomposition: local.epochs is 2 against 15." in found.words[section]
        assert "differ in more" not in Page(page).words[section]


def test_a_page_of_somebody_else_stays(run, tmp_path):
    (tmp_path / "index.html").write_text("my home page")
    with pytest.raises(InputError, match=r"--output .*: holds an index.html that is no report"):
        write_report(run, None, tmp_path)
    assert (tmp_path / "index.html").read_text() == "my home page"
    assert list(tmp_path.iterdir()) == [tmp_path / "index.html"]


def test_bad_input_gets_one_line(run, tmp_path):
    def damage(file):
        file["local/test/decision"][0, 0, 0] = 0.123

    changed(run, tmp_path / "damaged", damage)
    for arguments, message in (
        (["nowhere"], "nowhere: expected a run directory with results.h5"),
        (
            ["damaged"],
            "damaged: the results file is damaged: /local/test/decision of subdomain 0: differs from its checksum",
        ),
        ([run, "--baseline", run], "has the grid 3x2"),
        ([run, "--output", "/proc/report"], "cannot write /proc/report"),
    ):
        completed = mpirun(0, "report", *arguments, cwd=tmp_path)
        assert completed.returncode == 2
        assert message in completed.stderr
        assert completed.stderr.count("\n") == 1


def test_the_libraries_that_read_volumes_are_not_needed(run, tmp_path):
    """A training writes a report, and an installation for images has none of them."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('nibabel', 'pydicom', 'SimpleITK', 'gdcm'))); "
        f"sys.argv = ['ddhpc', 'report', {str(run)!r}, '--output', 'page']; "
        "from ddhpc.__main__ import main; main()"
    )
    completed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert (tmp_path / "page/index.html").is_file()


def test_without_matplotlib_one_line_says_so(run, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; "
        f"sys.argv = ['ddhpc', 'report', {str(run)!r}]; from ddhpc.__main__ import main; main()"
    )
    completed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert completed.returncode == 2
    assert "pip install 'ddhpc[report]'" in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_the_command_prints_where_the_page_is(run, tmp_path):
    completed = mpirun(0, "report", run, "--output", "page", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "page/index.html\n"
    assert completed.stderr == ""
