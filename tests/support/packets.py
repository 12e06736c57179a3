"""Builders of whole packets, with right lengths and checksums by Scapy.

Endpoints are written as people write them: `198.51.100.7:40000`, `[2001:db8::7]:40000`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.packet import Raw


def split(endpoint: str) -> tuple[str, int]:
    """`("2001:db8::7", 40000)` for `[2001:db8::7]:40000`."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def packed(address: str) -> bytes:
    return ip_address(address).packed


def tcp(
    source: str,
    destination: str,
    flags: str = "S",
    payload: bytes = b"",
    *,
    tcp_options: Sequence[Any] = (),
    extensions: Sequence[Any] = (),
    **fields: Any,
) -> bytes:
    """A TCP packet; `flags` as tcpdump's letters, `fields` those of IP or IPv6."""
    (src, sport), (dst, dport) = split(source), split(destination)
    segment = TCP(sport=sport, dport=dport, flags=flags, seq=1000, ack=2000, options=list(tcp_options))
    return build(network(src, dst, extensions, fields), segment, payload)


def udp(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    checksum: int | None = None,
    extensions: Sequence[Any] = (),
    **fields: Any,
) -> bytes:
    """A UDP packet; `checksum` in place of the right one, `fields` those of IP or IPv6."""
    (src, sport), (dst, dport) = split(source), split(destination)
    datagram = UDP(sport=sport, dport=dport, chksum=checksum)
    return build(network(src, dst, extensions, fields), datagram, payload)


def icmp(source: str, destination: str) -> bytes:
    return build(network(source, destination, (), {}), ICMP(), b"ping")


def ipip(packet: bytes, source: str, destination: str, **fields: Any) -> bytes:
    """`packet` inside an IP packet; `fields` are those of the outer IP or IPv6, whose TTL is 64."""
    return bytes(outer(source, destination, _PROTOCOL_INSIDE[packet[0] >> 4], fields) / Raw(packet))


def gue(packet: bytes, source: str, destination: str, **fields: Any) -> bytes:
    """`packet` inside UDP between two endpoints, without a checksum over IPv4."""
    (src, sport), (dst, dport) = split(source), split(destination)
    header = bytes([0, _PROTOCOL_INSIDE[packet[0] >> 4], 0, 0])
    checksum = 0 if ip_address(src).version == 4 else None
    datagram = UDP(sport=sport, dport=dport, chksum=checksum)
    return bytes(outer(src, dst, 17, fields) / datagram / Raw(header + packet))


_PROTOCOL_INSIDE = {4: 4, 6: 41}


def outer(source: str, destination: str, protocol: int, fields: Mapping[str, Any]) -> Any:
    """The header of a tunnel."""
    if ip_address(source).version == 4:
        return IP(src=source, dst=destination, proto=protocol, **{"ttl": 64, "id": 0, **fields})
    return IPv6(src=source, dst=destination, nh=protocol, **{"hlim": 64, **fields})


def time_exceeded(packet: bytes, source: str, destination: str) -> bytes:
    """The ICMP error about a `packet` whose time to live ended."""
    return _icmp_error(packet, source, destination, ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0))


def too_big(packet: bytes, source: str, destination: str, mtu: int) -> bytes:
    """The ICMP error about a `packet` of more than `mtu` bytes."""
    ipv4 = ICMP(type=3, code=4, nexthopmtu=mtu)
    return _icmp_error(packet, source, destination, ipv4, ICMPv6PacketTooBig(mtu=mtu))


def port_unreachable(packet: bytes, source: str, destination: str) -> bytes:
    """The ICMP error about a `packet` that nobody takes."""
    return _icmp_error(packet, source, destination, ICMP(type=3, code=3), ICMPv6DestUnreach(code=4))


def _icmp_error(packet: bytes, source: str, destination: str, ipv4: Any, ipv6: Any) -> bytes:
    if ip_address(source).version == 4:
        header = IP(src=source, dst=destination, tos=0xC0, ttl=64, id=0)
        return bytes(header / ipv4 / Raw(packet[:548]))
    return bytes(IPv6(src=source, dst=destination, hlim=64) / ipv6 / Raw(packet[:1232]))


def reset(source: str, destination: str, *, seq: int = 0, ack: int | None = None) -> bytes:
    """A TCP reset from an endpoint that knows of no connection; with `ack` it has ACK."""
    (src, sport), (dst, dport) = split(source), split(destination)
    flags = "R" if ack is None else "RA"
    segment = TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack or 0, window=0)
    is_ipv4 = ip_address(src).version == 4
    fields: dict[str, Any] = {"ttl": 64, "id": 0, "flags": "DF"} if is_ipv4 else {"hlim": 64}
    return build(network(src, dst, (), fields), segment, b"")


def network(source: str, destination: str, extensions: Sequence[Any], fields: Mapping[str, Any]) -> Any:
    """IP or IPv6 by the addresses, with IPv6 extension headers."""
    layer = IP if ip_address(source).version == 4 else IPv6
    header = layer(src=source, dst=destination, **fields)
    for extension in extensions:
        header = header / extension
    return header


def build(header: Any, transport: Any, payload: bytes) -> bytes:
    return bytes(header / transport / Raw(payload) if payload else header / transport)


def patch(packet: bytes, at: int, field: str) -> bytes:
    """`packet` with the hexadecimal `field` written over the bytes from `at` on."""
    value = bytes.fromhex(field)
    return packet[:at] + value + packet[at + len(value) :]
