"""Routes that no request can reach, as far as that can be said without asking what expressions mean.

A route is shadowed by another that asks for no conditions and comes first wherever both fit: it has a higher
priority and takes every host and path of the first, or the same priority, stands earlier in the file and has
the very same hosts and paths.
"""

from __future__ import annotations

from collections.abc import Sequence

from l7.model import Match, PathKind, PathMatch, Route

_ANY_PATH = PathMatch(PathKind.PREFIX, "")


def shadower(routes: Sequence[Route], number: int, listeners: Sequence[str]) -> int | None:
    """The number of a route that takes everything before route `number` is asked, or None."""
    route = routes[number]
    for at, other in enumerate(routes):
        if at == number or _asks_more(other.match) or not _covers_listeners(other, route, listeners):
            continue
        if other.priority > route.priority and _covers(other.match, route.match):
            return at
        if other.priority == route.priority and at < number and _contains(other.match, route.match):
            return at
    return None


def _asks_more(match: Match) -> bool:
    return bool(match.methods or match.headers or match.query or match.cookies or match.clients)


def _covers_listeners(other: Route, route: Route, listeners: Sequence[str]) -> bool:
    return set(route.match.listeners or listeners) <= set(other.match.listeners or listeners)


def _contains(other: Match, match: Match) -> bool:
    """The same ways in, word for word."""
    hosts, paths = other.hosts or ("",), other.paths or (_ANY_PATH,)
    return all(host in hosts for host in match.hosts or ("",)) and all(
        any(_is_same(path, one) for one in paths) for path in match.paths or (_ANY_PATH,)
    )


def _is_same(path: PathMatch, other: PathMatch) -> bool:
    return (path.kind, path.text, path.ignore_case) == (other.kind, other.text, other.ignore_case)


def _covers(other: Match, match: Match) -> bool:
    """Every host and path of `match` is one of `other`."""
    hosts_covered = not other.hosts or (
        bool(match.hosts) and all(any(_covers_host(o, host) for o in other.hosts) for host in match.hosts)
    )
    return hosts_covered and all(
        any(_covers_path(o, path) for o in other.paths or (_ANY_PATH,))
        for path in match.paths or (_ANY_PATH,)
    )


def _covers_host(other: str, host: str) -> bool:
    return other == host or (other.startswith("*") and host.removeprefix("*").endswith(other[1:]))


def _covers_path(other: PathMatch, path: PathMatch) -> bool:
    if other.kind is PathKind.PREFIX:
        return not other.text or (path.kind is not PathKind.REGEX and path.text.startswith(other.text))
    return _is_same(other, path)
