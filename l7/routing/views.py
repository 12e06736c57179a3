"""Routes and decisions as rows and objects of plain values, for `l7lb routes` and `l7lb explain`."""

from __future__ import annotations

from typing import Any

from l7.model import Match, PathKind, PathMatch, Route
from l7.request import Peer, Request
from l7.routing.compiled import CompiledRoute
from l7.routing.conditions import compile_conditions
from l7.routing.edits import Edits
from l7.routing.reasoning import describe_path
from l7.routing.router import Router


def list_routes(router: Router) -> list[dict[str, Any]]:
    """`route`, `number` (the place in the file), `match`, `to` and `priority` of every route, in the order in
    which they are asked."""
    return [
        {
            "route": one.name,
            "number": one.number,
            "match": describe_match(one.route.match),
            "to": describe_action(one.route),
            "priority": one.route.priority,
        }
        for one in sorted(router.routes, key=_rank)
    ]


def explain(router: Router, request: Request, peer: Peer) -> dict[str, Any]:
    """What becomes of a request, up to its pool: JSON-able, all text.

    `route` (None: 404), `to`, `pools` with their weights, the `target` and the edited headers that a backend
    would be sent; for answers `status` and `headers`; and `candidates`, every route with the reason why it
    was taken or not.
    """
    reasoning = router.why(request, peer)
    chosen = reasoning.route
    found: dict[str, Any] = {
        "route": chosen.name if chosen else None,
        "to": describe_action(chosen.route) if chosen else "404, no route is for this",
        "host": request.host,
        "path": _text(request.path.encode("utf-8", "surrogateescape")),
    }
    if chosen:
        found |= _answer(chosen, request, peer) or _forwarding(chosen, request, peer)
    found["candidates"] = [
        {"route": one.route.name, "matches": one.matches, "why": one.text} for one in reasoning.candidates
    ]
    return found


def _answer(chosen: CompiledRoute, request: Request, peer: Peer) -> dict[str, Any] | None:
    answer = chosen.answer(request, peer)
    if answer is None:
        return None
    return {"status": answer.status, "headers": _lines(answer.headers), "body_bytes": len(answer.body)}


def _forwarding(chosen: CompiledRoute, request: Request, peer: Peer) -> dict[str, Any]:
    return {
        "pools": [{"pool": share.pool, "weight": share.weight} for share in chosen.route.shares],
        "target": _text(chosen.target(request)),
        "request_headers": _edited(chosen.request_edits, request, peer),
        "response_headers": _edited(chosen.response_edits, request, peer),
    }


def _edited(edits: Edits | None, request: Request, peer: Peer) -> dict[str, Any]:
    if edits is None:
        return {"removed": [], "added": []}
    added = _lines(edits.lines(request, peer))
    names = {line.partition(":")[0].lower() for line in added}
    removed = sorted(name.decode() for name in edits.names if name.decode() not in names)
    return {"removed": removed, "added": added}


def _lines(block: bytes) -> list[str]:
    return [_text(line) for line in block.split(b"\r\n") if line]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def describe_match(match: Match) -> str:
    """What a route asks for, in a line."""
    parts = [" or ".join(match.hosts) if match.hosts else "any host"]
    if match.paths:
        parts.append(" or ".join(map(describe_path, match.paths)))
    parts += [condition.text for condition in compile_conditions(match)]
    if match.listeners:
        parts.append(f"listener is {' or '.join(match.listeners)}")
    return ", ".join(parts)


def describe_action(route: Route) -> str:
    """What becomes of a request, in a few words."""
    if route.redirect:
        return f"{route.redirect.status} to {route.redirect.to}"
    if route.respond:
        return f"answer {route.respond.status}"
    if len(route.shares) == 1:
        return f"pool {route.shares[0].pool}"
    return f"split {', '.join(f'{share.pool} {share.weight}' for share in route.shares)}"


def _rank(one: CompiledRoute) -> tuple[Any, ...]:
    """Priority, host, path, place in the file; of several hosts or paths the one that is asked first."""
    match = one.route.match
    hosts = min((_host_rank(host) for host in match.hosts), default=(2, 0))
    paths = min((_path_rank(path) for path in match.paths), default=(3, 0))
    return (-one.route.priority, hosts, paths, one.number)


def _host_rank(host: str) -> tuple[int, int]:
    return (1, -len(host)) if host.startswith("*") else (0, 0)


def _path_rank(path: PathMatch) -> tuple[int, int]:
    """Among regular expressions the place in the file decides."""
    if path.kind is PathKind.EXACT:
        return (0, 0)
    if path.kind is PathKind.REGEX:
        return (2, 0)
    return (1 if path.before_regex else 3, -len(path.text))
