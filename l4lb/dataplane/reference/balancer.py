"""The balancer: one packet in, one decision out (docs/design/decision.md, sections 2, 3 and 5).

It never raises for what a packet says, and every packet is counted by the reason of its decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters, State, Verdict
from l4lb.dataplane.reference import states
from l4lb.dataplane.reference.counters import SharedCounters
from l4lb.dataplane.reference.flowtable import TICK_MS, FlowEntry, FlowKey, FlowTable
from l4lb.dataplane.reference.hashing import flow_hash
from l4lb.dataplane.reference.packet import (
    Endpoint,
    Offload,
    Packet,
    parse,
    rewrite_destination,
    rewrite_source,
)
from l4lb.dataplane.reference.schedulers import Choice
from l4lb.dataplane.table import ReplyFrontend, Table, forward_mark, reply_mark
from l4lb.model import Protocol

__all__ = ["Balancer", "SharedCounters"]


class _Chosen(NamedTuple):
    """The backend slot for a packet to a service, and why it is that one."""

    reason: Reason
    slot: int


class _Answer(NamedTuple):
    """The frontend for a packet from a backend, and why it is that one."""

    reason: Reason
    frontend: ReplyFrontend


@dataclass(slots=True)
class _Traffic:
    scheduled: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


class Balancer:
    """Flow table, scheduler state and counters of one worker."""

    def __init__(self, *, capacity: int, key: bytes, shared: SharedCounters | None = None) -> None:
        if len(key) != 16:
            raise ValueError(f"the key has 16 bytes, not {len(key)}")
        self._key = key
        self._shared = shared if shared is not None else SharedCounters()
        self._flows = FlowTable(capacity, self._shared)
        self._table: Table | None = None
        self._choices: list[Choice] = []
        self._reasons = dict.fromkeys(Reason, 0)
        self._traffic: dict[int, _Traffic] = {}

    @property
    def capacity(self) -> int:
        """Flows that the table has places for."""
        return self._flows.capacity

    def publish(self, table: Table) -> None:
        """Decide by `table` from the next packet on. Flows and counters stay."""
        self._table = table
        self._shared.keep_turns([service.name for service in table.services])
        self._choices = [Choice(service, self._key, self._shared) for service in table.services]

    def decide(
        self,
        packet: bytes,
        now_ms: int,
        *,
        length: int | None = None,
        checksum_ready: bool = True,
        gso: bool = False,
        rewrite: bool = True,
    ) -> Decision:
        """Decide one packet. `length` is the whole packet's where `packet` is only its beginning.

        Raises RuntimeError where no table was published.
        """
        if self._table is None:
            raise RuntimeError("no table was published")
        length = len(packet) if length is None else length
        offload = Offload(checksum_ready, gso)
        parsed = parse(packet, length=length, gso=gso, whole=rewrite)
        decision = (
            _without_slot(parsed)
            if isinstance(parsed, Reason)
            else self._decide(parsed, self._table, now_ms, offload if rewrite else None)
        )
        self._reasons[decision.reason] += 1
        return decision

    def preview(self, packet: bytes, now_ms: int) -> Decision:
        """The decision that a whole packet to a service would get, with nothing changed or counted.

        It says what would be decided, not what to do: it carries no mark. Any other packet is NOT_BALANCED.
        """
        decision = deepcopy(self).decide(packet, now_ms, rewrite=False)
        if decision.reason in (Reason.REPLY, Reason.REPLY_STATIC, Reason.REPLY_UNMATCHED):
            return _without_slot(Reason.NOT_BALANCED)
        return replace(decision, mark=0)

    def find(self, packet: bytes, now_ms: int) -> Flow | None:
        """The flow that a whole packet to a service belongs to, or None."""
        if self._table is None:
            raise RuntimeError("no table was published")
        parsed = parse(packet, length=len(packet), gso=False, whole=True)
        if isinstance(parsed, Reason) or _service_of(self._table, parsed) is None:
            return None
        key = FlowKey(*parsed.source, *parsed.destination, parsed.protocol)
        entry = self._flows.peek(key, self._hash(key))
        return None if entry is None or entry.expired(now_ms) else _snapshot(entry)

    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
        return self._flows.expire(now_ms)

    def reasons(self) -> dict[Reason, int]:
        """Packets by reason."""
        return dict(self._reasons)

    def slot_counters(self, slot: int) -> SlotCounters:
        """What `slot` has seen; flows and active are those of all balancers that share counters."""
        traffic = self._traffic.get(slot, _Traffic())
        return SlotCounters(
            flows=self._shared.flows(slot),
            active=self._shared.active(slot),
            scheduled=traffic.scheduled,
            packets_in=traffic.packets_in,
            bytes_in=traffic.bytes_in,
            packets_out=traffic.packets_out,
            bytes_out=traffic.bytes_out,
        )

    def flow_count(self) -> int:
        """Remembered flows, those among them that have expired but were not met since."""
        return len(self._flows)

    def flows(self) -> Iterator[Flow]:
        """A snapshot of the remembered flows, in no order."""
        return iter([_snapshot(entry) for entry in self._flows])

    def _decide(self, packet: Packet, table: Table, now_ms: int, rewrite: Offload | None) -> Decision:
        """Whose packet it is. `rewrite` None leaves the packet to the kernel."""
        service = _service_of(table, packet)
        if service is not None:
            chosen = self._to_service(packet, table, service, now_ms)
            if isinstance(chosen, Reason):
                return _without_slot(chosen)
            return self._forward(packet, table, service, chosen, rewrite)

        frontends = _frontends_of(table, packet)
        if frontends:
            answer = self._from_backend(packet, table, frontends, now_ms)
            if isinstance(answer, Reason):
                return _without_slot(answer)
            return self._reply(packet, answer, rewrite)

        return _without_slot(Reason.NOT_BALANCED)

    def _to_service(self, packet: Packet, table: Table, service: int, now_ms: int) -> _Chosen | Reason:
        key = FlowKey(*packet.source, *packet.destination, packet.protocol)
        hash_ = self._hash(key)
        new = Reason.SCHEDULED
        flow = self._flows.find(key, hash_, now_ms)
        if flow is not None:
            if flow.slot not in _slots_of(table, service):
                new = Reason.RESCHEDULED
            elif not states.reuses_port(flow.state, packet.flags):
                state = states.after_client(flow.state, packet.flags, replies_seen=table.replies_seen)
                self._flows.renew(flow, state, _deadline(table, state, now_ms))
                flow.packets += 1
                flow.octets += packet.total
                return _Chosen(Reason.FLOW, flow.slot)
            self._flows.remove(flow, hash_)

        if packet.protocol is Protocol.TCP and not states.begins(packet.flags):
            return Reason.NO_FLOW
        choice = self._choices[service]
        if not choice.backends:
            return Reason.NO_BACKEND
        group = self._flows.find_room(hash_, now_ms)
        if group is None:
            return _Chosen(Reason.STATELESS, choice.look_up(hash_))
        slot = choice.choose(hash_, key.client)
        state = states.first_state(packet.protocol, packet.flags)
        deadline = _deadline(table, state, now_ms)
        self._flows.insert(group, FlowEntry(key, slot, state, deadline, packets=1, octets=packet.total))
        return _Chosen(new, slot)

    def _from_backend(
        self, packet: Packet, table: Table, frontends: tuple[ReplyFrontend, ...], now_ms: int
    ) -> _Answer | Reason:
        for frontend in frontends:
            vip_port = frontend.port or packet.source.port
            key = FlowKey(*packet.destination, frontend.address, vip_port, packet.protocol)
            flow = self._flows.find(key, self._hash(key), now_ms)
            if flow is not None and flow.slot == frontend.slot:
                state = states.after_backend(flow.state, packet.flags)
                self._flows.renew(flow, state, _deadline(table, state, now_ms))
                return _Answer(Reason.REPLY, frontend)
        if len(frontends) > 1:
            return Reason.REPLY_UNMATCHED
        return _Answer(Reason.REPLY_STATIC, frontends[0])

    def _forward(
        self, packet: Packet, table: Table, service: int, chosen: _Chosen, rewrite: Offload | None
    ) -> Decision:
        traffic = self._traffic.setdefault(chosen.slot, _Traffic())
        traffic.packets_in += 1
        traffic.bytes_in += packet.total
        traffic.scheduled += chosen.reason in (Reason.SCHEDULED, Reason.RESCHEDULED)
        changed = None
        if rewrite is not None:
            backends = table.services[service].backends
            backend = next(backend for backend in backends if backend.slot == chosen.slot)
            changed = rewrite_destination(packet, Endpoint(backend.address, backend.port), rewrite)
        return Decision(Verdict.FORWARD, chosen.reason, chosen.slot, forward_mark(chosen.slot), changed)

    def _reply(self, packet: Packet, answer: _Answer, rewrite: Offload | None) -> Decision:
        reason, frontend = answer
        traffic = self._traffic.setdefault(frontend.slot, _Traffic())
        traffic.packets_out += 1
        traffic.bytes_out += packet.total
        changed = None
        if rewrite is not None:
            changed = rewrite_source(packet, Endpoint(frontend.address, frontend.port), rewrite)
        return Decision(Verdict.FORWARD, reason, frontend.slot, reply_mark(frontend.index), changed)

    def _hash(self, key: FlowKey) -> int:
        return flow_hash(self._key, key.client, key.vip, key.client_port, key.vip_port, key.protocol)


def _service_of(table: Table, packet: Packet) -> int | None:
    address, port = packet.destination
    for ports in table.vips.get((address, packet.protocol), ()):
        if ports.first <= port <= ports.last:
            return ports.service
    return None


def _frontends_of(table: Table, packet: Packet) -> tuple[ReplyFrontend, ...]:
    address, port = packet.source
    for segment in table.endpoints.get((address, packet.protocol), ()):
        if segment.first <= port <= segment.last:
            return segment.frontends
    return ()


def _slots_of(table: Table, service: int) -> set[int]:
    return {backend.slot for backend in table.services[service].backends}


def _deadline(table: Table, state: State, now_ms: int) -> int:
    return (now_ms + table.timeouts.of(state)) // TICK_MS


def _without_slot(reason: Reason) -> Decision:
    return Decision(reason.verdict, reason, -1, 0, None)


def _snapshot(entry: FlowEntry) -> Flow:
    return Flow(
        client=entry.key.client,
        client_port=entry.key.client_port,
        vip=entry.key.vip,
        vip_port=entry.key.vip_port,
        protocol=int(entry.key.protocol),
        slot=entry.slot,
        state=entry.state,
        expires_ms=entry.deadline * TICK_MS,
        packets=entry.packets,
        bytes=entry.octets,
    )
