"""Direct return: requests pass the gateway, answers do not.

The client has a second leg on the backends' network, which is their way to it. Counters on the gateway see
every request, as many as the balancer counts, and no answer; a counter on that leg of the client sees the
answers. At last a backend sends the gateway what an answer looks like, and the counter that stood at 0 must
count it.
"""

from __future__ import annotations

import socket

from tests.support import servers
from tests.support.lab import ROOT, Host, LabError, wait_for
from tests.support.scenarios import compare
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.scenario import VIP4, VIP6, Counted, Load, Played, Witness, lan_address
from tests.support.scenarios.tap import Tap, between, from_address, to_address

CONTROL_TIMEOUT_S = 5.0
DISCARD_PORT = 9
VIPS = (VIP4, VIP6)
WORDS = tuple(word for vip in VIPS for word in ("--vip", vip))


class PastTheGateway(Witness):
    """That answers take a way of their own."""

    def prepare(self, stage: Stage) -> None:
        """The backends get the VIPs, the gateway and the client their counters."""
        stage.say("giving each backend the VIPs: `l4lb real-server --apply`")
        for host in stage.lab.backends:
            self.prepare_backend(host)
        gateway, client = stage.lab.gateway, stage.lab.client
        own = [address for host in stage.lab.backends for address in (host.v4, host.v6)]
        clients = [a for leg in client.plan.interfaces for a in (leg.v4, leg.v6) if a is not None]
        replies = [*from_address(*VIPS), *between(own, clients)]
        self._gateway = Tap(gateway, {"requests": to_address(*VIPS), "replies": replies})
        self._client = Tap(client, {"replies": [f"iifname eth1 {match}" for match in from_address(*VIPS)]})

    def prepare_backend(self, host: Host) -> None:
        """What an operator does on it."""
        servers.real_server(host, *WORDS, "--apply")

    def testify(self, played: Played, result: Result) -> None:
        """The counters, and whether they count."""
        requests = compare.compare_packets(played, result, lambda: self._gateway.packets("requests"))
        through, past = self._gateway.packets("replies"), self._client.packets("replies")
        result.prove("requests_through_gateway", requests, requests > 0, "more than 0")
        result.prove("replies_through_gateway", through, through == 0, "0")
        result.prove("replies_past_gateway", past, past > 0, "more than 0")
        control = self._send_control(played, through)
        result.prove(
            "control_packets_counted", control, control == len(VIPS), f"{len(VIPS)}, all that were sent"
        )

    def _send_control(self, played: Played, before: int) -> int:
        """How many of the packets that look like answers, one a family, the counter of answers counts."""
        lab = played.stage.lab
        with lab.host("b1").enter():
            for family, kind, vip in ((4, socket.AF_INET, VIP4), (6, socket.AF_INET6, VIP6)):
                with socket.socket(kind, socket.SOCK_DGRAM) as sock:
                    sock.bind((vip, 0))
                    sock.sendto(b"an answer", (lan_address(lab.gateway, family), DISCARD_PORT))
        try:
            wait_for(
                lambda: self._gateway.packets("replies") >= before + len(VIPS),
                CONTROL_TIMEOUT_S,
                "the control packets",
            )
        except LabError:
            played.stage.say("the control packets were not counted")
        return self._gateway.packets("replies") - before


def past_the_gateway(name: str, title: str, witness: type[Witness], evidence: tuple[str, str]) -> Counted:
    """A scenario in which backends answer past the gateway; `evidence` is a host and a look there."""
    return Counted(
        name=name,
        title=title,
        config=ROOT / f"examples/{name}.yaml",
        shape="past-gateway",
        http_port=80,  # packets keep the port that the client addressed
        loads=(
            Load("http", "web", VIP4, 80, share=0.5),
            Load("http", "web-v6", VIP6, 80, share=0.5),
            Load("udp", "echo", VIP4, servers.ECHO_PORT),
        ),
        witness=witness,
        hints=(evidence, ("gateway", "nft list counters table inet demo")),
    )


SCENARIO = past_the_gateway(
    "dsr",
    "direct return: requests pass the gateway, answers go past it",
    PastTheGateway,
    ("b1", "ip -brief addr show lo"),
)
