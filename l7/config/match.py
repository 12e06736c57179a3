"""The key `match` of a route."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from l4lb.control.field import Field
from l4lb.control.health_keys import parse_pattern
from l4lb.control.message import quoted
from l4lb.control.network import parse_network
from l7.config.words import (
    parse_cookie_name,
    parse_header_name,
    parse_host,
    parse_method,
    parse_name,
    parse_path,
)
from l7.model import Match, PathKind, PathMatch, ValueMatch

H = TypeVar("H", bound=Hashable)

_KEYS = ("host", "path", "method", "header", "query", "cookie", "client", "listener")
_MAX_TEXT = 1000


def parse_match(field: Field) -> tuple[Match, list[tuple[str, Field]]]:
    """The match, and the listeners that it names with their places. Raises ConfigError."""
    keys = field.keys(_KEYS, required=())
    listeners = keys["listener"].distinct(parse_name, "a listener", "listeners") if "listener" in keys else []
    match = Match(
        hosts=_words(keys.get("host"), parse_host, "a host such as example.com", "hosts"),
        paths=_parse_paths(keys["path"]) if "path" in keys else (),
        methods=_words(keys.get("method"), parse_method, "a method such as GET", "methods"),
        headers=_parse_values(keys.get("header"), "headers", parse_header_name),
        query=_parse_values(keys.get("query"), "parameters", _parse_parameter),
        cookies=_parse_values(keys.get("cookie"), "cookies", parse_cookie_name),
        clients=_words(keys.get("client"), parse_network, "a network such as 10.0.0.0/8", "networks"),
        listeners=tuple(name for name, _ in listeners),
    )
    return match, listeners


def _words(field: Field | None, parser: Callable[[str], H], what: str, plural: str) -> tuple[H, ...]:
    return tuple(value for value, _ in field.distinct(parser, what, plural)) if field else ()


def _parse_paths(field: Field) -> tuple[PathMatch, ...]:
    found: list[PathMatch] = []
    for item in field.items_or_one("paths"):
        path = _parse_path_match(item)
        if path in found:
            raise item.error("stands here twice; remove one of the two")
        found.append(path)
    if not found:
        raise field.error("the list is empty; add a path such as /api/, or remove the key")
    return tuple(found)


def _parse_path_match(field: Field) -> PathMatch:
    what = "a path such as /api/"
    if not field.is_mapping():
        return PathMatch(PathKind.PREFIX, field.parse(parse_path, what))
    keys = field.keys(("prefix", "exact", "regex", "before_regex", "ignore_case"), required=())
    kinds = [name for name in ("prefix", "exact", "regex") if name in keys]
    if len(kinds) != 1:
        raise field.error(f"has {len(kinds) or 'none'} of prefix, exact and regex; give it one of them")
    for name, owner in (("before_regex", "prefix"), ("ignore_case", "regex")):
        if name in keys and kinds[0] != owner:
            raise keys[name].error(f"belongs to {owner}, and this is {kinds[0]}; remove it")
    if "regex" in keys:
        text = keys["regex"].parse(parse_pattern, "a regular expression")
        ignore_case = "ignore_case" in keys and keys["ignore_case"].flag()
        return PathMatch(PathKind.REGEX, text, ignore_case=ignore_case)
    if "exact" in keys:
        return PathMatch(PathKind.EXACT, keys["exact"].parse(parse_path, what))
    before_regex = "before_regex" in keys and keys["before_regex"].flag()
    return PathMatch(PathKind.PREFIX, keys["prefix"].parse(parse_path, what), before_regex=before_regex)


def _parse_values(
    field: Field | None, plural: str, name_parser: Callable[[str], object]
) -> tuple[ValueMatch, ...]:
    if field is None:
        return ()
    found = []
    for name, item in field.entries(plural):
        try:
            name_parser(name)
        except ValueError as error:
            raise item.error(str(error)) from None
        found.append(_parse_value(name, item))
    if not found:
        raise field.error("the mapping is empty; add a name, or remove the key")
    return tuple(found)


def _parse_value(name: str, field: Field) -> ValueMatch:
    if not field.is_mapping():
        return ValueMatch(name, value=field.parse(_parse_text, 'text, or a mapping such as {regex: "^a"}'))
    keys = field.keys(("is", "regex", "present", "negate"), required=())
    kinds = [key for key in ("is", "regex", "present") if key in keys]
    if len(kinds) != 1:
        raise field.error(f"has {len(kinds) or 'none'} of is, regex and present; give it one of them")
    negate = "negate" in keys and keys["negate"].flag()
    if "present" in keys:
        if "negate" in keys:
            raise keys["negate"].error("belongs to is and regex; write present: false")
        return ValueMatch(name, negate=not keys["present"].flag())
    if "is" in keys:
        return ValueMatch(name, value=keys["is"].parse(_parse_text, "text"), negate=negate)
    return ValueMatch(name, pattern=keys["regex"].parse(parse_pattern, "a regular expression"), negate=negate)


def _parse_parameter(text: str) -> str:
    if not text:
        raise ValueError("has no name; write the name of a parameter")
    return _parse_text(text)


def _parse_text(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_TEXT}")
    if not text.isprintable():
        raise ValueError(f"{quoted(text)} has a character in it that no value has; remove it")
    return text
