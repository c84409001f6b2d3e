"""The site that `make docs` makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
for tool in ("zensical", "latex2mathml"):
    pytest.importorskip(tool, reason="pip install -e '.[docs]'")


def test_the_site(tmp_path):
    """All pages, formulas that a browser shows, docstrings; a link that leads nowhere ends it."""
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    pages, build = tmp_path / "build/site", [sys.executable, "-m", "zensical", "build", "--strict"]
    subprocess.run([sys.executable, ROOT / "scripts/pages.py", pages], check=True)
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site"
    assert "<math" in (site / "docs/method.html").read_text()
    assert "Config.from_recipe" in (site / "docs/interface.html").read_text()
    assert (site / "docs/tutorial.png").read_bytes() == (ROOT / "docs/tutorial.png").read_bytes()

    with (pages / "docs/choosing.md").open("a") as page:
        page.write("[nowhere](method.md#nowhere)")
    assert subprocess.run(build, cwd=tmp_path, capture_output=True).returncode != 0
