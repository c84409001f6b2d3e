"""From what was typed to a configuration: recipes, files, single options, and mistakes in one line."""

import re
from dataclasses import replace

import pytest
import yaml

from ddhpc.cli import main
from ddhpc.cli.options import configure, train_parser
from ddhpc.config import Config
from ddhpc.errors import InputError
from ddhpc.recipes import recipe_names
from ddhpc.results import identity


def test_defaults_are_the_default_recipe():
    assert configure([], train_parser()).config == Config()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses(name):
    assert isinstance(configure(["--recipe", name], train_parser()).config, Config)


def configured(tmp_path, text, *argv):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return configure(["--config", str(file), *argv], train_parser())


def test_a_configuration_file_may_start_from_a_recipe(tmp_path):
    command = configured(tmp_path, "recipe: flowers\nlocal: {epochs: 3}\n", "--run.seed", "5")
    recipe = configure(["--recipe", "flowers"], train_parser()).config
    expected = replace(recipe, local=replace(recipe.local, epochs=3), run=replace(recipe.run, seed=5))
    assert command.config == expected
    assert command.name == "mine"


def test_a_run_is_repeated_from_its_own_file(tmp_path):
    config = configure(["--recipe", "flowers", "--run.seed", "3"], train_parser()).config
    found = configured(tmp_path, yaml.safe_dump(identity(config, "a" * 64))).config
    assert found == config
    assert configured(tmp_path, config.to_yaml()).config == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:\n", None),
        ("", "expected sections such as data and local, found nothing"),
        ("- 1\n", "expected sections such as data and local, found a list"),
        ("loca: {epochs: 3}", "loca: no section, did you mean local"),
        ("local: 3", "local: expected options and their values, found 3"),
        ("local: {epoch: 3}", "epoch"),
        ("recipe: nix", "--recipe nix: no such recipe"),
        ("local: {epochs: ä}".encode("latin-1"), "cannot be read: its text is not UTF-8"),
        ("local: !!python/object/apply:os.system [id]", "cannot read it as YAML"),
        ("a: &a [*a]", "cannot read it as YAML: nested too deeply"),
        ("x: " + "[" * 3000, "cannot read it as YAML"),
        ("local: {epochs: }", "--local.epochs null: expected a value"),
        ("local: {epochs: 1}\nlocal: {width: 1}", "local is there twice; expected it once"),
        ("x: " + "1" * 2**21, "cannot read it as YAML: more than 262,144 letters"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_configuration_files_of_all_kinds(tmp_path, text, message):
    if message is None:
        assert configured(tmp_path, text).config == Config()
        return
    with pytest.raises(InputError, match=f"^[^\n]*{message}[^\n]*$"):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--grid", ", did you mean --decomposition.grid?"),
        ("--epochs", ", did you mean --local.epochs or --coarse.epochs or --coherent.epochs?"),
        ("--decomposition.gird", ", did you mean --decomposition.grid?"),
        ("--class_wait", ""),
    ],
)
def test_what_was_perhaps_meant(option, hint):
    with pytest.raises(InputError, match=f"^{option}: unknown option{re.escape(hint)}; --help lists all options$"):
        configure([option, "2", "2"], train_parser())


def test_what_is_trained_is_said_truly():
    own = configure(["--data.file", "lungs/mine.h5"], train_parser())
    assert (own.name, own.title) == ("mine", "default options on lungs/mine.h5")
    default = configure([], train_parser())
    assert (default.name, default.title) == ("fashion_mnist", "recipe fashion_mnist")


@pytest.mark.parametrize("ranks", ["-3", "0"])
def test_plans_are_for_some_ranks(ranks):
    with pytest.raises(InputError, match=f"^--ranks {ranks}: expected at least 1$"):
        main(["plan", "--ranks", ranks], 0)


def test_a_stray_word_is_an_unknown_verb():
    with pytest.raises(InputError, match="^stray: unknown verb; expected one of train, plan, "):
        main(["stray"], 0)


@pytest.mark.parametrize(
    ("verb", "option"), [("train", "--print_config"), ("plan", "--print-config"), ("doctor", "--print_config")]
)
def test_options_with_a_hyphen_or_an_underscore(verb, option, capsys):
    main([verb, option, "--local.batch-size=5"], 0)
    assert "  batch_size: 5\n" in capsys.readouterr().out


def test_the_version_tells_the_commit(capsys):
    """In a git checkout; of an installed package the number alone."""
    main(["--version"], 0)
    assert re.fullmatch(r"ddhpc \d+\.\d+\.\d+( \([0-9a-f]{12}(-dirty)?\))?\n", capsys.readouterr().out)
