"""IPVS as oracle: the same connections, the same weights, the same shares. docs/ipvs.md has the
differences."""

from __future__ import annotations

import pytest

from tests.support.vm.lab import VmLab, wait_until
from tests.support.vm.traffic import Connections, balanced, connections, ipvs, rotations, set_ipvs

B1, B2 = "10.2.0.11", "10.2.0.12"
SCHEDULERS = {
    "rr": "round-robin",
    "wrr": "weighted-round-robin",
    "lc": "least-connections",
    "wlc": "weighted-least-connections",
}


def both(lab: VmLab, scheduler: str, weights: dict[str, int], story) -> tuple:
    """What a story of connections gives by IPVS and by l4lb."""
    lab.through_gateway()
    with ipvs(lab, scheduler, weights), connections(lab) as told:
        theirs = story(told)
    lab.balance(balanced(SCHEDULERS[scheduler], weights))
    with connections(lab) as told:
        ours = story(told)
    return theirs, ours


def open_many(count: int):
    def story(told: Connections) -> list[str]:
        return [told.open(number) for number in range(count)]

    return story


def test_round_robin_goes_round_alike(lab: VmLab) -> None:
    theirs, ours = both(lab, "rr", {B1: 1, B2: 1}, open_many(8))
    assert tuple(ours) in rotations(theirs)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 1), (2, 3), (5, 2)])
def test_weighted_round_robin_shares_exactly_alike(lab: VmLab, first: int, second: int) -> None:
    rounds = 2 * (first + second)
    theirs, ours = both(lab, "wrr", {B1: first, B2: second}, open_many(rounds))
    assert sorted(ours) == sorted(theirs)
    assert ours.count("b1") == 2 * first


def fill_and_level(told: Connections) -> list[tuple[int, int]]:
    """Ten connections; those of one backend go but one; eight more. How many each has after every one of
    these."""
    found = []
    for number in range(10):
        told.open(number)
    gone = [number for number, name in told.held.items() if name == "b1"][1:]
    for number in gone:
        told.close(number)
    for number in range(100, 108):
        told.open(number)
        found.append((told.shares()["b1"], told.shares()["b2"]))
    return found


@pytest.mark.parametrize(
    ("scheduler", "weights"),
    [("lc", {B1: 1, B2: 1}), ("wlc", {B1: 1, B2: 1}), ("wlc", {B1: 3, B2: 1}), ("wlc", {B1: 1, B2: 2})],
)
def test_least_connections_fills_and_levels_alike(
    lab: VmLab, scheduler: str, weights: dict[str, int]
) -> None:
    theirs, ours = both(lab, scheduler, weights, fill_and_level)
    # Which of two equals comes first is each one's own; it evens out with the next connection.
    assert all(abs(a[0] - b[0]) <= 1 for a, b in zip(theirs, ours, strict=True)), (theirs, ours)
    assert abs(theirs[-1][0] - ours[-1][0]) <= 1


def test_a_backend_of_weight_zero_keeps_its_connections_and_gets_no_more(lab: VmLab) -> None:
    def goes_on(told: Connections, drain) -> tuple:
        for number in range(4):
            told.open(number)
        drain()
        kept = [told.ask(number) == name for number, name in list(told.held.items())]
        return all(kept), {told.open(number) for number in range(10, 14)}

    lab.through_gateway()
    with ipvs(lab, "rr", {B1: 1, B2: 1}), connections(lab) as told:
        theirs = goes_on(told, lambda: lab.gateway.run(f"ipvsadm -e -t 203.0.113.10:80 -r {B1}:8080 -m -w 0"))
    lab.balance(balanced("round-robin", {B1: 1, B2: 1}))
    with connections(lab) as told:
        ours = goes_on(told, lambda: lab.gateway.run(f"l4lb backends drain web {B1}:8080"))
    assert theirs == ours == (True, {"b2"})


def states_of_ipvs(lab: VmLab) -> list[str]:
    lines = lab.gateway.run("ipvsadm -Lcn | grep '^TCP'").splitlines()
    return sorted(line.split()[2] for line in lines)


def states_of_ours(lab: VmLab) -> list[str]:
    found = lab.l4lb("flows ls")
    rows = found if isinstance(found, list) else [found]
    return sorted(row["state"].upper().replace("-", "_") for row in rows)


def test_states_follow_the_same_packets(lab: VmLab) -> None:
    """ESTABLISHED while it is open; after the client's and the backend's FIN both wait for the same time."""

    def story(told: Connections, states) -> list[list[str]]:
        told.open(1)
        found = [states()]
        told.close(1)
        found.append(wait_until("the end", lambda: [s for s in states() if s != "ESTABLISHED"]))
        return found

    lab.through_gateway()
    with ipvs(lab, "rr", {B1: 1}), connections(lab) as told:
        theirs = story(told, lambda: states_of_ipvs(lab))
    lab.balance(balanced("round-robin", {B1: 1}))
    with connections(lab) as told:
        ours = story(told, lambda: states_of_ours(lab))
    assert theirs[0] == ours[0] == ["ESTABLISHED"]
    assert theirs[1][0] in ("TIME_WAIT", "CLOSE", "FIN_WAIT")
    assert ours[1] == theirs[1]


def test_dead_backend_breaks_its_connections_alike(lab: VmLab) -> None:
    """Without checks neither knows of it: half of the new connections fail, and kept ones of the other go
    on."""

    def story(told: Connections, stop, start) -> tuple:
        for number in range(4):
            told.open(number)
        stop()
        try:
            kept = {told.ask(number) for number, name in list(told.held.items()) if name == "b2"}
            new = [told.open(number) for number in range(10, 14)]
        finally:
            start()
        return kept, new.count("b2"), new.count("failed")

    lab.through_gateway()
    b1 = lab.backends[0]

    def stop() -> None:
        b1.run("systemctl stop nginx")

    def start() -> None:
        b1.run("systemctl start nginx")

    with ipvs(lab, "rr", {B1: 1, B2: 1}), connections(lab) as told:
        theirs = story(told, stop, start)
    lab.balance(balanced("round-robin", {B1: 1, B2: 1}))
    with connections(lab) as told:
        ours = story(told, stop, start)
    assert theirs == ours == ({"b2"}, 2, 2)


def test_removing_a_backend_sends_its_next_clients_to_the_others(lab: VmLab) -> None:
    lab.through_gateway()
    with ipvs(lab, "rr", {B1: 1, B2: 1}), connections(lab) as told:
        told.open(1)
        set_ipvs(lab, "rr", {B2: 1})
        theirs = {told.open(number) for number in range(10, 14)}
    lab.balance(balanced("round-robin", {B1: 1, B2: 1}))
    with connections(lab) as told:
        told.open(1)
        lab.gateway.write("/etc/l4lb/l4lb.yaml", balanced("round-robin", {B2: 1}))
        lab.gateway.run("systemctl reload l4lb")
        ours = {told.open(number) for number in range(10, 14)}
    assert theirs == ours == {"b2"}
