"""Packets inside others, to a backend that answers the client itself (docs/design/decision.md, section 9).

IPIP is RFC 2003 and RFC 2473. GUE is draft-ietf-intarea-gue, version 0 without options: four bytes that name
the protocol inside, behind UDP, whose source port lets routers and network cards spread flows.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from l4lb.dataplane.reference.packet import IPV4_HEADER, IPV6_HEADER, UDP_HEADER, Packet
from l4lb.dataplane.reference.rewrite import spend_hop
from l4lb.dataplane.table import BackendEntry
from l4lb.model import Forward, Protocol

GUE_HEADER = 4
OUTER_TTL = 64
INSIDE = {4: 4, 6: 41}
"""IP protocol of a packet inside another one, by its version."""

FIRST_GUE_PORT = 49152
"""The 16384 ports from here on are nobody's (RFC 6335), so the source port holds 14 bits of the hash."""
LOW_64 = (1 << 64) - 1


def overhead(forward: Forward, backend: BackendEntry) -> int:
    """Bytes that the tunnel to `backend` adds to a packet."""
    outer = IPV4_HEADER if len(backend.address) == 4 else IPV6_HEADER
    return outer + (UDP_HEADER + GUE_HEADER if forward is Forward.GUE else 0)


def is_too_big(packet: Packet, forward: Forward, backend: BackendEntry) -> bool:
    """Whether the packet does not fit into the tunnel and may not be fragmented."""
    return 0 < backend.mtu < packet.total + overhead(forward, backend) and packet.keeps_whole


def encapsulate(
    packet: Packet,
    forward: Forward,
    backend: BackendEntry,
    hash_: int,
    *,
    gue_port: int,
    checksum_ready: bool,
) -> bytes:
    """The packet that carries the whole `packet`, one hop less to live, to `backend`."""
    inside = spend_hop(packet, checksum_ready=checksum_ready)
    # A sum of more than 16 bits is cut: such a packet cannot be sent, which is the kernel's to say.
    size = (packet.total + overhead(forward, backend)) & 0xFFFF
    payload: Any = Raw(inside)
    protocol = INSIDE[packet.version]
    if forward is Forward.GUE:
        gue = bytes([0, protocol, 0, 0])
        udp = UDP(sport=FIRST_GUE_PORT + (hash_ >> 50), dport=gue_port)
        udp.len = (UDP_HEADER + GUE_HEADER + packet.total) & 0xFFFF
        if len(backend.address) == 4:
            udp.chksum = 0  # as IPIP has none; over IPv6 one is required (RFC 8200)
        payload = udp / Raw(gue + inside)
        protocol = Protocol.UDP
    source = str(ip_address(_outer_source(backend, hash_)))
    destination = str(ip_address(backend.address))
    outer: Any
    if len(backend.address) == 4:
        flags = "DF" if packet.keeps_whole else 0
        outer = IP(src=source, dst=destination, tos=packet.traffic_class, ttl=OUTER_TTL, id=0, flags=flags)
        outer.proto, outer.len = protocol, size
    else:
        outer = IPv6(src=source, dst=destination, tc=packet.traffic_class, hlim=OUTER_TTL)
        outer.nh, outer.fl, outer.plen = protocol, hash_ & 0xFFFFF, (size - IPV6_HEADER) & 0xFFFF
    return bytes(outer / payload)


def _outer_source(backend: BackendEntry, hash_: int) -> bytes:
    """The backend entry's source with the bits behind its prefix taken from the hash."""
    size = len(backend.source)
    bits = size * 8 - backend.source_prefix
    mask, value = ((1 << bits) - 1, hash_ >> 32) if size == 4 else (((1 << bits) - 1) & LOW_64, hash_)
    return (int.from_bytes(backend.source) & ~mask | value & mask).to_bytes(size)
