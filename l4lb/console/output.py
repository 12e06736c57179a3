"""How answers look: tables for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

# rich is half of what a command loads: only those that show a table do it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Row = Mapping[str, Any]
_ENDLESS = 1 << 20
_NUMBERS_THAT_NAME = frozenset({"pid"})  # to be copied into a command, not to be compared


def print_json(value: Any) -> None:
    """One object on one line."""
    print(json.dumps(value), flush=True)


def print_done(answer: Mapping[str, Any], as_json: bool, text: str) -> None:
    """What a command has done: the daemon's answer, or `text` for people."""
    if as_json:
        print_json(answer)
    else:
        print(text)


def print_rows(
    rows: Iterable[Row], columns: Sequence[tuple[str, str]], *, as_json: bool, title: str, empty: str
) -> None:
    """A table of (heading, key) columns, or one JSON object a line. Numbers stand to the right."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
        sys.stdout.flush()
        return
    listed = list(rows)
    if not listed:
        print(empty, flush=True)
        return
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading, key in columns:
        numeric = isinstance(listed[0].get(key), int | float) and not isinstance(listed[0].get(key), bool)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in listed:
        table.add_row(*(_text(_shown(key, row.get(key))) for _, key in columns))
    console().print(table)


def print_fields(title: str, fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _text(_shown(name, value)))
    console().print(table)


def cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _shown(name: str, value: Any) -> str:
    return str(value) if name in _NUMBERS_THAT_NAME else cell(value)


def console(columns: int = _ENDLESS) -> Console:
    """Standard output, of so many columns where it is no terminal: nothing is cut or folded there, so that
    `grep` sees whole rows."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else columns)


def _text(text: str) -> Text:
    """Some of it comes from servers that were checked: it must not steer the terminal."""
    from rich.text import Text

    return Text(text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text))


def complain(message: str, program: str = "l4lb") -> None:
    """An error as one line on standard error."""
    print(f"{program}: {message}", file=sys.stderr, flush=True)
