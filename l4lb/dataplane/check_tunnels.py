"""Checks of backends in tunnels: a packet that a check sends to its backend goes to the VIP, inside another.

What the core does for clients' packets, for the few that this host sends itself (`l4lb.control.check_way`).
"""

from __future__ import annotations

from l4lb.dataplane import hashing
from l4lb.dataplane import internet_checksum as checksum
from l4lb.dataplane.encapsulation import encapsulate
from l4lb.dataplane.table import BackendEntry, ServiceEntry, Table, forward_mark
from l4lb.model import Protocol

_CHECKSUM_AT = {Protocol.TCP: 16, Protocol.UDP: 6}
"""Where the checksum stands in the transport header."""


class CheckTunnels:
    """The tunnels of one table. `key` is the 16-byte hash key."""

    def __init__(self, table: Table, key: bytes) -> None:
        self.table = table
        self._key = key
        self._ways: dict[int, tuple[ServiceEntry, BackendEntry]] = {
            forward_mark(backend.slot): (service, backend)
            for service in table.services
            if service.forward.is_tunnel
            for backend in service.backends
        }

    def carry(self, packet: bytes, mark: int) -> bytes | None:
        """What is sent in place of a whole packet of TCP or UDP with the forward mark of its backend; None
        where that is gone. Its checksums are finished, and it has no IP options."""
        way = self._ways.get(mark)
        if way is None:
            return None
        service, backend = way
        inside = _address_to(packet, service.vips[0])
        return encapsulate(
            inside,
            backend,
            service.forward,
            gue_port=self.table.gue_port,
            flow_hash=self._hash(inside, service.vips[0]),
        )

    def _hash(self, packet: bytes, vip: bytes) -> int:
        """The flow's, so that the outer source is one that clients' packets may have, too."""
        protocol, start = _transport(packet)
        client = packet[start - 2 * len(vip) : start - len(vip)]
        port, vip_port = (int.from_bytes(packet[at : at + 2]) for at in (start, start + 2))
        return hashing.flow_hash(self._key, client, vip, port, vip_port, protocol)


def _transport(packet: bytes) -> tuple[Protocol, int]:
    """The protocol, and where its header begins."""
    return (Protocol(packet[9]), 20) if packet[0] >> 4 == 4 else (Protocol(packet[6]), 40)


def _address_to(packet: bytes, vip: bytes) -> bytes:
    """The packet with another destination of the same family."""
    protocol, start = _transport(packet)
    changed = bytearray(packet)
    before = packet[start - len(vip) : start]
    changed[start - len(vip) : start] = vip
    if len(vip) == 4:
        _update(changed, 10, before, vip)
    at = start + _CHECKSUM_AT[protocol]
    if protocol is Protocol.TCP or packet[at : at + 2] != b"\0\0":  # none, of UDP over IPv4 (RFC 768)
        _update(changed, at, before, vip)
        if protocol is Protocol.UDP and changed[at : at + 2] == b"\0\0":
            changed[at : at + 2] = b"\xff\xff"
    return bytes(changed)


def _update(packet: bytearray, at: int, before: bytes, after: bytes) -> None:
    value = int.from_bytes(packet[at : at + 2])
    packet[at : at + 2] = checksum.update(value, before, after).to_bytes(2)
