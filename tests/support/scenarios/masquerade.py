"""Masquerade: backends without a route to any client; all that they see is the gateway.

Because answers come back to the gateway whoever asked, the virtual address works from the backends' own
network too: for `peer`, a client there, and for a backend that asks its own service (hairpin), and may be
answered by itself.
"""

from __future__ import annotations

from tests.support.lab import ROOT
from tests.support.scenarios import compare
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.scenario import VIP4, VIP6, Counted, Load, Played, Witness, lan_address
from tests.support.scenarios.tap import Tap, to_address
from tests.support.servers import ECHO_PORT, HTTP_PORT


class BehindTheGateway(Witness):
    """Whom the servers take for their client."""

    def prepare(self, stage: Stage) -> None:
        """The servers note their clients' addresses; as clients, the backends get a route to the VIPs."""
        gateway = stage.lab.gateway
        asked = (f"tcp dport {HTTP_PORT}", f"udp dport {ECHO_PORT}")
        self._servers = [Tap(host, {}, sources_of=asked) for host in stage.lab.backends]
        self._gateway = Tap(gateway, {"to_vips": to_address(VIP4, VIP6)})
        for host in stage.lab.backends:
            for vip, family in ((f"{VIP4}/32", 4), (f"{VIP6}/128", 6)):
                host.run(["ip", "route", "add", vip, "via", lan_address(gateway, family)])

    def testify(self, played: Played, result: Result) -> None:
        """The clients' addresses, and the hairpins."""
        compare.compare_packets(played, result, lambda: self._gateway.packets("to_vips"))
        for family, name in ((4, "clients_seen_by_servers"), (6, "clients_seen_by_servers_ipv6")):
            seen = {address for tap in self._servers for address in tap.sources(family)}
            own = lan_address(played.stage.lab.gateway, family)
            result.prove(name, len(seen), seen == {own}, f"1, {own} alone; it was {', '.join(sorted(seen))}")
        hairpins = [(load, tally) for load, tally in played.tallies if load.sender != "client"]
        answered = sum(tally.answered.total() for _, tally in hairpins)
        asked = sum(tally.sent for _, tally in hairpins)
        by_itself = sum(tally.answered[load.sender] for load, tally in hairpins)
        result.prove("hairpin_requests", answered, answered == asked > 0, f"{asked}, all that were sent")
        result.prove("hairpin_to_itself", by_itself, by_itself > 0, "more than 0")


SCENARIO = Counted(
    name="masquerade",
    title="masquerade: backends without a route to clients see the gateway alone; hairpins",
    config=ROOT / "examples/masquerade.yaml",
    shape="own-router",
    loads=(
        Load("http", "web", VIP4, 80, share=0.5),
        Load("http", "web-v6", VIP6, 80, share=0.5),
        Load("udp", "echo", VIP4, ECHO_PORT),
        Load("http", "web", VIP4, 80, sender="peer", share=0.1),
        Load("http", "web", VIP4, 80, sender="b1", share=0.1),
        Load("http", "web-v6", VIP6, 80, sender="b1", share=0.1),
    ),
    witness=BehindTheGateway,
    hints=(
        ("gateway", "{l4lb} flows ls --limit 10"),
        ("b1", "nft list set inet demo sources4"),
    ),
)
