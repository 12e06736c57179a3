"""Packets in tunnels, for the few that Python sends (docs/design/decision.md, section 9: ipip, gue)."""

from __future__ import annotations

import struct

from l4lb.dataplane import internet_checksum as checksum
from l4lb.dataplane.icmp_parse import IPIP, IPV6, UDP
from l4lb.dataplane.table import BackendEntry
from l4lb.model import Forward

GUE_HEADERS = 12
"""Bytes of UDP and GUE."""
FIRST_GUE_PORT = 49152
"""Source ports of GUE are the 16384 that are nobody's (RFC 6335)."""

_TTL = 64
_DF = 0x4000


def overhead(backend: BackendEntry, forward: Forward) -> int:
    """Bytes that the tunnel to `backend` adds to a packet."""
    return (20 if len(backend.address) == 4 else 40) + (GUE_HEADERS if forward is Forward.GUE else 0)


def outer_source(backend: BackendEntry, flow_hash: int) -> bytes:
    """The outer source address of a flow's packets."""
    size = len(backend.source)
    spare = min(8 * size - backend.source_prefix, 64)
    mask = (1 << spare) - 1
    address = int.from_bytes(backend.source, "big") & ~mask
    return (address | (flow_hash >> 32 if size == 4 else flow_hash) & mask).to_bytes(size, "big")


def outer_port(flow_hash: int) -> int:
    """The UDP source port of a flow's packets in GUE."""
    return FIRST_GUE_PORT + (flow_hash >> 50)


def encapsulate(
    packet: bytes, backend: BackendEntry, forward: Forward, *, gue_port: int, flow_hash: int
) -> bytes:
    """The whole IP packet, its time to live already taken care of, inside another to `backend`."""
    inside = IPIP if packet[0] >> 4 == 4 else IPV6
    source, destination = outer_source(backend, flow_hash), backend.address
    protocol, payload = inside, packet
    if forward is Forward.GUE:
        protocol, payload = UDP, struct.pack("!BBH", 0, inside, 0) + packet
        payload = _build_udp(source, destination, outer_port(flow_hash), gue_port, payload)
    traffic_class, dont_fragment = _copied_fields(packet)
    if len(destination) == 4:
        header = bytearray(
            struct.pack(
                "!BBHHHBBH",
                0x45,
                traffic_class,
                20 + len(payload),
                0,
                _DF if dont_fragment else 0,
                _TTL,
                protocol,
                0,
            )
            + source
            + destination
        )
        struct.pack_into("!H", header, 10, checksum.compute(header))
        return bytes(header) + payload
    first = 6 << 28 | traffic_class << 20 | flow_hash & 0xFFFFF
    return struct.pack("!IHBB", first, len(payload), protocol, _TTL) + source + destination + payload


def _copied_fields(packet: bytes) -> tuple[int, bool]:
    """Traffic class, and whether nobody may fragment."""
    if packet[0] >> 4 == 4:
        return packet[1], bool(packet[6] & 0x40)
    (first,) = struct.unpack_from("!H", packet)
    return first >> 4 & 0xFF, True


def _build_udp(source: bytes, destination: bytes, port: int, to_port: int, payload: bytes) -> bytes:
    length = 8 + len(payload)
    datagram = struct.pack("!HHHH", port, to_port, length, 0) + payload
    if len(source) == 4:
        return datagram
    pseudo_header = checksum.pseudo_header(source, destination, UDP, length)
    value = checksum.compute(pseudo_header + datagram) or 0xFFFF
    return datagram[:6] + value.to_bytes(2, "big") + datagram[8:]
