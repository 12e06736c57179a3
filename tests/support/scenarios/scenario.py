"""What tells one scenario from another. All that they share is in `play`.

A scenario has one of two forms. A `Counted` one sends a known number of requests, and every count has to
agree (`counting`). A `Story` (in `story`) changes things while clients keep asking, and tells what happened
when.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.lab import Host, Lab, LabError
from tests.support.scenarios.balancer import Balancer
from tests.support.scenarios.base import Result, Stage
from tests.support.scenarios.traffic import Tally
from tests.support.servers import ECHO_PORT, HTTP_PORT, Server

# The virtual addresses of most examples.
VIP4, VIP6 = "203.0.113.10", "2001:db8:f::10"


@dataclass(frozen=True)
class Load:
    """Requests or datagrams of one host to one endpoint of a service; `share` is its part of their number."""

    kind: Literal["http", "udp"]
    service: str
    address: str
    port: int
    sender: str = "client"
    share: float = 1.0

    @property
    def endpoint(self) -> str:
        """As people write it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass
class Played:
    """What there is to look at when the traffic has gone."""

    stage: Stage
    scenario: Counted
    l4lb: Balancer
    web: dict[str, Server]
    echo: dict[str, Server]
    tallies: list[tuple[Load, Tally]]

    def of_kind(self, kind: str) -> Tally:
        """What all senders of a kind saw, together."""
        total = Tally()
        for load, tally in self.tallies:
            if load.kind == kind:
                total.add(tally)
        return total

    def host_of(self, row: dict[str, Any]) -> str:
        """The host that a row's backend is."""
        return host_of(self.stage.lab, row)

    def rows(self) -> list[dict[str, Any]]:
        """What `l4lb backends ls` says of the services that this scenario uses."""
        services = {load.service for load in self.scenario.loads}
        return [row for row in self.l4lb.backends() if row["service"] in services]


class Witness:
    """Sees what a scenario is there to prove. This one, of a scenario that proves no more than its counts,
    does nothing."""

    def prepare(self, stage: Stage) -> None:
        """Before l4lb starts: make of the lab's hosts what the scenario needs, and begin to watch."""

    def while_open(self, l4lb: Balancer, load: Load) -> None:
        """Look while all connections of a load are open (only where connections are kept)."""

    def testify(self, played: Played, result: Result) -> None:
        """When all counts have been compared: give evidence, and note what it should not be."""


@dataclass(frozen=True)
class Scenario:
    """A name, what it shows in one line, the configuration, whom clients ask, and the network.

    `hints` are (host, command) for those who look around later; in a command `{l4lb}` becomes the program
    with its socket, and `{directory}` the lab's.
    """

    name: str
    title: str
    config: Path
    loads: tuple[Load, ...]
    shape: str = "through-gateway"
    backends: int = 3
    http_port: int = HTTP_PORT
    echo_port: int = ECHO_PORT
    hints: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Counted(Scenario):
    """A known number of requests and datagrams, counted by all sides.

    `requests` is how many HTTP requests are made, and how many datagrams, `per_flow` how many of them go over
    one connection and one socket. `by_chance`: the scheduler spreads by a hash, so that shares are as exact
    as chance has it.
    """

    witness: type[Witness] = Witness
    requests: int = 300
    per_flow: int = 1
    by_chance: bool = False


def host_of(lab: Lab, row: dict[str, Any]) -> str:
    """The host that the backend of a row of `l4lb backends ls` is."""
    backend = row["backend"]
    if backend.startswith("["):
        address = backend[1 : backend.index("]")]
    else:
        address = backend.partition(":")[0] if backend.count(":") == 1 else backend
    for host in lab.backends:
        if address in (host.v4, host.v6):
            return host.name
    raise LabError(f"the balancer has a backend {backend} of the service {row['service']} on no host")


def lan_address(gateway: Host, family: int) -> str:
    """The gateway's address towards the backends."""
    for interface in gateway.plan.interfaces:
        if interface.name == "lan0":
            address = interface.v4 if family == 4 else interface.v6
            if address is not None:
                return address
    raise LabError("the gateway has no address towards the backends")
