"""The name that a client asks for, read from its first bytes without taking part in the handshake.

For connections that are passed through undecrypted. The ClientHello (RFC 8446, section 4.1.2) may be spread
over several records (section 5.1) and, with post-quantum key shares, over several packets. Bounds: a hello
has at most `MAX_HELLO` bytes; every length is checked against what holds it. What is no ClientHello raises
ValueError, whose text is the counted reason.
"""

from __future__ import annotations

MAX_HELLO = 1 << 16
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_MAX_RECORD = 1 << 14


def server_name(data: bytes) -> str | None:
    """The name in lower case, `""` where none is asked for, None while `data` is not all of the hello."""
    hello = _hello(data)
    if hello is None:
        return None
    reader = _Reader(hello)
    reader.skip(2 + 32)  # version, random
    reader.skip(reader.number(1))  # session id
    reader.skip(reader.number(2))  # cipher suites
    reader.skip(reader.number(1))  # compression methods
    if reader.is_at_end:
        return ""
    extensions = reader.part(reader.number(2))
    while not extensions.is_at_end:
        kind = extensions.number(2)
        extension = extensions.part(extensions.number(2))
        if kind == _SERVER_NAME:
            return _host_name(extension)
    return ""


def _host_name(extension: _Reader) -> str:
    """RFC 6066, section 3: a list of names, of which there is one kind."""
    names = extension.part(extension.number(2))
    while not names.is_at_end:
        kind = names.number(1)
        name = names.part(names.number(2))
        if kind == _HOST_NAME:
            text = name.rest()
            if not text or not all(0x21 <= c <= 0x7E for c in text):
                raise ValueError("bad_server_name")
            return text.decode("ascii").lower().removesuffix(".")
    return ""


def _hello(data: bytes) -> bytes | None:
    """The body of the ClientHello, its records joined, or None while some of it is missing."""
    message = bytearray()
    at = 0
    while True:
        if len(data) > at and data[at] != _HANDSHAKE:
            raise ValueError("not_tls")
        if len(data) > at + 1 and data[at + 1] != 3:
            raise ValueError("not_tls")
        if len(data) < at + 5:
            return None
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise ValueError("not_tls")
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise ValueError("no_client_hello")
        if len(message) >= 4:
            size = int.from_bytes(message[1:4], "big")
            if size > MAX_HELLO:
                raise ValueError("hello_too_large")
            if len(message) >= 4 + size:
                return bytes(message[4 : 4 + size])
        at += 5 + length
        if at > len(data):
            return None


class _Reader:
    """Big-endian numbers and parts of known length, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def part(self, size: int) -> _Reader:
        return _Reader(self._take(size))

    def skip(self, size: int) -> None:
        self._take(size)

    def rest(self) -> bytes:
        return self._take(len(self._data) - self._at)

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("bad_client_hello")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken
