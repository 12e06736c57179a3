"""Builders of whole packets, with right lengths and checksums by Scapy.

Endpoints are written as people write them: `198.51.100.7:40000`, `[2001:db8::7]:40000`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
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
