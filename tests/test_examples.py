"""The examples in docstrings do what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import ddhpc

PACKAGE = Path(ddhpc.__file__).parent
MODULES = sorted(
    ".".join(("ddhpc", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
    if ">>>" in file.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_example(name):
    failed, tried = doctest.testmod(import_module(name))
    assert tried > 0
    assert failed == 0
