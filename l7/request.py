"""What routing, balancing, templates and logs read of a request and of who sent it (docs/design/proxy.md,
"Contracts between the parts").

The path's own request is `RequestHead` of `ext/l7/http1`, offsets into a buffer; `l7.routing.request` has one
of plain values. The peer is `l7.wire.peer.Peer`.
"""

from __future__ import annotations

from typing import Protocol


class TlsInfo(Protocol):
    """What is known of a client's TLS connection."""

    @property
    def version(self) -> str:
        """`TLSv1.3`."""

    @property
    def cipher(self) -> str:
        """OpenSSL's name."""

    @property
    def server_name(self) -> str | None:
        """SNI."""

    @property
    def subject(self) -> str:
        """Of the client's certificate (RFC 2253), empty without one."""

    @property
    def verification(self) -> str:
        """`SUCCESS` or `NONE`."""


class Peer(Protocol):
    """Who sent a request."""

    @property
    def address(self) -> str:
        """As text."""

    @property
    def packed(self) -> bytes:
        """4 or 16 bytes."""

    @property
    def port(self) -> int:
        """The client's."""

    @property
    def listener(self) -> str:
        """The name of the listener that it came to."""

    @property
    def scheme(self) -> bytes:
        """`http` or `https`."""

    @property
    def local_address(self) -> str:
        """What it connected to."""

    @property
    def local_port(self) -> int:
        """What it connected to."""

    @property
    def forwarded_for(self) -> bytes:
        """The value of X-Forwarded-For that goes on."""

    @property
    def tls(self) -> TlsInfo | None:
        """None without TLS."""


class Request(Protocol):
    """What a client asks for."""

    @property
    def method(self) -> bytes:
        """As sent."""

    @property
    def target(self) -> bytes:
        """As sent."""

    @property
    def host(self) -> str:
        """Lower case, without port and final dot; empty for HTTP/1.0 without Host."""

    @property
    def authority(self) -> bytes:
        """The Host header as sent."""

    @property
    def path(self) -> str:
        """For matching: decoded, without dot segments and empty segments."""

    @property
    def query(self) -> bytes:
        """Behind the `?`."""

    @property
    def id(self) -> bytes:
        """32 hexadecimal digits."""

    def header(self, name: bytes, /) -> bytes | None:
        """The value of a header, several joined; `name` in lower case."""

    def cookie(self, name: bytes, /) -> bytes | None:
        """The first cookie of that name."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All, as sent."""
