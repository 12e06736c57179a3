"""Opens a TCP connection half: SYN, SYN-ACK, RST. The server's program never sees it.

The kernel knows nothing of the SYN and so answers the SYN-ACK with a reset. That one lacks our mark, and
would miss a backend that is asked through the VIP, so we send one, too. A port that a bound socket holds
keeps other connections of this host apart.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
import socket
import struct
from typing import Any

from l4lb.model import HealthCheck
from l4lb.net.checks.judge import CheckFailedError, Success, Waiting, judge
from l4lb.net.checks.sockets import opened, opened_datagram, receive
from l4lb.net.checks.target import Outcome, Target

_PORTS_AND_NUMBERS = struct.Struct("!HHIIBB")
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_SEGMENT_SIZE = 1220  # what fits into every path of IPv6
_layers: Any = None


async def check(target: Target, settings: HealthCheck) -> Outcome:
    """Whether a SYN is answered by a SYN-ACK. Needs CAP_NET_RAW."""

    async def ask(_: Waiting) -> Success:
        layers = await _scapy()
        number = secrets.randbelow(1 << 32)
        # The raw socket is connected to port 0, for there IP knows none; it sees all TCP of the address.
        everywhere = Target(target.address, 0, target.mark, target.source)
        with (
            opened(target, socket.SOCK_STREAM) as holder,
            opened_datagram(everywhere, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw,
        ):
            source = raw.getsockname()[0]
            if target.source is None and target.mark is None:
                holder.bind((source, 0))
            port = holder.getsockname()[1]
            segment = {"sport": port, "dport": target.port}
            addresses = {"src": source, "dst": str(target.address)}
            raw.send(
                _build(layers, addresses, **segment, flags="S", seq=number, options=[("MSS", _SEGMENT_SIZE)])
            )
            while (flags := answer_flags(await receive(raw), target, port, number)) is None:
                pass
            if flags & _RST:
                raise CheckFailedError("connection refused")
            raw.send(_build(layers, addresses, **segment, flags="R", seq=(number + 1) & 0xFFFFFFFF))
            return Success("SYN-ACK")

    return await judge(settings.timeout_s, ask)


def answer_flags(packet: bytes, target: Target, port: int, number: int) -> int | None:
    """The TCP flags of an answer to the SYN with the sequence number `number` from `port`; None for a packet
    that is none. Raw IPv4 sockets give the header, too, IPv6 ones do not."""
    if target.family == socket.AF_INET:
        packet = packet[4 * (packet[0] & 0xF) :]
    if len(packet) < _PORTS_AND_NUMBERS.size:
        return None
    source, destination, _, acknowledged, _, flags = _PORTS_AND_NUMBERS.unpack_from(packet)
    if (source, destination, acknowledged) != (target.port, port, (number + 1) & 0xFFFFFFFF):
        return None
    return flags if flags & _ACK and flags & (_SYN | _RST) else None


def _build(layers: Any, addresses: dict[str, str], **segment: Any) -> bytes:
    """The TCP segment, whose checksum covers the addresses; the kernel writes the IP header."""
    internet = layers.IPv6 if ":" in addresses["dst"] else layers.IP
    packet = internet(**addresses) / layers.TCP(**segment)
    return bytes(packet)[len(internet()) :]


async def _scapy() -> Any:
    """Scapy's layers. Their import takes most of a second: in a thread, and only where there are such
    checks."""
    global _layers
    if _layers is None:
        _layers = await asyncio.to_thread(importlib.import_module, "scapy.layers.inet6")
    return _layers
