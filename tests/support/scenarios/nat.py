"""NAT: a weighted HTTP service and a UDP service on virtual addresses, three backends behind each."""

from __future__ import annotations

from tests.support.lab import ROOT
from tests.support.scenarios.scenario import VIP4, Counted, Load
from tests.support.servers import ECHO_PORT

SCENARIO = Counted(
    name="nat",
    title="NAT: HTTP by weights 3, 2, 1 and UDP in turn, over three backends",
    config=ROOT / "examples/nat.yaml",
    loads=(Load("http", "web", VIP4, 80), Load("udp", "echo", VIP4, ECHO_PORT)),
)
