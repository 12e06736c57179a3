"""Reads an ICMP error and the packet that it quotes.

Routers quote as little as the IP header and 8 bytes (RFC 792), so the quote is read only as far as
it is needed and what lies beyond is never taken for granted. Behind the quote there may be padding and
extensions (RFC 4884); they are no part of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from l4lb.dataplane import internet_checksum as checksum
from l4lb.dataplane.icmp_words import IcmpReason

ICMP, IPIP, TCP, UDP, IPV6, ICMPV6 = 1, 4, 6, 17, 41, 58
ICMP_HEADER = 8
MAX_EXTENSIONS = 8

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_ERRORS = {4: frozenset({3, 11, 12}), 6: frozenset({1, 2, 3, 4})}
_LENGTH_AT = {(4, 3): (5, 4), (4, 11): (5, 4), (4, 12): (5, 4), (6, 1): (4, 8), (6, 3): (4, 8)}
"""(family, type) to where the quote's length stands, and its unit in bytes."""


@dataclass(frozen=True, slots=True)
class IpPacket:
    """Where an IP packet's parts stand in the bytes around it.

    It begins at `start`, its protocol's header at `body`; it ends at `end`, or where the bytes do, if it
    was cut. `total` is the length that it had.
    """

    family: int
    start: int
    body: int
    end: int
    total: int
    source: bytes
    destination: bytes
    protocol: int
    offset: int
    """Of a fragment, 0 for the first one."""
    more: bool
    """Fragments follow."""
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True)
class IcmpError:
    """A whole ICMP error with a right checksum. `rest` are the last four bytes of the ICMP header."""

    packet: bytes
    outer: IpPacket
    kind: int
    code: int
    rest: bytes
    quote: IpPacket


def parse_error(packet: bytes) -> IcmpError | IcmpReason:
    """The ICMP error that `packet` is, or why it is none. The quote is of TCP, UDP or a tunnel."""
    outer = read_ip(packet, 0, len(packet))
    if isinstance(outer, IcmpReason):
        return outer
    if outer.total > len(packet):
        return IcmpReason.MALFORMED
    if outer.offset or outer.more:
        return IcmpReason.FRAGMENT
    if outer.protocol != (ICMP if outer.family == 4 else ICMPV6):
        return IcmpReason.NOT_AN_ERROR
    if outer.end - outer.body < ICMP_HEADER:
        return IcmpReason.MALFORMED
    kind, code = packet[outer.body], packet[outer.body + 1]
    if kind not in _ERRORS[outer.family]:
        return IcmpReason.NOT_AN_ERROR
    if checksum.compute(covered_bytes(packet[outer.body : outer.end], outer.source, outer.destination)):
        return IcmpReason.MALFORMED
    quote = read_ip(packet, outer.body + ICMP_HEADER, _quote_end(packet, outer, kind))
    if isinstance(quote, IcmpReason):
        return quote
    if quote.family != outer.family:
        return IcmpReason.MALFORMED
    quote_or_reason = _read_transport(packet, quote)
    if isinstance(quote_or_reason, IcmpReason):
        return quote_or_reason
    rest = packet[outer.body + 4 : outer.body + ICMP_HEADER]
    return IcmpError(packet[: outer.end], outer, kind, code, rest, quote_or_reason)


def parse_inside(packet: bytes, start: int, end: int) -> IpPacket | IcmpReason:
    """The packet with its ports that a tunnel's packet carries at `start`, quoted up to `end`.

    All 8 bytes of its transport that a host needs to find a connection must be there.
    """
    inside = read_ip(packet, start, end)
    if isinstance(inside, IcmpReason):
        return inside
    inside_or_reason = _read_transport(packet, inside)
    if isinstance(inside_or_reason, IpPacket) and inside.end - inside.body < 8:
        return IcmpReason.TRUNCATED
    return inside_or_reason


def covered_bytes(message: bytes | bytearray, source: bytes, destination: bytes) -> bytes:
    """What the checksum of the ICMP `message` covers."""
    if len(source) == 4:
        return bytes(message)
    return checksum.pseudo_header(source, destination, ICMPV6, len(message)) + message


def read_ip(data: bytes, start: int, limit: int) -> IpPacket | IcmpReason:
    """The IP header at `start` with its extensions; nothing at `limit` or behind it is read."""
    if limit <= start:
        return IcmpReason.TRUNCATED
    match data[start] >> 4:
        case 4:
            return _read_ipv4(data, start, limit)
        case 6:
            return _read_ipv6(data, start, limit)
        case _:
            return IcmpReason.MALFORMED


def _read_ipv4(data: bytes, start: int, limit: int) -> IpPacket | IcmpReason:
    if limit - start < 20:
        return IcmpReason.TRUNCATED
    header = (data[start] & 0xF) * 4
    total, fragment = struct.unpack_from("!H2xH", data, start + 2)
    if header < 20 or total < header:
        return IcmpReason.MALFORMED
    if limit - start < header:
        return IcmpReason.TRUNCATED
    return IpPacket(
        family=4,
        start=start,
        body=start + header,
        end=min(limit, start + total),
        total=total,
        source=data[start + 12 : start + 16],
        destination=data[start + 16 : start + 20],
        protocol=data[start + 9],
        offset=(fragment & 0x1FFF) * 8,
        more=bool(fragment & 0x2000),
    )


def _read_ipv6(data: bytes, start: int, limit: int) -> IpPacket | IcmpReason:
    if limit - start < 40:
        return IcmpReason.TRUNCATED
    (payload,) = struct.unpack_from("!H", data, start + 4)
    protocol = data[start + 6]
    total = 40 + payload
    end = min(limit, start + total)
    at = start + 40
    offset, more = 0, False
    for walked in range(MAX_EXTENSIONS + 1):
        if offset or protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            break
        if walked == MAX_EXTENSIONS or at + 8 > start + total or (protocol == _HOP_BY_HOP and walked):
            return IcmpReason.MALFORMED
        if at + 8 > end:
            return IcmpReason.TRUNCATED
        if protocol == _ROUTING and data[at + 3]:
            return (
                IcmpReason.NOT_BALANCED
            )  # the address in the header is not its last; no flow has such packets
        if protocol == _FRAGMENT:
            (field,) = struct.unpack_from("!H", data, at + 2)
            offset, more = field & 0xFFF8, bool(field & 1)
        length = 8 if protocol == _FRAGMENT else 8 * (data[at + 1] + 1)
        protocol = data[at]
        at += length
    if at > start + total:
        return IcmpReason.MALFORMED
    if at > end:
        return IcmpReason.TRUNCATED
    return IpPacket(
        family=6,
        start=start,
        body=at,
        end=end,
        total=total,
        source=data[start + 8 : start + 24],
        destination=data[start + 24 : start + 40],
        protocol=protocol,
        offset=offset,
        more=more,
    )


def _quote_end(packet: bytes, outer: IpPacket, kind: int) -> int:
    """Where the quote ends: with the message, or where RFC 4884 says that extensions follow."""
    place = _LENGTH_AT.get((outer.family, kind))
    if place is None:
        return outer.end
    at, unit = place
    length = packet[outer.body + at] * unit
    return min(outer.end, outer.body + ICMP_HEADER + length) if length else outer.end


def _read_transport(data: bytes, quote: IpPacket) -> IpPacket | IcmpReason:
    """`quote` with its ports, which tunnels without UDP do not have."""
    if quote.offset:
        return IcmpReason.FRAGMENT
    if quote.protocol in (IPIP, IPV6):
        return quote
    if quote.protocol in (ICMP, ICMPV6):
        return IcmpReason.ABOUT_ICMP
    if quote.protocol not in (TCP, UDP):
        return IcmpReason.OTHER_PROTOCOL
    if quote.body + 8 > quote.start + quote.total:
        return IcmpReason.MALFORMED
    if quote.body + 4 > quote.end:
        return IcmpReason.TRUNCATED
    source_port, destination_port = struct.unpack_from("!HH", data, quote.body)
    return replace(quote, source_port=source_port, destination_port=destination_port)
