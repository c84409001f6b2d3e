"""Text from outside, fit to be shown: classes, paths, ids and host names are data, whatever they hold."""

from __future__ import annotations

import sys
import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters of Persian, Indian scripts and emoji, which change nothing but the shape of their neighbours."""
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that steer a terminal, change the order of what is read, or cannot be written."""


def visible(text: str, kept: str = "\n\t") -> str:
    """A text whose hidden characters are escaped, as in \\x1b, all but those `kept`.

    >>> visible("\x1b[31mred")
    '\\\\x1b[31mred'
    """
    if text.isprintable():
        return text  # fast: a picture in a page is one text of 100,000 letters
    return "".join(_escaped(letter) if _is_hidden(letter) and letter not in kept else letter for letter in text)


def tell(text: str) -> None:
    """Print a text that may hold names from outside, at once."""
    print(visible(text), flush=True)


def complain(text: str) -> None:
    """Print one line on standard error that may hold names from outside."""
    print(visible(text, kept=""), file=sys.stderr, flush=True)


def _is_hidden(letter: str) -> bool:
    return not letter.isprintable() and letter not in JOINERS and unicodedata.category(letter) in HIDDEN


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode()
