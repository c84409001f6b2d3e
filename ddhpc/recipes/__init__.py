"""The configurations that ship, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddhpc.errors import InputError
from ddhpc.yaml_file import read_yaml

RECIPES = Path(__file__).parent
DEFAULT_RECIPE = "fashion_mnist"


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The YAML file of a shipped recipe; InputError names those that exist."""
    if name not in recipe_names():
        raise InputError(f"--recipe {name}: no such recipe; there are {', '.join(recipe_names())}")
    return RECIPES / f"{name}.yaml"


def recipe(name: str) -> dict[str, Any]:
    """The options of a shipped recipe by name, as in "local.epochs"; InputError names the recipes that exist."""
    sections = read_yaml(recipe_path(name))
    return {f"{section}.{option}": value for section, given in sections.items() for option, value in given.items()}
