"""A route made ready: what the proxy reads of it for each request."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from l7.model import PathKind, PathMatch, Route
from l7.request import Peer, Request
from l7.routing.conditions import all_hold, compile_conditions
from l7.routing.edits import compile_edits
from l7.routing.paths import escape_path
from l7.routing.rewriting import compile_rewrite
from l7.routing.templates import Variable, compile_template


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that needs no backend. `headers` are lines, each ended by CR LF, without those of framing."""

    status: int
    headers: bytes
    body: bytes


class CompiledRoute:
    """A route of the model with everything compiled. docs/design/proxy.md has its attributes.

    `conditions` are what it asks besides host, path and listener; `holds` is one function for all of them.
    """

    __slots__ = (
        "_ends",
        "_location",
        "_rewrite",
        "conditions",
        "holds",
        "name",
        "number",
        "pool",
        "request_edits",
        "response_edits",
        "route",
    )

    def __init__(self, route: Route, number: int) -> None:
        self.route = route
        self.number = number
        self.name = route.name
        self.conditions = compile_conditions(route.match)
        self.holds = all_hold(self.conditions)
        self.pool = route.shares[0].pool if len(route.shares) == 1 else None
        self._ends = list(accumulate(share.weight for share in route.shares))
        self.request_edits = compile_edits(route.request_headers)
        self.response_edits = compile_edits(route.response_headers)
        self._rewrite = compile_rewrite(route.rewrite, route.match.paths) if route.rewrite else None
        self._location = (
            compile_template(route.redirect.to, lambda number: _capture(route.match.paths, number))
            if route.redirect
            else None
        )

    def choose(self, chance: int) -> str:
        """The pool for a request. `chance` has 32 bits; equal ones choose equally."""
        at = bisect_right(self._ends, chance * self._ends[-1] >> 32)
        return self.route.shares[at].pool

    def target(self, request: Request) -> bytes:
        """What the backend is asked for."""
        return self._rewrite(request) if self._rewrite is not None else request.target

    def answer(self, request: Request, peer: Peer) -> Answer | None:
        """The answer of a redirect or a fixed one, edits included; None where a pool is to be asked."""
        redirect, respond = self.route.redirect, self.route.respond
        if redirect is not None and self._location is not None:
            lines = [(b"Location", self._location.render(request, peer))]
            status, body = redirect.status, b""
        elif respond is not None:
            lines = [(b"Content-Type", respond.content_type)] if respond.body else []
            status, body = respond.status, respond.body
        else:
            return None
        edits = self.response_edits
        dropped = edits.names if edits else frozenset()
        kept = [name + b": " + value + b"\r\n" for name, value in lines if name.lower() not in dropped]
        if edits:
            kept.append(edits.lines(request, peer))
        return Answer(status, b"".join(kept), body)


def path_pattern(path: PathMatch) -> re.Pattern[str]:
    """The compiled regular expression of a path."""
    return re.compile(path.text, re.IGNORECASE if path.ignore_case else 0)


def _capture(paths: tuple[PathMatch, ...], number: int) -> Variable:
    """A group of the first of the route's expressions that the path has, escaped for a URL."""
    patterns = [path_pattern(path) for path in paths if path.kind is PathKind.REGEX]
    if not patterns or any(pattern.groups < number for pattern in patterns):
        raise ValueError(f"${number} is a group that the route's path has not; add it to its expression")

    def value(request: Request, peer: Peer) -> bytes:
        for pattern in patterns:
            if found := pattern.search(request.path):
                return escape_path(found[number] or "")
        return b""

    return value
