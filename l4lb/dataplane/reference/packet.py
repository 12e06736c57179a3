"""Packets: what their headers say (docs/design/decision.md, section 1).

Scapy reads the fixed headers (IP, IPv6, TCP, UDP); options, extension headers, payload and whatever stands
behind the packet's end stay bytes. Handing Scapy the whole packet would be shorter but not exact: it repairs
malformed options, guesses at payloads and cuts off padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from l4lb.dataplane.decision import Reason
from l4lb.model import Protocol

IPV4_HEADER = 20
IPV6_HEADER = 40
TCP_HEADER = 20
UDP_HEADER = 8

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
DESTINATION_OPTIONS = 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS)
MAX_EXTENSIONS = 8
"""A bound on the work that one packet may cause."""

FRAGMENT_OFFSET_OR_MORE = 0xFFF9


class Endpoint(NamedTuple):
    """An address of 4 or 16 bytes and a port; as a rewrite's target, port 0 keeps the packet's."""

    address: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that may be balanced.

    `network` and `transport` are its fixed headers. `l4` is the offset of the transport header and
    `total` the end of the packet, both counted from the IP header on; `capture` may end earlier or go on.
    """

    capture: bytes
    network: IP | IPv6
    transport: TCP | UDP
    protocol: Protocol
    l4: int
    total: int

    @property
    def source(self) -> Endpoint:
        """Where the packet comes from."""
        return Endpoint(ip_address(self.network.src).packed, self.transport.sport)

    @property
    def destination(self) -> Endpoint:
        """Where the packet goes to."""
        return Endpoint(ip_address(self.network.dst).packed, self.transport.dport)

    @property
    def flags(self) -> int:
        """The TCP flags; 0 for UDP."""
        return int(self.transport.flags) if self.protocol is Protocol.TCP else 0

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return int(self.network.version)

    @property
    def ttl(self) -> int:
        """TTL or hop limit."""
        return int(self.network.ttl if self.version == 4 else self.network.hlim)

    @property
    def traffic_class(self) -> int:
        """TOS or traffic class, with the bits of ECN."""
        return int(self.network.tos if self.version == 4 else self.network.tc)

    @property
    def keeps_whole(self) -> bool:
        """Whether routers may not fragment it: IPv6, or IPv4 with DF."""
        return self.version == 6 or bool(self.network.flags.DF)

    @property
    def is_cut(self) -> bool:
        """Whether the capture ends before the packet does."""
        return len(self.capture) < self.total


class _Network(NamedTuple):
    header: IP | IPv6
    protocol: int
    l4: int
    total: int


def parse(capture: bytes, *, length: int, gso: bool, whole: bool) -> Packet | Reason:
    """The packet in `capture`, or the first reason why it cannot be balanced.

    `length` is the packet's, `gso` whether the kernel has yet to segment it. `whole` demands that the
    capture holds all of it: a verdict with a shorter payload would cut the packet.
    """
    if not capture:
        return Reason.TRUNCATED
    match capture[0] >> 4:
        case 4:
            network = _parse_ipv4(capture, length, gso)
        case 6:
            network = _parse_ipv6(capture, length, gso)
        case _:
            return Reason.MALFORMED
    if isinstance(network, Reason):
        return network
    packet = _parse_transport(capture, network, gso)
    if isinstance(packet, Packet) and whole and packet.is_cut:
        return Reason.TRUNCATED
    return packet


def _parse_ipv4(capture: bytes, length: int, gso: bool) -> _Network | Reason:
    if len(capture) < IPV4_HEADER:
        return Reason.TRUNCATED
    ip = IP(capture[:IPV4_HEADER])
    ihl = ip.ihl * 4
    if ihl < IPV4_HEADER:
        return Reason.MALFORMED
    # The field has 16 bits; a larger packet (BIG TCP) says 0.
    total = length if ip.len == 0 and gso else ip.len
    if total < ihl or total > length:
        return Reason.MALFORMED
    if len(capture) < ihl:
        return Reason.TRUNCATED
    if ip.flags.MF or ip.frag > 0:
        return Reason.FRAGMENT
    return _Network(ip, ip.proto, ihl, total)


def _parse_ipv6(capture: bytes, length: int, gso: bool) -> _Network | Reason:
    if len(capture) < IPV6_HEADER:
        return Reason.TRUNCATED
    ip = IPv6(capture[:IPV6_HEADER])
    total = length if ip.plen == 0 and gso else IPV6_HEADER + ip.plen
    if total > length:
        return Reason.MALFORMED

    protocol, at, walked = ip.nh, IPV6_HEADER, 0
    while protocol in EXTENSIONS:
        if walked == MAX_EXTENSIONS:
            return Reason.MALFORMED
        missing = _missing(capture, at + 8, total)
        if missing is not None:
            return missing
        if protocol == HOP_BY_HOP and walked > 0:
            return Reason.MALFORMED
        following, size, segments_left = capture[at], capture[at + 1], capture[at + 3]
        if protocol == ROUTING and segments_left > 0:
            return Reason.SOURCE_ROUTED
        if protocol == FRAGMENT:
            if int.from_bytes(capture[at + 2 : at + 4], "big") & FRAGMENT_OFFSET_OR_MORE:
                return Reason.FRAGMENT
            size = 0  # a reserved field here
        protocol, at, walked = following, at + 8 * (size + 1), walked + 1
    return _Network(ip, protocol, at, total)


def _parse_transport(capture: bytes, network: _Network, gso: bool) -> Packet | Reason:
    ip, protocol, l4, total = network
    if protocol == Protocol.TCP:
        missing = _missing(capture, l4 + TCP_HEADER, total)
        if missing is not None:
            return missing
        tcp = TCP(capture[l4 : l4 + TCP_HEADER])
        if tcp.dataofs * 4 < TCP_HEADER or l4 + tcp.dataofs * 4 > total:
            return Reason.MALFORMED
        return Packet(capture, ip, tcp, Protocol.TCP, l4, total)
    if protocol == Protocol.UDP:
        missing = _missing(capture, l4 + UDP_HEADER, total)
        if missing is not None:
            return missing
        udp = UDP(capture[l4 : l4 + UDP_HEADER])
        unbounded = udp.len == 0 and gso
        if not unbounded and not UDP_HEADER <= udp.len <= total - l4:
            return Reason.MALFORMED
        return Packet(capture, ip, udp, Protocol.UDP, l4, total)
    return Reason.OTHER_PROTOCOL


def _missing(capture: bytes, end: int, total: int) -> Reason | None:
    """Why a header that ends at `end` cannot be read, or None where it can."""
    if end > total:
        return Reason.MALFORMED
    if end > len(capture):
        return Reason.TRUNCATED
    return None
