"""Results files that are none, whatever they say of themselves."""

import h5py
import numpy as np
import pytest

from ddhpc.cli import main
from ddhpc.errors import InputError
from ddhpc.results import open_results
from tests.conftest import mpirun, pack_small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    options = ["--decomposition.grid", 1, 2, "--local.epochs", 1, "--coarse.epochs", 1, "--model.global_width", 4]
    done = mpirun(0, "--data.file", pack_small(cwd / "x.h5"), *options, "--output", "run", cwd=cwd)
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
        elif kind == "version":
            file.attrs["format_version"] = "one"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("attribute", "is no results file: its attribute config is missing or no str"),
        ("attribute of numbers", "its attribute ranks is missing or no int"),
        ("dataset", "lacks the dataset local/val/decision"),
        ("shape", r"its dataset local/test/accuracy is float64 \(3,\), which fits not to the others"),
        ("type", "its dataset samples/test/label is float64"),
        ("size", r"/samples/test/label is declared as \(100000000000,\), of which most is not there"),
        ("link", "/classes is a link to elsewhere"),
        ("accuracy", "lacks the accuracy of fusion/dnn on val"),
        ("version", "expected a results file of format version 1, found one"),
    ],
)
def test_what_it_lacks_is_named(kind, reason, file):
    with open_results(file):
        pass
    spoil(file, kind)
    with pytest.raises(InputError, match=f"^{file}: [^\n]*{reason}[^\n]*$"):
        open_results(file)


def test_a_packed_file_is_no_run(tmp_path, capsys):
    packed = pack_small(tmp_path / "x.h5")
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(packed)], 0)
    assert left.value.code == 2
    said = f"ddhpc: {packed}: is a packed file, not a run; `plan --data.file {packed}` describes it\n"
    assert capsys.readouterr().err == said
