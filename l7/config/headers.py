"""Keys that say what is done to headers, and the templates in them."""

from __future__ import annotations

from l4lb.control.field import Field
from l7.config.words import parse_edited_header
from l7.model import HeaderEdits
from l7.routing.templates import compile_template


def parse_edits(field: Field) -> HeaderEdits:
    """`{set: {NAME: VALUE}, add: {NAME: VALUE or list}, remove: [NAME]}`. Raises ConfigError."""
    keys = field.keys(("set", "add", "remove"), required=())
    edits = HeaderEdits(
        set=_parse_lines(keys["set"], several=False) if "set" in keys else (),
        add=_parse_lines(keys["add"], several=True) if "add" in keys else (),
        remove=_parse_names(keys["remove"]) if "remove" in keys else (),
    )
    removed = {name.lower() for name in edits.remove}
    for name, _ in edits.set:
        if name.lower() in removed:
            raise keys["remove"].error(f"{name.decode()} is set, too, which replaces it; remove it here")
    return edits


def _parse_names(field: Field) -> tuple[bytes, ...]:
    return tuple(name for name, _ in field.distinct(parse_edited_header, "the name of a header", "headers"))


def _parse_lines(field: Field, several: bool) -> tuple[tuple[bytes, str], ...]:
    seen: dict[bytes, bytes] = {}
    lines: list[tuple[bytes, str]] = []
    for key, item in field.entries("header names and values"):
        try:
            name = parse_edited_header(key)
        except ValueError as error:
            raise item.error(str(error)) from None
        if other := seen.get(name.lower()):
            raise item.error(f"is the same header as {other.decode()}; remove one of the two")
        seen[name.lower()] = name
        for value in item.items_or_one("values") if several else [item]:
            lines.append((name, value.parse(parse_template, "the header's value")))
    return tuple(lines)


def parse_template(text: str) -> str:
    """A text whose variables are known. ValueError otherwise."""
    compile_template(text)
    return text.strip()
