"""Tables as text: every column as wide as the longest that stands in it.

Not by rich, which `top` has: to load it and to lay a page of flows out takes longer than all else that a
command does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

_BETWEEN = "  "


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text is shown. Lines are cut at `width`; None lets them be as long as they are."""

    width: int | None = None
    styled: bool = False

    def bold(self, text: str) -> str:
        """The text in bold where there is such a thing."""
        return f"\x1b[1m{text}\x1b[0m" if self.styled else text

    def cut(self, line: str) -> str:
        """As much of a line as there is room for."""
        if self.width is None or len(line) <= self.width:
            return line
        return line[: max(self.width - 1, 0)] + "…"


def screen_of(stream: TextIO) -> Screen:
    """What a stream can show. Where it is no terminal nothing is cut, so that `grep` sees whole rows."""
    if not stream.isatty():
        return Screen()
    width = os.get_terminal_size(stream.fileno()).columns
    return Screen(width or None, styled=os.environ.get("TERM") not in (None, "", "dumb"))


def lay_out_rows(
    headings: Sequence[str], rows: Iterable[Sequence[str]], to_the_right: Sequence[bool], screen: Screen
) -> list[str]:
    """The lines of a table; numbers stand to the right of their column."""
    shown = [list(map(_printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *shown, strict=True)]
    lines = []
    for row in (list(headings), *shown):
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, to_the_right, strict=True)
        ]
        lines.append(screen.cut(_BETWEEN.join(cells).rstrip()))
    return [screen.bold(lines[0]), *lines[1:]]


def lay_out_fields(fields: Sequence[tuple[str, str]], screen: Screen) -> list[str]:
    """A line for each name and value. A long value is left to the terminal to fold, for nothing of it may be
    missing."""
    width = max((len(name) for name, _ in fields), default=0)
    return [
        f"{screen.bold(name.ljust(width))}{_BETWEEN}{_printable(value)}".rstrip() for name, value in fields
    ]


def _printable(text: str) -> str:
    """Some text comes from servers that were checked: it must not steer the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
