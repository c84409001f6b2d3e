import re
from dataclasses import fields
from inspect import getsource

import pytest

from ddhpc.config import BEFORE, SECTIONS, Coarse, Config, Decomposition, Local
from ddhpc.errors import InputError
from ddhpc.recipes import recipe_path


def test_yaml_round_trip():
    config = Config(decomposition=Decomposition(grid=(2, 3, 4), overlap=1), local=Local(shift=2, flip=True))
    assert Config.from_yaml(config.to_yaml()) == config


def test_an_older_configuration_is_that_of_what_it_did():
    text = Config(local=Local(epochs=3, class_weight="sqrt"), coarse=Coarse(sampling="balanced")).to_yaml()
    lacking = re.compile(f"  ({'|'.join(option for options in BEFORE.values() for option in options)}):")
    older = "\n".join(line for line in text.splitlines() if not lacking.match(line))
    assert older.count("\n") == text.count("\n") - sum(map(len, BEFORE.values())) - 1
    read = Config.from_yaml(older)
    assert [(each.class_weight, each.sampling) for each in (read.local, read.coarse)] == [("none", "natural")] * 2
    assert (read.local.epochs, read.local.validate_every) == (3, None)
    assert Config.from_yaml("run:\n  seed: 1\n").local.class_weight == "none"


@pytest.mark.parametrize("section", ["local", "coarse"])
def test_classes_are_not_evened_out_twice(section):
    message = f"^--{section}.class_weight sqrt: expected none with --{section}.sampling balanced, after which"
    with pytest.raises(InputError, match=message):
        SECTIONS[section](class_weight="sqrt", sampling="balanced")


@pytest.mark.parametrize("option", [{"patience": 3}, {"keep": "best"}])
def test_what_looks_at_val_needs_validation(option):
    ((name, value),) = option.items()
    with pytest.raises(InputError, match=f"^--local.{name} {value}: expected --local.validate_every with it, which is"):
        Local(validate_every=None, **option)


def test_patience_waits_for_a_validation():
    with pytest.raises(
        InputError, match="^--local.patience 3: expected null, or no less than --local.validate_every, 5:"
    ):
        Local(patience=3)
    assert Local(patience=5).patience == 5


def test_unknown_recipe_names_those_there_are():
    with pytest.raises(InputError, match="--recipe nix: no such recipe; there are .*fashion_mnist"):
        recipe_path("nix")


@pytest.mark.parametrize("section", SECTIONS.values())
def test_every_field_has_a_docstring(section):
    source = getsource(section)
    for field in fields(section):
        after = source.split(f"    {field.name}:", 1)[1].split("\n", 1)[1].lstrip()
        assert after.startswith('"""'), f"{section.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("decomposition", "grid", (), "expected one number for each dimension"),
        ("decomposition", "grid", (0, 4), "expected numbers of at least 1"),
        ("decomposition", "overlap", -1, "expected 0 or more pixels"),
        ("model", "width", 0, "expected auto, wide or at least 1 channel"),
        ("model", "global_width", 0, "at least 1"),
        ("local", "epochs", 0, "expected at least 1"),
        ("local", "batch_size", 1, "at least 2"),
        ("local", "learning_rate", 0.0, "above 0"),
        ("local", "momentum", 1.0, "momentum < 1"),
        ("local", "label_smoothing", 1.0, "below 1"),
        ("local", "shift", -1, "0 or more"),
        ("local", "validate_every", 0, "at least 1 epoch, or null"),
        ("coarse", "hidden", (0,), "at least 1"),
        ("coarse", "dropout", 1.0, "below 1"),
        ("run", "seed", -1, "0 <= seed"),
        ("run", "threads", -1, "0 or more"),
        ("local", "patience", 0, "at least 1 epoch, or null"),
        ("local", "warmup", 1.0, "auto or a share from 0 to below 1"),
        ("local", "clip", 0.0, "a norm above 0, or null"),
    ],
)
def test_bad_values_name_the_option(section, field, value, message):
    with pytest.raises(InputError, match=message) as raised:
        SECTIONS[section](**{field: value})
    assert str(raised.value).startswith(f"--{section}.{field} ")
