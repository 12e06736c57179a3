"""Builds the packet that `explain` asks about: the first one of a flow, headers only."""

from __future__ import annotations

import struct

from l4lb.model import Address, Protocol

_SYN = 0x02


def build_first_packet(
    client: Address, client_port: int, vip: Address, vip_port: int, protocol: Protocol
) -> bytes:
    """A TCP SYN or an empty UDP datagram. Checksums are 0: nobody receives it."""
    if protocol is Protocol.TCP:
        transport = struct.pack("!HHIIBBHHH", client_port, vip_port, 0, 0, 5 << 4, _SYN, 65535, 0, 0)
    else:
        transport = struct.pack("!HHHH", client_port, vip_port, 8, 0)
    if client.version == 4:
        total = 20 + len(transport)
        header = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0, 64, protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64)
    return header + client.packed + vip.packed + transport
