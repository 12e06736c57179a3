"""How one of several backends is chosen.

A scheduler is asked with the backends that may be chosen now, at least one, each with an effective weight
above 0, and answers with one of them. What it has to remember stands in the servers (`current`, `active`,
`average_s`), so a list that changes between two calls needs no telling. Only hashing builds something for a
list, and builds it again when the list is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from l4lb.dataplane.hashing import maglev_permutation, maglev_table, siphash
from l7.balancing.server import Server
from l7.model import HashBy, Scheduler
from l7.request import Peer, Request

_TABLE_SIZES = (2039, 8191, 65537)
"""Primes. A table has room for every backend a hundred times, so that shares are right within a percent."""
_PLACES_A_BACKEND = 100

Choose = Callable[[Sequence[Server], Request, Peer], Server]


def make_scheduler(kind: Scheduler, hash_by: HashBy | None, key: bytes, random: Random) -> Choose:
    """The chooser of a pool. `key` has 16 bytes and keys its hashes."""
    if kind in (Scheduler.SOURCE_HASH, Scheduler.CONSISTENT_HASH):
        return HashScheduler(hash_by if kind is Scheduler.CONSISTENT_HASH else None, key)
    if kind is Scheduler.POWER_OF_TWO:
        return PowerOfTwo(random)
    return _SIMPLE[kind]


def round_robin(servers: Sequence[Server], _request: Request, _peer: Peer) -> Server:
    """One after the other, weights or not: each server's account grows by one a turn."""
    best = servers[0]
    for server in servers:
        server.current += 1
        if server.current > best.current:
            best = server
    best.current -= len(servers)
    return best


def weighted_round_robin(servers: Sequence[Server], _request: Request, _peer: Peer) -> Server:
    """Smooth weighted round-robin, as in nginx: every account grows by its weight, the richest pays for
    all."""
    best = servers[0]
    total = 0
    for server in servers:
        weight = server.effective_weight
        total += weight
        server.current += weight
        if server.current > best.current:
            best = server
    best.current -= total
    return best


def least_connections(servers: Sequence[Server], request: Request, peer: Peer) -> Server:
    """The one with the fewest requests; among equals in turn."""
    fewest = min(server.active for server in servers)
    return round_robin([server for server in servers if server.active == fewest], request, peer)


def weighted_least_connections(servers: Sequence[Server], request: Request, peer: Peer) -> Server:
    """The one with the fewest requests for its weight; among equals in turn, by weight."""
    best: list[Server] = []
    for server in servers:
        if best:
            first = best[0]
            # a/b < c/d without fractions
            left = server.active * first.effective_weight
            right = first.active * server.effective_weight
            if left > right:
                continue
            if left < right:
                best = []
        best.append(server)
    return weighted_round_robin(best, request, peer) if len(best) > 1 else best[0]


def least_time(servers: Sequence[Server], request: Request, peer: Peer) -> Server:
    """The one that answers soonest: average time times (requests that it has + 1) / weight; among equals, and
    where nothing is known yet, in turn."""
    scores = [(server.average_s * (server.active + 1) / server.effective_weight) for server in servers]
    least = min(scores)
    best = [server for server, score in zip(servers, scores, strict=True) if score == least]
    return weighted_round_robin(best, request, peer) if len(best) > 1 else best[0]


_SIMPLE: dict[Scheduler, Choose] = {
    Scheduler.ROUND_ROBIN: round_robin,
    Scheduler.WEIGHTED_ROUND_ROBIN: weighted_round_robin,
    Scheduler.LEAST_CONNECTIONS: least_connections,
    Scheduler.WEIGHTED_LEAST_CONNECTIONS: weighted_least_connections,
    Scheduler.LEAST_TIME: least_time,
}


class PowerOfTwo:
    """Two by chance, by weight, and of them the one with fewer requests for its weight."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, servers: Sequence[Server], _request: Request, _peer: Peer) -> Server:
        """The better of two."""
        if len(servers) == 1:
            return servers[0]
        weights = [server.effective_weight for server in servers]
        first, second = self._random.choices(servers, weights, k=2)
        if first is second:
            return first
        is_less = second.active * first.effective_weight < first.active * second.effective_weight
        return second if is_less else first


class HashScheduler:
    """The same key, the same backend, and few keys move when the list changes: Maglev, as in tier 1.

    Tables of the last few lists are kept, for a full backend leaves the list and comes back with every
    request.
    """

    _KEPT_TABLES = 8

    def __init__(self, by: HashBy | None, key: bytes) -> None:
        self._by = by
        self._key = key
        self._tables: dict[tuple[tuple[str, int], ...], list[int]] = {}

    def __call__(self, servers: Sequence[Server], request: Request, peer: Peer) -> Server:
        """The one at the key's place in the table."""
        table = self._table(servers)
        return servers[table[siphash(self._key, self._what(request, peer)) % len(table)]]

    def _what(self, request: Request, peer: Peer) -> bytes:
        """The bytes that are hashed. A request without the header or cookie is hashed by its client, for all
        of them on one backend would be too many."""
        if self._by is None:
            return peer.packed
        if self._by.kind == "uri":
            return request.target
        value = request.header(self._by.name) if self._by.kind == "header" else request.cookie(self._by.name)
        return value or peer.packed

    def _table(self, servers: Sequence[Server]) -> list[int]:
        identity = tuple([(server.name, server.effective_weight) for server in servers])
        table = self._tables.get(identity)
        if table is None:
            wanted = len(servers) * _PLACES_A_BACKEND
            size = next((size for size in _TABLE_SIZES if size >= wanted), _TABLE_SIZES[-1])
            table = maglev_table(
                [maglev_permutation(self._key, server.name.encode(), size) for server in servers],
                [server.effective_weight for server in servers],
                size,
            )
            if len(self._tables) >= self._KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[identity] = table
        return table
