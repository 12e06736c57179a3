"""Why a request takes its route: the rules of `router` read literally, route by route.

This is the slow twin of the tables, for `explain` and as the oracle of their tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l7.model import PathKind, PathMatch
from l7.request import Peer, Request
from l7.routing.compiled import CompiledRoute, path_pattern


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route and what the rules say of it. `matches` is whether it could have served the request."""

    route: CompiledRoute
    matches: bool
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """`route` is None where there is none; `candidates` has every route in the order of the file."""

    route: CompiledRoute | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """One host and path of a route by which a request fits it."""

    route: CompiledRoute
    host: str
    path: PathMatch

    @property
    def host_rank(self) -> int:
        """Exact before wildcards before none; a longer wildcard before a shorter one."""
        return 0 if not self.host else len(self.host) if self.host.startswith("*") else 1 << 16


_ANY_PATH = PathMatch(PathKind.PREFIX, "")


def reason(routes: Sequence[CompiledRoute], request: Request, peer: Peer) -> Reasoning:
    """Which of `routes` the request takes, and what is to be said of the others."""
    lacks = {one.number: _lack(one, request, peer) for one in routes}
    ways = [
        _Way(one, host, path)
        for one in routes
        if lacks[one.number] is None
        for host in _fitting_hosts(one, request.host)
        for path in _fitting_paths(one, request.path)
    ]
    best = _best(ways)
    candidates = []
    for one in routes:
        lack = lacks[one.number]
        if best is not None and one is best.route:
            candidates.append(Candidate(one, True, f"taken: {_how(best)}"))
        elif lack is None and best is not None:
            own = _best([way for way in ways if way.route is one])
            candidates.append(Candidate(one, True, _loses(own or best, best)))
        else:
            candidates.append(Candidate(one, False, lack or ""))
    return Reasoning(best.route if best else None, tuple(candidates))


def _lack(one: CompiledRoute, request: Request, peer: Peer) -> str | None:
    """What the route asks for and the request has not."""
    match = one.route.match
    if match.listeners and peer.listener not in match.listeners:
        return f"listener is {peer.listener}, not {' or '.join(match.listeners)}"
    if not _fitting_hosts(one, request.host):
        return f"host is {request.host or 'not given'}, not {' or '.join(match.hosts)}"
    if not _fitting_paths(one, request.path):
        return f"path is {request.path}, not {' or '.join(map(describe_path, match.paths))}"
    for condition in one.conditions:
        if not condition.holds(request, peer):
            return f"does not hold: {condition.text}"
    return None


def _fitting_hosts(one: CompiledRoute, host: str) -> list[str]:
    if not one.route.match.hosts:
        return [""]
    return [
        wanted
        for wanted in one.route.match.hosts
        if wanted == host
        or (wanted.startswith("*") and host.endswith(wanted[1:]) and len(host) >= len(wanted))
    ]


def _fitting_paths(one: CompiledRoute, path: str) -> list[PathMatch]:
    return [wanted for wanted in one.route.match.paths or (_ANY_PATH,) if _fits(wanted, path)]


def _fits(wanted: PathMatch, path: str) -> bool:
    if wanted.kind is PathKind.EXACT:
        return path == wanted.text
    if wanted.kind is PathKind.PREFIX:
        return path.startswith(wanted.text)
    return path_pattern(wanted).search(path) is not None


def _best(ways: list[_Way]) -> _Way | None:
    """The rules one after the other; within each what is first in the file."""
    if not ways:
        return None
    priority = max(way.route.route.priority for way in ways)
    ways = [way for way in ways if way.route.route.priority == priority]
    rank = max(way.host_rank for way in ways)
    ways = [way for way in ways if way.host_rank == rank]
    if exact := [way for way in ways if way.path.kind is PathKind.EXACT]:
        return exact[0]
    prefixes = [way for way in ways if way.path.kind is PathKind.PREFIX]
    longest = max(prefixes, key=lambda way: len(way.path.text), default=None)
    if longest and longest.path.before_regex:
        return longest
    return next((way for way in ways if way.path.kind is PathKind.REGEX), longest)


def _how(way: _Way) -> str:
    host = f"host {way.host}" if way.host else "any host"
    return f"{host}, {describe_path(way.path) if way.path.text else 'any path'}"


def _loses(own: _Way, best: _Way) -> str:
    """Why `own` fits and still does not get the request."""
    name = f"route {best.route.name}"
    if own.route.route.priority != best.route.route.priority:
        return f"fits, but {name} has the higher priority {best.route.route.priority}"
    if own.host_rank != best.host_rank:
        return f"fits, but {name} names the host more exactly ({best.host})"
    if (own.path.kind, own.path.text) == (best.path.kind, best.path.text):
        return f"fits, but {name} asks for the same and stands earlier in the file"
    if best.path.kind is PathKind.EXACT:
        return f"fits, but {name} has the exact path"
    if best.path.kind is PathKind.REGEX:
        if own.path.kind is PathKind.REGEX:
            return f"fits, but the expression of {name} stands earlier in the file"
        return f"fits, but {name} has a regular expression, which is asked before prefixes"
    if own.path.kind is PathKind.REGEX:
        return f"fits, but the prefix {best.path.text} of {name} is before regular expressions"
    return f"fits, but {name} has the longer prefix {best.path.text}"


def describe_path(path: PathMatch) -> str:
    """A path in words: `exactly /x`, `/x…`, `~ ^/x`."""
    if path.kind is PathKind.EXACT:
        return f"exactly {path.text}"
    if path.kind is PathKind.PREFIX:
        return f"{path.text}… (before expressions)" if path.before_regex else f"{path.text}…"
    return f"expression {path.text}{' (any case)' if path.ignore_case else ''}"
