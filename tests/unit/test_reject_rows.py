"""What no backend takes, and the client is told of: `rejects` (docs/design/decision.md, sections 3 and 9)."""

from __future__ import annotations

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import MAX_REJECTIONS, Table
from l4lb.model import Forward
from tests.support.cores import Core, both_cores
from tests.support.packets import port_unreachable, reset, tcp, udp
from tests.support.rows import Row, both_ways, check, forwarded, refused, rows, start, told
from tests.support.tables import Slots, Svc, make_table

CLIENT, VIP, SILENT = "198.51.100.7:40000", "192.0.2.1:80", "192.0.2.9:80"
CLIENT6, VIP6, FAR = "[2001:db8::7]:40000", "[2001:db8:1::1]:80", "192.0.2.2:80"
A, A6 = "10.2.0.11:8080", "[fd00::11]:8080"
SLOTS = Slots()


def table(weight: int = 0) -> Table:
    """Services that reject, but for one, whose only backends have this weight."""
    both = ("tcp", "udp")
    return make_table(
        Svc("web", [f"{VIP}/{p}" for p in both], [f"{A} x{weight}"], rejects=True),
        Svc("web6", [f"{VIP6}/{p}" for p in both], [f"{A6} x{weight}"], rejects=True),
        Svc("silent", [f"{SILENT}/{p}" for p in both], [f"{A} x{weight}"]),
        Svc("far", [f"{FAR}/tcp"], [f"10.3.0.11 x{weight}"], forward=Forward.IPIP, rejects=True),
        slots=SLOTS,
    )


TABLE, UP = table(), table(1)
SYN, SYN6 = tcp(CLIENT, VIP), tcp(CLIENT6, VIP6)
QUERY, QUERY6 = udp(CLIENT, VIP, b"query"), udp(CLIENT6, VIP6, b"query")
LONG = udp(CLIENT, VIP, bytes(1000))
ENDS, ENDS6 = ("192.0.2.1", "198.51.100.7"), ("2001:db8:1::1", "2001:db8::7")


@both_cores
@both_ways
@rows(
    told("a SYN", SYN, Reason.REJECTED, reset(VIP, CLIENT, ack=1001)),
    told("... with data", tcp(CLIENT, VIP, "S", b"hello"), Reason.REJECTED, reset(VIP, CLIENT, ack=1006)),
    told("... and FIN", tcp(CLIENT, VIP, "SF"), Reason.REJECTED, reset(VIP, CLIENT, ack=1002)),
    told("an ACK that might begin one", tcp(CLIENT, VIP, "A"), Reason.REJECTED, reset(VIP, CLIENT, seq=2000)),
    told("IPv6", SYN6, Reason.REJECTED, reset(VIP6, CLIENT6, ack=1001)),
    told("in a tunnel", tcp(CLIENT, FAR), Reason.REJECTED, reset(FAR, CLIENT, ack=1001)),
    told("a datagram", QUERY, Reason.REJECTED, port_unreachable(QUERY, *ENDS)),
    told("... of IPv6", QUERY6, Reason.REJECTED, port_unreachable(QUERY6, *ENDS6)),
    told("... quoted in part", LONG, Reason.REJECTED, port_unreachable(LONG, *ENDS)),
    refused("a reset is never answered", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW),
    refused("nor what answers a SYN", tcp(CLIENT, VIP, "SA"), Reason.NO_FLOW),
    refused("a service that does not reject", tcp(CLIENT, SILENT), Reason.NO_BACKEND),
    forwarded("a known flow goes on", QUERY, Reason.FLOW, 0, udp(CLIENT, A, b"query"), UP, QUERY, TABLE),
    forwarded("who takes it is asked first", QUERY, Reason.SCHEDULED, 0, udp(CLIENT, A, b"query"), UP),
)
def test_who_is_told(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_icmp_errors_have_a_limit_and_resets_do_not(core: Core) -> None:
    balancer = start(core, TABLE)

    def reasons(packet: bytes, times: int, now_ms: int) -> set[Reason]:
        return {balancer.decide(packet, now_ms).reason for _ in range(times)}

    assert reasons(QUERY, MAX_REJECTIONS, 5000) == {Reason.REJECTED}
    assert balancer.preview(QUERY, 5000).reason is Reason.NO_BACKEND
    assert reasons(QUERY, 2, 5999) == {Reason.NO_BACKEND}
    assert reasons(SYN, 2, 5999) == {Reason.REJECTED}
    assert balancer.preview(QUERY, 6000).reason is Reason.REJECTED
    assert reasons(QUERY, 2, 6000) == {Reason.REJECTED}


@both_cores
@pytest.mark.parametrize("packet", [SYN, QUERY, SYN6, QUERY6], ids=["TCP", "UDP", "TCP6", "UDP6"])
def test_a_preview_says_so_and_nothing_is_remembered(core: Core, packet: bytes) -> None:
    balancer = start(core, TABLE)
    assert balancer.preview(packet, 0).reason is Reason.REJECTED
    balancer.decide(packet, 0)
    assert balancer.flow_count() == 0
    assert balancer.slot_counters(0).packets_in == 0
