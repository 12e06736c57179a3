"""Paths of nginx's locations and expressions as values of `match.path`."""

from __future__ import annotations

import re
from typing import Any

from l7.config.words import parse_path
from l7.nginx.conditions import regex_path
from l7.nginx.source import Directive
from l7.nginx.words import expression

Path = Any
"""A prefix as text, or a mapping with `exact`, `prefix` or `regex`."""

_CATCH_ALL = ("^", "^.*$", ".*", "^.*", "^/", "^/.*", "^/.*$")


def path_of(location: Directive, prefix: str | None) -> Path:
    """The path of a location as a value of `match.path`; `prefix` is that of the location around it."""
    kind, text = location.args if len(location.args) == 2 else _glued(location.first)
    if kind == "=":
        return {"exact": parse_path(text)}
    if kind in ("~", "~*"):
        path = regex_path(text, kind == "~*")
        return narrowed(prefix, path["regex"], path) if prefix not in (None, "/") else path
    if kind == "^~":
        return {"prefix": parse_path(text), "before_regex": True}
    return parse_path(text)


def _glued(text: str) -> tuple[str, str]:
    """The modifier may stand without a blank."""
    for kind in ("~*", "^~", "~", "="):
        if text.startswith(kind):
            return kind, text.removeprefix(kind)
    return "", text


def narrowed(path: Path, pattern: str, rest: dict[str, Any] | None = None) -> Path:
    """An expression below a path; None where both are everything."""
    ours = expression(pattern)
    if pattern in _CATCH_ALL and "(" not in pattern:
        return path
    if isinstance(path, str) and path != "/":
        ours = f"^(?={re.escape(path)}).*?(?:{ours})"
    elif isinstance(path, dict):
        start = path.get("prefix") or path.get("exact")
        if start is None:
            around = f"(?i:{path['regex']})" if path.get("ignore_case") else f"(?:{path['regex']})"
            ours = f"^(?=.*?{around}).*?(?:{ours})"
        else:
            ours = f"^(?={re.escape(start)}{'$' if 'exact' in path else ''}).*?(?:{ours})"
    return {**(rest or {}), "regex": ours}


def through(rewrite: Directive, passed: Directive, path: str) -> Directive:
    """A rewrite to a location whose `proxy_pass` has a path, which takes the place of the location's."""
    _, slash, tail = passed.first.partition("://")[2].partition("/")
    new = rewrite.args[1]
    if slash and new.startswith(path):
        new = f"/{tail}{new[len(path) :]}"
    return Directive(rewrite.name, (rewrite.first, new, *rewrite.args[2:]), rewrite.file, rewrite.line)


def proxy_host_of(passed: Directive) -> str:
    """`$proxy_host`: what stands in the URL, without a default port."""
    scheme, _, rest = passed.first.partition("://")
    host = rest.partition("/")[0]
    return host.removesuffix(":443" if scheme == "https" else ":80")
