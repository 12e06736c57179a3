"""IPVS as oracle: the same connections, the same weights, the same shares; the same when a backend is
drained, removed or dead. docs/ipvs.md has the differences.

A story is played to IPVS, all of them one after the other, and then to l4lb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.vm.lab import VmLab
from tests.support.vm.traffic import Connections, Ipvs, balanced, connections, ipvs, rotations

B1, B2 = "10.2.0.11", "10.2.0.12"
ARRIVALS = Path(__file__).parent / "recordings" / "arrivals.txt"
LEVEL, TILTED = {B1: 1, B2: 1}, {B1: 3, B2: 1}
SCHEDULERS = {
    "rr": "round-robin",
    "wrr": "weighted-round-robin",
    "lc": "least-connections",
    "wlc": "weighted-least-connections",
}


class Side(Protocol):
    """A balancer: with a service that nobody has a connection to, and with that service changed."""

    def serve(self, scheduler: str, weights: Mapping[str, int]) -> None: ...

    def change(self, scheduler: str, weights: Mapping[str, int]) -> None: ...


class Theirs:
    """IPVS."""

    def __init__(self, peer: Ipvs) -> None:
        self._peer = peer

    def serve(self, scheduler: str, weights: Mapping[str, int]) -> None:
        self._peer.serve(scheduler, weights)

    def change(self, scheduler: str, weights: Mapping[str, int]) -> None:
        self._peer.serve(scheduler, weights, anew=False)


class Ours:
    """l4lb."""

    def __init__(self, lab: VmLab) -> None:
        self._lab = lab

    def serve(self, scheduler: str, weights: Mapping[str, int]) -> None:
        self._lab.balance(balanced(SCHEDULERS[scheduler], weights))

    def change(self, scheduler: str, weights: Mapping[str, int]) -> None:
        self._lab.reload(balanced(SCHEDULERS[scheduler], weights))


@dataclass(frozen=True)
class Case:
    """A service as it is in the beginning, and what is done with it."""

    scheduler: str
    weights: Mapping[str, int]
    story: Callable[[Connections, Side], Any]

    def play(self, told: Connections, side: Side) -> Any:
        """What came of it. The connections that it leaves open are closed."""
        side.serve(self.scheduler, self.weights)
        try:
            return self.story(told, side)
        finally:
            told.close_all()


def open_many(count: int, told: Connections, _: Side) -> list[str]:
    """Who got each of that many connections."""
    return [told.open(number) for number in range(count)]


def fill_and_level(told: Connections, _: Side) -> list[int]:
    """Ten connections; those of web1 go but one; eight more. How many web1 has after each of these."""
    for number in range(10):
        told.open(number)
    for number in [number for number, name in told.held.items() if name == "web1"][1:]:
        told.close(number)
    found = []
    for number in range(100, 108):
        told.open(number)
        found.append(told.shares()["web1"])
    return found


def recorded(told: Connections, _: Side) -> tuple[Counter[str], Counter[str]]:
    """Connections that come and go as recorded: how many each backend got, and has at the end."""
    got: Counter[str] = Counter()
    for line in ARRIVALS.read_text().splitlines():
        what, _, number = line.partition(" ")
        if what == "+":
            got[told.open(int(number))] += 1
        elif what == "-":
            told.close(int(number))
    return got, told.shares()


def drained(told: Connections, side: Side) -> tuple[bool, set[str], set[str]]:
    """web1 gets weight 0: whether all connections go on, who gets new ones, and who afterwards."""
    for number in range(4):
        told.open(number)
    side.change("rr", {B1: 0, B2: 1})
    goes_on = all(told.ask(number) == name for number, name in list(told.held.items()))
    meanwhile = {told.open(number) for number in range(10, 14)}
    side.change("rr", LEVEL)
    return goes_on, meanwhile, {told.open(number) for number in range(20, 24)}


def removed(told: Connections, side: Side) -> tuple[set[str], set[str]]:
    """web1 goes: what becomes of the others' connections, and who gets new ones."""
    for number in range(4):
        told.open(number)
    side.change("rr", {B2: 1})
    kept = {told.ask(number) for number, name in list(told.held.items()) if name == "web2"}
    return kept, {told.open(number) for number in range(10, 14)}


def dead(lab: VmLab, told: Connections, _: Side) -> tuple[set[str], Counter[str]]:
    """Nothing listens on web1 any more, and nobody checks: kept connections to web2, and new ones."""
    for number in range(4):
        told.open(number)
    lab.backends[0].run("systemctl stop nginx")
    try:
        kept = {told.ask(number) for number, name in list(told.held.items()) if name == "web2"}
        return kept, Counter(told.open(number) for number in range(10, 14))
    finally:
        lab.backends[0].run("systemctl start nginx")


WRR = [(1, 1), (3, 1), (2, 3), (5, 2)]
FILLED = {"lc": LEVEL, "wlc": LEVEL, "wlc 3:1": TILTED, "wlc 1:2": {B1: 1, B2: 2}}
RECORDED = {"rr": LEVEL, "wrr": TILTED, "lc": LEVEL, "wlc": TILTED}


def cases(lab: VmLab) -> dict[str, Case]:
    return {
        "round robin": Case("rr", LEVEL, partial(open_many, 8)),
        **{f"wrr {a}:{b}": Case("wrr", {B1: a, B2: b}, partial(open_many, 2 * (a + b))) for a, b in WRR},
        **{f"filled {name}": Case(name.split()[0], w, fill_and_level) for name, w in FILLED.items()},
        **{f"recorded {name}": Case(name, weights, recorded) for name, weights in RECORDED.items()},
        "drained": Case("rr", LEVEL, drained),
        "removed": Case("rr", LEVEL, removed),
        "dead": Case("rr", LEVEL, partial(dead, lab)),
    }


@pytest.fixture(scope="module")
def told(lab: VmLab) -> Iterator[Connections]:
    with connections(lab) as made:
        yield made


@pytest.fixture(scope="module")
def theirs(lab: VmLab, told: Connections) -> dict[str, Any]:
    """What IPVS makes of every case."""
    lab.through_gateway()
    with ipvs(lab) as peer:
        side = Theirs(peer)
        return {name: case.play(told, side) for name, case in cases(lab).items()}


@pytest.fixture
def both(lab: VmLab, told: Connections, theirs: dict[str, Any]) -> Callable[[str], tuple[Any, Any]]:
    """What both make of a case."""
    return lambda name: (theirs[name], cases(lab)[name].play(told, Ours(lab)))


Both = Callable[[str], tuple[Any, Any]]


def test_round_robin_goes_round_alike(both: Both) -> None:
    theirs, ours = both("round robin")
    assert tuple(ours) in rotations(theirs)


@pytest.mark.parametrize(("first", "second"), WRR)
def test_weighted_round_robin_shares_exactly_alike(both: Both, first: int, second: int) -> None:
    theirs, ours = both(f"wrr {first}:{second}")
    assert Counter(ours) == Counter(theirs) == {"web1": 2 * first, "web2": 2 * second}


@pytest.mark.parametrize("name", FILLED)
def test_least_connections_fills_and_levels_alike(both: Both, name: str) -> None:
    theirs, ours = both(f"filled {name}")
    # Which of two equals comes first is each one's own; it evens out with the next connection.
    assert all(abs(a - b) <= 1 for a, b in zip(theirs, ours, strict=True)), (theirs, ours)


@pytest.mark.parametrize("name", ["rr", "wrr"])
def test_recorded_connections_are_shared_exactly_alike_by_turns(both: Both, name: str) -> None:
    (theirs, _), (ours, _) = both(f"recorded {name}")
    assert ours == theirs
    assert theirs.total() == 160


@pytest.mark.parametrize("name", ["lc", "wlc"])
def test_recorded_connections_are_shared_alike_by_load(both: Both, name: str) -> None:
    (theirs, their_open), (ours, our_open) = both(f"recorded {name}")
    assert theirs.total() == ours.total() == 160
    assert abs(theirs["web1"] - ours["web1"]) <= 0.05 * 160, (theirs, ours)
    assert abs(their_open["web1"] - our_open["web1"]) <= 0.05 * their_open.total() + 1, (their_open, our_open)


def test_a_backend_of_weight_zero_keeps_its_connections_and_gets_no_more(both: Both) -> None:
    theirs, ours = both("drained")
    assert theirs == ours == (True, {"web2"}, {"web1", "web2"})


def test_a_backend_that_is_removed_gets_no_more(both: Both) -> None:
    theirs, ours = both("removed")
    assert theirs == ours == ({"web2"}, {"web2"})


def test_a_dead_backend_breaks_its_own_connections_alone(both: Both) -> None:
    theirs, ours = both("dead")
    assert theirs == ours == ({"web2"}, {"web2": 2, "failed": 2})
