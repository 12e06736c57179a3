"""The target that a backend is asked for: as the client sent it, or with its path rewritten."""

from __future__ import annotations

import re
from collections.abc import Callable

from l7.model import PathKind, PathMatch, Rewrite
from l7.request import Request
from l7.routing.paths import escape_path

Target = Callable[[Request], bytes]


def compile_rewrite(rewrite: Rewrite, paths: tuple[PathMatch, ...]) -> Target:
    """The function from request to target. `paths` are those of the route, whose prefix is replaced.

    A `?` in a replacement begins parameters, which come before those of the request; at its end it drops
    those, as in nginx.
    """
    if rewrite.prefix is not None:
        return _replace_prefix(rewrite.prefix, paths)
    return _replace_pattern(re.compile(rewrite.pattern or ""), rewrite.replacement)


def _replace_prefix(new: str, paths: tuple[PathMatch, ...]) -> Target:
    """The longest of the route's prefixes is the one that it was found by. Where an exact path was, all of it
    is replaced."""
    exact = frozenset(path.text for path in paths if path.kind is PathKind.EXACT)
    prefixes = sorted((p.text for p in paths if p.kind is PathKind.PREFIX), key=len, reverse=True)

    def target(request: Request) -> bytes:
        path = request.path
        if path in exact:
            return _with_query(escape_path(new), request.query)
        for prefix in prefixes:
            if path.startswith(prefix):
                return _with_query(escape_path(new + path[len(prefix) :]), request.query)
        return request.target

    return target


def _replace_pattern(pattern: re.Pattern[str], replacement: str) -> Target:
    path_part, mark, query_part = replacement.partition("?")
    drops = mark != "" and replacement.endswith("?")
    query_part = query_part.removesuffix("?") if drops else query_part

    def target(request: Request) -> bytes:
        found = pattern.search(request.path)
        if found is None:
            return request.target
        path = request.path
        path = path[: found.start()] + found.expand(path_part) + path[found.end() :]
        added = escape_query(found.expand(query_part)) if query_part else b""
        query = b"&".join(part for part in (added, b"" if drops else request.query) if part)
        return _with_query(escape_path(path if path.startswith("/") else f"/{path}"), query)

    return target


def check_replacement(pattern: str, replacement: str) -> None:
    """ValueError where a replacement names groups that the pattern has not."""
    compiled = re.compile(pattern)
    try:
        for part in replacement.partition("?")[::2]:
            compiled.sub(part, "")  # which reads the replacement before it searches
    except (re.error, IndexError) as error:
        raise ValueError(str(error).partition(" at position")[0]) from None


def _with_query(path: bytes, query: bytes) -> bytes:
    return path + b"?" + query if query else path


def escape_query(text: str) -> bytes:
    """Text for a query, in which `&` and `=` keep their meaning."""
    return escape_path(text).replace(b"%3F", b"?")
