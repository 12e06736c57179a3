"""The form of a message about the configuration: `FILE:LINE:COLUMN: KEY: reason; what to do`.

A message is one line whatever the file holds: what it quotes is escaped and shortened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from l4lb.errors import ConfigError

MAX_QUOTED = 48
"""Characters of the operator's text that a message repeats."""

_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def error_at(source: str, line: int, column: int, key: str, reason: str) -> ConfigError:
    """The error at a position (both from 1). An empty `key` is the file as a whole."""
    return ConfigError(f"{place_of(source, line, column, key)}: {printable(reason)}")


def place_of(source: str, line: int, column: int, key: str) -> str:
    """The part of a message that says where: `FILE:LINE:COLUMN: KEY`."""
    return f"{printable(source)}:{line}:{column}: {key or 'file'}"


def key_path(parent: str, key: str) -> str:
    """The path of `key` below `parent`."""
    shown = key if len(key) <= MAX_QUOTED and _WORD.fullmatch(key) else quoted(key)
    return f"{parent}.{shown}" if parent else shown


def printable(text: str) -> str:
    """`text` with everything that would not stay on the line escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """`text` in double quotes, printable and of bounded length."""
    shown = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
    return f'"{printable(shown)}"'


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: the one that was probably meant, else all there are."""
    choices = list(known)
    close = get_close_matches(word[:MAX_QUOTED], choices, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return "known here: " + ", ".join(choices)
