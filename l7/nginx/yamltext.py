"""Our YAML as text that people read: short values on one line, comments behind what they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9/_.$][A-Za-z0-9/_.$%+=-]*(?::[A-Za-z0-9/_.$%+=-]+)*")
_NOT_TEXT = frozenset({"null", "Null", "NULL", "~"})
_MAX_INLINE = 78
_BLOCKS_UP_TO = 4
"""Mappings of more than scalars that are indented no further are written out, key by key."""
_NOTE_COLUMN = 56


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with a comment behind it."""

    value: Any
    note: str


def write_yaml(tree: dict[str, Any], head: list[str]) -> str:
    """The text of a tree of mappings, lists and scalars; `head` are lines of comment in front of it."""
    lines = [f"# {line}".rstrip() for line in head]
    lines += _mapping(tree, 0)
    return "\n".join(lines) + "\n"


def _mapping(tree: dict[str, Any], indent: int) -> Iterator[str]:
    for key, value in tree.items():
        yield from _entry(f"{' ' * indent}{_scalar(key)}:", value, indent)


def _entry(start: str, noted: Any, indent: int) -> Iterator[str]:
    """`start` is what stands in front of a value: a key, or the dash of an item."""
    value, note = _unwrapped(noted)
    if (line := _line(start, noted, indent)) is not None:
        yield line
    elif isinstance(value, dict):
        yield _with_note(start, note)
        yield from _mapping(value, indent + 2)
    else:
        yield _with_note(start, note)
        for item in value:
            yield from _item(item, indent + 2)


def _item(noted: Any, indent: int) -> Iterator[str]:
    """A mapping that is too long for a line begins on that of its dash."""
    value, note = _unwrapped(noted)
    dash = f"{' ' * indent}-"
    if not isinstance(value, dict) or _line(dash, noted, indent) is not None:
        yield from _entry(dash, noted, indent)
        return
    lines = list(_mapping(value, indent + 2))
    lines[0] = f"{dash} {lines[0][indent + 2 :]}"
    if note:
        yield f"{' ' * indent}# {note}"
    yield from lines


def _line(start: str, noted: Any, indent: int) -> str | None:
    """A value on one line with the one comment that it has; None where it is written out."""
    value, _ = _unwrapped(noted)
    notes: list[str] = []
    inline = _inline(noted, notes)
    if isinstance(value, dict | list):
        nested = isinstance(value, dict) and any(
            isinstance(_unwrapped(item)[0], dict | list) for item in value.values()
        )
        too_long = len(start) + len(inline) >= _MAX_INLINE
        if too_long or len(set(notes)) > 1 or (nested and indent <= _BLOCKS_UP_TO):
            return None
    return _with_note(f"{start} {inline}", notes[0] if notes else "")


def _unwrapped(noted: Any) -> tuple[Any, str]:
    return (noted.value, noted.note) if isinstance(noted, Noted) else (noted, "")


def _with_note(line: str, note: str) -> str:
    return f"{line.ljust(_NOTE_COLUMN)}  # {note}" if note else line


def _inline(noted: Any, notes: list[str]) -> str:
    """A value on one line; its comments are added to `notes`."""
    value, note = _unwrapped(noted)
    if note:
        notes.append(note)
    if isinstance(value, dict):
        parts = [f"{_scalar(key)}: {_inline(item, notes)}" for key, item in value.items()]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([_inline(item, notes) for item in value]) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text not in _NOT_TEXT and not text.endswith(":"):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'
