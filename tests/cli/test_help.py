"""What --help shows."""

import re

import pytest

from ddhpc.cli import VERBS
from ddhpc.cli.completion import parsers
from ddhpc.cli.options import configure, train_parser

PARSERS = dict(parsers(VERBS))


def test_help_shows_values_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        configure(["--help"], train_parser())
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("usage: python -m ddhpc train [options] Train a local CNN")
    assert "--decomposition.grid N N ... Subdomains along" in words
    assert "(default: 4 4)" in words
    assert "(default: null)" in words
    assert "type:" not in words
    assert "--output DIR run directory; without it each run gets a new one under runs/ --overwrite" in words
    assert "--model.width {N,auto,wide} Channels" in words
    assert "--local.learning_rate {X,auto} Highest" in words
    assert "--local.epochs N Passes" in words


@pytest.mark.parametrize("name", PARSERS)
def test_help_of_every_verb(name):
    """Options of one style, but for those of sections, which are as in YAML; lists as they are typed; an example."""
    help = PARSERS[name].format_help()
    own = re.findall(r"^  (?:-h, )?(--\S+)", help, re.M)
    assert [option for option in own if "_" in option.split(".")[0]] == []
    assert not re.search(r"\[ITEM|\+ |Union|Optional|<class '", help)
    assert f"ddhpc {name.replace('-', ' ')} " in help.partition("examples:\n")[2] or name == "train"
