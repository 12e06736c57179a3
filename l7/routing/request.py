"""A request of plain values, for everything but the proxy's path."""

from __future__ import annotations

from collections.abc import Iterable

from l7.routing.paths import split_target

_NO_ID = b"0" * 32


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
