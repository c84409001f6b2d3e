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


WITH_A_RUN = ("ddhpc.interface", "ddhpc.run")
"""Their examples find small.h5 and runs/mine."""


@pytest.mark.parametrize("name", MODULES)
def test_example(name, request, monkeypatch):
    if name in WITH_A_RUN:
        monkeypatch.chdir(request.getfixturevalue("finished").parents[1])
    failed, tried = doctest.testmod(import_module(name))
    assert tried > 0
    assert failed == 0
