"""What `import ddhpc` offers, and what it does not load."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import ddhpc


def test_each_public_name_is_there():
    for name in ddhpc.__all__:
        assert getattr(ddhpc, name) is not None
        assert name in dir(ddhpc)
    with pytest.raises(AttributeError, match="no attribute 'nix'"):
        ddhpc.nix  # noqa: B018


def test_the_import_loads_no_package_but_its_own():
    code = "import sys; before = set(sys.modules); import ddhpc; print(*{m for m in set(sys.modules) - before})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) == {"ddhpc"}
    assert [name for name in loaded if name.startswith("ddhpc")] == ["ddhpc"]


@pytest.mark.parametrize("name", ["train", "predict"])
def test_a_public_function_stays_one_when_the_module_of_its_name_is_imported(name):
    module = import_module(f"ddhpc.{name}")
    assert getattr(ddhpc, name) is getattr(import_module("ddhpc.interface"), name)
    assert isinstance(module, ModuleType)
