"""Where new flows of a client go that has had one before (docs/design/decision.md, section 12)."""

from __future__ import annotations

from typing import Any

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.reference.affinity import GROUPS, mask
from l4lb.dataplane.reference.hashing import service_number, siphash, spread
from l4lb.dataplane.table import Table
from l4lb.model import Forward, Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp, udp
from tests.support.rows import Row, Step, both_ways, check, forwarded, refused, rows, start
from tests.support.tables import Slots, Svc, make_table

CLIENT, NEIGHBOUR, OTHER = "198.51.100.7", "198.51.100.200", "203.0.113.7"
VIP, DNS, VIP2 = "192.0.2.1:80", "192.0.2.1:53", "192.0.2.1:81"
VIP6, CLIENT6, NEIGHBOUR6 = "[2001:db8:1::1]:80", "[2001:db8::7]", "[2001:db8::1:7]"
A, B, C, D = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "10.2.0.14:8080"
A6, B6 = "[fd00::11]:8080", "[fd00::12]:8080"
SLOTS = Slots()
MINUTE = 60_000


def table(
    prefix: int = 32,
    lasts_ms: int = MINUTE,
    *,
    web: tuple[str, ...] = (A, B),
    prefix6: int = 64,
    **options: Any,
) -> Table:
    """Services that go round robin: slots A 0, B 1, C 2, D 3, A6 4, B6 5."""
    return make_table(
        Svc(
            "web",
            ["192.0.2.1:80/tcp", "192.0.2.1:53/udp"],
            web,
            affinity=(prefix, lasts_ms),
            limits=options.pop("limits", (0, 0)),
        ),
        Svc("web2", ["192.0.2.1:81/tcp"], [C, D], affinity=(prefix, lasts_ms)),
        Svc("web6", ["[2001:db8:1::1]:80/tcp"], [A6, B6], affinity=(prefix6, lasts_ms)),
        slots=SLOTS,
        **options,
    )


TABLE = table()
WIDE = table(24)
A_DRAINED, A_REMOVED, ALL_DRAINED = (
    table(web=(f"{A} x0", B)),
    table(web=(B,)),
    table(web=(f"{A} x0", f"{B} x0")),
)
NEW_BACKEND = table(web=(A, B, "10.2.0.15:8080"))
PACED, LIMITED = table(new_flows=1), table(limits=(1, 0))
NONE = table(0, 0)


def syn(n: int, host: str = CLIENT, vip: str = VIP, flags: str = "S") -> bytes:
    """The `n`th connection of a client."""
    return tcp(f"{host}:{n}", vip, flags)


def to(backend: str, n: int, host: str = CLIENT, flags: str = "S") -> bytes:
    return tcp(f"{host}:{n}", backend, flags)


FULL: list[Step] = [tcp(f"198.51.100.9:{port}", VIP) for port in range(1, 17)]
"""As many flows as the smallest table holds; the client of all is another one, and all go to A."""


@both_cores
@both_ways
@rows(
    forwarded("the first is scheduled", syn(1), Reason.SCHEDULED, 0, to(A, 1)),
    forwarded("the second follows it", syn(2), Reason.AFFINITY, 0, to(A, 2), syn(1)),
    forwarded(
        "... with UDP, too", udp(f"{CLIENT}:2", DNS), Reason.AFFINITY, 0, udp(f"{CLIENT}:2", A), syn(1)
    ),
    forwarded("... known flows are known", syn(2), Reason.FLOW, 0, to(A, 2), syn(1), syn(2)),
    forwarded("... and takes no turn", syn(1, OTHER), Reason.SCHEDULED, 1, to(B, 1, OTHER), syn(1), syn(2)),
    forwarded(
        "another client has another",
        syn(2, OTHER),
        Reason.AFFINITY,
        1,
        to(B, 2, OTHER),
        syn(1),
        syn(1, OTHER),
    ),
    forwarded("a neighbour is another", syn(1, NEIGHBOUR), Reason.SCHEDULED, 1, to(B, 1, NEIGHBOUR), syn(1)),
    forwarded(
        "... not in the same network",
        syn(1, NEIGHBOUR),
        Reason.AFFINITY,
        0,
        to(A, 1, NEIGHBOUR),
        WIDE,
        syn(1),
    ),
    forwarded("... of another, it is", syn(1, OTHER), Reason.SCHEDULED, 1, to(B, 1, OTHER), WIDE, syn(1)),
    forwarded("another service", syn(2, vip=VIP2), Reason.SCHEDULED, 2, to(C, 2), syn(1)),
    forwarded(
        "IPv6", syn(2, NEIGHBOUR6, VIP6), Reason.AFFINITY, 4, to(A6, 2, NEIGHBOUR6), syn(1, CLIENT6, VIP6)
    ),
    forwarded(
        "... by the whole address",
        syn(2, NEIGHBOUR6, VIP6),
        Reason.SCHEDULED,
        5,
        to(B6, 2, NEIGHBOUR6),
        table(prefix6=128),
        syn(1, CLIENT6, VIP6),
    ),
    forwarded("more bits than IPv4 has", syn(2), Reason.AFFINITY, 0, to(A, 2), table(128), syn(1)),
    # Time
    forwarded("to its last millisecond", syn(2), Reason.AFFINITY, 0, to(A, 2), syn(1), MINUTE - 1),
    forwarded("... and no longer", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1), MINUTE),
    forwarded(
        "each new flow renews it", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(1), 40_000, syn(2), 40_000
    ),
    forwarded("known flows do not", syn(3), Reason.SCHEDULED, 1, to(B, 3), syn(1), 40_000, syn(1), 40_000),
    forwarded(
        "scheduled anew, it lasts", syn(3), Reason.AFFINITY, 1, to(B, 3), syn(1), MINUTE, syn(2), MINUTE - 1
    ),
    # The table changes
    forwarded("a draining backend is left", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1), A_DRAINED),
    forwarded("... for good", syn(3), Reason.AFFINITY, 1, to(B, 3), syn(1), A_DRAINED, syn(2), TABLE),
    forwarded(
        "... unless none came meanwhile", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(1), A_DRAINED, TABLE
    ),
    forwarded("a removed one, too", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1), A_REMOVED),
    forwarded("its flow goes on elsewhere", syn(1), Reason.RESCHEDULED, 1, to(B, 1), syn(1), A_REMOVED),
    forwarded("... which the next follows", syn(2), Reason.AFFINITY, 1, to(B, 2), syn(1), A_REMOVED, syn(1)),
    forwarded(
        "... and which may follow the next",
        syn(1),
        Reason.RESCHEDULED,
        1,
        to(B, 1),
        syn(1),
        A_REMOVED,
        syn(2),
    ),
    forwarded("a new backend changes nothing", syn(2), Reason.AFFINITY, 0, to(A, 2), syn(1), NEW_BACKEND),
    forwarded("affinity goes", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1), NONE),
    forwarded("... and comes", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(1), NONE, syn(2), TABLE),
    # Behind the other rules
    refused("no backend comes first", syn(2), Reason.NO_BACKEND, syn(1), ALL_DRAINED),
    refused("limits come first", syn(2), Reason.LIMITED, LIMITED, syn(1)),
    refused("RST begins no flow", syn(2, flags="R"), Reason.NO_FLOW, syn(1)),
    forwarded("hashed flows take no part", syn(3), Reason.HASHED, 1, to(B, 3), PACED, syn(1)),
    forwarded("nor those without room", syn(1), Reason.STATELESS, 1, to(B, 1), *FULL),
    forwarded("... they leave no trace", syn(2), Reason.SCHEDULED, 1, to(B, 2), *FULL, syn(1), MINUTE),
    # Without SYN: by the hash
    forwarded(
        "without SYN: by the hash", syn(1, flags="A"), Reason.SCHEDULED, 1, to(B, 1, flags="A"), syn(2)
    ),
    forwarded("... which changes nothing", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(2), syn(1, flags="A")),
    forwarded("... and begins nothing", syn(3), Reason.SCHEDULED, 0, to(A, 3), syn(1, flags="A")),
)
def test_where_a_client_s_new_flows_go(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("forward", Forward)
def test_it_comes_before_every_scheduler_and_serves_every_way_of_forwarding(
    core: Core, scheduler: Scheduler, forward: Forward
) -> None:
    backends = [f"10.2.0.{n}" for n in range(11, 19)]
    service = Svc("web", ["192.0.2.1:80/tcp"], backends, scheduler, forward, affinity=(32, MINUTE))
    balancer = start(core, make_table(service, pool=["10.2.0.1"]), ports=(20_000, 64), capacity=64)
    first = balancer.decide(syn(1), 0)
    assert first.reason is Reason.SCHEDULED
    for n in range(2, 20):
        decision = balancer.decide(syn(n), 0)
        assert (decision.reason, decision.slot) == (Reason.AFFINITY, first.slot)
    assert balancer.slot_counters(first.slot).scheduled == 19


@both_cores
def test_workers_share_it(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    one, other = (start(core, TABLE, shared=shared) for _ in range(2))
    assert one.decide(syn(1), 0).slot == 0
    decision = other.decide(syn(2), 0)
    assert (decision.reason, decision.slot) == (Reason.AFFINITY, 0)


@both_cores
def test_a_masqueraded_flow_without_a_port_has_chosen_all_the_same(core: Core) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], [A, B], forward=Forward.MASQUERADE, affinity=(32, MINUTE))
    balancer = start(core, make_table(service, pool=["10.2.0.1"]), ports=(20_000, 1))
    assert balancer.decide(syn(1), 0).reason is Reason.SCHEDULED
    assert balancer.decide(syn(2), 30_000).reason is Reason.NO_PORT
    assert balancer.expire(MINUTE) == 1
    assert balancer.decide(syn(3), 30_000 + MINUTE - 1).reason is Reason.AFFINITY


@both_cores
def test_preview_foresees_it_and_changes_nothing(core: Core) -> None:
    balancer = start(core, TABLE, syn(1))
    for now_ms in (0, MINUTE - 1):
        foreseen = [balancer.preview(syn(2), now_ms) for _ in range(2)]
        assert [(decision.reason, decision.slot) for decision in foreseen] == [(Reason.AFFINITY, 0)] * 2
    assert balancer.preview(syn(2), MINUTE).reason is Reason.SCHEDULED
    balancer.publish(A_REMOVED)
    assert balancer.preview(syn(1), 0).reason is Reason.RESCHEDULED
    assert balancer.decide(syn(2), 0).slot == 1
    foreseen = balancer.preview(syn(1), 0)
    assert (foreseen.reason, foreseen.slot) == (Reason.RESCHEDULED, 1)


@pytest.mark.parametrize(
    ("address", "prefix", "network"),
    [
        ("198.51.100.7", 32, "198.51.100.7"),
        ("198.51.100.7", 128, "198.51.100.7"),
        ("198.51.100.7", 31, "198.51.100.6"),
        ("198.51.100.7", 20, "198.51.96.0"),
        ("198.51.100.7", 1, "128.0.0.0"),
        ("2001:db8::7", 128, "2001:db8::7"),
        ("2001:db8:0:1::7", 64, "2001:db8:0:1::"),
        ("2001:db8:0:ffff::7", 57, "2001:db8:0:ff80::"),
    ],
)
def test_a_client_is_its_network(address: str, prefix: int, network: str) -> None:
    assert mask(packed(address), prefix) == packed(network)


# A group that is full --------------------------------------------------------------------------------

CROWD = [
    "198.18.23.94",
    "198.18.69.115",
    "198.18.72.47",
    "198.18.76.63",
    "198.18.77.33",
    "198.18.129.133",
    "198.18.164.138",
    "198.18.181.151",
    "198.18.188.132",
    "198.18.198.102",
]
"""Clients of the service `web` that stand in one group of 8 places."""


def test_the_crowd_shares_a_group() -> None:
    number = service_number(KEY, "web")
    assert len({spread(number, siphash(KEY, packed(host)), GROUPS) for host in CROWD}) == 1
    assert len(set(CROWD)) == 10


def crowded(core: Core, shared: Any) -> Any:
    """A balancer whose group is full; its clients' time ends a second apart, that of the third first."""
    balancer = start(core, TABLE, shared=shared, capacity=256)
    for second, host in enumerate([CROWD[2], *CROWD[:2], *CROWD[3:8]]):
        balancer.decide(syn(1, host), 1_000 * second)
    return balancer


def reasons(balancer: Any, n: int, hosts: list[str], now_ms: int) -> list[Reason]:
    return [balancer.decide(syn(n, host), now_ms).reason for host in hosts]


@both_cores
def test_who_finds_a_full_group_takes_the_place_that_ends_first(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = crowded(core, shared)
    assert shared.crowded_out() == 0
    assert reasons(balancer, 1, CROWD[8:9], 9_000) == [Reason.SCHEDULED]
    assert shared.crowded_out() == 1
    kept = [host for host in CROWD[:9] if host != CROWD[2]]
    assert [balancer.preview(syn(2, host), 9_000).reason for host in kept] == [Reason.AFFINITY] * 8
    # The third drives out the first, which ends before all others now.
    assert reasons(balancer, 2, [CROWD[2], CROWD[0]], 9_000) == [Reason.SCHEDULED] * 2
    assert shared.crowded_out() == 3


@both_cores
def test_a_place_whose_time_is_over_is_taken_before_others(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = crowded(core, shared)
    # The time of the third and the first is over: two come in for nobody's loss.
    assert reasons(balancer, 1, CROWD[8:], MINUTE + 1_000) == [Reason.SCHEDULED] * 2
    assert shared.crowded_out() == 0
    kept = [CROWD[1], *CROWD[3:]]
    assert [balancer.preview(syn(2, host), MINUTE + 1_000).reason for host in kept] == [Reason.AFFINITY] * 8


@both_cores
def test_of_places_that_end_together_the_first_is_taken(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = start(core, TABLE, *(syn(1, host) for host in CROWD[:9]), shared=shared, capacity=256)
    assert shared.crowded_out() == 1
    assert reasons(balancer, 2, [*CROWD[1:9]], 0) == [Reason.AFFINITY] * 8
    assert reasons(balancer, 2, CROWD[:1], 0) == [Reason.SCHEDULED]
