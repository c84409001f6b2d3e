"""The scripts of benchmarks/ start: what they take of the package is there."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_finds_what_it_imports(script, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    assert runpy.run_path(str(script), run_name="imported")["__doc__"], "what it measures, and how it is called"


def test_memory_of_a_rank_is_its_own(tmp_path):
    """Not that of the process that starts it and waits, with what that has imported."""
    script = SCRIPTS[0].with_name("large_volumes.py")
    variables = {**os.environ, "OMPI_COMM_WORLD_RANK": "11", "OMPI_COMM_WORLD_SIZE": "12"}
    rank = [sys.executable, "-S", "-c", "open('/proc/self/io').read()"]
    subprocess.run([sys.executable, script, "--rank", tmp_path, *rank], check=True, env=variables)
    peak, read = map(int, (tmp_path / "rank-00011").read_text().split())
    assert 0 < peak < 80 * 2**20
    assert 0 < read < 20 * 2**20
