"""The balancer: one packet in, one decision out (docs/design/decision.md, sections 2, 3, 5, 9, 12 and 13).

It never raises for what a packet says, and every packet is counted by the reason of its decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

from l4lb.dataplane.custom import NewFlow
from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters, State, Verdict
from l4lb.dataplane.reference import carry, states
from l4lb.dataplane.reference.affinity import Hosts, hosts_of
from l4lb.dataplane.reference.carry import Arrival, Chosen, Reply
from l4lb.dataplane.reference.counters import SharedCounters
from l4lb.dataplane.reference.flowtable import TICK_MS, FlowEntry, FlowKey, FlowTable
from l4lb.dataplane.reference.hashing import flow_hash
from l4lb.dataplane.reference.packet import Endpoint, Packet, parse
from l4lb.dataplane.reference.ports import OwnPorts, PoolPort
from l4lb.dataplane.reference.rewrite import Offload
from l4lb.dataplane.reference.schedulers import Choice
from l4lb.dataplane.reference.selecting import select
from l4lb.dataplane.reference.sources import Limits
from l4lb.dataplane.selection import Selected, Selection
from l4lb.dataplane.table import MAX_REJECTIONS, BackendEntry, ReplyFrontend, ServiceEntry, Table
from l4lb.model import Forward, Protocol

__all__ = ["Balancer", "SharedCounters"]


@dataclass(slots=True)
class _Traffic:
    scheduled: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    begun: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Pace:
    """Flows remembered from their first packet in one second, or flows rejected."""

    second: int = -1
    begun: int = 0

    def begun_in(self, second: int) -> int:
        return self.begun if second == self.second else 0

    def count(self, second: int) -> None:
        self.second, self.begun = second, self.begun_in(second) + 1


class Balancer:
    """Flow table, scheduler state and counters of one worker.

    `ports` are the first and the number of the masquerade ports that are this worker's on every address of
    the pool.
    """

    def __init__(
        self,
        *,
        capacity: int,
        key: bytes,
        shared: SharedCounters | None = None,
        ports: tuple[int, int] = (0, 0),
    ) -> None:
        if len(key) != 16:
            raise ValueError(f"the key has 16 bytes, not {len(key)}")
        self._key = key
        self._shared = shared if shared is not None else SharedCounters()
        self._limits = Limits(key, self._shared.sources)
        self._flows = FlowTable(capacity, self._shared, self._limits)
        self._ports = OwnPorts(*ports)
        self._pace = _Pace()
        self._rejections = _Pace()
        self._table: Table | None = None
        self._choices: list[Choice] = []
        self._hosts: list[Hosts | None] = []
        self._reasons = dict.fromkeys(Reason, 0)
        self._traffic: dict[int, _Traffic] = {}
        self._taken: dict[int, tuple[int, int]] = {}
        """What `take_beginnings` has told already, by slot."""

    @property
    def capacity(self) -> int:
        """Flows that the table has places for."""
        return self._flows.capacity

    def publish(self, table: Table) -> None:
        """Decide by `table` from the next packet on. Flows and counters stay."""
        self._table = table
        self._limits.publish(table)
        self._shared.keep_turns([service.name for service in table.services])
        self._choices = [Choice(service, self._key, self._shared) for service in table.services]
        self._hosts = hosts_of(table.services)

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
        table = self._published()
        length = len(packet) if length is None else length
        parsed = parse(packet, length=length, gso=gso, whole=rewrite)
        decision = (
            carry.refuse(parsed)
            if isinstance(parsed, Reason)
            else self._decide(Arrival(parsed, now_ms, Offload(checksum_ready, gso), rewrite), table)
        )
        self._reasons[decision.reason] += 1
        return decision

    def preview(self, packet: bytes, now_ms: int) -> Decision:
        """The decision that a whole packet to a service would get, with nothing changed or counted.

        It says what would be decided, not what to do: it carries no mark and no packet. A packet to
        no service is NOT_BALANCED.
        """
        table = self._published()
        parsed = parse(packet, length=len(packet), gso=False, whole=True)
        if isinstance(parsed, Reason):
            return carry.refuse(parsed)
        if _service_of(table, parsed) is None:
            return carry.refuse(Reason.NOT_BALANCED)
        return replace(deepcopy(self).decide(packet, now_ms), mark=0, packet=None, sent=False)

    def find(self, packet: bytes, now_ms: int) -> Flow | None:
        """The flow that a whole packet to a service belongs to, or None."""
        table = self._published()
        parsed = parse(packet, length=len(packet), gso=False, whole=True)
        if isinstance(parsed, Reason) or _service_of(table, parsed) is None:
            return None
        key = FlowKey(*parsed.source, *parsed.destination, parsed.protocol)
        return self._present(self._flows.peek(key, self._hash(key)), now_ms)

    def find_source(self, address: bytes, port: int, protocol: int, now_ms: int) -> Flow | None:
        """The flow whose masquerade source is this, or None; `address` has 4 or 16 bytes."""
        entry = self._holder(self._published(), Endpoint(address, port), protocol)
        return self._present(entry, now_ms)

    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
        return self._flows.expire(now_ms)

    @property
    def groups(self) -> int:
        """Groups of the flow table."""
        return self._flows.groups

    def remove_flows(self, slot: int, first_group: int, groups: int) -> int:
        """Forget the flows of `slot`, expired ones too, in some groups of the table; returns how many."""
        return self._flows.remove_slot(slot, first_group, groups)

    def reasons(self) -> dict[Reason, int]:
        """Packets by reason."""
        return dict(self._reasons)

    def slot_counters(self, slot: int) -> SlotCounters:
        """What `slot` has seen; flows and active are those of all balancers that share counters."""
        traffic = self._traffic.get(slot, _Traffic())
        return SlotCounters(
            flows=self._shared.flows(slot),
            active=self._shared.active(slot),
            open=self._shared.open(slot),
            scheduled=traffic.scheduled,
            packets_in=traffic.packets_in,
            bytes_in=traffic.bytes_in,
            packets_out=traffic.packets_out,
            bytes_out=traffic.bytes_out,
            begun=traffic.begun,
            failed=traffic.failed,
        )

    def take_beginnings(self) -> list[tuple[int, int, int]]:
        """Slots to which flows began, or failed to, since the last call: the slot and how many of each."""
        found = []
        for slot, traffic in sorted(self._traffic.items()):
            begun, failed = self._taken.get(slot, (0, 0))
            if (traffic.begun, traffic.failed) != (begun, failed):
                found.append((slot, traffic.begun - begun, traffic.failed - failed))
                self._taken[slot] = traffic.begun, traffic.failed
        return found

    def flow_count(self) -> int:
        """Remembered flows, those among them that have expired but were not met since."""
        return len(self._flows)

    def flows(self) -> Iterator[Flow]:
        """A snapshot of the remembered flows, in no order."""
        return iter([self._snapshot(entry) for entry in self._flows])

    def select(self, selection: Selection) -> Selected:
        """The flows that a selection asks for, in its order, and how many match."""
        return select(self.flows(), selection)

    def _decide(self, arrival: Arrival, table: Table) -> Decision:
        packet = arrival.packet
        number = _service_of(table, packet)
        if number is not None:
            return self._to_service(arrival, table, number)
        flow = self._masqueraded(table, packet)
        if flow is not None:
            return self._from_pool(arrival, table, flow)
        frontends = _frontends_of(table, packet)
        if frontends:
            return self._from_endpoint(arrival, table, frontends)
        return carry.refuse(Reason.NOT_BALANCED)

    def _masqueraded(self, table: Table, packet: Packet) -> FlowEntry | None:
        """The flow, expired or not, whose backend answers with `packet` to its masquerade port."""
        flow = self._holder(table, packet.destination, packet.protocol)
        if flow is None:
            return None
        backend = _backend_in(table, flow.slot)
        if backend is None or packet.source != (backend.address, backend.port or flow.key.vip_port):
            return None
        return flow

    def _holder(self, table: Table, end: Endpoint, protocol: int) -> FlowEntry | None:
        if end.address not in table.pool:
            return None
        flow = self._flows.find_source(PoolPort(table.pool.index(end.address), end.port))
        return flow if flow is not None and flow.key.protocol == protocol else None

    def _to_service(self, arrival: Arrival, table: Table, number: int) -> Decision:
        service = table.services[number]
        if service.forward.is_tunnel or service.forward is Forward.MASQUERADE:
            refused = carry.refuse_to_send(arrival.packet)
            if refused is not None:
                return refused
        key = FlowKey(*arrival.packet.source, *arrival.packet.destination, arrival.packet.protocol)
        hash_ = self._hash(key)
        chosen = self._choose(arrival, table, number, key, hash_)
        if chosen is Reason.RESET:
            return carry.reset(arrival.packet)
        if chosen is Reason.REJECTED:
            return carry.reject(arrival.packet)
        if isinstance(chosen, Reason):
            return carry.refuse(chosen)
        decision = carry.forward(arrival, table, service, chosen, hash_)
        if decision.verdict is Verdict.FORWARD:
            self._count_in(chosen, arrival.packet)
        return decision

    def _choose(
        self, arrival: Arrival, table: Table, number: int, key: FlowKey, hash_: int
    ) -> Chosen | Reason:
        packet, now_ms = arrival.packet, arrival.now_ms
        service = table.services[number]
        new = Reason.SCHEDULED
        flow = self._flows.find(key, hash_, now_ms)
        if flow is not None:
            if not _is_served(service, flow):
                new = Reason.RESCHEDULED
            elif flow.slot in table.resets and states.can_be_reset(packet.protocol, packet.flags):
                self._flows.remove(flow, hash_)
                return Reason.RESET
            elif flow.slot in table.resets | table.moves or _is_one_packet(service, packet):
                new = Reason.RESCHEDULED
            elif not states.reuses_port(flow.state, packet.flags):
                seen = _sees_replies(table, service)
                state = states.after_client(flow.state, packet.flags, replies_seen=seen)
                self._count_beginning(flow, state, failed=states.opens(packet.flags))
                self._flows.renew(flow, state, _deadline(table, state, now_ms))
                flow.packets += 1
                flow.octets += packet.total
                return Chosen(Reason.FLOW, flow.slot, flow)
            self._flows.remove(flow, hash_)
        return self._begin(arrival, table, number, key, hash_, new)

    def _begin(
        self, arrival: Arrival, table: Table, number: int, key: FlowKey, hash_: int, new: Reason
    ) -> Chosen | Reason:
        """A new flow, in the order of the rules of section 3."""
        client = arrival.packet.source
        packet, now_ms, second = arrival.packet, arrival.now_ms, arrival.now_ms // 1000
        service, choice = table.services[number], self._choices[number]
        masquerades = service.forward is Forward.MASQUERADE
        is_tcp = packet.protocol is Protocol.TCP
        is_first = not is_tcp or states.opens(packet.flags)
        remembers = not _is_one_packet(service, packet)

        if is_tcp and not states.begins(packet.flags):
            return Reason.NO_FLOW
        if not choice.backends:
            return self._reject(service, packet, second)
        if not self._limits.allow(service, key.client, now_ms):
            return Reason.LIMITED
        too_fast = 0 < table.new_flows <= self._pace.begun_in(second)
        if too_fast and is_first and remembers and not masquerades:
            return Chosen(Reason.HASHED, choice.look_up(hash_, client), None)
        group = self._flows.find_room(hash_, now_ms) if remembers else None
        if group is None and remembers:
            return (
                Reason.NO_PORT
                if masquerades
                else Chosen(Reason.STATELESS, choice.look_up(hash_, client), None)
            )
        if is_tcp and not packet.flags & states.SYN:
            slot = choice.look_up(hash_, client)
        else:
            chosen, keeps = self._schedule(table, number, hash_, key, now_ms)
            if chosen is None:
                return Reason.BACKENDS_FULL
            slot = chosen
            if keeps and new is Reason.SCHEDULED:
                new = Reason.AFFINITY
        if group is None:
            return Chosen(new, slot, None)
        source = None
        if masquerades:
            pool = _backend_of(service, slot).pool
            source = self._ports.find_free(pool, hash_, self._flows.taken_ports)
            if source is None:
                return Reason.NO_PORT
        state = states.first_state(packet.protocol, packet.flags)
        deadline = _deadline(table, state, now_ms)
        flow = FlowEntry(key, slot, state, deadline, packets=1, octets=packet.total, source=source)
        self._flows.insert(group, flow)
        if is_first:
            self._pace.count(second)
        return Chosen(new, slot, flow)

    def _reject(self, service: ServiceEntry, packet: Packet, second: int) -> Reason:
        """How a packet is refused that no backend takes. ICMP errors are to be limited (RFC 4443, 2.4 f)."""
        if not service.rejects:
            return Reason.NO_BACKEND
        if packet.protocol is Protocol.UDP:
            if self._rejections.begun_in(second) >= MAX_REJECTIONS:
                return Reason.NO_BACKEND
            self._rejections.count(second)
        return Reason.REJECTED

    def _schedule(
        self, table: Table, number: int, hash_: int, key: FlowKey, now_ms: int
    ) -> tuple[int | None, bool]:
        """The slot for a new flow, None where all are full, and whether its client's last one has chosen
        it."""
        service, choice = table.services[number], self._choices[number]
        client, flow = Endpoint(key.client, key.client_port), NewFlow(*key, hash_)
        if not service.affinity_prefix:
            return choice.choose(hash_, client, flow), False
        return self._shared.affinities.choose(
            service,
            self._hosts[number],
            client.address,
            self._key,
            now_ms,
            choice.has_room,
            lambda: choice.choose(hash_, client, flow),
        )

    def _from_pool(self, arrival: Arrival, table: Table, flow: FlowEntry) -> Decision:
        refused = carry.refuse_to_send(arrival.packet)
        if refused is not None:
            return refused
        if flow.expired(arrival.now_ms):
            self._flows.remove(flow, self._hash(flow.key))
            return carry.refuse(Reason.NOT_BALANCED)
        self._renew_by_reply(arrival, table, flow)
        self._count_out(flow.slot, arrival.packet)
        return carry.reply_masqueraded(arrival, flow)

    def _from_endpoint(
        self, arrival: Arrival, table: Table, frontends: tuple[ReplyFrontend, ...]
    ) -> Decision:
        found = self._match(arrival, table, frontends)
        if isinstance(found, Reason):
            return carry.refuse(found)
        self._count_out(found.frontend.slot, arrival.packet)
        return carry.reply(arrival, found)

    def _match(self, arrival: Arrival, table: Table, frontends: tuple[ReplyFrontend, ...]) -> Reply | Reason:
        packet = arrival.packet
        for frontend in frontends:
            vip_port = frontend.port or packet.source.port
            key = FlowKey(*packet.destination, frontend.address, vip_port, packet.protocol)
            flow = self._flows.find(key, self._hash(key), arrival.now_ms)
            if flow is not None and flow.slot == frontend.slot:
                self._renew_by_reply(arrival, table, flow)
                return Reply(Reason.REPLY, frontend)
        if len(frontends) > 1:
            return Reason.REPLY_UNMATCHED
        return Reply(Reason.REPLY_STATIC, frontends[0])

    def _renew_by_reply(self, arrival: Arrival, table: Table, flow: FlowEntry) -> None:
        state = states.after_backend(flow.state, arrival.packet.flags)
        self._count_beginning(flow, state, failed=bool(arrival.packet.flags & states.RST))
        self._flows.renew(flow, state, _deadline(table, state, arrival.now_ms))

    def _count_beginning(self, flow: FlowEntry, state: State, *, failed: bool) -> None:
        """Before a flow goes to `state`: whether it begins by that, or the packet says that it does not."""
        if flow.state is not State.SYN_RECV:
            return
        traffic = self._traffic.setdefault(flow.slot, _Traffic())
        if state is State.ESTABLISHED:
            traffic.begun += 1
        elif failed:
            traffic.failed += 1

    def _count_in(self, chosen: Chosen, packet: Packet) -> None:
        traffic = self._traffic.setdefault(chosen.slot, _Traffic())
        traffic.packets_in += 1
        traffic.bytes_in += packet.total
        traffic.scheduled += chosen.reason in (Reason.SCHEDULED, Reason.AFFINITY, Reason.RESCHEDULED)

    def _count_out(self, slot: int, packet: Packet) -> None:
        traffic = self._traffic.setdefault(slot, _Traffic())
        traffic.packets_out += 1
        traffic.bytes_out += packet.total

    def _published(self) -> Table:
        if self._table is None:
            raise RuntimeError("no table was published")
        return self._table

    def _hash(self, key: FlowKey) -> int:
        return flow_hash(self._key, key.client, key.vip, key.client_port, key.vip_port, key.protocol)

    def _present(self, entry: FlowEntry | None, now_ms: int) -> Flow | None:
        return None if entry is None or entry.expired(now_ms) else self._snapshot(entry)

    def _snapshot(self, entry: FlowEntry) -> Flow:
        pool = self._published().pool
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
            source=pool[entry.source.address] if entry.source is not None else b"",
            source_port=entry.source.port if entry.source is not None else 0,
        )


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


def _backend_of(service: ServiceEntry, slot: int) -> BackendEntry:
    return next(backend for backend in service.backends if backend.slot == slot)


def _backend_in(table: Table, slot: int) -> BackendEntry | None:
    backends = (backend for service in table.services for backend in service.backends)
    return next((backend for backend in backends if backend.slot == slot), None)


def _is_served(service: ServiceEntry, flow: FlowEntry) -> bool:
    """Whether the flow can go on as it began: to the same backend, with a masquerade port or without."""
    masqueraded = flow.source is not None
    return masqueraded == (service.forward is Forward.MASQUERADE) and any(
        backend.slot == flow.slot for backend in service.backends
    )


def _is_one_packet(service: ServiceEntry, packet: Packet) -> bool:
    """Whether nothing is remembered of it. Answers to a masqueraded packet need a flow."""
    return (
        service.one_packet and packet.protocol is Protocol.UDP and service.forward is not Forward.MASQUERADE
    )


def _sees_replies(table: Table, service: ServiceEntry) -> bool:
    """Whether answers of the service's backends pass here."""
    if service.forward is Forward.NAT:
        return table.replies_seen
    return service.forward is Forward.MASQUERADE


def _deadline(table: Table, state: State, now_ms: int) -> int:
    return (now_ms + table.timeouts.of(state)) // TICK_MS
