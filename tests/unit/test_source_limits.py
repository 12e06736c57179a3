"""What one source may begin, and have (docs/design/decision.md, section 10)."""

from __future__ import annotations

from typing import Any

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.reference.hashing import siphash
from l4lb.dataplane.table import Table
from l4lb.model import Forward
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp, udp
from tests.support.rows import Row, Step, both_ways, check, forwarded, refused, rows, start
from tests.support.tables import Slots, Svc, make_table

CLIENT, OTHER = "198.51.100.7", "198.51.100.8"
VIP, VIP2, DNS, CLOSED = "192.0.2.1:80", "192.0.2.1:81", "192.0.2.1:53", "192.0.2.1:82"
VIP6, CLIENT6 = "[2001:db8:1::1]:80", "[2001:db8::7]"
A, B, C, RESOLVER = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080", "10.2.0.41:5353"
SLOTS = Slots()


def table(*limits: int, backends: tuple[str, ...] = (A,), **options: Any) -> Table:
    """A service of slot 0 with limits, and others: slots 1 to 4."""
    new_flows, flows = limits or (0, 0)
    return make_table(
        Svc("web", ["192.0.2.1:80/tcp", "192.0.2.1:53/udp"], backends, limits=(new_flows, flows)),
        Svc("web2", ["192.0.2.1:81/tcp"], [C], limits=(new_flows, flows)),
        Svc("web6", ["[2001:db8:1::1]:80/tcp"], ["[fd00::11]:8080"], limits=(new_flows, flows)),
        Svc("drained", ["192.0.2.1:82/tcp"], ["10.2.0.51:8080 x0"], limits=(1, 1)),
        slots=SLOTS,
        **options,
    )


table(backends=(A, B))  # gives every backend its slot: A 0, B 1, C 2, [fd00::11] 3

NEW_2, FLOWS_2, UNLIMITED = table(2, 0), table(0, 2), table()
HASHED = table(2, 0, new_flows=1)


def syn(n: int, host: str = CLIENT, vip: str = VIP, flags: str = "S") -> bytes:
    """The `n`th connection of a client."""
    return tcp(f"{host}:{n}", vip, flags)


def to(backend: str, n: int, host: str = CLIENT, flags: str = "S") -> bytes:
    return tcp(f"{host}:{n}", backend, flags)


TWO: list[Step] = [syn(1), syn(2)]
FULL = [tcp(f"198.51.100.9:{port}", VIP) for port in range(1, 17)]
SYN3, TO_A3 = syn(3), to(A, 3)


@both_cores
@both_ways
@rows(
    forwarded("the last that it may begin", syn(2), Reason.SCHEDULED, 0, to(A, 2), syn(1)),
    refused("one too many", SYN3, Reason.LIMITED, *TWO),
    refused("... with UDP", udp(f"{CLIENT}:3", DNS), Reason.LIMITED, *TWO),
    refused("... without SYN", syn(3, flags="A"), Reason.LIMITED, *TWO),
    refused("... after UDP", SYN3, Reason.LIMITED, udp(f"{CLIENT}:1", DNS), syn(2)),
    refused("... after packets without SYN", SYN3, Reason.LIMITED, syn(1, flags="A"), syn(2, flags="FA")),
    refused("... to the end of the second", SYN3, Reason.LIMITED, *TWO, 999),
    forwarded("... but not in the next one", SYN3, Reason.SCHEDULED, 0, TO_A3, *TWO, 1000),
    forwarded("seconds are those of the clock", SYN3, Reason.SCHEDULED, 0, TO_A3, 999, *TWO, 1),
    refused("what was refused does not count", syn(4), Reason.LIMITED, *TWO, SYN3, 1000, SYN3, syn(5)),
    forwarded("... for the next second", SYN3, Reason.SCHEDULED, 0, TO_A3, *TWO, SYN3, SYN3, 1000),
    forwarded("another source", syn(3, OTHER), Reason.SCHEDULED, 0, to(A, 3, OTHER), *TWO),
    forwarded("another service", syn(3, vip=VIP2), Reason.SCHEDULED, 2, to(C, 3), *TWO),
    refused("... has the same limit", syn(5, vip=VIP2), Reason.LIMITED, syn(3, vip=VIP2), syn(4, vip=VIP2)),
    refused("IPv6", syn(3, CLIENT6, VIP6), Reason.LIMITED, syn(1, CLIENT6, VIP6), syn(2, CLIENT6, VIP6)),
    forwarded("known flows stay", syn(1), Reason.FLOW, 0, to(A, 1), *TWO, SYN3),
    refused("a port that is reused is new", syn(1), Reason.LIMITED, syn(1, flags="FA"), syn(2)),
    refused("its backend is gone: new", syn(1), Reason.LIMITED, *TWO, table(2, 0, backends=(B,))),
    # What counts as begun, whatever comes after
    refused("hashed flows count", syn(4), Reason.LIMITED, HASHED, syn(1), syn(2), NEW_2),
    refused("hashed flows are limited", SYN3, Reason.LIMITED, HASHED, *TWO),
    refused("without room, they count, too", SYN3, Reason.LIMITED, UNLIMITED, *FULL, NEW_2, *TWO),
    forwarded("RST does not count", syn(2), Reason.SCHEDULED, 0, to(A, 2), syn(1), syn(3, flags="R")),
    forwarded("an unlimited service does not", SYN3, Reason.SCHEDULED, 0, TO_A3, UNLIMITED, *TWO, NEW_2),
    # The order of the rules
    refused("no flow comes first", syn(3, flags="R"), Reason.NO_FLOW, *TWO),
    refused("no backend comes first", syn(3, vip=CLOSED), Reason.NO_BACKEND, syn(1, vip=CLOSED)),
    # The table changes
    forwarded("no limit any more", SYN3, Reason.SCHEDULED, 0, TO_A3, *TWO, UNLIMITED),
    forwarded("a greater one", SYN3, Reason.SCHEDULED, 0, TO_A3, *TWO, table(3, 0)),
    refused("a smaller one", syn(2), Reason.LIMITED, syn(1), table(1, 0)),
)
def test_new_flows_in_a_second(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, NEW_2, rewrite=rewrite)


@both_cores
@both_ways
@rows(
    forwarded("the last that it may have", syn(2), Reason.SCHEDULED, 0, to(A, 2), syn(1)),
    refused("one too many", SYN3, Reason.LIMITED, *TWO),
    refused("... in another second", SYN3, Reason.LIMITED, *TWO, 59_999),
    refused("... while expired flows were not met", SYN3, Reason.LIMITED, *TWO, 60_000),
    forwarded("... met and removed", syn(1), Reason.SCHEDULED, 0, to(A, 1), *TWO, 60_000),
    forwarded("a port that is reused", syn(1), Reason.SCHEDULED, 0, to(A, 1), syn(1, flags="FA"), syn(2)),
    forwarded(
        "its backend is gone", syn(1), Reason.RESCHEDULED, 1, to(B, 1), *TWO, table(0, 2, backends=(B,))
    ),
    forwarded("another source", syn(3, OTHER), Reason.SCHEDULED, 0, to(A, 3, OTHER), *TWO),
    forwarded("another service", syn(3, vip=VIP2), Reason.SCHEDULED, 2, to(C, 3), *TWO),
    forwarded("what is not remembered", SYN3, Reason.STATELESS, 0, TO_A3, UNLIMITED, *FULL, FLOWS_2, *TWO),
    # Flows are counted for whom is known; that is not until a limit asks
    forwarded("begun without limits", SYN3, Reason.SCHEDULED, 0, TO_A3, UNLIMITED, *TWO, FLOWS_2),
    refused("the limit comes and goes", syn(4), Reason.LIMITED, syn(1), UNLIMITED, SYN3, FLOWS_2),
    # Both
    refused("one a second", syn(2), Reason.LIMITED, table(1, 2), syn(1)),
    forwarded("... in the next", syn(2), Reason.SCHEDULED, 0, to(A, 2), table(1, 2), syn(1), 1000),
    refused("... two in all", SYN3, Reason.LIMITED, table(1, 2), syn(1), 1000, syn(2), 1000),
)
def test_flows_at_once(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, FLOWS_2, rewrite=rewrite)


@both_cores
def test_removed_flows_do_not_count(core: Core) -> None:
    balancer = start(core, FLOWS_2, *TWO)
    assert balancer.decide(SYN3, 60_000).reason is Reason.LIMITED
    assert balancer.expire(60_000) == 2
    reasons = [balancer.decide(syn(n), 60_000).reason for n in (3, 4, 5)]
    assert reasons == [Reason.SCHEDULED, Reason.SCHEDULED, Reason.LIMITED]


@both_cores
def test_flows_whose_limit_is_gone_are_taken_off_all_the_same(core: Core) -> None:
    balancer = start(core, FLOWS_2, *TWO, UNLIMITED)
    assert balancer.expire(60_000) == 2
    balancer.publish(FLOWS_2)
    assert balancer.decide(SYN3, 60_000).reason is Reason.SCHEDULED


@both_cores
def test_a_flow_of_a_backend_that_was_gone_when_the_limit_came_is_taken_off_too(core: Core) -> None:
    balancer = start(core, UNLIMITED, *TWO, table(0, 2, backends=(B,)), SYN3)
    # Its flow to A is taken off, although none added it, before the new one to B is added.
    assert balancer.decide(syn(1), 0).reason is Reason.RESCHEDULED
    assert balancer.decide(syn(4), 0).reason is Reason.SCHEDULED
    assert balancer.decide(syn(5), 0).reason is Reason.LIMITED


@both_cores
def test_workers_share_the_limits(core: Core) -> None:
    for limited in (NEW_2, FLOWS_2):
        shared = core.balancer.SharedCounters()
        one, other = (start(core, limited, shared=shared) for _ in range(2))
        assert one.decide(syn(1), 0).reason is Reason.SCHEDULED
        assert other.decide(syn(2), 0).reason is Reason.SCHEDULED
        assert one.decide(SYN3, 0).reason is Reason.LIMITED
        assert other.decide(SYN3, 0).reason is Reason.LIMITED


@both_cores
@pytest.mark.parametrize("forward", list(Forward))
def test_every_way_of_forwarding_is_limited(core: Core, forward: Forward) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], ["10.2.0.11"], forward=forward, limits=(0, 1))
    balancer = start(core, make_table(service, pool=["10.2.0.1"]), syn(1))
    assert balancer.decide(syn(2), 0).reason is Reason.LIMITED
    assert balancer.expire(60_000) == 1
    assert balancer.decide(syn(2), 60_000).reason is Reason.SCHEDULED


@both_cores
def test_preview_foresees_it_and_counts_nothing(core: Core) -> None:
    balancer = start(core, NEW_2, syn(1))
    assert [balancer.preview(syn(2), 0).reason for _ in range(3)] == [Reason.SCHEDULED] * 3
    assert balancer.decide(syn(2), 0).reason is Reason.SCHEDULED
    assert balancer.preview(SYN3, 0).reason is Reason.LIMITED
    assert balancer.reasons()[Reason.LIMITED] == 0


# A group that is full --------------------------------------------------------------------------------

CROWD = [
    "198.18.14.103",
    "198.18.19.122",
    "198.18.26.105",
    "198.18.30.219",
    "198.18.37.39",
    "198.18.56.44",
    "198.18.66.202",
    "198.18.67.102",
    "198.18.70.60",
    "198.18.72.195",
    "198.18.86.206",
]
"""Sources of the service `web` that stand in one group of 8 places."""


def group_of(host: str) -> int:
    number = siphash(KEY, b"web") & 0xFFFFFFFF
    mixed = number * 0x9E3779B97F4A7C15 % (1 << 64)
    return (siphash(KEY, packed(host)) ^ mixed) >> 32 & 8191


def test_the_crowd_shares_a_group() -> None:
    assert len({group_of(host) for host in CROWD}) == 1
    assert len(set(CROWD)) == 11


def crowded(core: Core, limited: Table, shared: Any) -> Any:
    """A balancer whose group is full of sources that have begun a flow each."""
    return start(core, limited, *(syn(1, host) for host in CROWD[:8]), shared=shared, capacity=256)


@both_cores
def test_a_source_that_meets_a_full_group_is_let_through_and_counted(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = crowded(core, table(1, 0), shared)
    assert shared.untracked() == 0
    for n in range(1, 6):
        assert balancer.decide(syn(n, CROWD[8]), 0).reason is Reason.SCHEDULED
        assert shared.untracked() == n
    assert balancer.decide(syn(2, CROWD[0]), 0).reason is Reason.LIMITED
    assert shared.untracked() == 5


@both_cores
def test_a_source_with_flows_keeps_its_place(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = crowded(core, table(0, 1), shared)
    assert balancer.decide(syn(1, CROWD[8]), 30_000).reason is Reason.SCHEDULED
    assert shared.untracked() == 1
    assert balancer.decide(syn(2, CROWD[0]), 30_000).reason is Reason.LIMITED
    # The flow of the ninth was not counted: it has no place to be taken off from.
    assert balancer.expire(60_000) == 8
    assert balancer.decide(syn(2, CROWD[8]), 60_000).reason is Reason.SCHEDULED
    assert balancer.decide(syn(3, CROWD[8]), 60_000).reason is Reason.LIMITED
    assert shared.untracked() == 1
    assert balancer.expire(90_000) == 1  # its first, which its place takes off although it never added it
    assert balancer.decide(syn(3, CROWD[8]), 90_000).reason is Reason.SCHEDULED


@both_cores
def test_a_place_without_flows_is_free_in_the_next_second(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = crowded(core, table(1, 0), shared)
    assert balancer.expire(60_000) == 8  # now no place has flows, and none was used in this second
    for host in CROWD[3:]:
        assert balancer.decide(syn(1, host), 60_000).reason is Reason.SCHEDULED
    assert shared.untracked() == 0
    # Places are taken in order: those of the first three, by three of the last.
    for host in CROWD[3:]:
        assert balancer.decide(syn(2, host), 60_000).reason is Reason.LIMITED
    assert balancer.decide(syn(1, CROWD[0]), 60_000).reason is Reason.SCHEDULED
    assert shared.untracked() == 1
