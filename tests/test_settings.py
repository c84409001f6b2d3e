"""Options by name are as strict as the command line, and as plain."""

import json

import numpy as np
import pytest

from ddhpc.cli.options import configure, train_parser
from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.recipes import recipe_names

WRONG = {
    "local.epochs": ["abc", 1.5, None, True, 0],
    "data.fil": ["x"],
    "local": [3],
    "epochs": [3],
    "run.device": ["tpu"],
    "local.flip": ["maybe"],
    "model.width": ["abc"],
    "data.memory_limit": ["x"],
    "coarse.dropout": ["x"],
    "decomposition.grid": [[2, "x"], [0, 2], [2, 1.5]],
    "local.momentum": ["x"],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in WRONG.items() for value in values])
def test_what_is_wrong_is_said_as_on_the_command_line(option, value):
    words = map(str, value) if isinstance(value, list) else ["null" if value is None else str(value)]
    with pytest.raises(InputError) as typed:
        configure([f"--{option}", *words], train_parser())
    with pytest.raises(InputError) as given:
        Config.from_recipe("fashion_mnist", {option: value})
    assert str(given.value) == str(typed.value)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_that_of_the_command_line(name):
    options = {"data.file": "x.h5", "decomposition.grid": (3, 1), "local.learning_rate": 1, "data.memory_limit": 2}
    words = [
        "--data.file",
        "x.h5",
        "--decomposition.grid",
        "3",
        "1",
        "--local.learning_rate",
        "1",
        "--data.memory_limit",
        "2",
    ]
    found, typed = Config.from_recipe(name, options), configure(["--recipe", name, *words], train_parser()).config
    assert json.dumps(found.to_dict()) == json.dumps(typed.to_dict()), "1 and 1.0 would be two runs"


def test_an_unknown_recipe_is_named():
    with pytest.raises(InputError, match="--recipe nix: no such recipe; there are cifar10"):
        Config.from_recipe("nix")


def test_numbers_of_numpy_are_numbers():
    options = {"local.epochs": np.int64(3), "decomposition.grid": np.array([2, 4]), "local.momentum": np.float32(0.5)}
    found = Config.from_recipe("fashion_mnist", options)
    assert (found.local.epochs, found.decomposition.grid, found.local.momentum) == (3, (2, 4), 0.5)
    assert Config.from_yaml(found.to_yaml()) == found


def test_a_list_is_wanted_where_the_option_is_one():
    with pytest.raises(InputError, match="--decomposition.grid: expected tuple, found 4"):
        Config.from_recipe("fashion_mnist", {"decomposition.grid": 4})
