"""What an installation puts on Python's path."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_script_beside_the_clone_imports_the_package(tmp_path):
    """Not the folder of the same name, which would be a namespace package without content."""
    pytest.importorskip("setuptools")
    clone, site = tmp_path / "home/ddhpc", tmp_path / "site"
    (clone / "ddhpc").mkdir(parents=True)
    for name in (
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "ddhpc/__init__.py",
        "ddhpc/errors.py",
        "ddhpc/visible.py",
    ):
        shutil.copy(ROOT / name, clone / name)
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=clone, env=environment, check=True, capture_output=True)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    path = f"import site, sys; sys.path.insert(0, '..'); site.addsitedir({str(site)!r})"
    script = f"{path}; import ddhpc; print(ddhpc.__file__)"
    done = subprocess.run([sys.executable, "-ISc", script], cwd=clone, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(clone / "ddhpc/__init__.py")


def test_a_bare_system_without_debootstrap_is_refused_in_one_line(tmp_path):
    for name in ("bash", "dirname", "readlink"):
        (tmp_path / name).symlink_to(shutil.which(name))
    command = [shutil.which("bash"), ROOT / "containers/bare.sh", "bookworm", tmp_path / "root"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    said = "debootstrap: not found; expected it on PATH: apt-get install debootstrap\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert not (tmp_path / "root").exists()
