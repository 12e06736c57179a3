"""Who speaks on a connection, and what backends are told of it."""

from __future__ import annotations

import ssl
from asyncio import BaseTransport
from collections.abc import Callable
from functools import lru_cache

from cryptography import x509

from l7.http1.build import Forwarding
from l7.model import Listener
from l7.wire.forwarded import HasHeaders, believe, lines_of
from l7.wire.peer import Peer, TlsInfo, make_peer
from l7.wire.proxyprotocol import ProxyHeader
from l7.wire.trust import Trust

Told = tuple[Peer, Forwarding]
"""Who the client is, and the headers that say so."""


def introduce(listener: Listener, transport: BaseTransport, header: ProxyHeader | None = None) -> Told:
    """The client of a connection that has just been accepted; `header` is what a PROXY header said of it."""
    client = transport.get_extra_info("peername")
    local = transport.get_extra_info("sockname")
    if header is not None and header.source is not None and header.destination is not None:
        client = (str(header.source[0]), header.source[1])
        local = (str(header.destination[0]), header.destination[1])
    connection = transport.get_extra_info("ssl_object")
    scheme = b"http" if connection is None else b"https"
    tls = None if connection is None else _describe(connection)
    peer = make_peer(listener.name, scheme, client[:2], local[:2], tls)
    return peer, _forwarding(scheme, peer.address, peer.local_address, peer.local_port)


@lru_cache(maxsize=4096)
def _forwarding(scheme: bytes, address: str, local_address: str, local_port: int) -> Forwarding:
    """What backends are told of a client: the same for all its connections."""
    return Forwarding(lines_of(make_peer("", scheme, (address, 0), (local_address, local_port))))


def make_believer(trust: Trust) -> Callable[[HasHeaders, Peer], Told | None] | None:
    """The function that says who a request is from by its headers, and None where its sender is not trusted.
    None where nobody is."""
    if not trust:
        return None

    def told(request: HasHeaders, peer: Peer) -> Told | None:
        if not trust.covers(peer.packed):
            return None
        client, lines = believe(request, peer, trust)
        return client, Forwarding(lines)

    return told


def _describe(connection: ssl.SSLObject) -> TlsInfo:
    cipher = connection.cipher()
    certificate = connection.getpeercert(binary_form=True)
    subject = ""
    if certificate:
        subject = x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    return TlsInfo(
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        server_name=getattr(connection, "l7_server_name", None),
        subject=subject,
        verification="SUCCESS" if certificate else "NONE",
    )
