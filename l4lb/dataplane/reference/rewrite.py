"""Packets with another source or destination (docs/design/decision.md, section 9).

Scapy writes the fixed headers; everything between and behind them is carried over as bytes, for a load
balancer may change nothing but addresses, ports, the TTL and checksums.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from l4lb.dataplane.reference.checksum import add_up, adjust, complement
from l4lb.dataplane.reference.packet import Endpoint, Packet
from l4lb.model import Protocol


@dataclass(frozen=True, slots=True)
class Offload:
    """What the kernel says of a packet that it has not finished (NFQA_SKB_INFO)."""

    checksum_ready: bool = True
    """The transport checksum is that of the packet; else it is still to be computed."""
    gso: bool = False
    """The packet is still to be segmented, and its segments' checksums computed."""


def rewrite_destination(packet: Packet, to: Endpoint, offload: Offload) -> bytes:
    """The capture with its destination changed: the way to a backend."""
    headers = _Headers.copied_from(packet)
    change = headers.set_destination(packet, to)
    return _build(packet, headers, (change,), offload)


def rewrite_source(packet: Packet, to: Endpoint, offload: Offload) -> bytes:
    """The capture with its source changed: the way back to the client."""
    headers = _Headers.copied_from(packet)
    change = headers.set_source(packet, to)
    return _build(packet, headers, (change,), offload)


def masquerade(packet: Packet, source: Endpoint, destination: Endpoint, *, checksum_ready: bool) -> bytes:
    """The whole packet as it is sent with both its ends changed, and one hop less to live."""
    headers = _Headers.copied_from(packet)
    changes = headers.set_source(packet, source), headers.set_destination(packet, destination)
    headers.spend_hop()
    return _build(packet, headers, changes, Offload(checksum_ready))[: packet.total]


def spend_hop(packet: Packet, *, checksum_ready: bool) -> bytes:
    """The whole packet as it goes into a tunnel: one hop less to live, its checksums right."""
    headers = _Headers.copied_from(packet)
    headers.spend_hop()
    return _build(packet, headers, (), Offload(checksum_ready))[: packet.total]


class _Change(NamedTuple):
    """An end of the packet, which checksums cover, before and after."""

    old: Endpoint
    new: Endpoint


class _Headers(NamedTuple):
    """The fixed headers of the packet that goes out."""

    network: IP | IPv6
    transport: TCP | UDP

    @classmethod
    def copied_from(cls, packet: Packet) -> _Headers:
        return cls(packet.network.copy(), packet.transport.copy())

    def set_source(self, packet: Packet, to: Endpoint) -> _Change:
        self.network.src = str(ip_address(to.address))
        self.transport.sport = to.port or self.transport.sport
        return _Change(packet.source, Endpoint(to.address, self.transport.sport))

    def set_destination(self, packet: Packet, to: Endpoint) -> _Change:
        self.network.dst = str(ip_address(to.address))
        self.transport.dport = to.port or self.transport.dport
        return _Change(packet.destination, Endpoint(to.address, self.transport.dport))

    def spend_hop(self) -> None:
        if self.network.version == 6:
            self.network.hlim -= 1
            return
        before = bytes([self.network.ttl, self.network.proto])
        self.network.ttl -= 1
        self.network.chksum = adjust(
            self.network.chksum, before, bytes([self.network.ttl, self.network.proto])
        )


def _build(packet: Packet, headers: _Headers, changes: tuple[_Change, ...], offload: Offload) -> bytes:
    """The capture with the changed headers and their checksums."""
    network, transport = headers
    if network.version == 4:
        old, new = (b"".join(end.address for end in ends) for ends in _old_and_new(changes))
        network.chksum = adjust(network.chksum, old, new)
    if changes or not offload.checksum_ready:
        transport.chksum = _transport_checksum(packet, headers, changes, offload)
    between = packet.capture[len(network) : packet.l4]
    behind = packet.capture[packet.l4 + len(transport) :]
    return bytes(network) + between + bytes(transport) + behind


def _transport_checksum(
    packet: Packet, headers: _Headers, changes: tuple[_Change, ...], offload: Offload
) -> int:
    network, transport = headers
    is_udp = packet.protocol is Protocol.UDP
    if offload.checksum_ready:
        if is_udp and network.version == 4 and transport.chksum == 0:
            return 0
        old, new = (
            b"".join(end.address + end.port.to_bytes(2, "big") for end in ends)
            for ends in _old_and_new(changes)
        )
        checksum = adjust(transport.chksum, old, new)
    else:
        size = packet.total - packet.l4
        if is_udp and transport.len != 0:
            size = transport.len
        pseudo = _pseudo_header(packet, network, size)
        if offload.gso:
            return add_up(pseudo)
        transport.chksum = 0
        payload = packet.capture[packet.l4 + len(transport) : packet.l4 + size]
        checksum = complement(add_up(pseudo + bytes(transport) + payload))
    if is_udp and checksum == 0:
        return 0xFFFF  # 0 would say that there is no checksum (RFC 768)
    return checksum


def _old_and_new(changes: tuple[_Change, ...]) -> tuple[list[Endpoint], list[Endpoint]]:
    return [change.old for change in changes], [change.new for change in changes]


def _pseudo_header(packet: Packet, network: IP | IPv6, size: int) -> bytes:
    """What a transport checksum covers besides the segment of `size` bytes.

    The layout is that of RFC 8200, section 8.1. That of IPv4 (RFC 9293) has the same sum, and the same
    as the kernel's beyond 65535 bytes, where its 16-bit length would not do.
    """
    addresses = ip_address(network.src).packed + ip_address(network.dst).packed
    return addresses + size.to_bytes(4, "big") + packet.protocol.to_bytes(4, "big")
