"""Brings ICMP errors about balanced packets to whom they concern (docs/design/icmp.md).

A router that cannot pass a packet on tells its sender, quoting the packet's beginning. Where the packet was
balanced, either the one who is told is not the one who sent it, or the quote names an address that
the sender never heard of. Four cases, told apart by the quote:

| | came to | quotes | goes to |
|---|---|---|---|
| A | the VIP | an answer, VIP to client | the flow's backend |
| B | a client | a packet, client to backend | the client, about the VIP |
| C | the masquerade pool | a packet, pool to backend | the client, about the VIP |
| D | a tunnel's source | a tunnel's packet to a backend | the client, about the packet inside |

An error always goes back to the quoted source; one that does not is none of ours. All else is left
alone. Nothing here raises for what a packet says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from l4lb.dataplane import encapsulation as tunnel
from l4lb.dataplane import hashing
from l4lb.dataplane.decision import Flow
from l4lb.dataplane.icmp_build import Endpoint, age, build_error, readdress, time_to_live
from l4lb.dataplane.icmp_meaning import words_for_client
from l4lb.dataplane.icmp_parse import IPIP, IPV6, TCP, UDP, IcmpError, IpPacket, parse_error, parse_inside
from l4lb.dataplane.icmp_words import Hook, IcmpReason, Translation
from l4lb.dataplane.kernelhash import kernel_hash
from l4lb.dataplane.table import BackendEntry, Table, forward_mark
from l4lb.dataplane.table_index import Member, TableIndex
from l4lb.model import Forward, Scheduler

_LARGEST_PACKET = 0xFFFF
_DF = 0x40
_GUE_HEADER = 4


class FlowKey(NamedTuple):
    """What names a flow. Addresses are 4 or 16 bytes."""

    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    protocol: int


class FlowFinder(Protocol):
    """Knows the flows of all workers. Addresses are 4 or 16 bytes."""

    def find(self, client: bytes, client_port: int, vip: bytes, vip_port: int, protocol: int) -> Flow | None:
        """The flow between these endpoints."""

    def find_source(self, address: bytes, port: int, protocol: int) -> Flow | None:
        """The masqueraded flow that has this source towards its backend."""


class Translator:
    """Translates errors by one table. `key` is the 16-byte hash key."""

    def __init__(self, table: Table, key: bytes) -> None:
        self.table = table
        self._index = TableIndex(table)
        self._key = key

    def translate(self, packet: bytes, hook: Hook, flows: FlowFinder) -> Translation:
        """What shall happen to an IP packet that `hook` takes for an ICMP error."""
        error = parse_error(packet)
        if isinstance(error, IcmpReason):
            return Translation(error)
        quote = error.quote
        if error.outer.destination != quote.source:
            return Translation(IcmpReason.NOT_BALANCED)
        if hook is Hook.POSTROUTING:
            return self._about_packet_to_backend(error, flows)
        service = self._index.service(quote.source, quote.source_port, quote.protocol)
        if service is not None:
            return self._about_answer(error, service, flows)
        inside = self._find_inside(error)
        if inside is not None and self._index.ends_tunnel(quote.destination):
            return self._about_tunnel(error, *inside, flows)
        if quote.source in self.table.pool:
            return self._about_masqueraded(error, flows)
        return Translation(IcmpReason.NOT_BALANCED)

    # A: about an answer, to its backend.

    def _about_answer(self, error: IcmpError, service: int, flows: FlowFinder) -> Translation:
        quote = error.quote
        key = FlowKey(
            quote.destination, quote.destination_port, quote.source, quote.source_port, quote.protocol
        )
        flow = flows.find(*key)
        member = self._backend_of(flow, service)
        reason = IcmpReason.TO_BACKEND
        if member is None:
            flow, member, reason = None, self._hashed(key, service), IcmpReason.TO_BACKEND_HASHED
        if member is None:
            return Translation(IcmpReason.NO_FLOW)
        match member.service.forward:
            case Forward.NAT:
                return Translation(reason, _readdress_to_backend(error, member.backend))
            case Forward.DSR:
                return self._mark(reason, member, key.vip)
            case Forward.MASQUERADE:
                return _masquerade(reason, error, member.backend, flow)
            case _:
                return self._encapsulate(reason, error, member, key)

    def _mark(self, reason: IcmpReason, member: Member, vip: bytes) -> Translation:
        """The kernel writes the backend's address in, as into any packet of a direct return."""
        return Translation(reason, mark=forward_mark(member.backend.slot, member.service.vips.index(vip)))

    def _encapsulate(self, reason: IcmpReason, error: IcmpError, member: Member, key: FlowKey) -> Translation:
        _, service, backend = member
        length = len(error.packet) + tunnel.overhead(backend, service.forward)
        whole = error.outer.family == 6 or bool(error.packet[6] & _DF)
        if length > _LARGEST_PACKET or (whole and 0 < backend.mtu < length):
            return Translation(IcmpReason.TOO_BIG)
        if time_to_live(error.packet) <= 1:
            return Translation(IcmpReason.TTL_EXPIRED)
        packet = bytearray(error.packet)
        age(packet)
        outer = tunnel.encapsulate(
            bytes(packet),
            backend,
            service.forward,
            gue_port=self.table.gue_port,
            flow_hash=self._hash(key),
        )
        return Translation(reason, outer, sent=True)

    # B: about a packet to a backend, on its way to the client.

    def _about_packet_to_backend(self, error: IcmpError, flows: FlowFinder) -> Translation:
        quote = error.quote
        known = False
        for vip, port, slot in self._candidates(quote):
            known = True
            flow = flows.find(quote.source, quote.source_port, vip, port, quote.protocol)
            if flow is not None and flow.slot == slot:
                changed = _readdress_to_client(error, Endpoint(vip, port))
                return Translation(IcmpReason.TO_CLIENT, changed)
        # Without a flow it may as well be about the client's own connection to the backend, past the VIP.
        return Translation(IcmpReason.NO_FLOW if known else IcmpReason.NOT_BALANCED)

    def _candidates(self, quote: IpPacket) -> Iterator[tuple[bytes, int, int]]:
        """VIPs, ports and slots that the quoted packet to a backend may have been balanced by."""
        port = quote.destination_port
        for frontend in self._index.frontends(quote.destination, port, quote.protocol):
            yield frontend.address, frontend.port or port, frontend.slot
        for member in self._index.direct(quote.destination):
            for vip in member.service.vips:
                if self._index.service(vip, port, quote.protocol) == member.number:
                    yield vip, port, member.backend.slot

    # C: about a packet to a backend that the gateway sent in its own name.

    def _about_masqueraded(self, error: IcmpError, flows: FlowFinder) -> Translation:
        quote = error.quote
        flow = flows.find_source(quote.source, quote.source_port, quote.protocol)
        member = self._index.member(flow.slot) if flow is not None else None
        if flow is None or member is None:
            return Translation(IcmpReason.NO_FLOW)
        backend = member.backend
        if (quote.destination, quote.destination_port) != (backend.address, backend.port or flow.vip_port):
            return Translation(IcmpReason.NO_FLOW)
        if time_to_live(error.packet) <= 1:
            return Translation(IcmpReason.TTL_EXPIRED)
        changed = _readdress_to_client(
            error,
            Endpoint(flow.vip, flow.vip_port),
            client=Endpoint(flow.client, flow.client_port),
            forwarded=True,
        )
        return Translation(IcmpReason.TO_CLIENT, changed, sent=True)

    # D: about a tunnel's packet.

    def _about_tunnel(self, error: IcmpError, start: int, forward: Forward, flows: FlowFinder) -> Translation:
        inside = parse_inside(error.packet, start, error.quote.end)
        if isinstance(inside, IcmpReason):
            return Translation(inside)
        if inside.protocol not in (TCP, UDP):
            return Translation(IcmpReason.OTHER_PROTOCOL)
        service = self._index.service(inside.destination, inside.destination_port, inside.protocol)
        if service is None or self.table.services[service].forward is not forward:
            return Translation(IcmpReason.NOT_BALANCED)
        key = FlowKey(
            inside.source, inside.source_port, inside.destination, inside.destination_port, inside.protocol
        )
        member = self._backend_of(flows.find(*key), service) or self._hashed(key, service)
        if member is None or not self._is_from_tunnel(error.quote, member, key):
            return Translation(IcmpReason.NO_FLOW)
        words = words_for_client(error, inside.family, tunnel.overhead(member.backend, forward))
        if words is None:
            return Translation(IcmpReason.NO_COUNTERPART)
        quoted = error.packet[inside.start : inside.end]
        return Translation(
            IcmpReason.OUT_OF_TUNNEL, build_error(key.vip, key.client, *words, quoted), sent=True
        )

    def _find_inside(self, error: IcmpError) -> tuple[int, Forward] | None:
        """Where the packet inside the quoted one begins and what tunnel it is of, if it looks like one's."""
        quote = error.quote
        if quote.protocol in (IPIP, IPV6):
            return quote.body, Forward.IPIP
        if quote.protocol != UDP or quote.destination_port != self.table.gue_port:
            return None
        if quote.source_port < tunnel.FIRST_GUE_PORT:
            return None
        at = quote.body + 8
        header = error.packet[at : min(at + _GUE_HEADER, quote.end)]
        # A header that is not there is for `parse_inside` to complain of.
        if header[:1] not in (b"", b"\0") or header[1:2] not in (b"", b"\4", b"\x29"):
            return None
        return at + _GUE_HEADER, Forward.GUE

    def _is_from_tunnel(self, quote: IpPacket, member: Member, key: FlowKey) -> bool:
        """Whether the quoted packet is what this gateway, or one with its key, would have sent.

        The source address, and with GUE the port, come from a keyed hash: an error that was made up
        does not have them.
        """
        flow_hash = self._hash(key)
        sent_to = quote.destination == member.backend.address
        sent_from = quote.source == tunnel.outer_source(member.backend, flow_hash)
        port = tunnel.outer_port(flow_hash) if member.service.forward is Forward.GUE else 0
        return sent_to and sent_from and quote.source_port == port

    # What both directions ask.

    def _backend_of(self, flow: Flow | None, service: int) -> Member | None:
        """The flow's backend, where it still is one of the service."""
        member = self._index.member(flow.slot) if flow is not None else None
        return member if member is not None and member.number == service else None

    def _hashed(self, key: FlowKey, service: int) -> Member | None:
        """The backend that the service's consistent hash has for the flow.

        Flows that this gateway does not remember were hashed: by another gateway, or while the table
        was full.
        """
        entry = self.table.services[service]
        places = len(entry.lookup) // 2
        if not places:
            return None
        by_source = entry.scheduler is Scheduler.SOURCE_HASH
        if entry.kernel_seed is not None:
            number = kernel_hash(entry.kernel_seed, key.client, None if by_source else key.client_port)
        else:
            number = (hashing.siphash(self._key, key.client) if by_source else self._hash(key)) >> 32
        place = number * places >> 32
        (slot,) = struct.unpack_from("=H", entry.lookup, 2 * place)
        return self._index.member(slot)

    def _hash(self, key: FlowKey) -> int:
        return hashing.flow_hash(self._key, key.client, key.vip, key.client_port, key.vip_port, key.protocol)


def _readdress_to_backend(error: IcmpError, backend: BackendEntry) -> bytes:
    """About the answer as the backend sent it."""
    sent_from = Endpoint(backend.address, backend.port or error.quote.source_port)
    return readdress(error, destination=backend.address, quoted_source=sent_from)


def _masquerade(
    reason: IcmpReason, error: IcmpError, backend: BackendEntry, flow: Flow | None
) -> Translation:
    """About the answer as the backend sent it, to the pool; only the flow knows which address and port."""
    if flow is None:
        return Translation(IcmpReason.NO_FLOW)
    if time_to_live(error.packet) <= 1:
        return Translation(IcmpReason.TTL_EXPIRED)
    changed = readdress(
        error,
        destination=backend.address,
        quoted_source=Endpoint(backend.address, backend.port or error.quote.source_port),
        quoted_destination=Endpoint(flow.source, flow.source_port),
        forwarded=True,
    )
    return Translation(reason, changed, sent=True)


def _readdress_to_client(
    error: IcmpError, vip: Endpoint, *, client: Endpoint | None = None, forwarded: bool = False
) -> bytes:
    """About the packet as the client sent it. A backend that complains itself complains as the VIP."""
    from_backend = error.outer.source == error.quote.destination
    return readdress(
        error,
        source=vip.address if from_backend else None,
        destination=client.address if client is not None else None,
        quoted_source=client,
        quoted_destination=vip,
        forwarded=forwarded,
    )
