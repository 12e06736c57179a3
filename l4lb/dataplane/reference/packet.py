"""Packets: what their headers say, and their bytes with another source or destination.

docs/design/decision.md, sections 1 (parse) and 9 (rewrite).

Scapy reads and writes the fixed headers (IP, IPv6, TCP, UDP); options, extension headers, payload and
whatever stands behind the packet's end are carried over as bytes. Handing Scapy the whole packet would
be shorter but not exact: it repairs malformed options, guesses at payloads and cuts off padding, while a
load balancer may change nothing but addresses, ports and checksums.
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
    if isinstance(packet, Packet) and whole and len(capture) < packet.total:
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


@dataclass(frozen=True, slots=True)
class Offload:
    """What the kernel says of a packet that it has not finished (NFQA_SKB_INFO)."""

    checksum_ready: bool = True
    """The transport checksum is that of the packet; else it is still to be computed."""
    gso: bool = False
    """The packet is still to be segmented, and its segments' checksums computed."""


def rewrite_destination(packet: Packet, to: Endpoint, offload: Offload) -> bytes:
    """The capture with its destination changed: the way to a backend."""
    network, transport = packet.network.copy(), packet.transport.copy()
    network.dst = str(ip_address(to.address))
    transport.dport = to.port or transport.dport
    change = _Change(packet.destination, Endpoint(to.address, transport.dport))
    return _build(packet, network, transport, change, offload)


def rewrite_source(packet: Packet, to: Endpoint, offload: Offload) -> bytes:
    """The capture with its source changed: the way back to the client."""
    network, transport = packet.network.copy(), packet.transport.copy()
    network.src = str(ip_address(to.address))
    transport.sport = to.port or transport.sport
    change = _Change(packet.source, Endpoint(to.address, transport.sport))
    return _build(packet, network, transport, change, offload)


class _Change(NamedTuple):
    old: Endpoint
    new: Endpoint


def _build(
    packet: Packet, network: IP | IPv6, transport: TCP | UDP, change: _Change, offload: Offload
) -> bytes:
    """The capture with the changed headers `network` and `transport` and their checksums."""
    if network.version == 4:
        network.chksum = _adjust(network.chksum, change.old.address, change.new.address)
    transport.chksum = _transport_checksum(packet, network, transport, change, offload)
    between = packet.capture[len(network) : packet.l4]
    behind = packet.capture[packet.l4 + len(transport) :]
    return bytes(network) + between + bytes(transport) + behind


def _transport_checksum(
    packet: Packet, network: IP | IPv6, transport: TCP | UDP, change: _Change, offload: Offload
) -> int:
    is_udp = packet.protocol is Protocol.UDP
    if offload.checksum_ready:
        if is_udp and network.version == 4 and transport.chksum == 0:
            return 0
        old, new = (end.address + end.port.to_bytes(2, "big") for end in change)
        checksum = _adjust(transport.chksum, old, new)
    else:
        size = packet.total - packet.l4
        if is_udp and transport.len != 0:
            size = transport.len
        pseudo = _pseudo_header(packet, network, size)
        if offload.gso:
            return _sum(pseudo)
        transport.chksum = 0
        payload = packet.capture[packet.l4 + len(transport) : packet.l4 + size]
        checksum = _complement(_sum(pseudo + bytes(transport) + payload))
    if is_udp and checksum == 0:
        return 0xFFFF  # 0 would say that there is no checksum (RFC 768)
    return checksum


def _pseudo_header(packet: Packet, network: IP | IPv6, size: int) -> bytes:
    """What a transport checksum covers besides the segment of `size` bytes.

    The layout is that of RFC 8200, section 8.1. That of IPv4 (RFC 9293) has the same sum, and the same
    as the kernel's beyond 65535 bytes, where its 16-bit length would not do.
    """
    addresses = ip_address(network.src).packed + ip_address(network.dst).packed
    return addresses + size.to_bytes(4, "big") + packet.protocol.to_bytes(4, "big")


def _adjust(checksum: int, old: bytes, new: bytes) -> int:
    """`checksum` after `old` became `new` in what it covers: RFC 1624, equation 3."""
    inverted = bytes(byte ^ 0xFF for byte in old)
    return _complement(_sum(_complement(checksum).to_bytes(2, "big") + inverted + new))


def _complement(x: int) -> int:
    return x ^ 0xFFFF


def _sum(data: bytes) -> int:
    """The one's complement sum of `data` in 16-bit words (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
