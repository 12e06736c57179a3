"""IPv6: HTTP and UDP to a virtual address and backends of IPv6, and not one packet of IPv4.

Ports are kept here, both protocols are one service, and its third backend has the weight 0: it gets nothing.
"""

from __future__ import annotations

import socket

from tests.support.lab import ROOT, LabError, wait_for
from tests.support.scenarios import compare
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.scenario import Counted, Load, Played, Witness
from tests.support.scenarios.tap import Tap, to_address

VIP = "2001:db8::10"
HTTP_PORT, UDP_PORT = 80, 443
CONTROL_TIMEOUT_S = 5.0
DISCARD_PORT = 9


class WithoutIPv4(Witness):
    """Which family passes."""

    def prepare(self, stage: Stage) -> None:
        """The client learns the way to a VIP outside the lab's usual network; the gateway counts."""
        (leg,) = [i for i in stage.lab.gateway.plan.interfaces if i.name == "wan0"]
        stage.lab.client.run(["ip", "route", "add", f"{VIP}/128", "via", str(leg.v6)])
        counters = {
            "to_vip": to_address(VIP),
            "ipv4": ["ip daddr != 224.0.0.0/4"],
            "ipv6": ["meta nfproto ipv6"],
        }
        self._gateway = Tap(stage.lab.gateway, counters)

    def testify(self, played: Played, result: Result) -> None:
        """The counters, and whether that of IPv4 counts."""
        requests = compare.compare_packets(played, result, lambda: self._gateway.packets("to_vip"))
        ipv4, ipv6 = self._gateway.packets("ipv4"), requests + self._gateway.packets("ipv6")
        result.prove("ipv4_packets", ipv4, ipv4 == 0, "0")
        result.prove("ipv6_packets", ipv6, ipv6 > 0, "more than 0")
        control = self._send_control(played, ipv4)
        result.prove("control_packets_counted", control, control == 1, "1, all that was sent")

    def _send_control(self, played: Played, before: int) -> int:
        """How many packets are counted when the client sends one over IPv4."""
        lab = played.stage.lab
        with lab.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"over IPv4", (lab.gateway.v4, DISCARD_PORT))
        try:
            wait_for(lambda: self._gateway.packets("ipv4") > before, CONTROL_TIMEOUT_S, "the control packet")
        except LabError:
            played.stage.say("the control packet was not counted")
        return self._gateway.packets("ipv4") - before


SCENARIO = Counted(
    name="ipv6",
    title="IPv6: HTTP and UDP by a consistent hash, and no packet of IPv4",
    config=ROOT / "examples/ipv6.yaml",
    http_port=HTTP_PORT,
    echo_port=UDP_PORT,
    by_chance=True,
    loads=(Load("http", "web", VIP, HTTP_PORT), Load("udp", "web", VIP, UDP_PORT)),
    witness=WithoutIPv4,
    hints=(("gateway", "{l4lb} explain '[2001:db8:1::2]:40000' '[2001:db8::10]:80/tcp'"),),
)
