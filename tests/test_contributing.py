"""What CONTRIBUTING shows of a new network, source and metric works on the code as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ddhpc.data.packed import SPLITS, open_packed
from ddhpc.models import build
from ddhpc.models.features import count_features

ROOT = Path(__file__).parents[1]
NETWORK, SOURCE, METRIC = re.findall(
    r"^```(?:python|text)\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M
)


@pytest.mark.parametrize("window", [(9, 8), (4, 5, 6)])
def test_a_network(window, tmp_path, monkeypatch):
    (tmp_path / "my_cnn.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    net = build("my_cnn:small", channels=2, classes=3, window=window, width=7)
    assert net(torch.zeros(5, 2, *window)).shape == (5, 3)
    assert count_features(net, (2, 2, *window)) == 7


def test_a_source(tmp_path, monkeypatch):
    (tmp_path / "pack_arrays.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    arrays = {f"x_{name}": rng.integers(0, 256, (6, 3, 9, 8), np.uint8) for name in SPLITS}
    arrays |= {f"y_{name}": np.arange(6) % 2 for name in SPLITS}
    np.savez(tmp_path / "in.npz", **arrays)
    monkeypatch.setattr("sys.argv", ["pack_arrays.py", str(tmp_path / "in.npz"), str(tmp_path / "out.h5")])
    exec(compile(SOURCE, "pack_arrays.py", "exec"), {})
    packed = open_packed(tmp_path / "out.h5")
    assert (packed.classes, packed.channels, packed.image_shape) == (("0", "1"), 3, (9, 8))
    for name in SPLITS:
        assert np.array_equal(packed.labels[name], arrays[f"y_{name}"])


@pytest.mark.slow
def test_a_metric(finished, tmp_path):
    """Each line in the place of the one that begins alike."""
    shutil.copytree(ROOT / "ddhpc", tmp_path / "ddhpc", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "ddhpc/method/diagnostics.py"
    code = module.read_text()
    for line in METRIC.splitlines():
        begin = line[: line.index("mcc")]
        code, found = re.subn(rf"^( *){re.escape(begin)}.*$", lambda old, new=line: old[1] + new, code, flags=re.M)
        assert found == 1
    module.write_text(code)
    inspected = subprocess.run(
        [sys.executable, "-m", "ddhpc", "inspect", finished, "--metrics"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert inspected.returncode == 0, inspected.stderr
    assert inspected.stdout.count("│ youden ") == 3
