"""Carrying a decision out: by a mark, in the packet, in another (docs/design/decision.md, section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from l4lb.dataplane.decision import Decision, Reason, State, Verdict
from l4lb.dataplane.reference import answer, states, tunnel
from l4lb.dataplane.reference.flowtable import FlowEntry
from l4lb.dataplane.reference.packet import Endpoint, Packet
from l4lb.dataplane.reference.reset import build_reset
from l4lb.dataplane.reference.rewrite import Offload, masquerade, rewrite_destination, rewrite_source
from l4lb.dataplane.table import (
    LEARN_AFTER,
    MARK_LEARN,
    BackendEntry,
    ReplyFrontend,
    ServiceEntry,
    Table,
    forward_mark,
    reply_mark,
)
from l4lb.model import Forward, Protocol


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that can be read, when it came, and what may be done to it."""

    packet: Packet
    now_ms: int
    offload: Offload
    rewrite: bool
    """False leaves to the kernel whatever it can carry out by the mark."""


class Chosen(NamedTuple):
    """The backend slot for a packet to a service, why it is that one, and the flow if one is remembered."""

    reason: Reason
    slot: int
    flow: FlowEntry | None


class Reply(NamedTuple):
    """The frontend for a packet from a backend, and why it is that one."""

    reason: Reason
    frontend: ReplyFrontend


def refuse(reason: Reason) -> Decision:
    """The decision about a packet that goes to no backend and to no client."""
    return Decision(reason.verdict, reason, -1, 0, None)


def refuse_to_send(packet: Packet) -> Decision | None:
    """The decision about a packet that cannot be sent on: it is cut, or its time to live ends. Else None."""
    if packet.is_cut:
        return refuse(Reason.TRUNCATED)
    if packet.ttl <= 1:
        return _answer(Reason.TTL_EXPIRED, answer.ttl_expired(packet))
    return None


def reset(packet: Packet) -> Decision:
    """The decision about a packet of a connection that is given up."""
    return _answer(Reason.RESET, build_reset(packet))


def reject(packet: Packet) -> Decision:
    """The decision about a packet that would begin a flow, and that nobody takes."""
    is_tcp = packet.protocol is Protocol.TCP
    return _answer(Reason.REJECTED, build_reset(packet) if is_tcp else answer.port_unreachable(packet))


def forward(arrival: Arrival, table: Table, service: ServiceEntry, chosen: Chosen, hash_: int) -> Decision:
    """Send a packet to the backend that was chosen for it."""
    backend = next(backend for backend in service.backends if backend.slot == chosen.slot)
    if service.forward.is_tunnel:
        return _tunnel(arrival, table, service.forward, backend, chosen.reason, hash_)
    flow = chosen.flow
    if flow is not None and flow.source is not None:
        source = Endpoint(table.pool[flow.source.address], flow.source.port)
        to = Endpoint(backend.address, backend.port)
        out = masquerade(arrival.packet, source, to, checksum_ready=arrival.offload.checksum_ready)
        return _send(chosen.reason, chosen.slot, out)

    vip, changed = 0, None
    if service.forward is Forward.DSR:
        vip = service.vips.index(arrival.packet.destination.address)
    mark = forward_mark(chosen.slot, vip)
    if _is_learnt(table, arrival.packet, flow):
        mark |= MARK_LEARN
    elif arrival.rewrite and service.forward is Forward.NAT:
        to = Endpoint(backend.address, backend.port)
        changed = rewrite_destination(arrival.packet, to, arrival.offload)
    return Decision(Verdict.FORWARD, chosen.reason, chosen.slot, mark, changed)


def reply(arrival: Arrival, found: Reply) -> Decision:
    """Send an answer of an endpoint back to the client."""
    frontend, changed = found.frontend, None
    if arrival.rewrite:
        to = Endpoint(frontend.address, frontend.port)
        changed = rewrite_source(arrival.packet, to, arrival.offload)
    return Decision(Verdict.FORWARD, found.reason, frontend.slot, reply_mark(frontend.index), changed)


def reply_masqueraded(arrival: Arrival, flow: FlowEntry) -> Decision:
    """Send an answer to a masquerade port back to the client."""
    key = flow.key
    vip, client = Endpoint(key.vip, key.vip_port), Endpoint(key.client, key.client_port)
    out = masquerade(arrival.packet, vip, client, checksum_ready=arrival.offload.checksum_ready)
    return _send(Reason.REPLY, flow.slot, out)


def _tunnel(
    arrival: Arrival, table: Table, mode: Forward, backend: BackendEntry, reason: Reason, hash_: int
) -> Decision:
    if tunnel.is_too_big(arrival.packet, mode, backend):
        fits = backend.mtu - tunnel.overhead(mode, backend)
        return _answer(Reason.TOO_BIG, answer.too_big(arrival.packet, fits))
    ready = arrival.offload.checksum_ready
    out = tunnel.encapsulate(
        arrival.packet, mode, backend, hash_, gue_port=table.gue_port, checksum_ready=ready
    )
    return _send(reason, backend.slot, out)


def _is_learnt(table: Table, packet: Packet, flow: FlowEntry | None) -> bool:
    """Whether the kernel is to remember what is decided about a NAT or DSR flow."""
    if not table.learns or flow is None or flow.source is not None or flow.packets < LEARN_AFTER:
        return False
    if flow.state is State.UDP:
        return True
    return flow.state is State.ESTABLISHED and not packet.flags & (states.SYN | states.FIN | states.RST)


def _send(reason: Reason, slot: int, packet: bytes) -> Decision:
    return Decision(Verdict.FORWARD, reason, slot, 0, packet, sent=True)


def _answer(reason: Reason, packet: bytes) -> Decision:
    return Decision(Verdict.ANSWER, reason, -1, 0, packet, sent=True)
