"""Asks every worker for a flow: an ICMP error comes to one queue, the flow may be any worker's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from l4lb.dataplane.decision import Flow
from l4lb.dataplane.sample import build_first_packet
from l4lb.model import Protocol
from l4lb.net.worker import Worker


class WorkersFlows:
    """The flows of the `workers` that there are when it is asked."""

    def __init__(self, workers: Callable[[], Sequence[Worker]]) -> None:
        self._workers = workers

    def find(self, client: bytes, client_port: int, vip: bytes, vip_port: int, protocol: int) -> Flow | None:
        """See `FlowFinder.find`."""
        packet = build_first_packet(
            ip_address(client), client_port, ip_address(vip), vip_port, Protocol(protocol)
        )
        now = _now_ms()
        found = (worker.balancer.find(packet, now) for worker in self._workers())
        return next((flow for flow in found if flow is not None), None)

    def find_source(self, address: bytes, port: int, protocol: int) -> Flow | None:
        """See `FlowFinder.find_source`."""
        now = _now_ms()
        found = (worker.balancer.find_source(address, port, protocol, now) for worker in self._workers())
        return next((flow for flow in found if flow is not None), None)


def _now_ms() -> int:
    """The workers' clock."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
