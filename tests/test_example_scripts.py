"""The scripts of examples/ run as their first lines say, and are short."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.starting import environment

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
LINES = 60


def launch_lines(script):
    """The commands that stand at the top of a script."""
    return [line.split("#")[0].strip() for line in script.read_text().splitlines() if re.match(r"    python ", line)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A directory as that of a person with a clone."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "examples").symlink_to(ROOT / "examples")
    return desk


def run(line, desk):
    python = shlex.quote(sys.executable)
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", re.sub("^python", python, line)],
        **{"cwd": desk, "env": env, "capture_output": True, "text": True, "timeout": 300},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_starts_with_how_to_start_it(script):
    text = script.read_text()
    assert len(text.splitlines()) < LINES
    assert f"    python examples/{script.name}" in text.split('"""')[1]


@pytest.mark.slow
def test_own_images_and_their_model_elsewhere(desk):
    (line,) = launch_lines(ROOT / "examples/own_images.py")
    assert re.search(r"standing/0.png: .*'standing': (1.0|0.9)", run(line, desk))
    elsewhere = ROOT / "examples/model_elsewhere.py"
    assert "ddhpc" not in re.findall(r"^(?:import|from) (\w+)", elsewhere.read_text(), re.M)
    *_, decided = [run(line, desk) for line in launch_lines(elsewhere)]
    assert len(re.findall(r"lying/\d+\.png: lying \(\d\.\d+\)", decided)) > 100


@pytest.mark.slow
def test_ct_phantoms(desk):
    pytest.importorskip("nibabel")
    (line,) = launch_lines(ROOT / "examples/ct_phantoms.py")
    shown = run(line, desk)
    assert "accuracy of each local CNN alone: [" in shown
    rows = (desk / "runs/ct_phantoms/decisions.csv").read_text().splitlines()
    assert len(rows) == 25
