"""ICMP errors that tell a sender why its packet went no further (docs/design/decision.md, section 9).

The gateway answers (RFC 792, RFC 1191, RFC 4443) where it stands in for the kernel's forwarding, in tunnels
and masquerade, and for the host that would have the service. Answers come from the packet's destination,
which the sender talks to.
"""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from l4lb.dataplane.reference.packet import Packet

TTL = 64
INTERNETWORK_CONTROL = 0xC0
"""The TOS that RFC 1812, section 4.3.2.5, wants for ICMP errors."""

QUOTE_IPV4 = 548
"""With 20 bytes of IP and 8 of ICMP the 576 that every host takes (RFC 1812, section 4.3.2.3)."""
QUOTE_IPV6 = 1232
"""With 40 bytes of IPv6 and 8 of ICMPv6 the least MTU, 1280 (RFC 4443, section 2.4)."""


def ttl_expired(packet: Packet) -> bytes:
    """Time exceeded in transit."""
    return _answer(packet, ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0))


def port_unreachable(packet: Packet) -> bytes:
    """Nobody listens."""
    return _answer(packet, ICMP(type=3, code=3), ICMPv6DestUnreach(code=4))


def too_big(packet: Packet, mtu: int) -> bytes:
    """Fragmentation needed, or packet too big: `mtu` is the size that would go through."""
    return _answer(packet, ICMP(type=3, code=4, nexthopmtu=mtu), ICMPv6PacketTooBig(code=0, mtu=mtu))


def _answer(packet: Packet, ipv4: Layer, ipv6: Layer) -> bytes:
    source, destination = packet.network.dst, packet.network.src
    as_it_came = packet.capture[: packet.total]
    if packet.version == 4:
        header = IP(src=source, dst=destination, tos=INTERNETWORK_CONTROL, ttl=TTL, id=0, flags=0)
        return bytes(header / ipv4 / Raw(as_it_came[:QUOTE_IPV4]))
    header6 = IPv6(src=source, dst=destination, tc=0, fl=0, hlim=TTL)
    return bytes(header6 / ipv6 / Raw(as_it_came[:QUOTE_IPV6]))
