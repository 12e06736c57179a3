"""What routing reads of a request and of who sent it; `PlainRequest` for everything but the proxy's path.

The path's own request is `RequestHead` of `ext/l7/http1`, offsets into a buffer; both offer `Request`, the
contract of docs/design/proxy.md, where the attributes are described.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from l7.routing.paths import split_target

_NO_ID = b"0" * 32


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
    """Who sent a request: `l7.wire.peer.Peer`."""

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
    """What routing, balancing and logs read of a request."""

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


class PlainRequest:
    """A request of plain values. Raises ValueError where its target is none that is served."""

    __slots__ = ("_headers", "authority", "host", "id", "method", "path", "query", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]] = (), id: bytes = _NO_ID
    ) -> None:
        self.method = method
        self.target = target
        self._headers = list(headers)
        self.id = id
        self.authority = self.header(b"host") or b""
        self.host = host_of(self.authority)
        self.path, self.query = split_target(target)

    def header(self, name: bytes, /) -> bytes | None:
        """The value of a header, several joined; `name` in lower case."""
        found = [value for key, value in self._headers if key.lower() == name]
        return (b"; " if name == b"cookie" else b", ").join(found) if found else None

    def cookie(self, name: bytes, /) -> bytes | None:
        """The first cookie of that name (RFC 6265, section 5.4)."""
        for pair in (self.header(b"cookie") or b"").split(b";"):
            key, equals, value = pair.strip(b" \t").partition(b"=")
            if equals and key == name:
                return value
        return None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All, as sent."""
        return self._headers


def host_of(authority: bytes) -> str:
    """The host of a Host header, as routes name it: lower case, without port and final dot."""
    text = authority.decode("ascii", "surrogateescape").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].removesuffix(".")
