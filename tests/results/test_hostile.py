"""Results files that are none, whatever they say of themselves."""

import h5py
import numpy as np
import pytest

from ddhpc.cli import main
from ddhpc.errors import InputError
from ddhpc.report.summary import facts, summary
from ddhpc.results import balance, open_results
from ddhpc.tables.comparison import row
from ddhpc.tables.run import inspect_run
from tests.conftest import pack_small
from tests.jobs.starting import mpirun

UNREAD = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "units", "description", "NX_class", "signal", "axes")
"""Attributes for other programs."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    options = ["--decomposition.grid", 1, 2, "--local.epochs", 1, "--coarse.epochs", 1, "--model.global_width", 4]
    done = mpirun(0, "--data.file", pack_small(cwd / "x.h5", patients=3), *options, "--output", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run/results.h5"


@pytest.fixture
def file(finished, tmp_path):
    path = tmp_path / "results.h5"
    path.write_bytes(finished.read_bytes())
    return path


def spoil(path, kind):
    with h5py.File(path, "r+") as file:
        if kind == "attribute":
            del file.attrs["config"]
        elif kind == "attribute of numbers":
            file.attrs["ranks"] = [1, 2]
        elif kind == "dataset":
            del file["local/val/decision"]
        elif kind == "shape":
            del file["local/test/accuracy"]
            file["local/test/accuracy"] = np.zeros(3)
        elif kind == "type":
            del file["samples/test/label"]
            file["samples/test/label"] = np.zeros(33)
        elif kind == "size":
            del file["samples/test/label"]
            file.create_dataset("samples/test/label", (10**11,), "i8")
        elif kind == "link":
            del file["classes"]
            file["classes"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "accuracy":
            del file["fusion/dnn"].attrs["val"]
        elif kind == "configuration":
            file.attrs["config"] = "local: {epochs: x}"
        elif kind == "aliases":
            levels = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
            file.attrs["config"] = "a0: &a0 [1]\n" + "".join(levels)
        elif kind == "labels":
            file["samples/test/label"][0] = 99
            file["samples/test/label"][1] = 0
        elif kind == "grid":
            file["decomposition"].attrs["grid"] = [7, 7]
        elif kind == "windows":
            file["decomposition/upper"][0] = 3
        elif kind == "balance":
            file["decomposition"].attrs["balance"] = "odd"
        elif kind == "nothing but absent":
            file["local/val/accuracy"][...] = np.nan
        elif kind == "phases":
            file["timing/phase"][0] = b"<b>"
        elif kind == "no UTF-8":
            file["classes"][0] = b"\xff"
        elif kind == "version":
            file.attrs["format_version"] = "one"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("attribute", "is no sound results file: its attribute config of / is missing or no str"),
        ("attribute of numbers", "its attribute ranks of / is missing or no int"),
        ("dataset", "lacks the dataset local/val/decision"),
        (
            "shape",
            r"its dataset local/test/accuracy is float64 \(3,\); expected floating point and a shape \(N\)",
        ),
        ("type", "its dataset samples/test/label is float64"),
        ("size", r"/samples/test/label is declared as \(100000000000,\), of which most is not there"),
        ("link", "/classes is a link to elsewhere"),
        ("accuracy", "its attribute val of fusion/dnn is missing or no float"),
        ("configuration", "its configuration has local.epochs: 'x', which this version has not"),
        ("aliases", "more than 20,000 items"),
        ("labels", "its labels of test are 0 to 99, of 3 classes"),
        ("grid", r"its grid \[7, 7\] does not fit to 2 windows in 2 dimensions"),
        ("windows", r"its windows are not those of the grid \[1, 2\]"),
        ("balance", "its balance odd is none of blocks, even"),
        ("nothing but absent", "its dataset local/val/accuracy holds no number of any subdomain"),
        ("phases", "its phases are not among startup"),
        ("no UTF-8", "its dataset classes is no text in UTF-8"),
        ("version", "expected a results file of format version 1 or 2, found one"),
    ],
)
def test_what_it_lacks_is_named(kind, reason, file):
    with open_results(file):
        pass
    spoil(file, kind)
    with pytest.raises(InputError, match=f"^{file}: [^\n]*{reason}[^\n]*$"):
        open_results(file)


def test_of_an_older_file_without_a_balance_blocks_are_equal(file):
    with h5py.File(file, "r+") as opened:
        del opened["decomposition"].attrs["balance"]
    with open_results(file) as opened:
        assert balance(opened) == "blocks"


def spoilings(path):
    """Every dataset and attribute gone, and as something else: a name and what to do."""

    def gone(item, name):
        del item[name]

    def other(item, name):
        kept = dict(item[name].attrs) if isinstance(item, h5py.Group) else {}
        del item[name]
        item[name] = np.array([b"x", b"y"]) if len(name) % 2 else np.float64("nan")
        if kept:
            item[name].attrs.update({key: kept[key] for key in ("sha256", "decisions") if key in kept})

    with h5py.File(path) as file:
        found = []
        file.visit(found.append)
        attributes = [(name, key) for name in ["/", *found] for key in file[name].attrs if key not in UNREAD]
        datasets = [name for name in found if isinstance(file[name], h5py.Dataset)]
    for do in (gone, other):
        yield from ((f"{name} {do.__name__}", lambda file, n=name, do=do: do(file, n)) for name in datasets)
        for name, key in attributes:
            yield f"{key} of {name} {do.__name__}", lambda file, n=name, k=key, do=do: do(file[n].attrs, k)


def test_no_spoiled_file_ends_in_a_traceback(file, capsys):
    whole, failed, refused = file.read_bytes(), {}, 0
    for name, spoil_it in list(spoilings(file))[::3]:  # what fusions and splits share is spoiled once
        file.write_bytes(whole)
        with h5py.File(file, "r+") as opened:
            spoil_it(opened)
        try:
            with open_results(file):
                pass  # refuses nearly all, so that the rest need not be tried
            inspect_run(file)
            row(file)
            with open_results(file) as opened:
                assert summary(opened, None)
                assert facts(opened)
        except InputError:
            refused += 1
        except Exception as error:
            failed[name] = repr(error)
    assert not failed
    assert refused > 50


def test_a_packed_file_is_no_run(tmp_path, capsys):
    packed = pack_small(tmp_path / "x.h5")
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(packed)], 0)
    assert left.value.code == 2
    said = f"ddhpc: {packed}: is a packed file, not a run; `plan --data.file {packed}` describes it\n"
    assert capsys.readouterr().err == said
