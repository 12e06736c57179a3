"""Builds ICMP errors: one that came with other addresses in it, and new ones."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from l4lb.dataplane import internet_checksum as checksum
from l4lb.dataplane.icmp_parse import ICMP, ICMPV6, TCP, UDP, IcmpError, IpPacket, covered_bytes

QUOTED = {4: 548, 6: 1232}
"""Bytes that an error of ours quotes: all that fits into 576 bytes (RFC 1812) and into 1280 (RFC 4443)."""

_CHECKSUM_AT = {TCP: 16, UDP: 6}
_INTERNETWORK_CONTROL = 0xC0
_TTL = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of 4 or 16 bytes, and a port."""

    address: bytes
    port: int


def readdress(
    error: IcmpError,
    *,
    source: bytes | None = None,
    destination: bytes | None = None,
    quoted_source: Endpoint | None = None,
    quoted_destination: Endpoint | None = None,
    forwarded: bool = False,
) -> bytes:
    """The error from `source` to `destination`, about a packet between the quoted endpoints.

    None keeps what is there; addresses are of the family that they replace. One that is `forwarded` gets
    a hop older, for which its time to live must be above 1. The checksums in the quote change by what
    changed, as far as the quote reaches: one that was wrong stays wrong.
    """
    packet = bytearray(error.packet)
    quote = error.quote
    _replace(packet, quote, 0, quoted_source)
    _replace(packet, quote, 1, quoted_destination)
    outer = error.outer
    for which, address in enumerate((source, destination)):
        if address is not None:
            _write_address(packet, outer, which, address)
    if forwarded:
        age(packet)
    _write_checksum(packet, outer, source or outer.source, destination or outer.destination)
    return bytes(packet)


def age(packet: bytearray) -> None:
    """Takes one off the time to live of the IP packet, which must not be 0."""
    if packet[0] >> 4 == 6:
        packet[7] -= 1
        return
    old = bytes(packet[8:10])
    packet[8] -= 1
    _update(packet, 10, old, bytes(packet[8:10]))


def time_to_live(packet: bytes) -> int:
    """The time to live, or hop limit, of an IP packet."""
    return packet[8] if packet[0] >> 4 == 4 else packet[7]


def build_error(source: bytes, destination: bytes, kind: int, code: int, rest: bytes, quote: bytes) -> bytes:
    """An ICMP error of ours about `quote`, of which as much is quoted as is usual."""
    family = 4 if len(source) == 4 else 6
    message = struct.pack("!BBH", kind, code, 0) + rest + quote[: QUOTED[family]]
    if family == 4:
        header = struct.pack("!BBHHHBBH", 0x45, _INTERNETWORK_CONTROL, 20 + len(message), 0, 0, _TTL, ICMP, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, _TTL)
    packet = bytearray(header + source + destination + message)
    body = len(packet) - len(message)
    if family == 4:
        struct.pack_into("!H", packet, 10, checksum.compute(packet[:body]))
    covered = covered_bytes(message, source, destination)
    struct.pack_into("!H", packet, body + 2, checksum.compute(covered))
    return bytes(packet)


def _replace(packet: bytearray, quote: IpPacket, which: int, endpoint: Endpoint | None) -> None:
    """Writes the quoted source (0) or destination (1) and what the quote's checksums say of it."""
    if endpoint is None:
        return
    old = (quote.source, quote.destination)[which]
    old += (quote.source_port, quote.destination_port)[which].to_bytes(2, "big")
    new = endpoint.address + endpoint.port.to_bytes(2, "big")
    _write_address(packet, quote, which, endpoint.address)
    struct.pack_into("!H", packet, quote.body + 2 * which, endpoint.port)
    at = quote.body + _CHECKSUM_AT[quote.protocol]
    if at + 2 > quote.end:
        return
    if quote.protocol == TCP:
        _update(packet, at, old, new)
    elif quote.family == 6 or packet[at : at + 2] != b"\0\0":  # over IPv4, 0 says that there is none
        _update(packet, at, old, new)
        if packet[at : at + 2] == b"\0\0":
            packet[at : at + 2] = b"\xff\xff"


def _write_address(packet: bytearray, header: IpPacket, which: int, address: bytes) -> None:
    size = len(address)
    at = header.start + (12 if header.family == 4 else 8) + which * size
    old = bytes(packet[at : at + size])
    packet[at : at + size] = address
    if header.family == 4:
        _update(packet, header.start + 10, old, address)


def _write_checksum(packet: bytearray, outer: IpPacket, source: bytes, destination: bytes) -> None:
    at = outer.body + 2
    packet[at : at + 2] = b"\0\0"
    covered = covered_bytes(packet[outer.body : outer.end], source, destination)
    struct.pack_into("!H", packet, at, checksum.compute(covered))


def _update(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    (before,) = struct.unpack_from("!H", packet, at)
    struct.pack_into("!H", packet, at, checksum.update(before, old, new))
