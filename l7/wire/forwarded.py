"""Forwarding headers: who the client is behind proxies, and what the next server is told.

What a request says about its client is believed only where the peer is a proxy of ours
(`trusted_proxies`), and then as far as the chain of such proxies goes. X-Forwarded-For is read from its
right end, which the peer wrote: the first address that is no trusted proxy's is the client, and what
stands further to the left was written by that client. Forwarded (RFC 7239) is read where there is no
X-Forwarded-For; a proxy that writes the one may well pass on the other as the client sent it. No more
than `MAX_HOPS` are looked at.

The next server is told all of it anew, so that it need not know whom we trust: what untrusted peers say is
replaced, what trusted ones say is added to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

from l7.wire.peer import Peer
from l7.wire.rfc7239 import Node, parse_elements, parse_node
from l7.wire.trust import Trust

Line = tuple[bytes, bytes, tuple[bytes, bytes] | None]
"""A header: name, value, and what stands around the client's Host behind that, if it is to stand there. Of a
request without Host nothing of it is written, and no header where the value is empty, too."""

MAX_HOPS = 32

LONGEST_KEPT = 512
"""Bytes of headers up to which what was found is kept (1024 times) for the next request that says the same: a
client sends more than one, and to read the addresses takes 20 µs."""

_SCHEME = re.compile(rb"https?", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PORT = re.compile(rb"[0-9]{1,5}")


class HasHeaders(Protocol):
    """What is asked of a request."""

    def header(self, name: bytes, /) -> bytes | None:
        """The value of a header, several joined; `name` in lower case."""


class Said(NamedTuple):
    """What a request says of its client; None for headers that are not there."""

    chain: bytes | None
    schemes: bytes | None
    hosts: bytes | None
    ports: bytes | None
    elements: bytes | None

    def size(self) -> int:
        """In bytes."""
        return sum([len(value) for value in self if value is not None])


NAMES = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded")
"""Of the headers, in the order of `Said`."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A client as the proxy that it spoke to describes it; None for what that does not say."""

    node: Node
    scheme: bytes | None = None
    host: bytes | None = None


def lines_of(peer: Peer) -> tuple[Line, ...]:
    """The headers about a peer that is not trusted: the same for all requests of its connection."""
    return _lines(peer, peer, None, b"%d" % peer.local_port, b"")


def believe(request: HasHeaders, peer: Peer, trust: Trust) -> tuple[Peer, tuple[Line, ...]]:
    """The client that a trusted peer's request is from, and the headers that say so to the next server.

    `peer` itself is the client where nothing is said of another.
    """
    said = Said(*[request.header(name) for name in NAMES])
    if said.size() > LONGEST_KEPT:
        return _believe(said, peer, trust)
    client, lines = _believe_kept(said, _without_port(peer), trust)
    if client.port == 0 and client.packed == peer.packed:
        client = replace(client, port=peer.port)
    return client, lines


@lru_cache(maxsize=1024)
def _without_port(peer: Peer) -> Peer:
    """What connections of one proxy have in common, so that what was found for one serves the others."""
    return replace(peer, port=0)


def _believe(said: Said, peer: Peer, trust: Trust) -> tuple[Peer, tuple[Line, ...]]:
    chain = said.chain
    described = None if said.elements is None else parse_elements(said.elements)
    if chain is not None:
        hops = _hops_of_lists(chain, said.schemes)
    else:
        hops = _hops_of_elements(described or ())
        chain = b", ".join([hop.node.address.encode("ascii") for hop in hops])
    elements = said.elements
    if elements is None or described is None:
        elements = b", ".join([b"for=" + hop.node.value for hop in hops])
    found = _client(hops, peer, trust)
    scheme = found.scheme if hops else _last(said.schemes, _SCHEME)
    own = peer.address.encode("ascii")
    client = Peer(
        found.node.address,
        found.node.packed,
        found.node.port,
        peer.listener,
        scheme.lower() if scheme else peer.scheme,
        peer.local_address,
        peer.local_port,
        chain + b", " + own if chain else own,
        peer.tls,
    )
    host = found.host or _last(said.hosts, _HOST)
    port = _last(said.ports, _PORT) or b"%d" % peer.local_port
    return client, _lines(client, peer, host, port, elements + b", " if elements else b"")


_believe_kept = lru_cache(maxsize=1024)(_believe)


def _client(hops: Sequence[Hop], peer: Peer, trust: Trust) -> Hop:
    """The first from the right that is no trusted proxy; else the leftmost; the peer where there is none."""
    for hop in reversed(hops):
        if not trust.covers(hop.node.packed):
            return hop
    return hops[0] if hops else Hop(Node(peer.address, peer.packed, peer.port))


def _hops_of_lists(chain: bytes, protocols: bytes | None) -> list[Hop]:
    """Of X-Forwarded-For, as far from its right end as it holds addresses. X-Forwarded-Proto goes along with
    it; its first item is for all that are further to the left."""
    schemes = _items(protocols)
    hops: list[Hop] = []
    for item in reversed(_items(chain)):
        node = parse_node(item)
        if node is None:
            break
        scheme = schemes[max(len(schemes) - 1 - len(hops), 0)]
        hops.append(Hop(node, scheme if _SCHEME.fullmatch(scheme) else None))
    hops.reverse()
    return hops


def _hops_of_elements(elements: Sequence[Mapping[bytes, bytes]]) -> list[Hop]:
    """Of Forwarded, as far from its right end as it names addresses."""
    hops: list[Hop] = []
    for element in reversed(elements[-MAX_HOPS:]):
        node = parse_node(element.get(b"for", b""))
        if node is None:
            break
        scheme, host = element.get(b"proto", b""), element.get(b"host", b"")
        hops.append(
            Hop(
                node,
                scheme if _SCHEME.fullmatch(scheme) else None,
                host if _HOST.fullmatch(host) else None,
            )
        )
    hops.reverse()
    return hops


def _items(value: bytes | None) -> list[bytes]:
    """The last items of a list; one empty item where there is no header."""
    return [item.strip(b" \t") for item in (value or b"").rsplit(b",", MAX_HOPS)[-MAX_HOPS:]]


def _last(value: bytes | None, shape: re.Pattern[bytes]) -> bytes | None:
    """What the peer itself wrote: the last item, if it has the right shape."""
    item = _items(value)[-1]
    return item if shape.fullmatch(item) else None


def _lines(client: Peer, peer: Peer, host: bytes | None, port: bytes, elements: bytes) -> tuple[Line, ...]:
    """`elements` stand in front of this proxy's own element, which is about its peer."""
    node = Node(peer.address, peer.packed)
    own = b"for=" + node.value + b";proto=" + peer.scheme
    return (
        (b"X-Forwarded-For", client.forwarded_for, None),
        (b"X-Forwarded-Proto", client.scheme, None),
        (b"X-Forwarded-Host", b"", (b"", b"")) if host is None else (b"X-Forwarded-Host", host, None),
        (b"X-Forwarded-Port", port, None),
        (b"X-Real-IP", client.address.encode("ascii"), None),
        (b"Forwarded", elements + own, (b';host="', b'"')),
    )
