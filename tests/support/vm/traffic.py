"""Connections in the client, opened and closed one by one, and IPVS on the gateway to compare with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.support.vm.lab import VIP, VmLab
from tests.support.vm.player import Player
from tests.support.vm.steps import VmLabError

_PYTHON = "/opt/l4lb/bin/python"
"""Has pyroute2, by which IPVS is told what to do."""


class Connections:
    """Connections of the client to the virtual address, by number."""

    def __init__(self, lab: VmLab) -> None:
        self._player = Player(lab.client, "connections.py", VIP)
        self.held: dict[int, str] = {}
        """Which backend has each of those that are open."""

    def open(self, number: int) -> str:
        """Opens a connection; who answered on it."""
        self.held[number] = self._ask("+", number)
        return self.held[number]

    def ask(self, number: int) -> str:
        """Asks once more on an open connection."""
        return self._ask("?", number)

    def close(self, number: int) -> None:
        """Ends the client's half of a connection."""
        self._player.tell(f"- {number}")
        del self.held[number]

    def close_all(self) -> None:
        """Ends every connection, and waits until the balancer has seen both halves end: one that is
        given another service before drops what comes of them, and goes on counting them."""
        for number in list(self.held):
            self.close(number)
        self._player.ask(".")

    def shares(self) -> Counter[str]:
        """How many open connections each backend has."""
        return Counter(self.held.values())

    def end(self) -> None:
        """Ends the client's program, and with it all connections."""
        self._player.end()

    def _ask(self, what: str, number: int) -> str:
        said, *names = self._player.ask(f"{what} {number}")
        if said != str(number) or len(names) != 1:
            raise VmLabError(f"the client's program answered {said} {names} to {what} {number}")
        return names[0]


@contextmanager
def connections(lab: VmLab) -> Iterator[Connections]:
    """Connections that are closed afterwards."""
    made = Connections(lab)
    try:
        yield made
    finally:
        made.end()


class Ipvs:
    """IPVS on the gateway."""

    def __init__(self, lab: VmLab) -> None:
        self._player = Player(lab.gateway, "ipvs.py", python=_PYTHON)

    def serve(
        self,
        scheduler: str,
        weights: Mapping[str, int],
        *,
        forward: str = "nat",
        port: int = 8080,
        protocols: Sequence[str] = ("tcp",),
        anew: bool = True,
    ) -> None:
        """Gives it its service: without what it knows of the last one, or, not `anew`, changed."""
        backends = [
            {"address": address, "port": port, "weight": weight} for address, weight in weights.items()
        ]
        wish = {"vip": VIP, "port": 80, "scheduler": scheduler, "forward": forward, "backends": backends}
        self._player.ask(json.dumps(wish | {"protocols": protocols, "anew": anew}))

    def end(self) -> None:
        """Takes the service away."""
        self._player.ask("null")
        self._player.end()


@contextmanager
def ipvs(lab: VmLab) -> Iterator[Ipvs]:
    """IPVS in place of l4lb.

    Its modules are loaded anew: when a service goes it forgets neither connections nor what it counted."""
    modules = "ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc"
    settings = "net.ipv4.ip_forward=1 net.ipv4.vs.conntrack=0"
    lab.gateway.run(
        f"systemctl stop l4lb; ! test -e /proc/net/ip_vs || modprobe -r {modules} ip_vs; "
        f"modprobe -a ip_vs {modules} && sysctl -qw {settings}"
    )
    made = Ipvs(lab)
    try:
        yield made
    finally:
        made.end()


def balanced(
    scheduler: str,
    weights: Mapping[str, int],
    *,
    forward: str = "nat",
    port: str = ":8080",
    protocols: Sequence[str] = ("tcp",),
) -> str:
    """The same service as a configuration of l4lb."""
    lines = ["l4:", "  services:"]
    for protocol in protocols:
        lines += [
            f"    - name: {'web' if protocol == 'tcp' else protocol}",
            f"      listen: {VIP}:80/{protocol}",
            f"      forward: {forward}",
            f"      scheduler: {scheduler}",
            "      backends:",
        ]
        for address, weight in weights.items():
            lines.append(f'        - {{address: "{address}{port}", weight: {weight}}}')
    return "\n".join([*lines, ""])


def rotations(names: Iterable[str]) -> set[tuple[str, ...]]:
    """A sequence begun at any of its places: where a scheduler's turn begins is nobody's promise."""
    sequence = tuple(names)
    return {sequence[i:] + sequence[:i] for i in range(len(sequence))}
