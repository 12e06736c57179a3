"""Request → route. Everything is compiled at load; a request costs a few look-ups.

The rules, in this order; a route whose conditions do not hold for a request is as if it were not in the file:

1. `priority`: the highest first.
2. Host: the exact name, then the longest `*.` name, then routes without a host.
3. Path, as nginx: the exact one; else the longest prefix, if it is `before_regex`; else the first regular
   expression that is found; else that longest prefix. A route without a path is the empty prefix.
4. Of several that are equal so far: the first in the file.

Where one step leaves no route, the next less specific one is taken: a host without a fitting path falls back
to the routes without a host. (In nginx a server that has no location answers itself; a route for the host
with `respond: 404` says the same.)

For each listener that is named by a route there is a table of its own, so that this is no condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from l7.model import PathKind, Route
from l7.request import Peer, Request
from l7.routing.compiled import CompiledRoute, path_pattern
from l7.routing.reasoning import Reasoning, reason

Search = Callable[[str], re.Match[str] | None]


class Router:
    """The routes of a configuration, in the order of the file. ValueError where a template or a regular
    expression is wrong; `l7.config` finds that first, with its place."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(CompiledRoute(route, number) for number, route in enumerate(routes))
        named = {name for route in routes for name in route.match.listeners}
        self._tables = {
            name: _Table([one for one in self.routes if _is_for(one.route, name)]) for name in sorted(named)
        }
        self._table = _Table([one for one in self.routes if not one.route.match.listeners])

    def route(self, request: Request, peer: Peer) -> CompiledRoute | None:
        """The route of a request; None where there is none (404)."""
        return self._tables.get(peer.listener, self._table).find(request, peer)

    def why(self, request: Request, peer: Peer) -> Reasoning:
        """The same, with what every other route lacked."""
        return reason(self.routes, request, peer)


def _is_for(route: Route, listener: str) -> bool:
    return not route.match.listeners or listener in route.match.listeners


class _Table:
    """The routes of a listener, by priority."""

    __slots__ = ("_levels",)

    def __init__(self, routes: list[CompiledRoute]) -> None:
        priorities = sorted({one.route.priority for one in routes}, reverse=True)
        self._levels = tuple(
            _Hosts([one for one in routes if one.route.priority == priority]) for priority in priorities
        )

    def find(self, request: Request, peer: Peer) -> CompiledRoute | None:
        for level in self._levels:
            if found := level.find(request, peer):
                return found
        return None


class _Hosts:
    """The routes of a priority by host."""

    __slots__ = ("_any", "_exact", "_wildcards")

    def __init__(self, routes: list[CompiledRoute]) -> None:
        by_host: dict[str, list[CompiledRoute]] = {}
        for one in routes:
            for host in one.route.match.hosts or ("",):
                by_host.setdefault(host, []).append(one)
        anywhere = by_host.pop("", None)
        self._any = _Paths(anywhere) if anywhere else None
        self._exact: dict[str, _Paths] = {}
        self._wildcards: dict[str, _Paths] = {}
        """By what follows the asterisk, the dot included."""
        for host, those in by_host.items():
            if host.startswith("*"):
                self._wildcards[host[1:]] = _Paths(those)
            else:
                self._exact[host] = _Paths(those)

    def find(self, request: Request, peer: Peer) -> CompiledRoute | None:
        host = request.host
        if (paths := self._exact.get(host)) and (found := paths.find(request, peer)):
            return found
        if self._wildcards:
            # Behind the first character: an asterisk stands for at least one.
            at = host.find(".", 1)
            while at > 0:
                if (paths := self._wildcards.get(host[at:])) and (found := paths.find(request, peer)):
                    return found
                at = host.find(".", at + 1)
        return self._any.find(request, peer) if self._any else None


class _Paths:
    """The routes of a host by path."""

    __slots__ = ("_exact", "_lengths", "_prefixes", "_searches")

    def __init__(self, routes: list[CompiledRoute]) -> None:
        exact: dict[str, list[CompiledRoute]] = {}
        prefixes: dict[str, list[tuple[CompiledRoute, bool]]] = {}
        self._searches: list[tuple[Search, CompiledRoute]] = []
        for one in routes:
            if not one.route.match.paths:
                prefixes.setdefault("", []).append((one, False))
            for path in one.route.match.paths:
                if path.kind is PathKind.EXACT:
                    exact.setdefault(path.text, []).append(one)
                elif path.kind is PathKind.PREFIX:
                    prefixes.setdefault(path.text, []).append((one, path.before_regex))
                else:
                    self._searches.append((path_pattern(path).search, one))
        self._exact = {path: tuple(those) for path, those in exact.items()}
        self._prefixes = {path: tuple(those) for path, those in prefixes.items()}
        self._lengths = tuple(sorted({len(path) for path in prefixes}, reverse=True))

    def find(self, request: Request, peer: Peer) -> CompiledRoute | None:
        path = request.path
        if exact := self._exact.get(path):
            for route in exact:
                if route.holds is None or route.holds(request, peer):
                    return route
        longest, before_regex = self._longest_prefix(path, request, peer)
        if before_regex or not self._searches:
            return longest
        for search, route in self._searches:
            if search(path) and (route.holds is None or route.holds(request, peer)):
                return route
        return longest

    def _longest_prefix(self, path: str, request: Request, peer: Peer) -> tuple[CompiledRoute | None, bool]:
        for length in self._lengths:
            for route, before_regex in self._prefixes.get(path[:length], ()):
                if route.holds is None or route.holds(request, peer):
                    return route, before_regex
        return None, False
