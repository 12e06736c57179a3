"""What the daemon answers about itself: plain rows from the workers' snapshots. Changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from l4lb.cli.kernelcounts import KernelCount
from l4lb.control.affinity import describe_affinity
from l4lb.control.quorum import ServiceState
from l4lb.control.roster import Roster
from l4lb.control.rules import COUNTERS, LEASE_S
from l4lb.control.ruleset import TABLE
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.decision import Decision, Flow, Reason, SlotCounters, State, Verdict
from l4lb.dataplane.sample import build_first_packet
from l4lb.dataplane.table import LEARN_AFTER, Table
from l4lb.errors import ConfigError
from l4lb.model import Address, L4Config, Listen, Protocol, Service
from l4lb.net import nft
from l4lb.net.queue import KernelQueue, read_kernel_queues
from l4lb.net.worker import Worker

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """What every answer is made of: the running configuration, its table, and who counts.

    `kernel` is what the kernel alone has counted, by slot (`l4lb.cli.kernelcounts`), and `learned` are the
    slots whose flows it learns.
    """

    config: L4Config
    slots: SlotRegistry
    table: Table
    workers: Sequence[Worker]
    kernel: Mapping[int, KernelCount]
    learned: frozenset[int]
    roster: Roster


_SUMMED = (
    "flows",
    "active",
    "open",
    "scheduled",
    "packets_in",
    "bytes_in",
    "packets_out",
    "bytes_out",
    "packets_offloaded",
)
_ENDPOINT = re.compile(
    r"^(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp))?$"
)


def now_ms() -> int:
    """The clock that flows are timed by."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000


def slot_totals(workers: Sequence[Worker], slot: int) -> SlotCounters:
    """The counters of a slot over all workers. `flows`, `active` and `open` are shared and counted once."""
    parts = [worker.balancer.slot_counters(slot) for worker in workers]
    return SlotCounters(
        flows=parts[0].flows,
        active=parts[0].active,
        open=parts[0].open,
        scheduled=sum(p.scheduled for p in parts),
        packets_in=sum(p.packets_in for p in parts),
        bytes_in=sum(p.bytes_in for p in parts),
        packets_out=sum(p.packets_out for p in parts),
        bytes_out=sum(p.bytes_out for p in parts),
        begun=sum(p.begun for p in parts),
        failed=sum(p.failed for p in parts),
    )


def reason_totals(workers: Sequence[Worker]) -> dict[str, int]:
    """Packets by reason over all workers, by the reason's name in lower case."""
    totals = dict.fromkeys(Reason, 0)
    for worker in workers:
        for reason, count in worker.balancer.reasons().items():
            totals[reason] += count
    return {reason.name.lower(): count for reason, count in totals.items()}


def kernel_counters() -> dict[str, int]:
    """Packets by the named counters of the rules."""
    counted = nft.read_counters(TABLE)
    return {name: counted.get(name, 0) for name in COUNTERS}


def queue_rows(workers: Sequence[Worker]) -> list[Json]:
    """A row for each queue: what waits, what the kernel dropped, what its worker did."""
    kernel = {queue.number: queue for queue in read_kernel_queues()}
    rows = []
    for worker in workers:
        queue = kernel.get(worker.number, KernelQueue(worker.number, 0, 0, 0))
        known = {"waiting": queue.waiting, "dropped_full": queue.dropped_full}
        socket = {"dropped_socket": queue.dropped_socket}
        rows.append({"number": worker.number, **known, **socket, **worker.loop_counts()})
    return rows


def backend_rows(scene: Scene) -> Iterator[Json]:
    """A row for each backend of each service, in the order of the configuration.

    What goes out is None where answers do not come by here (direct return, tunnels). `effective_weight` is
    what decides: 0 for a backend that takes no new flows, whatever its `weight`. One that is `full`, with as
    many `open` flows as its `max_connections`, takes none for now.
    """
    now = time.monotonic()
    for service in scene.config.services:
        for backend in service.backends:
            slot = scene.slots.slot(service.name, backend.name)
            totals = slot_totals(scene.workers, slot)
            kernel = scene.kernel.get(slot, KernelCount())
            unseen = service.forward.answers_itself
            member = scene.roster.member(service.name, backend.name)
            yield {
                "service": service.name,
                "backend": backend.name,
                "state": str(member.state),
                "weight": member.full_weight,
                "effective_weight": member.effective,
                "flows": totals.flows,
                "active": totals.active,
                "open": totals.open,
                "max_connections": member.limit,
                "full": member.limit is not None and totals.open >= member.limit,
                "scheduled": totals.scheduled,
                "packets_in": totals.packets_in + kernel.packets_in,
                "bytes_in": totals.bytes_in + kernel.bytes_in,
                "packets_out": None if unseen else totals.packets_out + kernel.packets_out,
                "bytes_out": None if unseen else totals.bytes_out + kernel.bytes_out,
                "packets_offloaded": kernel.packets_in,
                "why": member.why,
                "since_s": _age(member.since, now),
            }


def service_rows(scene: Scene) -> Iterator[Json]:
    """A row for each service, its counters summed over its backends."""
    rows: dict[str, list[Json]] = {}
    for row in backend_rows(scene):
        rows.setdefault(row["service"], []).append(row)
    standings = {row["service"]: row for row in standing_rows(scene.roster)}
    for service in scene.config.services:
        own = rows[service.name]
        yield {
            "service": service.name,
            "listen": [str(listen) for listen in service.listens],
            "forward": str(service.forward),
            "scheduler": _scheduler(service),
            **standings[service.name],
            **{key: _total(own, key) for key in _SUMMED},
        }


def standing_rows(roster: Roster) -> Iterator[Json]:
    """A row for each service with what it is, and why; `backends` are those without the sorry server,
    `withdrawn` its VIPs that the host does not have now."""
    now = time.monotonic()
    withdrawn = {str(vip) for vip in roster.withdrawn()}
    for service in roster.config.services:
        vips = dict.fromkeys(str(listen.address) for listen in service.listens)
        standing = roster.standing(service.name)
        yield {
            "service": service.name,
            "state": str(standing.state),
            "has_quorum": standing.has_quorum,
            "up": standing.up,
            "backends": standing.backends,
            "quorum": standing.needed,
            "why": standing.why,
            "since_s": _age(standing.since_s, now),
            "withdrawn": [vip for vip in vips if vip in withdrawn],
        }


def service_states(roster: Roster) -> dict[str, int]:
    """How many services are in each state."""
    found = dict.fromkeys(map(str, ServiceState), 0)
    for service in roster.config.services:
        found[str(roster.standing(service.name).state)] += 1
    return found


def _age(since_s: float | None, now_s: float) -> float | None:
    """Seconds since then; None where there was no change."""
    return round(max(now_s - since_s, 0.0), 1) if since_s else None


def _scheduler(service: Service) -> str:
    return f"python:{service.python}" if service.python else str(service.scheduler)


def _total(rows: Sequence[Json], key: str) -> int | None:
    values = [row[key] for row in rows]
    return None if None in values else sum(values)


def flow_row(scene: Scene, flow: Flow, queue: int, now: int) -> Json:
    """One flow as the command line shows it."""
    service, backend = scene.slots.owner(flow.slot)
    return {
        "client": _endpoint(ip_address(flow.client), flow.client_port),
        "listen": f"{_endpoint(ip_address(flow.vip), flow.vip_port)}/{Protocol(flow.protocol).name.lower()}",
        "service": service,
        "backend": backend,
        "state": flow.state.name.lower(),
        "idle_s": round(max(now - last_seen_ms(scene, flow), 0) / 1000, 1),
        "expires_s": round(max(flow.expires_ms - now, 0) / 1000, 1),
        "packets": flow.packets,
        "bytes": flow.bytes,
        "queue": queue,
        "offloaded": is_offloaded(scene, flow, now),
        "source": _endpoint(ip_address(flow.source), flow.source_port) if flow.source else None,
    }


def is_offloaded(scene: Scene, flow: Flow, now: int) -> bool:
    """Whether the kernel remembers the flow: it learned it from the last packet that came here, for
    `LEASE_S`."""
    established = flow.state in (State.ESTABLISHED, State.UDP) and flow.packets >= LEARN_AFTER
    since_ms = now - last_seen_ms(scene, flow)
    return flow.slot in scene.learned and established and since_ms < LEASE_S * 1000


def last_seen_ms(scene: Scene, flow: Flow) -> int:
    """When user space saw a packet of the flow last."""
    return flow.expires_ms - scene.table.timeouts.of(flow.state)


def explain(scene: Scene, client: str, listen: str) -> Json:
    """Where the first packet from `client` to `listen` would go, and why; nothing is changed.

    ConfigError where one of the two is not an endpoint.
    """
    client_address, client_port, _ = parse_endpoint(client, "client", protocol=False)
    address, port, protocol = parse_endpoint(listen, "service", protocol=True)
    assert protocol is not None
    if client_address.version != address.version:
        raise ConfigError(f"explain: {client} and {listen} are of different families")
    packet = build_first_packet(client_address, client_port, address, port, protocol)
    now = now_ms()
    answers = [(worker, worker.balancer.preview(packet, now)) for worker in scene.workers]
    known = [(worker, decision) for worker, decision in answers if decision.reason is Reason.FLOW]
    _, decision = (known or answers)[0]
    service = _service_at(scene.config, address, port, protocol)
    remembered = [
        (worker.number, flow)
        for worker in scene.workers
        if (flow := worker.balancer.find(packet, now)) is not None
    ]
    chosen = {_backend(scene.slots, d) for _, d in (known or answers)}
    standing = scene.roster.standing(service.name) if service else None
    return {
        "client": _endpoint(client_address, client_port),
        "listen": f"{_endpoint(address, port)}/{protocol.name.lower()}",
        "service": service.name if service else None,
        "forward": str(service.forward) if service else None,
        "scheduler": _scheduler(service) if service else None,
        "affinity": describe_affinity(service, scene.config.services) if service else None,
        "state": f"{standing.state}: {standing.why}" if standing else None,
        "verdict": decision.verdict.name.lower(),
        "reason": decision.reason.name.lower(),
        "why": decision.reason.text,
        "backend": _backend(scene.slots, decision) if len(chosen) == 1 else None,
        "by_queue": [
            {"queue": w.number, "backend": _backend(scene.slots, d), "reason": d.reason.name.lower()}
            for w, d in (known or answers)
        ],
        "flow": next((flow_row(scene, flow, queue, now) for queue, flow in remembered), None),
        "backends": [
            row for row in backend_rows(scene) if service is not None and row["service"] == service.name
        ],
    }


def parse_endpoint(text: str, what: str, *, protocol: bool) -> tuple[Address, int, Protocol | None]:
    """`198.51.100.7:40000`, `[2001:db8::7]:40000`, with `protocol` also `/tcp` or `/udp`."""
    form = "198.51.100.7:40000" if not protocol else "203.0.113.10:80/tcp"
    match = _ENDPOINT.match(text)
    if match is None or (match["protocol"] is not None) != protocol:
        raise ConfigError(f"{what} {text!r}: not of the form {form}")
    try:
        address = ip_address(match["v6"] or match["v4"])
    except ValueError as error:
        raise ConfigError(f"{what} {text!r}: {error}") from error
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ConfigError(f"{what} {text!r}: port {port} is not between 1 and 65535")
    return address, port, Protocol[match["protocol"].upper()] if protocol else None


def _service_at(config: L4Config, address: Address, port: int, protocol: Protocol) -> Service | None:
    def holds(listen: Listen) -> bool:
        return (
            listen.address == address
            and listen.protocol is protocol
            and listen.first_port <= port <= listen.last_port
        )

    return next((s for s in config.services if any(holds(listen) for listen in s.listens)), None)


def _backend(slots: SlotRegistry, decision: Decision) -> str | None:
    if decision.verdict is not Verdict.FORWARD:
        return None
    return slots.owner(decision.slot)[1]


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
