"""Connections in the client, opened and closed one by one, and IPVS on the gateway to compare with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.vm.lab import VIP, VmLab
from tests.support.vm.steps import VmLabError

_GUEST = Path(__file__).parent / "guest"
PYTHON = "/opt/l4lb/bin/python"


class Connections:
    """Connections of the client to the virtual address, by number."""

    def __init__(self, lab: VmLab) -> None:
        lab.client.write("/tmp/connections.py", (_GUEST / "connections.py").read_text())
        self._player = lab.client.start(f"python3 -u /tmp/connections.py {VIP}", takes_input=True)
        self.held: dict[int, str] = {}
        """Which backend has each of those that are open."""

    def open(self, number: int) -> str:
        """Opens a connection; who answered on it."""
        self.held[number] = self._ask(f"+ {number}")
        return self.held[number]

    def ask(self, number: int) -> str:
        """Asks once more on an open connection."""
        return self._ask(f"? {number}")

    def close(self, number: int) -> None:
        """Closes a connection."""
        self._tell(f"- {number}")
        del self.held[number]

    def shares(self) -> Counter[str]:
        """How many open connections each backend has."""
        return Counter(self.held.values())

    def end(self) -> None:
        """Ends the client's program, and with it all connections."""
        assert self._player.stdin
        self._player.stdin.close()
        self._player.wait(timeout=60)

    def _tell(self, line: str) -> None:
        assert self._player.stdin
        self._player.stdin.write(line + "\n")
        self._player.stdin.flush()

    def _ask(self, line: str) -> str:
        self._tell(line)
        assert self._player.stdout
        answer = self._player.stdout.readline().split()
        if len(answer) != 2 or answer[0] != line.split()[1]:
            raise VmLabError(f"the client's program answered {answer!r} to {line!r}")
        return answer[1]


@contextmanager
def connections(lab: VmLab) -> Iterator[Connections]:
    """Connections that are closed afterwards."""
    made = Connections(lab)
    try:
        yield made
    finally:
        made.end()


@contextmanager
def ipvs(
    lab: VmLab, scheduler: str, weights: Mapping[str, int], *, forward: str = "nat", port: int = 8080
) -> Iterator[None]:
    """IPVS in place of l4lb."""
    lab.gateway.run("systemctl stop l4lb; modprobe -a ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc")
    set_ipvs(lab, scheduler, weights, forward=forward, port=port)
    try:
        yield
    finally:
        _tell_ipvs(lab, None)


def set_ipvs(
    lab: VmLab, scheduler: str, weights: Mapping[str, int], *, forward: str = "nat", port: int = 8080
) -> None:
    """Gives IPVS its service anew."""
    backends = [{"address": address, "port": port, "weight": weight} for address, weight in weights.items()]
    _tell_ipvs(
        lab, {"vip": VIP, "port": 80, "scheduler": scheduler, "forward": forward, "backends": backends}
    )


def _tell_ipvs(lab: VmLab, wish: Any) -> None:
    lab.gateway.write("/tmp/ipvs.py", (_GUEST / "ipvs.py").read_text())
    lab.gateway.write("/tmp/ipvs.json", json.dumps(wish))
    lab.gateway.run(f"{PYTHON} /tmp/ipvs.py </tmp/ipvs.json")


def balanced(scheduler: str, weights: Mapping[str, int], *, forward: str = "nat", port: str = ":8080") -> str:
    """The same service as a configuration of l4lb."""
    lines = [
        f'        - {{address: "{address}{port}", weight: {weight}}}' for address, weight in weights.items()
    ]
    return "\n".join(
        [
            *("l4:", "  services:", "    - name: web", f"      listen: {VIP}:80/tcp"),
            *(f"      forward: {forward}", f"      scheduler: {scheduler}", "      backends:"),
            *lines,
            "",
        ]
    )


def rotations(names: Iterable[str]) -> set[tuple[str, ...]]:
    """A sequence begun at any of its places: where a scheduler's turn begins is nobody's promise."""
    sequence = tuple(names)
    return {sequence[i:] + sequence[:i] for i in range(len(sequence))}
