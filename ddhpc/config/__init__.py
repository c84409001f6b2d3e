"""The configuration: frozen dataclasses, one a section, read from a recipe, a YAML file and the command line."""

from ddhpc.config.configuration import BEFORE, CODE, DIGESTS, IDENTITY, SECTIONS, Config, with_older
from ddhpc.config.problem import Balance, Data, Decomposition, Model
from ddhpc.config.run import Run
from ddhpc.config.training import Coarse, Coherent, Local

__all__ = [
    "BEFORE",
    "CODE",
    "DIGESTS",
    "IDENTITY",
    "SECTIONS",
    "Balance",
    "Coarse",
    "Coherent",
    "Config",
    "Data",
    "Decomposition",
    "Local",
    "Model",
    "Run",
    "with_older",
]
