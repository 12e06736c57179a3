"""A flood of new flows is hashed and not remembered (docs/design/decision.md, section 3, rule 4)."""

from __future__ import annotations

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table
from l4lb.model import Forward
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, Step, both_ways, check, forwarded, refused, rows, start
from tests.support.tables import Slots, Svc, make_table

VIP, DNS, CLOSED, KEPT = "192.0.2.1:80", "192.0.2.1:53", "192.0.2.1:81", "192.0.2.1:82"
A, B = "10.2.0.11:8080", "10.2.0.12:8080"
HASHED_TO_A, HASHED_TO_B = "198.51.100.7:40000", "198.51.100.8:40000"
"""Clients that `lookup` sends to A and to B; the scheduler would begin with A."""

SLOTS = Slots()


def table(*backends: str, new_flows: int = 2, limits: tuple[int, int] = (0, 0)) -> Table:
    """Slots: A 0, B 1, resolver 2, drained 3, kept 4."""
    return make_table(
        Svc("web", ["192.0.2.1:80/tcp"], backends or [A, B], limits=limits),
        Svc("dns", ["192.0.2.1:53/udp"], ["10.2.0.41"]),
        Svc("drained", ["192.0.2.1:81/tcp"], ["10.2.0.51:8080 x0"]),
        Svc("kept", ["192.0.2.1:82/tcp"], ["10.2.0.61:80"], forward=Forward.MASQUERADE),
        slots=SLOTS,
        new_flows=new_flows,
        pool=["10.2.0.1"],
    )


TABLE = table(A, B)
ONE_NEW = table(new_flows=1)


def syn(n: int) -> bytes:
    return tcp(f"198.51.100.9:{n}", VIP)


def query(n: int) -> bytes:
    return udp(f"198.51.100.9:{n}", DNS)


FLOOD: list[Step] = [syn(1), syn(2)]
SYN_A, SYN_B = tcp(HASHED_TO_A, VIP), tcp(HASHED_TO_B, VIP)
TO_A, TO_B = tcp(HASHED_TO_A, A), tcp(HASHED_TO_B, B)
B_TO_A, A_TO_B = tcp(HASHED_TO_B, A), tcp(HASHED_TO_A, B)
ECN_B, ECN_TO_B = tcp(HASHED_TO_B, VIP, "SEC"), tcp(HASHED_TO_B, B, "SEC")
SYN_FIN_B, SYN_FIN_TO_A = tcp(HASHED_TO_B, VIP, "SF"), tcp(HASHED_TO_B, A, "SF")
FULL: list[Step] = [table(new_flows=0), *map(syn, range(1, 17)), ONE_NEW]
"""No room is left in the table."""
ACK_B, ACK_TO_B = tcp(HASHED_TO_B, VIP, "A"), tcp(HASHED_TO_B, B, "A")
QUERY, TO_RESOLVER = udp(HASHED_TO_A, DNS), udp(HASHED_TO_A, "10.2.0.41:53")


@both_cores
@both_ways
@rows(
    forwarded("the last that is scheduled", SYN_B, Reason.SCHEDULED, 1, TO_B, syn(1)),
    forwarded("hashed", SYN_A, Reason.HASHED, 0, TO_A, *FLOOD),
    forwarded("... to another", SYN_B, Reason.HASHED, 1, TO_B, *FLOOD),
    forwarded("... again, for it was not remembered", SYN_B, Reason.HASHED, 1, TO_B, *FLOOD, SYN_B),
    forwarded("UDP is, too", QUERY, Reason.HASHED, 2, TO_RESOLVER, *FLOOD),
    forwarded("UDP counts", SYN_B, Reason.HASHED, 1, TO_B, query(1), query(2)),
    forwarded("SYN with ECN", ECN_B, Reason.HASHED, 1, ECN_TO_B, *FLOOD),
    forwarded("to the end of the second", SYN_B, Reason.HASHED, 1, TO_B, *FLOOD, 999),
    forwarded("not in the next one", SYN_B, Reason.SCHEDULED, 0, B_TO_A, *FLOOD, 1000),
    forwarded("seconds are those of the clock", SYN_B, Reason.SCHEDULED, 0, B_TO_A, 999, *FLOOD, 1),
    # What proves a flow begins it, with the backend that the SYN met
    forwarded("the ACK is remembered", ACK_B, Reason.SCHEDULED, 1, ACK_TO_B, *FLOOD, SYN_B),
    forwarded("... so the next is known", ACK_B, Reason.FLOW, 1, ACK_TO_B, *FLOOD, SYN_B, ACK_B),
    forwarded("... and does not count", SYN_A, Reason.SCHEDULED, 1, A_TO_B, syn(1), ACK_B),
    forwarded("SYN with FIN is no plain SYN", SYN_FIN_B, Reason.SCHEDULED, 0, SYN_FIN_TO_A, *FLOOD),
    # Others
    forwarded("known flows stay", syn(1), Reason.FLOW, 0, tcp("198.51.100.9:1", A), *FLOOD),
    forwarded("a port is reused", SYN_B, Reason.HASHED, 1, TO_B, tcp(HASHED_TO_B, VIP, "FA"), *FLOOD),
    forwarded("no limit", SYN_B, Reason.SCHEDULED, 0, B_TO_A, table(new_flows=0), *FLOOD),
    forwarded("a greater one", SYN_B, Reason.SCHEDULED, 0, B_TO_A, *FLOOD, table(new_flows=3)),
    forwarded("a smaller one", SYN_B, Reason.HASHED, 1, TO_B, *FLOOD, ONE_NEW),
    forwarded("its backend is gone", SYN_A, Reason.HASHED, 1, A_TO_B, SYN_A, table(B, new_flows=1)),
    # The order of the rules
    refused("RST begins none", tcp(HASHED_TO_B, VIP, "R"), Reason.NO_FLOW, *FLOOD),
    refused("no backend", tcp(HASHED_TO_B, CLOSED), Reason.NO_BACKEND, *FLOOD),
    refused("limited", syn(3), Reason.LIMITED, table(limits=(2, 0)), *FLOOD),
    forwarded("what finds no room does not count", SYN_B, Reason.STATELESS, 1, TO_B, *FULL, 1000, SYN_A),
    forwarded("the limit comes before", SYN_B, Reason.HASHED, 1, TO_B, *FULL),
)
def test_new_flows(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_masqueraded_flows_need_state_so_they_are_not_hashed_but_they_count(core: Core) -> None:
    balancer = start(core, TABLE)
    reasons = [balancer.decide(tcp(f"198.51.100.9:{n}", KEPT), 0).reason for n in range(1, 4)]
    assert reasons == [Reason.SCHEDULED] * 3
    assert balancer.decide(SYN_B, 0).reason is Reason.HASHED


@both_cores
def test_hashed_packets_count_for_their_backend_but_not_as_scheduled(core: Core) -> None:
    balancer = start(core, TABLE, *FLOOD)
    for _ in range(3):
        assert balancer.decide(SYN_B, 0).reason is Reason.HASHED
    counters = balancer.slot_counters(1)
    assert (counters.packets_in, counters.bytes_in, counters.scheduled, counters.flows) == (4, 160, 1, 1)
    assert balancer.flow_count() == 2


@both_cores
def test_workers_count_for_themselves(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    one, other = (start(core, TABLE, shared=shared) for _ in range(2))
    for n in (1, 2):
        assert one.decide(syn(n), 0).reason is Reason.SCHEDULED
    assert one.decide(syn(3), 0).reason is Reason.HASHED
    assert other.decide(syn(3), 0).reason is Reason.SCHEDULED


@both_cores
@pytest.mark.parametrize("count", [1, 2, 3])
def test_preview_foresees_it(core: Core, count: int) -> None:
    balancer = start(core, TABLE, *map(syn, range(1, count)))
    foreseen = [balancer.preview(SYN_B, 0).reason for _ in range(2)]
    assert foreseen == [balancer.decide(SYN_B, 0).reason] * 2
