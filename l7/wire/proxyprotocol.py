"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): who connected to the proxy in front.

It is read before anything else of a connection, from peers that the listener names. `parse_header` is handed
all bytes so far; bounds are 107 bytes for version 1 and `MAX_V2` for version 2. TLVs are skipped. Nothing is
guessed: a connection that should begin with a header and does not is refused.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from l4lb.model import Address

Endpoint = tuple[Address, int]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1 = 107
MAX_V2 = 16 + 4096
"""The addresses take 36 bytes at most, the rest are TLVs: certificates and the like."""

_FIXED = 16
_LOCAL, _PROXY = 0, 1
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,4}")
_V4, _V6 = struct.Struct("!4s4sHH"), struct.Struct("!16s16sHH")


class ProxyProtocolError(ValueError):
    """The connection does not begin with a sound header; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Both ends are None where the proxy speaks for itself or does not know the client."""

    length: int
    """In bytes; the connection's data begins behind it."""
    source: Endpoint | None = None
    destination: Endpoint | None = None


def parse_header(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with, or None where more is needed. Raises ProxyProtocolError."""
    if data[:1] == b"P":
        return _parse_v1(data)
    if data[:1] == SIGNATURE[:1]:
        return _parse_v2(data)
    if not data:
        return None
    raise ProxyProtocolError("neither PROXY nor the signature of version 2")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if not data.startswith(b"PROXY "[: len(data)]) or len(data) >= MAX_V1:
            raise ProxyProtocolError(
                f"version 1 has no line of at most {MAX_V1} bytes that begins with PROXY"
            )
        return None
    words = data[:end].split(b" ")
    if words[0] != b"PROXY" or len(words) < 2:
        raise ProxyProtocolError("version 1 begins with something else than PROXY")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end + 2)
    if words[1] not in (b"TCP4", b"TCP6") or len(words) != 6:
        raise ProxyProtocolError("version 1 is not PROXY TCP4 or TCP6 with two addresses and two ports")
    addresses = [_read_address(words[1], word) for word in words[2:4]]
    ports = [_read_port(word) for word in words[4:]]
    return ProxyHeader(end + 2, (addresses[0], ports[0]), (addresses[1], ports[1]))


def _read_address(family: bytes, word: bytes) -> Address:
    try:
        if b"%" in word:
            raise ValueError
        text = word.decode("ascii")
        return IPv4Address(text) if family == b"TCP4" else IPv6Address(text)
    except ValueError:
        raise ProxyProtocolError(f"version 1 has an address that is none: {word[:45]!r}") from None


def _read_port(word: bytes) -> int:
    if not _NUMBER.fullmatch(word) or int(word) > 65535:
        raise ProxyProtocolError(f"version 1 has a port that is none: {word[:8]!r}")
    return int(word)


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if not data.startswith(SIGNATURE[: len(data)]):
        raise ProxyProtocolError("version 2 has a wrong signature")
    if len(data) < _FIXED:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"version 2 has an unknown version or command: 0x{data[12]:02x}")
    length = _FIXED + int.from_bytes(data[14:16])
    if length > MAX_V2:
        raise ProxyProtocolError(f"version 2 has {length} bytes, more than {MAX_V2}")
    shape = {_TCP4: _V4, _TCP6: _V6}.get(family) if command == _PROXY else None
    if command == _PROXY and shape is None and family not in (_UNSPEC, _UNIX):
        raise ProxyProtocolError(f"version 2 speaks of something else than a stream: 0x{family:02x}")
    if shape is not None and length < _FIXED + shape.size:
        raise ProxyProtocolError("version 2 is shorter than its addresses")
    if len(data) < length:
        return None
    if shape is None:
        return ProxyHeader(length)
    source, destination, source_port, destination_port = shape.unpack_from(data, _FIXED)
    kind = IPv4Address if shape is _V4 else IPv6Address
    return ProxyHeader(length, (kind(source), source_port), (kind(destination), destination_port))


def build_header(version: int, source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """A header for a backend; None for both ends: the proxy speaks for itself, as in a health check.

    Ends of different families are both written as IPv6 (RFC 4291, section 2.5.5.2).
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + bytes((0x20, _UNSPEC, 0, 0))
    ends = source, destination
    if source[0].version != destination[0].version:
        ends = (_widen(source[0]), source[1]), (_widen(destination[0]), destination[1])
    is_v4 = ends[0][0].version == 4
    if version == 1:
        family = "TCP4" if is_v4 else "TCP6"
        return f"PROXY {family} {ends[0][0]} {ends[1][0]} {ends[0][1]} {ends[1][1]}\r\n".encode("ascii")
    shape = _V4 if is_v4 else _V6
    start = struct.pack("!BBH", 0x20 | _PROXY, _TCP4 if is_v4 else _TCP6, shape.size)
    return SIGNATURE + start + shape.pack(ends[0][0].packed, ends[1][0].packed, ends[0][1], ends[1][1])


def _widen(address: Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(bytes(10) + b"\xff\xff" + address.packed)
