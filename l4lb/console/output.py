"""How answers look: tables for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from l4lb.console.layout import lay_out_fields, lay_out_rows, screen_of

Row = Mapping[str, Any]


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
    numeric = [
        isinstance(listed[0].get(key), int | float) and not isinstance(listed[0].get(key), bool)
        for _, key in columns
    ]
    cells = [[cell(row.get(key)) for _, key in columns] for row in listed]
    screen = screen_of(sys.stdout)
    _print_lines([title, *lay_out_rows([heading for heading, _ in columns], cells, numeric, screen)])


def print_fields(title: str, fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    shown = [(name, cell(value)) for name, value in fields]
    _print_lines([title, *lay_out_fields(shown, screen_of(sys.stdout))])


def _print_lines(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


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


def complain(message: str, program: str = "l4lb") -> None:
    """An error as one line on standard error."""
    print(f"{program}: {message}", file=sys.stderr, flush=True)
