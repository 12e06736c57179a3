"""Flows and counters that one balancer hands to the next, for a program that replaces the running one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from l4lb.dataplane.balancer import AFFINITY_FORMAT, FORMAT, Balancer, SharedCounters
from l4lb.dataplane.decision import Reason
from l4lb.model import Forward, Protocol
from tests.support.cores import KEY
from tests.support.packets import packed, tcp, udp
from tests.support.tables import Svc, make_table

TABLE = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], ["10.2.0.11:8080", "10.2.0.12:8080"]),
    Svc("six", ["[2001:db8:1::1]:53/udp"], ["[fd00::11]:5353"]),
    Svc("hidden", ["192.0.2.2:80/tcp"], ["10.2.0.51:8080"], forward=Forward.MASQUERADE),
    Svc("limited", ["192.0.2.3:80/tcp"], ["10.2.0.13:8080"], limits=(0, 2)),
    Svc("sticky", ["192.0.2.4:80/tcp"], ["10.2.0.21:80", "10.2.0.22:80"], affinity=(32, 60_000)),
    Svc("both", ["192.0.2.5:80/tcp"], ["10.2.0.31", "10.2.0.32"], affinity=(32, 60_000), group="both"),
    Svc("both tls", ["192.0.2.5:443/tcp"], ["10.2.0.32", "10.2.0.31"], affinity=(32, 60_000), group="both"),
    pool=("10.2.0.1", "10.2.0.2"),
)
PORTS = (20_000, 10)
HEADER = len(FORMAT) + 2
RECORD = 64
AFFINITY_RECORD = 32


def make_balancer(capacity: int = 256, ports: tuple[int, int] = PORTS) -> Balancer:
    balancer = Balancer(capacity=capacity, key=KEY, shared=SharedCounters(), ports=ports)
    balancer.publish(TABLE)
    return balancer


def client(number: int) -> str:
    return f"198.51.100.{number}:40000"


@pytest.fixture
def running() -> Balancer:
    """A balancer with flows of every kind, some of them established."""
    balancer = make_balancer()
    for n in range(1, 20):
        balancer.decide(tcp(client(n), "192.0.2.1:80"), 1_000 * n)
        balancer.decide(tcp(client(n), "192.0.2.2:80"), 1_000 * n)
        balancer.decide(udp(f"[2001:db8::{n}]:40000", "[2001:db8:1::1]:53"), 1_000 * n)
        if n % 2:
            balancer.decide(tcp(client(n), "192.0.2.1:80", "A"), 1_000 * n)
            balancer.decide(tcp(client(n), "192.0.2.2:80", "A"), 1_000 * n)
    for n in (1, 2):
        balancer.decide(tcp(f"198.51.100.7:{n}", "192.0.2.3:80"), 19_000)
    return balancer


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("capacity", [128, 256, 4096])
def test_the_next_one_has_the_same_flows_and_counts(running, capacity):
    next_one = make_balancer(capacity)
    assert next_one.load(running.dump()) == 0
    assert set(next_one.flows()) == set(running.flows())
    assert next_one.flow_count() == running.flow_count() == 59
    for slot in range(5):
        assert next_one.shared.flows(slot) == running.shared.flows(slot)
        assert next_one.shared.active(slot) == running.shared.active(slot)
    assert next_one.shared.active(0) + next_one.shared.active(1) == 10


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_chunks_may_end_anywhere(running, size):
    next_one = make_balancer()
    assert next_one.load(pieces(b"".join(running.dump()), size)) == 0
    assert set(next_one.flows()) == set(running.flows())


def test_what_began_before_is_not_told_again(running):
    assert running.take_beginnings()
    next_one = make_balancer()
    next_one.load_counters(running.counters())
    assert next_one.slot_counters(0).begun == running.slot_counters(0).begun > 0
    assert next_one.take_beginnings() == []


def test_known_flows_go_on_and_expire_as_they_would_have(running):
    next_one = make_balancer()
    next_one.load(running.dump())
    again = tcp(client(5), "192.0.2.1:80", "A")
    assert next_one.decide(again, 20_000) == running.decide(again, 20_000)
    assert next_one.expire(70_000) == running.expire(70_000) > 0
    assert set(next_one.flows()) == set(running.flows())
    next_one.expire(10_000_000)
    assert next_one.flow_count() == next_one.shared.flows(0) == next_one.shared.flows(4) == 0


def test_masquerade_ports_stay_with_their_flows(running):
    next_one = make_balancer()
    next_one.load(running.dump())
    flow = next(flow for flow in running.flows() if flow.source)
    assert next_one.find_source(flow.source, flow.source_port, Protocol.TCP, 20_000) == flow
    # One of the twenty ports of both addresses is left.
    for n in (30, 31):
        decision = next_one.decide(tcp(client(n), "192.0.2.2:80"), 20_000)
        assert decision.reason is (Reason.SCHEDULED if n == 30 else Reason.NO_PORT)
    next_one.expire(10_000_000)
    assert next_one.decide(tcp(client(31), "192.0.2.2:80"), 10_000_000).reason is Reason.SCHEDULED


def test_flows_of_limited_sources_count_on(running):
    next_one = make_balancer()
    next_one.load(running.dump())
    third = tcp("198.51.100.7:3", "192.0.2.3:80")
    assert next_one.decide(third, 19_500).reason is Reason.LIMITED
    assert next_one.decide(tcp("198.51.100.8:3", "192.0.2.3:80"), 19_500).reason is Reason.SCHEDULED
    next_one.expire(10_000_000)
    assert next_one.decide(third, 10_000_000).reason is Reason.SCHEDULED


def test_what_has_no_room_is_counted_and_dropped(running):
    small = make_balancer(capacity=16)
    assert small.load(running.dump()) == 59 - 16
    assert small.flow_count() == 16
    assert set(small.flows()) < set(running.flows())


def test_a_port_of_another_worker_or_none_does_not_fit(running):
    masqueraded = sum(bool(flow.source) for flow in running.flows())
    assert masqueraded == 19
    for ports in ((0, 0), (30_000, 10)):
        next_one = make_balancer(ports=ports)
        assert next_one.load(running.dump()) == masqueraded
        assert not any(flow.source for flow in next_one.flows())


def test_a_flow_that_is_known_is_not_loaded_again(running):
    before = set(running.flows())
    assert running.load(list(running.dump())) == 59
    assert set(running.flows()) == before
    assert running.shared.flows(0) + running.shared.flows(1) == 19


def test_an_empty_dump_has_its_header_only():
    dumped = b"".join(make_balancer().dump())
    assert dumped.startswith(FORMAT)
    assert len(dumped) == HEADER
    assert make_balancer().load([dumped]) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"flows 1", b"flows 2"),
        lambda data: data[: len(FORMAT)] + b"\x38\x00" + data[HEADER:],
        lambda _: b"",
        lambda _: b"something else altogether",
        lambda data: data[:-1],
        lambda data: data[: HEADER - 1],
    ],
    ids=["version", "record size", "nothing", "nonsense", "cut", "cut header"],
)
def test_another_format_is_refused(running, change):
    with pytest.raises(ValueError, match="flows"):
        make_balancer().load([change(b"".join(running.dump()))])


def test_records_that_make_no_sense_do_not_fit(running):
    data = bytearray(b"".join(running.dump()))
    data[HEADER + 36] = 99  # the protocol of the first
    data[HEADER + RECORD + 37] = 0  # the state of the second
    assert make_balancer().load([bytes(data)]) == 2


def test_counters_add_up(running):
    counted = json.loads(json.dumps(running.counters()))
    next_one = make_balancer()
    next_one.decide(tcp(client(1), "192.0.2.1:80"), 0)
    next_one.load_counters(counted)
    expected = running.reasons()
    expected[Reason.SCHEDULED] += 1
    assert next_one.reasons() == expected
    for slot in range(1, 5):
        here, there = next_one.slot_counters(slot), running.slot_counters(slot)
        assert here == replace(there, flows=here.flows, active=here.active, open=here.open)
    assert next_one.slot_counters(0).scheduled == running.slot_counters(0).scheduled + 1


def test_a_reason_of_another_version_is_left_out():
    balancer = make_balancer()
    balancer.load_counters({"reasons": {"FLOW": 2, "OF_THE_FUTURE": 3}, "slots": {}})
    assert balancer.reasons()[Reason.FLOW] == sum(balancer.reasons().values()) == 2


def test_addresses_of_the_pool_are_those_of_the_new_table(running):
    next_one = make_balancer()
    next_one.load(running.dump())
    assert {flow.source for flow in next_one.flows()} == {b"", packed("10.2.0.1"), packed("10.2.0.2")}


def stick(balancer: Balancer, number: int, port: int, now_ms: int) -> int:
    """The slot that a client's new connection to the service with affinity gets."""
    return balancer.decide(tcp(f"198.51.100.{number}:{port}", "192.0.2.4:80"), now_ms).slot


def test_affinities_go_on_and_end_as_they_would_have():
    running, next_one = make_balancer(), make_balancer()
    chosen = {n: stick(running, n, 1, 0 if n % 2 else 30_000) for n in range(1, 21)}
    assert set(chosen.values()) == {5, 6}
    # What is left of one that ended is not handed over.
    dumped = b"".join(running.shared.dump_affinities(70_000))
    assert len(dumped) == len(AFFINITY_FORMAT) + 2 + 10 * AFFINITY_RECORD
    dumped = b"".join(running.shared.dump_affinities(50_000))
    assert len(dumped) == len(AFFINITY_FORMAT) + 2 + 20 * AFFINITY_RECORD
    # Round-robin would begin anew, and give every client the other one.
    stick(next_one, 100, 1, 0)
    assert next_one.shared.load_affinities(pieces(dumped, 45)) == 0
    assert {n: stick(next_one, n, 2, 59_000) for n in chosen} == chosen
    assert next_one.reasons()[Reason.AFFINITY] == 20


def test_affinities_of_a_group_go_on_in_all_its_services():
    running, next_one = make_balancer(), make_balancer()
    hosts = {7: 10, 8: 9}  # of `both` 7 and 8, of `both tls` 9 and 10, in another order
    clients = [f"198.51.100.{n}:1" for n in range(1, 21)]
    chosen = {client: running.decide(tcp(client, "192.0.2.5:80"), 0).slot for client in clients}
    assert set(chosen.values()) == set(hosts)
    assert next_one.shared.load_affinities(running.shared.dump_affinities(0)) == 0
    for client, slot in chosen.items():
        decision = next_one.decide(tcp(client, "192.0.2.5:443"), 0)
        assert (decision.reason, decision.slot) == (Reason.AFFINITY, hosts[slot])


def test_affinities_that_are_known_do_not_fit():
    running = make_balancer()
    for n in range(1, 21):
        stick(running, n, 1, 0)
    dumped = list(running.shared.dump_affinities(0))
    assert running.shared.load_affinities(dumped) == 20
    with pytest.raises(ValueError, match="l4lb affinities 1"):
        running.shared.load_affinities(running.dump())


def test_counters_of_all_workers_add_up():
    shared = SharedCounters()
    shared.load_counters({"untracked": 3, "crowded_out": 4})
    shared.load_counters(shared.counters())
    assert (shared.untracked(), shared.crowded_out()) == (6, 8)
