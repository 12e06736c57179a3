"""Offload: connections that last are learned by the kernel, and their packets no longer come to the balancer.

Many requests go over each connection, many datagrams over each socket. A counter on the gateway counts what
comes for the VIPs, the balancer's queues count what came to user space: a small part, the beginnings and
ends. All the same the balancer knows how many packets went to which backend.

With another datapath nothing is learned, and the numbers only show what that is like: `rewrite` and
`reference` have the answers in user space, too.
"""

from __future__ import annotations

from tests.support.lab import ROOT
from tests.support.scenarios import compare
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.scenario import VIP4, VIP6, Counted, Load, Played, Witness
from tests.support.scenarios.tap import Tap, to_address
from tests.support.servers import ECHO_PORT

# Of each connection user space sees four packets: two at its beginning and two at its end.
SMALL_PART = 0.2


class LearnedFlows(Witness):
    """How much of the traffic user space saw."""

    def prepare(self, stage: Stage) -> None:
        """The gateway counts what comes for the VIPs."""
        self._gateway = Tap(stage.lab.gateway, {"to_vips": to_address(VIP4, VIP6)})
        self._offloaded = 0

    def while_open(self, l4lb: Balancer, load: Load) -> None:
        """A connection is the kernel's only until its end."""
        self._offloaded += offloaded(l4lb, load)

    def testify(self, played: Played, result: Result) -> None:
        """User space against the whole, and the flows that the kernel learned."""
        l4lb = played.l4lb
        total = compare.compare_packets(played, result, lambda: self._gateway.packets("to_vips"))
        seen = sum(queue["packets"] for queue in l4lb.status()["queues"])
        # UDP has no end: its flows are there still.
        found = self._offloaded
        found += sum(offloaded(l4lb, load) for load, _ in played.tallies if load.kind == "udp")
        flows = sum(tally.flows.total() for _, tally in played.tallies)
        learns = result.evidence["datapath"] == "offload"
        result.prove("packets_total", total, total > 0, "more than 0")
        result.prove(
            "packets_to_user_space",
            seen,
            not learns or seen <= SMALL_PART * total,
            f"at most {SMALL_PART:.0%} of {total}",
        )
        result.prove("flows_total", flows, flows > 0, "more than 0")
        wish = flows if learns else 0
        result.prove("flows_offloaded", found, found == wish, f"{wish} with this datapath")


def offloaded(l4lb: Balancer, load: Load) -> int:
    """How many of the load's flows the kernel has learned, as `l4lb flows ls` says."""
    return sum(bool(flow["offloaded"]) for flow in l4lb.flows(load.service))


SCENARIO = Counted(
    name="offload",
    title="offload: the kernel learns flows that last, user space sees a small part",
    config=ROOT / "examples/offload.yaml",
    requests=3000,
    per_flow=100,
    loads=(
        Load("http", "web", VIP4, 80, share=0.5),
        Load("http", "web-v6", VIP6, 80, share=0.5),
        Load("udp", "echo", VIP4, ECHO_PORT),
    ),
    witness=LearnedFlows,
    hints=(
        ("gateway", "{l4lb} flows ls --limit 10"),
        ("gateway", "{l4lb} backends ls"),
    ),
)
