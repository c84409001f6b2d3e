import pytest

from ddhpc.errors import InputError, Stopped
from ddhpc.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain größe 日本", "plain größe 日本"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("bad\udcff", "bad\\udcff"),
        ("two\nlines\t", "two\nlines\t"),
        ("line\u2028separator", "line\\u2028separator"),
        ("👩\u200d🔬 नमस्\u200dते", "👩\u200d🔬 नमस्\u200dते"),
    ],
)
def test_hidden_characters_are_shown(text, shown):
    assert visible(text) == shown


def test_errors_are_one_line_that_steers_no_terminal():
    assert str(Stopped("stopped in a\x1b[2J\nb")) == "stopped in a\\x1b[2J\\nb"
    assert str(InputError("class \x1b[2J\nddhpc: all is well")) == "class \\x1b[2J\\nddhpc: all is well"
