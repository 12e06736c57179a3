"""TCP sequences, packet by packet, through the gateway, and what it makes of their connections.

Both ends are addresses that nobody has: the client's machine sends for both, and the gateway is told that
they live there. So nothing is sent but what a sequence says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.vm.lab import VIP, VmLab
from tests.support.vm.player import Player

CLIENT, BACKEND = "10.1.0.77", "10.2.0.77"
FRONT, BACK = "eth1", "eth2"
"""The client's and the gateway's interfaces in both networks."""
_PORTS = itertools.count(41000)
"""A balancer does not forget a connection when its service goes: each sequence has a port of its own."""
_TIMEOUTS_S = (10, 30, 60, 120, 300, 900)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a balancer makes of a connection: its state, and after how long without a packet it goes."""

    state: str
    timeout_s: int


Look = Callable[[VmLab], Mapping[int, tuple[str, float]]]
"""State and seconds left of every connection, by the client's port."""


def of_ipvs(lab: VmLab) -> dict[int, tuple[str, float]]:
    """A `Look` at IPVS."""
    lines = lab.gateway.run("cat /proc/net/ip_vs_conn").splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[2], 16): (row[7] if row[0] == "TCP" else "UDP", float(row[8])) for row in rows}


def of_ours(lab: VmLab) -> dict[int, tuple[str, float]]:
    """A `Look` at l4lb."""
    return {
        int(row["client"].rpartition(":")[2]): (row["state"].upper(), float(row["expires_s"]))
        for row in lab.flows()
    }


class Segments:
    """Packets of the two ends that nobody has."""

    def __init__(self, lab: VmLab) -> None:
        self._lab = lab
        for address, interface in ((CLIENT, FRONT), (BACKEND, BACK)):
            mac = lab.client.run(f"cat /sys/class/net/{interface}/address").strip()
            lab.gateway.run(f"ip neigh replace {address} lladdr {mac} dev {interface} nud permanent")
        macs = {i: lab.gateway.run(f"cat /sys/class/net/{i}/address").strip() for i in (FRONT, BACK)}
        words = " ".join(f"{interface}={mac}" for interface, mac in macs.items())
        self._player = Player(lab.client, "segments.py", words)

    def send(self, word: str, port: int) -> None:
        """Sends one packet: `c:SA` is one of the client's with SYN and ACK, `b:` one of the backend's."""
        end, flags = word.split(":")
        if end == "c":
            line = f"{FRONT} {CLIENT} {port} {VIP} 80 {flags}"
        else:
            line = f"{BACK} {BACKEND} 8080 {CLIENT} {port} {flags}"
        self._player.ask(line)

    def play(
        self, sequences: Mapping[str, str], look: Look, *, both_ways: bool
    ) -> dict[str, list[Seen | None]]:
        """What is seen of each sequence after each of its packets; None is no connection.

        Each sequence is a connection of its own. They go on in step, for a look takes longer than a packet.
        Without `both_ways` the backend's packets are left out: they go past the gateway.
        """
        words = {
            name: [word for word in sequence.split() if both_ways or word.startswith("c:")]
            for name, sequence in sequences.items()
        }
        ports = {name: next(_PORTS) for name in words}
        found: dict[str, list[Seen | None]] = {name: [] for name in words}
        for step in range(max(map(len, words.values()))):
            now = [name for name in words if step < len(words[name])]
            for name in now:
                self.send(words[name][step], ports[name])
            seen = look(self._lab)
            for name in now:
                found[name].append(_seen(seen.get(ports[name])))
        return found

    def end(self) -> None:
        """Ends the program, and forgets where the two ends are."""
        self._player.end()
        for address, interface in ((CLIENT, FRONT), (BACKEND, BACK)):
            self._lab.gateway.run(f"ip neigh del {address} dev {interface}", check=False)


@contextmanager
def segments(lab: VmLab) -> Iterator[Segments]:
    """Packets whose ends are forgotten afterwards."""
    made = Segments(lab)
    try:
        yield made
    finally:
        made.end()


def _seen(entry: tuple[str, float] | None) -> Seen | None:
    """The time-out is the least that leaves as much as is left: a look comes some seconds behind a packet."""
    if entry is None:
        return None
    state, left_s = entry
    return Seen(state, next(timeout_s for timeout_s in _TIMEOUTS_S if left_s <= timeout_s + 1))
