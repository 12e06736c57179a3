"""Limits of backends over both cores: who is full, and where new flows go then (docs/design/decision.md,
section 14)."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from l4lb.dataplane.decision import Decision, Reason
from l4lb.dataplane.table import Table
from l4lb.model import Forward, Scheduler
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, both_ways, check, forwarded, refused, rows, start
from tests.support.tables import Slots, Svc, make_table

VIP, HOST = "192.0.2.1:80", "198.51.100.7"
A, B, C = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"
SLOTS = Slots()


def syn(n: int, flags: str = "S", host: str = HOST) -> bytes:
    return tcp(f"{host}:{40_000 + n}", VIP, flags)


def to(backend: str, n: int, flags: str = "S", host: str = HOST) -> bytes:
    return tcp(f"{host}:{40_000 + n}", backend, flags)


def query(n: int) -> bytes:
    return udp(f"{HOST}:{40_000 + n}", VIP, b"query")


def table(
    *backends: str,
    scheduler: Scheduler = Scheduler.ROUND_ROBIN,
    affinity: tuple[int, int] = (0, 0),
    one_packet: bool = False,
    new_flows: int = 0,
) -> Table:
    listens = ["192.0.2.1:80/tcp", "192.0.2.1:80/udp"]
    service = Svc("web", listens, backends, scheduler, affinity=affinity, one_packet=one_packet)
    return make_table(service, slots=SLOTS, new_flows=new_flows)


TABLE = table(f"{A} max1", f"{B} max2")
BOTH_FULL = [syn(1), syn(2), syn(3)]
KEPT = table(f"{A} max1", f"{B} max2", affinity=(32, 60_000))


@both_cores
@both_ways
@rows(
    forwarded("the first", syn(1), Reason.SCHEDULED, 0, to(A, 1)),
    forwarded("... and the second", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1)),
    forwarded("the full one is passed over", syn(3), Reason.SCHEDULED, 1, to(B, 3), syn(1), syn(2)),
    refused("all are full", syn(4), Reason.BACKENDS_FULL, *BOTH_FULL),
    refused("... for UDP, too", query(4), Reason.BACKENDS_FULL, *BOTH_FULL),
    refused("... which counts as well", syn(4), Reason.BACKENDS_FULL, query(1), query(2), query(3)),
    forwarded("known flows go on", syn(1, "A"), Reason.FLOW, 0, to(A, 1, "A"), *BOTH_FULL, syn(4)),
    forwarded(
        "a client that closes makes room", syn(4), Reason.SCHEDULED, 0, to(A, 4), *BOTH_FULL, syn(1, "FA")
    ),
    forwarded(
        "... and one that resets",
        syn(4),
        Reason.SCHEDULED,
        0,
        to(A, 4),
        *[syn(1), syn(1, "A"), syn(2), syn(3)],
        syn(1, "R"),
    ),
    forwarded(
        "... and a backend that closes",
        syn(4),
        Reason.SCHEDULED,
        1,
        to(B, 4),
        *BOTH_FULL,
        syn(2, "A"),
        tcp(B, f"{HOST}:40002", "FA"),
    ),
    forwarded("... and time, once it is met", syn(1), Reason.SCHEDULED, 0, to(A, 1), *BOTH_FULL, 60_000),
    refused("a reset SYN_RECV is still open", syn(4), Reason.BACKENDS_FULL, *BOTH_FULL, syn(1, "R")),
    forwarded(
        "a port that is used again counts once",
        syn(1),
        Reason.SCHEDULED,
        0,
        to(A, 1),
        *BOTH_FULL,
        syn(1, "FA"),
    ),
    forwarded(
        "a lower limit touches nobody",
        syn(2, "A"),
        Reason.FLOW,
        1,
        to(B, 2, "A"),
        *BOTH_FULL,
        table(f"{A} max1", f"{B} max1"),
    ),
    refused(
        "... and is kept for new ones",
        syn(4),
        Reason.BACKENDS_FULL,
        *BOTH_FULL,
        table(f"{A} max1", f"{B} max1"),
        syn(2, "FA"),
    ),
    forwarded(
        "a higher one makes room",
        syn(4),
        Reason.SCHEDULED,
        0,
        to(A, 4),
        *BOTH_FULL,
        table(f"{A} max2", f"{B} max2"),
    ),
    forwarded("none is no limit", syn(4), Reason.SCHEDULED, 1, to(B, 4), *BOTH_FULL, table(f"{A} max1", B)),
    refused(
        "one without weight is no way out",
        syn(2),
        Reason.BACKENDS_FULL,
        table(f"{A} max1", f"{B} x0"),
        syn(1),
    ),
    refused("without weight comes first", syn(2), Reason.NO_BACKEND, table(f"{A} x0 max1"), syn(1)),
    # What takes the hash is on its way already, or leaves nothing that could be counted.
    forwarded(
        "a connection that runs already",
        syn(5, "A"),
        Reason.SCHEDULED,
        0,
        to(A, 5, "A"),
        table(f"{A} max1"),
        syn(1),
    ),
    forwarded(
        "hashed in a flood", syn(5), Reason.HASHED, 0, to(A, 5), table(f"{A} max1", new_flows=1), syn(1)
    ),
    forwarded(
        "datagrams that are not remembered",
        query(5),
        Reason.SCHEDULED,
        0,
        udp(f"{HOST}:40005", A, b"query"),
        table(f"{A} max1", one_packet=True),
        query(1),
        query(2),
    ),
    # Affinity
    forwarded("affinity gives way", syn(2), Reason.SCHEDULED, 1, to(B, 2), KEPT, syn(1)),
    forwarded(
        "... for as long as it must", syn(3), Reason.AFFINITY, 0, to(A, 3), KEPT, syn(1), syn(2), syn(1, "FA")
    ),
    forwarded(
        "... which counts for its time",
        syn(3),
        Reason.AFFINITY,
        0,
        to(A, 3),
        *[KEPT, syn(1), syn(1, "A"), 59_000, syn(2), syn(1, "FA"), 59_000],
    ),
    refused("... and where all are full", syn(4), Reason.BACKENDS_FULL, KEPT, *BOTH_FULL),
    forwarded(
        "... which does not",
        syn(4),
        Reason.SCHEDULED,
        0,
        to(A, 4),
        *[KEPT, syn(1), syn(1, "A"), syn(2), syn(3), 59_000, syn(4), syn(1, "FA"), 1_000],
    ),
)
def test_who_is_full_takes_no_new_flows(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


class Opener:
    """Opens connections one after another, and says where they went: A, B, C, or - for none."""

    def __init__(self, core: Core, published: Table) -> None:
        self.balancer = start(core, published, capacity=4096, ports=(20_000, 4096))
        self.numbers = count()

    def open(self, n: int | None = None) -> str:
        decision: Decision = self.balancer.decide(syn(next(self.numbers) if n is None else n), 0)
        return "-" if decision.slot < 0 else "ABC"[decision.slot]

    def letters(self, n: int) -> str:
        return "".join(self.open() for _ in range(n))

    def close(self, n: int) -> None:
        self.balancer.decide(syn(n, "FA"), 0)


@both_cores
@pytest.mark.parametrize(
    ("scheduler", "backends", "expected"),
    [
        (Scheduler.ROUND_ROBIN, (f"{A} max2", f"{B} max1", f"{C} max4"), "ABCACCC-"),
        (Scheduler.WEIGHTED_ROUND_ROBIN, (f"{A} x5 max2", f"{B} max2", C), "AABCBCCC"),
        (Scheduler.LEAST_CONNECTIONS, (f"{A} max1", f"{B} max2", f"{C} max3"), "ABCBCC-"),
        (Scheduler.OVERFLOW, (f"{A} max2", f"{B} max1", f"{C} max2"), "AABCC-"),
        (Scheduler.WEIGHTED_LEAST_CONNECTIONS, (f"{A} x9 max2", f"{B} max1", f"{C} max1"), "AABC-"),
    ],
)
def test_turns_pass_the_full_over(
    core: Core, scheduler: Scheduler, backends: tuple[str, ...], expected: str
) -> None:
    assert Opener(core, table(*backends, scheduler=scheduler)).letters(len(expected)) == expected


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("forward", Forward)
def test_every_scheduler_and_way_of_forwarding_fills_all_and_exceeds_none(
    core: Core, scheduler: Scheduler, forward: Forward
) -> None:
    ports = ("", "", "") if forward.answers_itself else (":8080",) * 3
    ends = [f"10.2.0.{n}{port} max{n}" for n, port in zip((11, 12, 13), ports, strict=True)]
    service = Svc("web", ["192.0.2.1:80/tcp"], ends, scheduler, forward)
    opener = Opener(core, make_table(service, pool=["10.2.0.1"]))
    assert Counter(opener.letters(40)) == {"A": 11, "B": 12, "C": 13, "-": 4}
    counters = [opener.balancer.slot_counters(slot) for slot in range(3)]
    assert [(one.open, one.flows, one.active) for one in counters] == [(n, n, 0) for n in (11, 12, 13)]
    assert opener.balancer.reasons()[Reason.BACKENDS_FULL] == 4
    opener.close(0)
    assert sum(opener.balancer.slot_counters(slot).open for slot in range(3)) == 35
    assert opener.letters(2)[1] == "-"


@both_cores
def test_a_hash_that_meets_a_full_one_goes_on_and_no_other_flow_moves(core: Core) -> None:
    free = Opener(core, table(A, B, C, scheduler=Scheduler.MAGLEV)).letters(300)
    limited = Opener(core, table(f"{A} max20", B, C, scheduler=Scheduler.MAGLEV)).letters(300)
    twentieth = [n for n, letter in enumerate(free) if letter == "A"][19]
    moved = [n for n in range(300) if limited[n] != free[n]]
    assert moved == [n for n in range(twentieth + 1, 300) if free[n] == "A"]
    spilled = Counter(limited[n] for n in moved)
    assert set(spilled) == {"B", "C"}
    assert min(spilled.values()) > len(moved) / 4


@both_cores
def test_the_second_choice_of_a_hash_is_always_the_same(core: Core) -> None:
    """Gateways with one key agree about it, too, once they agree about who is full."""
    one, other = (Opener(core, table(f"{A} max1", B, C, scheduler=Scheduler.MAGLEV)) for _ in range(2))
    numbers = count(1_000)
    assert any(one.open() == "A" for _ in range(100))
    assert any(other.open(next(numbers)) == "A" for _ in range(100))
    assert [one.open(500 + n) for n in range(200)] == [other.open(500 + n) for n in range(200)]


@both_cores
def test_workers_count_together(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    one, other = (start(core, TABLE, shared=shared) for _ in range(2))
    assert [one.decide(syn(n), 0).slot for n in (1, 2)] == [0, 1]
    assert [other.decide(syn(n), 0).slot for n in (3, 4)] == [1, -1]
    assert (shared.open(0), shared.open(1)) == (1, 2)


@both_cores
def test_preview_foresees_who_is_full_and_takes_no_place(core: Core) -> None:
    balancer = start(core, TABLE, *BOTH_FULL)
    for _ in range(2):
        assert balancer.preview(syn(4), 0).reason is Reason.BACKENDS_FULL
    # A flow that would be removed before makes room for itself: it has run out, or its backend gives it up.
    assert balancer.preview(syn(1), 60_000).slot == 0
    moving = make_table(
        Svc("web", ["192.0.2.1:80/tcp"], (f"{A} max1", f"{B} max2")), slots=SLOTS, moves=[0, 1]
    )
    balancer.publish(moving)
    foreseen = balancer.preview(syn(1), 0)
    assert (foreseen.reason, foreseen.slot) == (Reason.RESCHEDULED, 0)
    assert balancer.preview(syn(4), 0).reason is Reason.BACKENDS_FULL


@both_cores
def test_preview_of_affinity_to_a_full_backend(core: Core) -> None:
    balancer = start(core, KEPT, syn(1))
    foreseen = balancer.preview(syn(2), 0)
    assert (foreseen.reason, foreseen.slot) == (Reason.SCHEDULED, 1)
    balancer.decide(syn(1, "FA"), 0)
    foreseen = balancer.preview(syn(2), 0)
    assert (foreseen.reason, foreseen.slot) == (Reason.AFFINITY, 0)


@both_cores
def test_an_expired_flow_is_open_until_it_is_removed(core: Core) -> None:
    """The daemon looks the table through all the time: so long a place may stay taken that nobody has."""
    balancer = start(core, TABLE, *BOTH_FULL)
    assert balancer.decide(syn(4), 60_000).reason is Reason.BACKENDS_FULL
    assert balancer.expire(60_000) == 3
    assert balancer.decide(syn(4), 60_000).reason is Reason.SCHEDULED
