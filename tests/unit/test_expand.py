"""From the configuration to the table: VIPs, answers, lookups, and both cores deciding by the result."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from l4lb.control.config import parse_config
from l4lb.control.expand import LARGE_LOOKUP, SMALL_LOOKUP, LookupCache, Surroundings, expand
from l4lb.control.replies import Claim, sweep
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane import hashing as native_hashing
from l4lb.dataplane.decision import Reason, Verdict
from l4lb.dataplane.reference import hashing
from l4lb.dataplane.table import BackendEntry, PortRange, ReplySegment, Table
from l4lb.model import Affinity, Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import tcp, udp

EXAMPLES = Path(__file__).parents[2] / "examples"
TCP, UDP = 6, 17


class Recorder:
    """Quick stand-ins for hashing: backend i fills place i, and every call is noted."""

    def __init__(self) -> None:
        self.filled: list[tuple[list[bytes], list[int], int]] = []
        self._names: list[bytes] = []

    def maglev_permutation(self, key: bytes, name: bytes, size: int) -> tuple[int, int]:
        self._names.append(name)
        return 0, 1

    def maglev_lookup(
        self, permutations: Sequence[tuple[int, int]], weights: Sequence[int], slots: Sequence[int], size: int
    ) -> bytes:
        self.filled.append((self._names, list(weights), size))
        self._names = []
        return array("H", slots).tobytes()


def l4(*services: str) -> str:
    """Services written `name listen,… backend,… [scheduler]`; a backend may end with `*weight`."""
    text = "l4:\n  services:\n"
    for service in services:
        name, listens, backends, *scheduler = service.split()
        text += f"  - name: {name}\n    scheduler: {(scheduler or ['round-robin'])[0]}\n    listen:\n"
        text += "".join(f"    - '{listen}'\n" for listen in listens.split(","))
        text += "    backends:\n"
        for backend in backends.split(","):
            address, _, weight = backend.partition("*")
            text += f"    - {{address: '{address}', weight: {weight or 1}}}\n"
    return text


def table_of(*services: str, slots: SlotRegistry | None = None, **options: object) -> Table:
    config = parse_config(l4(*services), "test")
    slots = slots or SlotRegistry()
    slots.assign(config, lambda slot: 0)
    key = bytes(options.pop("key", KEY))  # type: ignore[call-overload]
    around = Surroundings(key=key, replies_seen=bool(options.pop("replies_seen", True)))
    arguments = {"hashing": Recorder(), **options}
    return expand(config, slots, around, **arguments)  # type: ignore[arg-type]


def packed(address: str) -> bytes:
    return ip_address(address).packed


def answers(table: Table, backend: str, protocol: int = TCP) -> list[tuple[int, int, list[str]]]:
    """The segments of an endpoint, each frontend as `vip:port/slot`."""
    return [
        (
            segment.first,
            segment.last,
            [f"{ip_address(f.address)}:{f.port}/{f.slot}" for f in segment.frontends],
        )
        for segment in table.endpoints[packed(backend), protocol]
    ]


def test_services_keep_their_order_and_backends_theirs() -> None:
    table = table_of(
        "web 192.0.2.1:80/tcp 10.0.0.2:8080,10.0.0.1*3 maglev", "dns 192.0.2.1:53/udp 10.0.0.1:5353"
    )
    assert [(s.name, s.scheduler) for s in table.services] == [
        ("web", Scheduler.MAGLEV),
        ("dns", Scheduler.ROUND_ROBIN),
    ]
    assert table.services[0].backends == (
        BackendEntry(0, packed("10.0.0.2"), 8080, 1),
        BackendEntry(1, packed("10.0.0.1"), 0, 3),
    )
    assert table.services[1].backends == (BackendEntry(2, packed("10.0.0.1"), 5353, 1),)


def test_port_ranges_ascend_by_address_and_protocol() -> None:
    table = table_of(
        "b 192.0.2.1:90-99/tcp,192.0.2.1:1-9/tcp 10.0.0.1",
        "a 192.0.2.1:50/tcp+udp,192.0.2.2:any/tcp 10.0.0.2",
        "c [2001:db8::1]:80/tcp [2001:db8::2]:80",
    )
    assert table.vips == {
        (packed("192.0.2.1"), TCP): (PortRange(1, 9, 0), PortRange(50, 50, 1), PortRange(90, 99, 0)),
        (packed("192.0.2.1"), UDP): (PortRange(50, 50, 1),),
        (packed("192.0.2.2"), TCP): (PortRange(1, 65535, 1),),
        (packed("2001:db8::1"), TCP): (PortRange(80, 80, 2),),
    }


def test_an_answer_gets_the_listens_port_or_keeps_its_own() -> None:
    table = table_of("web 192.0.2.1:80/tcp 10.0.0.1:8080,10.0.0.2", "any 192.0.2.2:any/udp 10.0.0.1")
    assert answers(table, "10.0.0.1") == [(8080, 8080, ["192.0.2.1:80/0"])]
    assert answers(table, "10.0.0.2") == [(80, 80, ["192.0.2.1:0/1"])]
    assert answers(table, "10.0.0.1", UDP) == [(1, 65535, ["192.0.2.2:0/2"])]
    assert set(table.endpoints) == {
        (packed("10.0.0.1"), TCP),
        (packed("10.0.0.2"), TCP),
        (packed("10.0.0.1"), UDP),
    }


def test_frontends_are_numbered_by_vip_protocol_and_port() -> None:
    table = table_of(
        "web 192.0.2.1:80/tcp,192.0.2.1:443/tcp 10.0.0.1:8080,10.0.0.2:8080",
        "web6 [2001:db8::1]:80/tcp [2001:db8::2]:8080",
        "any 192.0.2.2:1-9/tcp,192.0.2.2:20-29/tcp+udp 10.0.0.1,10.0.0.3",
    )
    frontends = {
        (f.index, f.address, protocol, f.port)
        for (_, protocol), segments in table.endpoints.items()
        for segment in segments
        for f in segment.frontends
    }
    assert len({index for index, *_ in frontends}) == len(frontends) == 5
    assert {index for index, *_ in frontends} == set(range(5))
    assert {(vip, protocol, port) for _, vip, protocol, port in frontends} == {
        (packed("192.0.2.1"), TCP, 80),
        (packed("192.0.2.1"), TCP, 443),
        (packed("2001:db8::1"), TCP, 80),
        (packed("192.0.2.2"), TCP, 0),
        (packed("192.0.2.2"), UDP, 0),
    }


def test_overlapping_answers_are_cut_into_segments_in_the_order_of_the_configuration() -> None:
    table = table_of(
        "any 192.0.2.3:any/tcp 10.0.0.1",
        "range 192.0.2.2:8000-8100/tcp 10.0.0.1",
        "web 192.0.2.1:80/tcp 10.0.0.1:8080",
    )
    everywhere, in_range, web = "192.0.2.3:0/0", "192.0.2.2:0/1", "192.0.2.1:80/2"
    assert answers(table, "10.0.0.1") == [
        (1, 7999, [everywhere]),
        (8000, 8079, [everywhere, in_range]),
        (8080, 8080, [everywhere, in_range, web]),
        (8081, 8100, [everywhere, in_range]),
        (8101, 65535, [everywhere]),
    ]


def test_segments_that_touch_and_agree_are_one_and_gaps_stay() -> None:
    table = table_of("web 192.0.2.1:80-89/tcp,192.0.2.1:90/tcp,192.0.2.1:95/tcp 10.0.0.1")
    assert answers(table, "10.0.0.1") == [(80, 90, ["192.0.2.1:0/0"]), (95, 95, ["192.0.2.1:0/0"])]


def test_sweep_agrees_with_asking_every_port() -> None:
    rng = random.Random(7)
    for _ in range(300):
        claims = []
        for n in range(rng.randrange(1, 8)):
            first = rng.randrange(1, 40)
            claims.append(Claim(0, 0, n, first, rng.choice([first, min(first + rng.randrange(9), 40)])))
        found = list(sweep(claims))
        assert all(a[1] < b[0] for a, b in pairwise(found))
        by_port = {port: here for first, last, here in found for port in range(first, last + 1)}
        for port in range(42):
            assert by_port.get(port, ()) == tuple(c for c in claims if c.first <= port <= c.last)


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_the_size_of_a_lookup_depends_on_the_scheduler(scheduler: Scheduler) -> None:
    recorder = Recorder()
    table_of(f"web 192.0.2.1:80/tcp 10.0.0.1*2 {scheduler}", hashing=recorder)
    ((_, _, size),) = recorder.filled
    assert size == (LARGE_LOOKUP if scheduler in {"maglev", "source-hash"} else SMALL_LOOKUP)


def test_a_lookup_is_filled_in_the_order_of_names_and_holds_slots() -> None:
    recorder = Recorder()
    table = table_of(
        "x 192.0.2.9:80/tcp 10.9.9.9",
        "web 192.0.2.1:80/tcp 10.0.0.9:80*9,10.0.0.2,10.0.0.10:80*0",
        hashing=recorder,
    )
    assert recorder.filled[1] == ([b"10.0.0.10:80", b"10.0.0.2", b"10.0.0.9:80"], [0, 1, 9], SMALL_LOOKUP)
    assert list(array("H", table.services[1].lookup)) == [3, 2, 1]


def test_a_lookup_is_maglevs_over_both_twins() -> None:
    service = "web 192.0.2.1:80/tcp 10.0.0.1:80*3,10.0.0.2:80,10.0.0.3:80*0"
    native, reference = table_of(service, hashing=native_hashing), table_of(service, hashing=hashing)
    assert native == reference
    places = array("H", native.services[0].lookup)
    shares = Counter(places)
    assert len(places) == SMALL_LOOKUP
    assert set(shares) == {0, 1}
    assert shares[0] == pytest.approx(SMALL_LOOKUP * 3 / 4, abs=4)


def test_with_failover_what_is_hashed_meets_the_first_that_has_weight() -> None:
    table = table_of("web 192.0.2.1:80/tcp 10.0.0.1*0,10.0.0.2,10.0.0.3 failover", hashing=hashing)
    assert set(array("H", table.services[0].lookup)) == {1}


def test_a_lookup_is_empty_where_no_backend_has_weight() -> None:
    assert table_of("web 192.0.2.1:80/tcp 10.0.0.1*0,10.0.0.2*0", hashing=hashing).services[0].lookup == b""


def test_the_order_of_backends_does_not_change_who_a_place_belongs_to() -> None:
    def owners(*backends: str) -> list[bytes]:
        service = table_of(f"web 192.0.2.1:80/tcp {','.join(backends)}", hashing=native_hashing).services[0]
        addresses = {entry.slot: entry.address for entry in service.backends}
        return [addresses[slot] for slot in array("H", service.lookup)]

    assert owners("10.0.0.1", "10.0.0.2", "10.0.0.3") == owners("10.0.0.3", "10.0.0.1", "10.0.0.2")


def test_only_what_changed_is_filled_again() -> None:
    lookups, slots = LookupCache(), SlotRegistry()

    def fill(*services: str, key: bytes = KEY) -> tuple[int, Table]:
        recorder = Recorder()
        table = table_of(*services, slots=slots, lookups=lookups, hashing=recorder, key=key)
        return len(recorder.filled), table

    a, b = "a 192.0.2.1:80/tcp 10.0.0.1,10.0.0.2", "b 192.0.2.2:80/tcp 10.0.0.1"
    count, first = fill(a, b)
    assert count == 2
    count, second = fill(
        "c 192.0.2.3:80/tcp 10.0.0.7", b, "a 192.0.2.1:80/tcp,192.0.2.1:81/tcp 10.0.0.2,10.0.0.1"
    )
    assert count == 1
    assert second.services[2].lookup is first.services[0].lookup
    assert fill(a.replace("10.0.0.2", "10.0.0.2*2"), b)[0] == 1, "a weight"
    assert fill(a, b)[0] == 1, "what was not asked for is forgotten"
    assert fill(a + " maglev", b)[0] == 1, "the size"
    assert fill(a + " maglev", b, key=bytes(16))[0] == 2, "the key"


def test_a_slot_that_moved_is_written_anew() -> None:
    lookups, slots = LookupCache(), SlotRegistry()
    web = "web 192.0.2.1:80/tcp 10.0.0.1"
    table_of("x 192.0.2.2:80/tcp 10.0.0.9", web, slots=slots, lookups=lookups)
    table = table_of(web, slots=SlotRegistry(), lookups=lookups)
    assert list(array("H", table.services[0].lookup)) == [0]


@pytest.mark.parametrize("replies_seen", [True, False])
def test_whether_replies_are_seen_is_passed_on(replies_seen: bool) -> None:
    assert table_of("web 192.0.2.1:80/tcp 10.0.0.1", replies_seen=replies_seen).replies_seen is replies_seen


def test_affinity_is_by_the_prefix_of_the_clients_family() -> None:
    config = parse_config(
        l4("web 192.0.2.1:80/tcp 10.2.0.1:80", "six [2001:db8::1]:80/tcp [fd00::1]:80"), "test"
    )
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    plain = expand(config, slots, Surroundings(KEY))
    affinity = Affinity(prefix4=24, prefix6=56, timeout_s=1.5)
    services = tuple(replace(service, affinity=affinity) for service in config.services)
    with_it = expand(replace(config, services=services), slots, Surroundings(KEY))
    fields = [[(s.affinity_prefix, s.affinity_ms) for s in table.services] for table in (plain, with_it)]
    assert fields == [[(0, 0), (0, 0)], [(24, 1500), (56, 1500)]]


def test_affinity_groups_and_sorry_servers_are_passed_on() -> None:
    config = parse_config(l4("web 192.0.2.1:80/tcp 10.2.0.1,10.2.0.2", "api 192.0.2.2:80/tcp 10.2.0.1"), "x")
    web, api = config.services
    backends = (web.backends[0], replace(web.backends[1], sorry=True))
    grouped = replace(web, affinity=Affinity(group="shop"), backends=backends)
    config = replace(config, services=(grouped, api))
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    services = expand(config, slots, Surroundings(KEY)).services
    assert [service.affinity_group for service in services] == ["shop", None]
    assert [backend.sorry for service in services for backend in service.backends] == [False, True, False]


def test_a_table_of_1000_services_has_every_part() -> None:
    table = table_of(
        *(
            f"s{i} 192.0.{i >> 8}.{i & 255}:80/tcp "
            + ",".join(f"10.{i >> 8}.{i & 255}.{n}:8080" for n in range(20))
            for i in range(1000)
        )
    )
    assert len(table.services) == len(table.vips) == 1000
    assert len(table.endpoints) == 20_000
    assert all(
        segments == (ReplySegment(8080, 8080, segments[0].frontends),)
        for segments in table.endpoints.values()
    )


@both_cores
def test_both_cores_decide_by_the_table_of_an_example(core: Core) -> None:
    config = parse_config((EXAMPLES / "nat.yaml").read_text(), "nat.yaml")
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    balancer = core.balancer.Balancer(capacity=64, key=KEY)
    balancer.publish(expand(config, slots, Surroundings(key=KEY, replies_seen=True), hashing=core.hashing))

    chosen: Counter[str] = Counter()
    for port in range(1024, 1036):
        decision = balancer.decide(tcp(f"198.51.100.7:{port}", "203.0.113.10:80"), 0)
        assert (decision.verdict, decision.reason) == (Verdict.FORWARD, Reason.SCHEDULED)
        backend = slots.owner(decision.slot).backend
        chosen[backend] += 1
        reply = balancer.decide(tcp(backend, f"198.51.100.7:{port}", "SA"), 0)
        assert reply.reason is Reason.REPLY
    assert chosen == {"10.2.0.11:8080": 6, "10.2.0.12:8080": 4, "10.2.0.13:8080": 2}

    decision = balancer.decide(udp("198.51.100.7:1024", "203.0.113.10:7"), 0)
    assert slots.owner(decision.slot) == ("echo", "10.2.0.11:7")
