"""Which answers a backend may send: the source ports of its endpoint, and the listens behind them.

Every listen of a service is a *claim* on the endpoint of each of its backends: a backend with a port answers
from that port, one that keeps ports from all ports of the listen. Where several services, or several
listens of one, share a backend, claims overlap; `sweep` cuts them into disjoint segments, each with the
claims on all of its ports, in the order of the configuration.

Only NAT makes claims: with direct return and in tunnels backends answer the clients themselves, and
masqueraded answers go to an address of the pool.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from l4lb.model import Forward, Protocol, Service


class Claim(NamedTuple):
    """Listen `listen` of service `service`, answered by its backend `backend` from these source ports.

    The numbers are positions in the configuration, so claims sort in its order.
    """

    service: int
    backend: int
    listen: int
    first: int
    last: int


def collect_claims(services: Iterable[Service]) -> dict[tuple[bytes, Protocol], list[Claim]]:
    """The claims on each backend address and protocol, in the order of the configuration."""
    claims: dict[tuple[bytes, Protocol], list[Claim]] = {}
    for s, service in enumerate(services):
        if service.forward is not Forward.NAT:
            continue
        for b, backend in enumerate(service.backends):
            address = backend.address.packed
            for n, listen in enumerate(service.listens):
                first, last = backend.port or listen.first_port, backend.port or listen.last_port
                claims.setdefault((address, listen.protocol), []).append(Claim(s, b, n, first, last))
    return claims


def sweep(claims: list[Claim]) -> Iterator[tuple[int, int, tuple[Claim, ...]]]:
    """Disjoint segments (first port, last port, claims) in ascending order; gaps are left out.

    A generator, so that a check that finds too many claims stops before their number multiplies.
    """
    edges = sorted(
        edge for claim in claims for edge in ((claim.first, True, claim), (claim.last + 1, False, claim))
    )
    active: list[Claim] = []
    begin = 0
    for port, here in groupby(edges, key=lambda edge: edge[0]):
        if active:
            yield begin, port - 1, tuple(active)
        for _, opens, claim in here:
            if opens:
                insort(active, claim)
            else:
                active.remove(claim)
        begin = port
