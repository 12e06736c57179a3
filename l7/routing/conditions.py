"""What a route asks of a request besides host and path, compiled to functions that know what they ask.

Listeners are not among them: routers have a table for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from l4lb.model import Network
from l7.model import Match, ValueMatch
from l7.request import Peer, Request

Holds = Callable[[Request, Peer], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """`text` says what is asked for, as in `method is GET or HEAD`."""

    text: str
    holds: Holds


def compile_conditions(match: Match) -> tuple[Condition, ...]:
    """The conditions of a match, the cheapest first."""
    found: list[Condition] = []
    if match.methods:
        found.append(_method(match.methods))
    if match.clients:
        found.append(_client(match.clients))
    found += [_header(one) for one in match.headers]
    found += [_cookie(one) for one in match.cookies]
    found += [_parameter(one) for one in match.query]
    return tuple(found)


def all_hold(conditions: tuple[Condition, ...]) -> Holds | None:
    """One function for all of them; None where there is nothing to ask."""
    if not conditions:
        return None
    if len(conditions) == 1:
        return conditions[0].holds
    functions = tuple(one.holds for one in conditions)

    def holds(request: Request, peer: Peer) -> bool:
        return all(function(request, peer) for function in functions)

    return holds


def _method(methods: tuple[bytes, ...]) -> Condition:
    wanted = frozenset(methods)
    names = " or ".join(method.decode() for method in methods)
    return Condition(f"method is {names}", lambda request, peer: request.method in wanted)


def _client(networks: tuple[Network, ...]) -> Condition:
    by_size: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
    for network in networks:
        shift = network.max_prefixlen - network.prefixlen
        by_size[network.max_prefixlen // 8].append((int(network.network_address) >> shift, shift))

    def holds(request: Request, peer: Peer) -> bool:
        number = int.from_bytes(peer.packed)
        return any(number >> shift == prefix for prefix, shift in by_size[len(peer.packed)])

    return Condition(f"client is in {' or '.join(map(str, networks))}", holds)


def _header(match: ValueMatch) -> Condition:
    name = match.name.lower().encode()

    def values(request: Request) -> Iterable[bytes]:
        value = request.header(name)
        return () if value is None else (value,)

    return _value("header", match, values)


def _cookie(match: ValueMatch) -> Condition:
    name = match.name.encode()

    def values(request: Request) -> Iterable[bytes]:
        value = request.cookie(name)
        return () if value is None else (value,)

    return _value("cookie", match, values)


def _parameter(match: ValueMatch) -> Condition:
    """A parameter may come several times; one that fits is enough."""
    name = match.name.encode()

    def values(request: Request) -> Iterable[bytes]:
        for pair in request.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if pair and _decoded(key) == name:
                yield _decoded(value)

    return _value("query parameter", match, values)


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _value(what: str, match: ValueMatch, values: Callable[[Request], Iterable[bytes]]) -> Condition:
    negate = match.negate
    if match.value is not None:
        wanted = match.value.encode()
        text = f'{what} {match.name} is {"not " if negate else ""}"{match.value}"'
        return Condition(text, lambda request, peer: (wanted in values(request)) is not negate)
    if match.pattern is not None:
        search = re.compile(match.pattern).search
        text = f'{what} {match.name} {"does not match" if negate else "matches"} "{match.pattern}"'

        def holds(request: Request, peer: Peer) -> bool:
            found = any(search(value.decode("utf-8", "surrogateescape")) for value in values(request))
            return found is not negate

        return Condition(text, holds)
    text = f"{what} {match.name} is {'not ' if negate else ''}there"
    return Condition(text, lambda request, peer: any(True for _ in values(request)) is not negate)
