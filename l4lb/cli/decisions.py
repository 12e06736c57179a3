"""What the core says of packets that were seen (`l4lb trace`, `l4lb capture`). Changes and counts nothing.

A packet is asked about a moment after it passed. If its flow is remembered, that is its decision; else the
answer is what the core would decide now, which says why no flow was begun.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from l4lb.cli.views import Scene, is_offloaded
from l4lb.dataplane.decision import Decision, Flow, Reason
from l4lb.dataplane.icmp_parse import IpPacket, read_ip
from l4lb.model import Protocol, Service

Json = dict[str, Any]
_SYN, _ACK = 0x02, 0x10


def decide_packets(scene: Scene, packets: Iterable[bytes], now_ms: int) -> list[Json]:
    """A row for each packet, from its IP header on and at its whole length.

    `now_ms` is on the clock of the flows. `known` says that a flow is remembered; where it is not, `backend`
    is the one that would be chosen now, None where the workers would not choose alike.
    """
    services = {service.name: service for service in scene.config.services}
    return [_decide(scene, services, packet, now_ms) for packet in packets]


def _decide(scene: Scene, services: dict[str, Service], packet: bytes, now: int) -> Json:
    header = read_ip(packet, 0, len(packet))
    ip = header if isinstance(header, IpPacket) else None
    name = _service_of(scene, packet, ip) if ip else None
    service = services.get(name) if name else None
    if ip is not None and service is not None and _is_denied(service, ip):
        return _row(name, None, "drop", "denied", "its client is kept out by allow or deny")
    for worker in scene.workers:
        flow = worker.balancer.find(packet, now)
        if flow is not None and flow.expires_ms > now:
            return _known(scene, flow, packet, ip, now)
    previews = [worker.balancer.preview(packet, now) for worker in scene.workers]
    first: Decision = previews[0]
    backends = {scene.slots.owner(p.slot).backend if p.slot >= 0 else None for p in previews}
    return _row(
        name,
        backends.pop() if len(backends) == 1 else None,
        first.verdict.name.lower(),
        first.reason.name.lower(),
        first.reason.text,
    )


def _known(scene: Scene, flow: Flow, packet: bytes, ip: IpPacket | None, now: int) -> Json:
    """A SYN, or a flow's only packet so far, is taken for the one that was scheduled: nobody remembers which
    it was."""
    began = flow.packets == 1 or (ip is not None and _opens(packet, ip))
    reason = Reason.SCHEDULED if began else Reason.FLOW
    owner = scene.slots.owner(flow.slot)
    row = _row(owner.service, owner.backend, "forward", reason.name.lower(), reason.text)
    return row | {
        "known": True,
        "state": flow.state.name.lower(),
        "offloaded": not began and is_offloaded(scene, flow, now),
    }


def _row(service: str | None, backend: str | None, verdict: str, reason: str, why: str) -> Json:
    return {
        "service": service,
        "backend": backend,
        "verdict": verdict,
        "reason": reason,
        "why": why,
        "known": False,
        "state": None,
        "offloaded": False,
    }


def _service_of(scene: Scene, packet: bytes, ip: IpPacket) -> str | None:
    """The service that listens where the packet goes to."""
    if ip.offset or ip.protocol not in (Protocol.TCP, Protocol.UDP) or ip.body + 4 > len(packet):
        return None
    port = int.from_bytes(packet[ip.body + 2 : ip.body + 4])
    ranges = scene.table.vips.get((ip.destination, ip.protocol), ())
    at = bisect_right(ranges, port, key=lambda r: r.first) - 1
    if at < 0 or port > ranges[at].last:
        return None
    return scene.table.services[ranges[at].service].name


def _is_denied(service: Service, ip: IpPacket) -> bool:
    """As the rules ask (`l4lb.control.way_in`), before a packet is queued."""
    client = ip_address(ip.source)
    kept_out = any(client in network for network in service.deny)
    return kept_out or bool(service.allow and not any(client in network for network in service.allow))


def _opens(packet: bytes, ip: IpPacket) -> bool:
    """Whether it is TCP with SYN and without ACK."""
    if ip.protocol != Protocol.TCP or ip.body + 14 > len(packet):
        return False
    return packet[ip.body + 13] & (_SYN | _ACK) == _SYN
