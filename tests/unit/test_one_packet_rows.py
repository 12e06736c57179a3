"""UDP of which nothing is remembered: `one_packet` (docs/design/decision.md, section 3)."""

from __future__ import annotations

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table
from l4lb.model import Forward, Scheduler
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, answered, both_ways, check, forwarded, refused, rows, start
from tests.support.tables import Slots, Svc, make_table

CLIENT, DNS, OVER_TCP = "198.51.100.7:40000", "192.0.2.1:53", "192.0.2.1:53"
A, B = "10.2.0.41:5353", "10.2.0.42:5353"
SLOTS = Slots()


def table(
    *,
    one_packet: bool = True,
    backends: tuple[str, ...] = (A, B),
    new_flows: int = 0,
    **options: tuple[int, int],
) -> Table:
    listens = ["192.0.2.1:53/udp", "192.0.2.1:53/tcp"]
    service = Svc("dns", listens, backends, one_packet=one_packet, **options)  # type: ignore[arg-type]
    return make_table(service, slots=SLOTS, new_flows=new_flows)


TABLE, REMEMBERED = table(), table(one_packet=False)
DRAINED = table(backends=(f"{A} x0", f"{B} x0"))
QUERY = udp(CLIENT, DNS, b"query")
TO_A, TO_B = udp(CLIENT, A, b"query"), udp(CLIENT, B, b"query")
SYN, ACK = tcp(CLIENT, OVER_TCP), tcp(CLIENT, OVER_TCP, "A")
FULL = [tcp(f"198.51.100.9:{port}", OVER_TCP) for port in range(1, 17)]
ANSWER, FROM_DNS = udp(B, CLIENT, b"answer"), udp(DNS, CLIENT, b"answer")


@both_cores
@both_ways
@rows(
    forwarded("the first datagram", QUERY, Reason.SCHEDULED, 0, TO_A),
    forwarded("the second goes elsewhere", QUERY, Reason.SCHEDULED, 1, TO_B, QUERY),
    forwarded("the third comes round", QUERY, Reason.SCHEDULED, 0, TO_A, QUERY, QUERY),
    forwarded("TCP is remembered", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, QUERY),
    forwarded("it needs no room", QUERY, Reason.SCHEDULED, 0, TO_A, *FULL),
    forwarded(
        "... takes none", FULL[15], Reason.SCHEDULED, 0, tcp("198.51.100.9:16", A), *[QUERY] * 3, *FULL[:15]
    ),
    forwarded("... and is not paced", QUERY, Reason.SCHEDULED, 0, TO_A, table(new_flows=1), SYN, QUERY),
    forwarded(
        "... nor counts for the pace",
        SYN,
        Reason.SCHEDULED,
        0,
        tcp(CLIENT, A),
        table(new_flows=1),
        *[QUERY] * 2,
    ),
    refused("no backend has weight", QUERY, Reason.NO_BACKEND, DRAINED),
    refused("each begins a flow of its source", QUERY, Reason.LIMITED, table(limits=(2, 0)), QUERY, QUERY),
    forwarded("... and none is had", QUERY, Reason.SCHEDULED, 0, TO_A, table(limits=(0, 1)), QUERY, QUERY),
    forwarded("affinity holds", QUERY, Reason.AFFINITY, 0, TO_A, table(affinity=(32, 1_000)), QUERY),
    forwarded("a flow of before is given up", QUERY, Reason.RESCHEDULED, 1, TO_B, REMEMBERED, QUERY, TABLE),
    forwarded("... once", QUERY, Reason.SCHEDULED, 0, TO_A, REMEMBERED, QUERY, TABLE, QUERY),
    forwarded("remembered again", QUERY, Reason.FLOW, 1, TO_B, QUERY, REMEMBERED, QUERY),
    answered("answers are of no flow", ANSWER, Reason.REPLY_STATIC, 1, 0, FROM_DNS, QUERY, QUERY),
)
def test_every_datagram_is_scheduled(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_nothing_is_remembered_and_everything_counted(core: Core) -> None:
    balancer = start(core, TABLE, *[QUERY] * 4)
    assert balancer.flow_count() == 0
    counters = balancer.slot_counters(0)
    assert (counters.flows, counters.scheduled, counters.packets_in) == (0, 2, 2)


@both_cores
@pytest.mark.parametrize("forward", [Forward.NAT, Forward.DSR, Forward.IPIP, Forward.GUE])
def test_every_way_but_masquerade_has_it(core: Core, forward: Forward) -> None:
    service = Svc("dns", ["192.0.2.1:53/udp"], ["10.2.0.41", "10.2.0.42"], forward=forward, one_packet=True)
    balancer = start(core, make_table(service))
    assert [balancer.decide(QUERY, 0).slot for _ in range(4)] == [0, 1, 0, 1]
    assert balancer.flow_count() == 0


@both_cores
def test_masqueraded_datagrams_have_flows_all_the_same(core: Core) -> None:
    service = Svc("dns", ["192.0.2.1:53/udp"], [A, B], forward=Forward.MASQUERADE, one_packet=True)
    balancer = start(core, make_table(service, pool=["10.2.0.1"]))
    assert [balancer.decide(QUERY, 0).reason for _ in range(2)] == [Reason.SCHEDULED, Reason.FLOW]


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
def test_preview_foresees_it(core: Core, scheduler: Scheduler) -> None:
    service = Svc("dns", ["192.0.2.1:53/udp"], [A, B], scheduler, one_packet=True)
    balancer = start(core, make_table(service))
    for _ in range(4):
        foreseen = [balancer.preview(QUERY, 0) for _ in range(2)]
        decided = balancer.decide(QUERY, 0)
        assert [(d.reason, d.slot) for d in foreseen] == [(decided.reason, decided.slot)] * 2
