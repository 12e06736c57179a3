"""Routes that no request can reach, as far as that can be said without asking what expressions mean.

A route is shadowed by another that asks for no conditions and comes first wherever both fit: it has a higher
priority and takes every host and path of the first, or the same priority, stands earlier in the file and has
the very same hosts and paths.
"""

from __future__ import annotations

from collections.abc import Sequence

from l7.model import Match, PathKind, PathMatch, Route

_PathKey = tuple[PathKind, str, bool]
_ANY_PATH = PathMatch(PathKind.PREFIX, "")


def shadowed(routes: Sequence[Route], listeners: Sequence[str]) -> list[tuple[int, int]]:
    """The numbers of routes that are never asked, each with that of a route that takes all of theirs.

    Those that may are looked up, by priority with host and path or by host, so that thousands of routes are
    no square of comparisons.
    """
    equal: dict[tuple[int, str, _PathKey], list[int]] = {}
    above: dict[str, list[int]] = {}
    lowest = min((route.priority for route in routes), default=0)
    for number, route in enumerate(routes):
        if _asks_more(route.match):
            continue
        for host in route.match.hosts or ("",):
            for path in route.match.paths or (_ANY_PATH,):
                equal.setdefault((route.priority, host, _key(path)), []).append(number)
            if route.priority > lowest:
                above.setdefault(host, []).append(number)
    found = []
    for number, route in enumerate(routes):
        first_host, first_path = (route.match.hosts or ("",))[0], (route.match.paths or (_ANY_PATH,))[0]
        candidates = equal.get((route.priority, first_host, _key(first_path)), [])
        higher = [at for host in (first_host, *_covering_hosts(route)) for at in above.get(host, ())]
        for at in (*candidates, *higher):
            if at != number and _takes_all(routes, at, number, listeners):
                found.append((number, at))
                break
    return found


def _covering_hosts(route: Route) -> list[str]:
    """The names that take requests for the route's first host, from the route itself to any host."""
    if not route.match.hosts:
        return [""]
    labels = route.match.hosts[0].removeprefix("*.").split(".")
    return [*(f"*.{'.'.join(labels[at:])}" for at in range(len(labels))), ""]


def _takes_all(routes: Sequence[Route], at: int, number: int, listeners: Sequence[str]) -> bool:
    other, route = routes[at], routes[number]
    if other.priority == route.priority:
        takes = at < number and _contains(other.match, route.match)
    else:
        takes = other.priority > route.priority and _covers(other.match, route.match)
    return takes and _covers_listeners(other, route, listeners)


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
    return _key(path) == _key(other)


def _key(path: PathMatch) -> _PathKey:
    return path.kind, path.text, path.ignore_case


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
