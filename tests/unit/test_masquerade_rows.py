"""Rows of masquerade, both directions, and its ports (docs/design/decision.md, sections 2, 5, 9 and 11)."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IPOption_Router_Alert
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

from l4lb.dataplane.decision import Flow, Reason, State
from l4lb.dataplane.reference.hashing import flow_hash, scale
from l4lb.model import Forward, Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, patch, split, tcp, time_exceeded, udp
from tests.support.rows import PORTS, Row, both_ways, check, refused, rows, sent, start, told
from tests.support.tables import Slots, Svc, make_table

CLIENT, OTHER, CLIENT6 = "198.51.100.7:40000", "198.51.100.8:40000", "[2001:db8::7]:40000"
VIP, DNS, KEPT, NAT, NO_POOL = "192.0.2.1:80", "192.0.2.1:53", "192.0.2.1:443", "192.0.2.1:81", "192.0.2.1:82"
VIP6 = "[2001:db8:1::1]:80"
A, B, RESOLVER, KEEPER, NATTED = (
    "10.2.0.11:8080",
    "10.2.0.12:8080",
    "10.2.0.41:5353",
    "10.2.0.51:443",
    "10.2.0.61:8080",
)
A6 = "[fd00::11]:8080"
POOL, POOL6 = ["10.2.0.1", "10.2.0.2"], ["fd00::1"]

MASQUERADE = Forward.MASQUERADE
WEB = Svc("web", ["192.0.2.1:80/tcp"], [A], forward=MASQUERADE)
OTHERS = [
    Svc("web6", ["[2001:db8:1::1]:80/tcp"], [A6], forward=MASQUERADE),
    Svc("dns", ["192.0.2.1:53/udp"], [RESOLVER], forward=MASQUERADE),
    Svc("kept", ["192.0.2.1:443/tcp"], ["10.2.0.51"], forward=MASQUERADE),
    Svc("nat", ["192.0.2.1:81/tcp"], [NATTED]),
]
# Slots: A 0, A6 1, RESOLVER 2, KEEPER 3, NATTED 4.
TABLE = make_table(WEB, *OTHERS, pool=POOL + POOL6)
NO_IPV4_POOL = make_table(WEB, *OTHERS, pool=POOL6)
AS_NAT = make_table(Svc("web", ["192.0.2.1:80/tcp"], [A]), *OTHERS, pool=POOL + POOL6)
A_REMOVED = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], [B], forward=MASQUERADE), slots=Slots({("web", B): 5}), pool=POOL + POOL6
)
WEB_REMOVED = make_table(OTHERS[0], slots=Slots({("web6", A6): 1}), pool=POOL + POOL6)


def source_of(client: str, vip: str, protocol: int, *, skip: int = 0) -> str:
    """The masquerade source that the search begins at, or one behind it."""
    (host, port), (vip_host, vip_port) = split(client), split(vip)
    hash_ = flow_hash(KEY, packed(host), packed(vip_host), port, vip_port, protocol)
    first, size = PORTS
    pool = POOL6 if "[" in vip else POOL
    n = len(pool) * size
    address, number = divmod((scale(hash_ >> 32, n) + skip) % n, size)
    host = pool[address]
    return f"[{host}]:{first + number}" if "[" in vip else f"{host}:{first + number}"


S, S2 = source_of(CLIENT, VIP, 6), source_of(CLIENT, VIP, 6, skip=1)
S6, S_DNS, S_KEPT = source_of(CLIENT6, VIP6, 6), source_of(CLIENT, DNS, 17), source_of(CLIENT, KEPT, 6)
SYN, SYN6, QUERY = tcp(CLIENT, VIP), tcp(CLIENT6, VIP6), udp(CLIENT, DNS, b"query")
OUT, OUT6, QUERY_OUT = tcp(S, A, ttl=63), tcp(S6, A6, hlim=63), udp(S_DNS, RESOLVER, b"query", ttl=63)
ACK, ACK_OUT = tcp(CLIENT, VIP, "A"), tcp(S, A, "A", ttl=63)
CLIENTS = [f"198.51.100.9:{port}" for port in range(1, 17)]
FULL = [tcp(client, NAT) for client in CLIENTS]
"""As many flows as the smallest table holds."""
EIGHT = [tcp(client, VIP) for client in CLIENTS[:8]]
"""As many flows as the pool has ports."""
ALERT: dict[str, Any] = {"options": [IPOption_Router_Alert()]}
EXTENDED: dict[str, Any] = {"extensions": [IPv6ExtHdrDestOpt()]}
CHECKSUM, UDP_CHECKSUM, UDP6_CHECKSUM = 36, 26, 46


def new(name: str, slot: int, packet: bytes, out: bytes, **kernel: Any) -> Row:
    return sent(name, packet, Reason.SCHEDULED, slot, out, **kernel)


@both_cores
@both_ways
@rows(
    new("tcp", 0, SYN, OUT),
    new("over IPv6", 1, SYN6, OUT6),
    new("udp", 2, QUERY, QUERY_OUT),
    new("the port is kept", 3, tcp(CLIENT, KEPT), tcp(S_KEPT, KEEPER, ttl=63)),
    new("payload", 0, tcp(CLIENT, VIP, "S", b"odd"), tcp(S, A, "S", b"odd", ttl=63)),
    new("IPv4 options", 0, tcp(CLIENT, VIP, **ALERT), tcp(S, A, ttl=63, **ALERT)),
    new("extension headers", 1, tcp(CLIENT6, VIP6, **EXTENDED), tcp(S6, A6, hlim=63, **EXTENDED)),
    new("two hops to live", 0, tcp(CLIENT, VIP, ttl=2), tcp(S, A, ttl=1)),
    new("255 hops to live", 0, tcp(CLIENT, VIP, ttl=255), tcp(S, A, ttl=254)),
    new("padding is not sent", 0, SYN + b"padding", OUT),
    new(
        "udp without a checksum has none",
        2,
        patch(QUERY, UDP_CHECKSUM, "0000"),
        patch(QUERY_OUT, UDP_CHECKSUM, "0000"),
    ),
    new("a checksum that is not ready", 0, patch(SYN, CHECKSUM, "beef"), OUT, checksum_ready=False),
    new("... of udp", 2, patch(QUERY, UDP_CHECKSUM, "0000"), QUERY_OUT, checksum_ready=False),
    new(
        "... of a packet that was to be segmented",
        0,
        patch(SYN, CHECKSUM, "beef"),
        OUT,
        checksum_ready=False,
        gso=True,
    ),
    sent("a known flow", ACK, Reason.FLOW, 0, ACK_OUT, SYN),
    sent("... picked up without SYN", ACK, Reason.SCHEDULED, 0, ACK_OUT),
    sent("its port is reused", SYN, Reason.SCHEDULED, 0, OUT, SYN, tcp(CLIENT, VIP, "FA")),
    refused("RST begins none", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW),
)
def test_to_the_backend(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


def back(name: str, packet: bytes, slot: int, out: bytes, *before: Any, **kernel: Any) -> Row:
    return sent(name, packet, Reason.REPLY, slot, out, *before, **kernel)


SYN_ACK, FROM_VIP = tcp(A, S, "SA"), tcp(VIP, CLIENT, "SA", ttl=63)
ANSWER, FROM_DNS = udp(RESOLVER, S_DNS, b"answer"), udp(DNS, CLIENT, b"answer", ttl=63)
LAST = tcp(A, S, "SA", ttl=1)


@both_cores
@both_ways
@rows(
    back("an answer", SYN_ACK, 0, FROM_VIP, SYN),
    back("over IPv6", tcp(A6, S6, "SA"), 1, tcp(VIP6, CLIENT6, "SA", hlim=63), SYN6),
    back("udp", ANSWER, 2, FROM_DNS, QUERY),
    back(
        "the port is kept", tcp(KEEPER, S_KEPT, "SA"), 3, tcp(KEPT, CLIENT, "SA", ttl=63), tcp(CLIENT, KEPT)
    ),
    back("padding is not sent", SYN_ACK + b"padding", 0, FROM_VIP, SYN),
    back(
        "a checksum that is not ready",
        patch(SYN_ACK, CHECKSUM, "beef"),
        0,
        FROM_VIP,
        SYN,
        checksum_ready=False,
    ),
    back("RST", tcp(A, S, "R"), 0, tcp(VIP, CLIENT, "R", ttl=63), SYN),
    told("its last hop", LAST, Reason.TTL_EXPIRED, time_exceeded(LAST, split(S)[0], "10.2.0.11"), SYN),
    refused("cut", tcp(A, S, "A", b"hello")[:44], Reason.TRUNCATED, SYN, length=45),
    refused("without a flow", SYN_ACK, Reason.NOT_BALANCED),
    refused("to another port", tcp(A, S2, "SA"), Reason.NOT_BALANCED, SYN),
    refused("from another port", tcp("10.2.0.11:8081", S, "SA"), Reason.NOT_BALANCED, SYN),
    refused("from another backend", tcp(B, S, "SA"), Reason.NOT_BALANCED, SYN),
    refused("of another protocol", udp(A, S), Reason.NOT_BALANCED, SYN),
    refused("from the backend to the client itself", tcp(A, CLIENT, "SA"), Reason.NOT_BALANCED, SYN),
    refused("from a stranger, with one hop to live", tcp(B, S, ttl=1), Reason.NOT_BALANCED, SYN),
    refused("when its time has run out", SYN_ACK, Reason.NOT_BALANCED, SYN, 60_000),
    refused("its backend is removed", SYN_ACK, Reason.NOT_BALANCED, SYN, A_REMOVED),
    refused("its service is removed", SYN_ACK, Reason.NOT_BALANCED, SYN, WEB_REMOVED),
)
def test_back_to_the_client(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
@both_ways
@rows(
    refused("no address of its family", SYN, Reason.NO_PORT, NO_IPV4_POOL),
    sent("another family has one", SYN6, Reason.SCHEDULED, 1, OUT6, NO_IPV4_POOL),
    refused("every port is taken", tcp(OTHER, VIP), Reason.NO_PORT, *EIGHT),
    refused("TCP and UDP share them", QUERY, Reason.NO_PORT, *EIGHT),
    sent(
        "a known flow has its",
        tcp(CLIENTS[0], VIP),
        Reason.FLOW,
        0,
        tcp(source_of(CLIENTS[0], VIP, 6), A, ttl=63),
        *EIGHT,
    ),
    sent("one beside the pool has another", SYN6, Reason.SCHEDULED, 1, OUT6, *EIGHT),
    refused("an expired flow that was not met keeps its port", SYN, Reason.NO_PORT, *EIGHT, 60_000),
    refused("no room in the flow table", SYN, Reason.NO_PORT, *FULL),
    refused("no flow comes first", tcp(OTHER, VIP, "R"), Reason.NO_FLOW, *EIGHT),
    # The service was configured anew
    sent("its backend is removed", ACK, Reason.RESCHEDULED, 5, tcp(S, B, "A", ttl=63), SYN, A_REMOVED),
    sent("a NAT flow is masqueraded now", ACK, Reason.RESCHEDULED, 0, ACK_OUT, AS_NAT, SYN, TABLE),
)
def test_ports(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_a_masqueraded_flow_of_a_service_that_is_nat_now_is_chosen_anew(core: Core) -> None:
    balancer = start(core, TABLE, SYN, AS_NAT)
    decision = balancer.decide(ACK, 0)
    assert (decision.reason, decision.sent, decision.packet) == (
        Reason.RESCHEDULED,
        False,
        tcp(CLIENT, A, "A"),
    )
    [flow] = balancer.flows()
    assert (flow.source, flow.source_port) == (b"", 0)
    assert balancer.decide(SYN_ACK, 0).reason is Reason.REPLY_STATIC


@both_cores
def test_the_search_goes_on_from_where_the_hash_begins(core: Core) -> None:
    balancer = start(core, TABLE)
    taken: set[tuple[bytes, int]] = set()
    for client in CLIENTS[:8]:
        balancer.decide(tcp(client, VIP), 0)
        flow = only(flow for flow in balancer.flows() if flow.client_port == split(client)[1])
        sources = [source_of(client, VIP, 6, skip=skip) for skip in range(8)]
        candidates = [(packed(split(source)[0]), split(source)[1]) for source in sources]
        expected = next(source for source in candidates if source not in taken)
        assert (flow.source, flow.source_port) == expected
        taken.add(expected)
    assert len(taken) == 8


@both_cores
def test_a_port_is_free_again_when_its_flow_is_removed(core: Core) -> None:
    balancer = start(core, TABLE, *EIGHT)
    assert balancer.decide(SYN, 0).reason is Reason.NO_PORT
    balancer.decide(tcp(A, flow_source(balancer, CLIENTS[3]), "SA"), 59_000)
    assert balancer.expire(60_000) == 7
    assert balancer.decide(SYN, 60_000).reason is Reason.SCHEDULED


@both_cores
def test_an_answer_that_meets_an_expired_flow_frees_its_port(core: Core) -> None:
    balancer = start(core, TABLE, *EIGHT)
    answer = tcp(A, flow_source(balancer, CLIENTS[3]), "SA")
    assert balancer.decide(answer, 60_000).reason is Reason.NOT_BALANCED
    assert balancer.flow_count() == 7
    decision = balancer.decide(SYN, 60_000)
    assert decision.reason is Reason.SCHEDULED
    assert balancer.decide(tcp(A, flow_source(balancer, CLIENT), "SA"), 60_000).packet == FROM_VIP


@both_cores
def test_an_answer_that_is_cut_or_dies_renews_no_flow_and_removes_none(core: Core) -> None:
    balancer = start(core, TABLE, SYN)
    for now_ms in (30_000, 60_000):
        assert balancer.decide(LAST, now_ms).reason is Reason.TTL_EXPIRED
        cut = balancer.decide(tcp(A, S, "A", b"hello")[:44], now_ms, length=45, rewrite=False)
        assert cut.reason is Reason.TRUNCATED
    [flow] = balancer.flows()
    assert (flow.state, flow.expires_ms) == (State.SYN_RECV, 60_000)
    assert balancer.slot_counters(0).packets_out == 0


@both_cores
@pytest.mark.parametrize("replies_seen", [True, False])
def test_states_are_seen_from_both_sides(core: Core, replies_seen: bool) -> None:
    balancer = start(core, make_table(WEB, pool=POOL, replies_seen=replies_seen))
    states = []
    for packet in (SYN, SYN_ACK, ACK, tcp(CLIENT, VIP, "FA"), tcp(A, S, "FA")):
        balancer.decide(packet, 0)
        states.append(only(balancer.flows()).state)
    assert [state.name for state in states] == [
        "SYN_RECV",
        "SYN_RECV",
        "ESTABLISHED",
        "CLOSE_WAIT",
        "TIME_WAIT",
    ]


@both_cores
def test_counters(core: Core) -> None:
    balancer = start(core, TABLE, SYN + b"padding", SYN_ACK + b"padding", ACK)
    counters = balancer.slot_counters(0)
    assert (counters.packets_in, counters.bytes_in, counters.scheduled) == (2, 80, 1)
    assert (counters.packets_out, counters.bytes_out, counters.active) == (1, 40, 1)
    assert only(balancer.flows()).packets == 2


@both_cores
def test_flows_show_their_source_and_are_found_by_it(core: Core) -> None:
    balancer = start(core, TABLE, SYN, tcp(CLIENT, NAT))
    host, port = packed(split(S)[0]), split(S)[1]
    flow = only(flow for flow in balancer.flows() if flow.slot == 0)
    other = only(flow for flow in balancer.flows() if flow.slot == 4)
    assert (flow.source, flow.source_port) == (host, port)
    assert (other.source, other.source_port) == (b"", 0)
    assert balancer.find(ACK, 0) == flow
    assert balancer.find_source(host, port, 6, 59_999) == flow
    assert balancer.find_source(host, port, 6, 60_000) is None
    assert balancer.find_source(host, port, 17, 0) is None
    assert balancer.find_source(packed("10.2.0.9"), port, 6, 0) is None
    assert balancer.find_source(packed("fd00::1"), port, 6, 0) is None
    assert balancer.find_source(host, port + PORTS[1], 6, 0) is None
    assert balancer.find_source(host, 0, 6, 0) is None
    assert balancer.flow_count() == 2


@both_cores
def test_a_pool_that_grows_leaves_flows_their_sources(core: Core) -> None:
    balancer = start(core, TABLE, SYN, make_table(WEB, *OTHERS, pool=[*POOL, *POOL6, "fd00::2"]))
    assert balancer.decide(ACK, 0).packet == ACK_OUT
    assert balancer.decide(SYN_ACK, 0).packet == FROM_VIP


@both_cores
def test_a_worker_without_ports_masquerades_nothing(core: Core) -> None:
    balancer = start(core, TABLE, ports=(0, 0))
    assert balancer.decide(SYN, 0).reason is Reason.NO_PORT
    assert balancer.flow_count() == 0


@both_cores
def test_the_scheduler_has_had_its_turn_when_there_is_no_port(core: Core) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], [A, B], Scheduler.ROUND_ROBIN, MASQUERADE)
    nothing, something = make_table(service), make_table(service, pool=POOL)
    balancer = start(core, nothing, SYN, something)
    assert balancer.decide(SYN, 0).slot == 1


@both_cores
def test_nothing_is_found_before_a_table_is_published(core: Core) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY, ports=PORTS)
    with pytest.raises(RuntimeError, match="no table was published"):
        balancer.find_source(packed("10.2.0.1"), 20_000, 6, 0)


@both_cores
def test_preview(core: Core) -> None:
    balancer = start(core, TABLE, *EIGHT[:7])
    for packet, reason in ((SYN, Reason.SCHEDULED), (tcp(OTHER, VIP), Reason.NO_PORT)):
        foreseen = [balancer.preview(packet, 0) for _ in range(2)]
        decided = balancer.decide(packet, 0)
        assert {prediction.reason for prediction in foreseen} == {decided.reason} == {reason}
        assert all(p.packet is None and not p.sent and p.slot == decided.slot for p in foreseen)
    answer = tcp(A, flow_source(balancer, CLIENT), "SA")
    assert balancer.preview(answer, 0).reason is Reason.NOT_BALANCED
    assert balancer.preview(tcp(A, flow_source(balancer, CLIENT), ttl=1), 0).reason is Reason.NOT_BALANCED
    assert balancer.decide(answer, 0).reason is Reason.REPLY


def flow_source(balancer: Any, client: str) -> str:
    """The IPv4 masquerade source of a client's flow."""
    host, port = split(client)
    flow = only(f for f in balancer.flows() if (f.client, f.client_port) == (packed(host), port))
    return f"{'.'.join(map(str, flow.source))}:{flow.source_port}"


def only(flows: Any) -> Flow:
    [flow] = flows
    assert isinstance(flow, Flow)
    return flow
