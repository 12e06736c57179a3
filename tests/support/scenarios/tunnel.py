"""Tunnels: HTTP in IPIP and UDP in GUE to backends that take the packets out and answer themselves.

As with direct return, answers go past the gateway. The program that decapsulates on each backend
(`tests/support/decapsulator.py`, for kernels without tunnels) remembers every packet: all that the balancer
counted came, well formed, and from many outer sources, so that receivers can spread them over processors.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.support import servers
from tests.support.lab import Host, LabError, wait_for
from tests.support.scenarios.base import IncapableError, Result, Stage
from tests.support.scenarios.dsr import WORDS, PastTheGateway, past_the_gateway
from tests.support.scenarios.scenario import Played

ARRIVAL_TIMEOUT_S = 5.0
TUN = Path("/dev/net/tun")
DEVICE = ("--tunnel-device", servers.DECAPSULATOR_DEVICE)


class InTunnels(PastTheGateway):
    """That packets travel inside others, from many sources."""

    def prepare(self, stage: Stage) -> None:
        """As with direct return, and a device on each backend that takes packets out."""
        if not TUN.exists():
            raise IncapableError(f"{TUN} is missing: this kernel has no TUN devices (CONFIG_TUN)")
        self._decapsulators = [servers.start_decapsulator(host) for host in stage.lab.backends]
        for decapsulator in self._decapsulators:
            decapsulator.wait_ready()
        super().prepare(stage)

    def prepare_backend(self, host: Host) -> None:
        """What an operator does on it."""
        for forward in ("ipip", "gue"):
            servers.real_server(host, *WORDS, "--forward", forward, *DEVICE, "--apply")

    def testify(self, played: Played, result: Result) -> None:
        """What the tunnels' ends saw, beside what the gateway did."""
        super().testify(played, result)
        requests = int(result.evidence["requests_through_gateway"])
        with contextlib.suppress(LabError):  # that not all came is said below
            wait_for(lambda: self._packets() >= requests, ARRIVAL_TIMEOUT_S, "the packets in tunnels")
        counts = [decapsulator.counts() for decapsulator in self._decapsulators]
        seen = [packet for decapsulator in self._decapsulators for packet in decapsulator.seen()]
        sources = {packet["source"] for packet in seen}
        ports = {packet["source_port"] for packet in seen if packet["kind"] == "gue"}
        packets, refused = len(seen), sum(count["refused"] for count in counts)
        result.prove("encapsulated", packets, packets == requests, f"{requests}, all that the gateway got")
        for kind in ("ipip", "gue"):
            number = sum(count[kind] for count in counts)
            result.prove(kind, number, number > 0, "more than 0")
        result.prove("refused_by_backends", refused, refused == 0, "0")
        result.prove("outer_sources", len(sources), len(sources) > 1, "more than 1")
        result.prove("gue_source_ports", len(ports), len(ports) > 1, "more than 1")

    def _packets(self) -> int:
        counts = [decapsulator.counts() for decapsulator in self._decapsulators]
        return sum(count["ipip"] + count["gue"] for count in counts)


SCENARIO = past_the_gateway(
    "tunnel",
    "tunnels: HTTP in IPIP, UDP in GUE, to backends that answer past the gateway",
    InTunnels,
    ("b1", "tail -n 3 {directory}/b1-decapsulator.jsonl"),
)
