"""Flows that are given up: those of slots in `resets` and `moves`, and those that are removed.

docs/design/decision.md, sections 3, 9 and 13.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table, learned_slots
from l4lb.model import Forward
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import ipip, patch, reset, tcp, udp
from tests.support.rows import Row, both_ways, check, forwarded, refused, rows, sent, start, told
from tests.support.tables import Slots, Svc, make_table

CLIENT, OTHER, VIP, DNS = "198.51.100.7:40000", "198.51.100.8:40000", "192.0.2.1:80", "192.0.2.1:53"
CLIENT6, VIP6 = "[2001:db8::7]:40000", "[2001:db8:1::1]:80"
A, B, RESOLVER, RESOLVER2 = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.41:5353", "10.2.0.42:5353"
A6, B6 = "[fd00::11]:8080", "[fd00::12]:8080"
SLOTS = Slots()


def table(*, down: int = 1, **options: frozenset[int] | bool) -> Table:
    """Services whose first backends have the weight `down`.

    Slots: A 0, B 1, the resolvers 2 and 3, A6 4, B6 5, behind the tunnel 6 and 7.
    """
    return make_table(
        Svc("web", ["192.0.2.1:80/tcp"], [f"{A} x{down}", B]),
        Svc("dns", ["192.0.2.1:53/udp"], [f"{RESOLVER} x{down}", RESOLVER2]),
        Svc("web6", ["[2001:db8:1::1]:80/tcp"], [f"{A6} x{down}", B6]),
        Svc(
            "far",
            ["192.0.2.2:80/tcp"],
            [f"10.3.0.11 x{down}", "10.3.0.12"],
            forward=Forward.IPIP,
            sources=("198.18.1.1/32",),
        ),
        slots=SLOTS,
        **options,  # type: ignore[arg-type]
    )


FIRSTS = frozenset({0, 2, 4, 6})
TABLE = table()
RESETS, MOVES = table(down=0, resets=FIRSTS), table(down=0, moves=FIRSTS)
BOTH = table(down=0, resets=FIRSTS, moves=FIRSTS)
HEAVY = table(resets=FIRSTS)
ELSEWHERE = table(resets=frozenset({1, 60_000}), moves=frozenset({3, 60_000}))
A_REMOVED = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], [B]), slots=Slots({("web", B): 1}), resets=frozenset({0})
)
FAR = "192.0.2.2:80"
SYN, SYN2 = tcp(CLIENT, VIP), tcp(OTHER, VIP)
ACK, DATA = tcp(CLIENT, VIP, "A"), tcp(CLIENT, VIP, "PA", b"hello")
QUERY, QUERY_TO_2 = udp(CLIENT, DNS, b"query"), udp(CLIENT, RESOLVER2, b"query")
RST = reset(VIP, CLIENT, seq=2000)
"""The reset for a packet whose ack number is that of `tcp`, and 1000 its sequence number."""


def without_ack(ack: int) -> bytes:
    return reset(VIP, CLIENT, ack=ack)


@both_cores
@both_ways
@rows(
    # Resets
    told("an ACK", ACK, Reason.RESET, RST, SYN, RESETS),
    told("data", DATA, Reason.RESET, RST, SYN, ACK, RESETS),
    told("FIN with ACK", tcp(CLIENT, VIP, "FA"), Reason.RESET, RST, SYN, ACK, RESETS),
    told("a closing flow", ACK, Reason.RESET, RST, SYN, tcp(CLIENT, VIP, "FA"), RESETS),
    told("without ACK", tcp(CLIENT, VIP, ""), Reason.RESET, without_ack(1000), SYN, RESETS),
    told("... FIN counts", tcp(CLIENT, VIP, "F"), Reason.RESET, without_ack(1001), SYN, RESETS),
    told("... data, too", tcp(CLIENT, VIP, "P", b"hello"), Reason.RESET, without_ack(1005), SYN, RESETS),
    told(
        "... TCP options do not",
        tcp(CLIENT, VIP, "PF", b"hello", tcp_options=[("Timestamp", (1, 2))]),
        Reason.RESET,
        without_ack(1006),
        SYN,
        RESETS,
    ),
    told("... nor padding", tcp(CLIENT, VIP, "") + bytes(6), Reason.RESET, without_ack(1000), SYN, RESETS),
    told(
        "... it wraps around",
        patch(tcp(CLIENT, VIP, "F", b"hello"), 24, "fffffffe"),
        Reason.RESET,
        without_ack(4),
        SYN,
        RESETS,
    ),
    told("TOS and TTL are its own", tcp(CLIENT, VIP, "A", ttl=3, tos=8), Reason.RESET, RST, SYN, RESETS),
    told(
        "IPv6",
        tcp(CLIENT6, VIP6, "A"),
        Reason.RESET,
        reset(VIP6, CLIENT6, seq=2000),
        tcp(CLIENT6, VIP6),
        RESETS,
    ),
    told(
        "IPv6 behind an extension header",
        tcp(CLIENT6, VIP6, "F", b"hello", extensions=[IPv6ExtHdrDestOpt()]),
        Reason.RESET,
        reset(VIP6, CLIENT6, ack=1006),
        tcp(CLIENT6, VIP6),
        RESETS,
    ),
    told(
        "in a tunnel",
        tcp(CLIENT, FAR, "A"),
        Reason.RESET,
        reset(FAR, CLIENT, seq=2000),
        tcp(CLIENT, FAR),
        RESETS,
    ),
    told("a slot with weight", ACK, Reason.RESET, RST, SYN, HEAVY),
    told("reset before moved", ACK, Reason.RESET, RST, SYN, BOTH),
    forwarded(
        "the next packet is a new flow's", ACK, Reason.SCHEDULED, 1, tcp(CLIENT, B, "A"), SYN, RESETS, ACK
    ),
    forwarded("SYN is not reset", SYN, Reason.RESCHEDULED, 1, tcp(CLIENT, B), SYN, RESETS),
    forwarded(
        "SYN with FIN is not",
        tcp(CLIENT, VIP, "SF"),
        Reason.RESCHEDULED,
        1,
        tcp(CLIENT, B, "SF"),
        SYN,
        RESETS,
    ),
    refused("SYN with ACK is not", tcp(CLIENT, VIP, "SA"), Reason.NO_FLOW, SYN, RESETS),
    refused("a reset is not reset", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW, SYN, RESETS),
    forwarded(
        "... but ends the flow",
        ACK,
        Reason.SCHEDULED,
        1,
        tcp(CLIENT, B, "A"),
        SYN,
        RESETS,
        tcp(CLIENT, VIP, "R"),
    ),
    forwarded("UDP goes elsewhere", QUERY, Reason.RESCHEDULED, 3, QUERY_TO_2, QUERY, RESETS),
    forwarded("... once", QUERY, Reason.FLOW, 3, QUERY_TO_2, QUERY, RESETS, QUERY),
    forwarded(
        "flows of others stay", tcp(OTHER, VIP, "A"), Reason.FLOW, 1, tcp(OTHER, B, "A"), SYN, SYN2, RESETS
    ),
    forwarded(
        "an expired flow is unknown", ACK, Reason.SCHEDULED, 1, tcp(CLIENT, B, "A"), SYN, RESETS, 60_000
    ),
    forwarded("a removed backend's, too", ACK, Reason.RESCHEDULED, 1, tcp(CLIENT, B, "A"), SYN, A_REMOVED),
    forwarded("other slots", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, ELSEWHERE),
    forwarded("up again", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, RESETS, TABLE),
    # Moves
    forwarded("moved: SYN", SYN, Reason.RESCHEDULED, 1, tcp(CLIENT, B), SYN, MOVES),
    forwarded("moved: ACK", ACK, Reason.RESCHEDULED, 1, tcp(CLIENT, B, "A"), SYN, MOVES),
    forwarded("moved: UDP", QUERY, Reason.RESCHEDULED, 3, QUERY_TO_2, QUERY, MOVES),
    forwarded("moved once", ACK, Reason.FLOW, 1, tcp(CLIENT, B, "A"), SYN, MOVES, ACK),
    sent(
        "moved: in a tunnel",
        tcp(CLIENT, FAR, "A"),
        Reason.RESCHEDULED,
        7,
        ipip(tcp(CLIENT, FAR, "A", ttl=63), "198.18.1.1", "10.3.0.12"),
        tcp(CLIENT, FAR),
        MOVES,
    ),
    refused("moved: RST begins no flow", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW, SYN, MOVES),
)
def test_known_flows_of_a_backend_that_is_given_up(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_the_first_bytes_of_a_packet_are_enough(core: Core) -> None:
    packet = tcp(CLIENT, VIP, "F", bytes(1400))
    balancer = start(core, TABLE, SYN, RESETS)
    decision = balancer.decide(packet[:256], 0, length=len(packet), rewrite=False, checksum_ready=False)
    assert (decision.reason, decision.packet) == (Reason.RESET, without_ack(1000 + 1400 + 1))


@both_cores
def test_the_reset_ends_the_flow_and_counts_for_no_slot(core: Core) -> None:
    balancer = start(core, TABLE, SYN, ACK, RESETS)
    before = balancer.slot_counters(0)
    assert (before.flows, before.active) == (1, 1)
    assert balancer.decide(DATA, 0).reason is Reason.RESET
    after = balancer.slot_counters(0)
    assert (after.flows, after.active, after.packets_in) == (0, 0, before.packets_in)
    assert balancer.flow_count() == 0


@both_cores
@pytest.mark.parametrize("version", [4, 6])
def test_a_reset_has_right_checksums(core: Core, version: int) -> None:
    client, vip = (CLIENT, VIP) if version == 4 else (CLIENT6, VIP6)
    balancer = start(core, TABLE, tcp(client, vip), RESETS)
    packet = balancer.decide(tcp(client, vip, "A"), 0).packet
    layer = IP(packet) if version == 4 else IPv6(packet)
    del layer[TCP].chksum
    if version == 4:
        del layer.chksum
    assert bytes(layer) == packet


@both_cores
def test_answers_of_a_backend_that_is_given_up_still_pass(core: Core) -> None:
    balancer = start(core, TABLE, SYN, RESETS)
    assert balancer.decide(tcp(A, CLIENT, "SA"), 0).reason is Reason.REPLY


@both_cores
def test_masqueraded_flows_give_their_port_back(core: Core) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], [A, B], forward=Forward.MASQUERADE)
    options = {"slots": Slots(), "pool": ["10.2.0.1"]}
    up, down = make_table(service, **options), make_table(service, resets={0}, **options)
    balancer = start(core, up, SYN, down, ports=(20_000, 1))
    assert balancer.decide(ACK, 0).packet == RST
    assert balancer.decide(SYN2, 0).reason is Reason.SCHEDULED


@both_cores
@pytest.mark.parametrize("packet", [SYN, ACK, DATA, tcp(CLIENT, VIP, "R"), QUERY])
@pytest.mark.parametrize("given_up", [RESETS, MOVES])
def test_preview_foresees_it(core: Core, packet: bytes, given_up: Table) -> None:
    balancer = start(core, TABLE, SYN, QUERY, given_up)
    foreseen = [balancer.preview(packet, 0) for _ in range(2)]
    decided = balancer.decide(packet, 0)
    assert [(d.reason, d.slot, d.packet) for d in foreseen] == [(decided.reason, decided.slot, None)] * 2
    assert balancer.flow_count() <= 2


def test_the_kernel_does_not_go_on_with_what_is_given_up() -> None:
    learning = table(learns=True)
    assert learned_slots(learning) == {0, 1, 2, 3, 4, 5}
    assert learned_slots(table(learns=True, resets=frozenset({0}), moves=frozenset({4}))) == {1, 2, 3, 5}


# Removing ---------------------------------------------------------------------------------------------


@both_cores
def test_flows_of_a_slot_are_removed_a_few_groups_at_a_time(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    syns = [tcp(f"198.51.100.9:{port}", VIP) for port in range(1, 101)]
    balancer = core.balancer.Balancer(capacity=256, key=KEY, shared=shared)
    balancer.publish(TABLE)
    for syn in syns:
        balancer.decide(syn, 0)
    assert balancer.groups == 16
    assert (shared.flows(0), shared.flows(1)) == (50, 50)
    removed = [balancer.remove_flows(0, first, 4) for first in range(0, 16, 4)]
    assert sum(removed) == 50
    assert all(removed)
    assert (shared.flows(0), shared.flows(1), balancer.flow_count()) == (0, 50, 50)
    assert {flow.slot for flow in balancer.flows()} == {1}
    assert balancer.remove_flows(0, 0, 16) == 0
    # What is beyond the table is nothing.
    assert balancer.remove_flows(1, 16, 1) == 0
    assert balancer.remove_flows(1, 15, 0) == 0
    assert balancer.remove_flows(1, 0, 0xFFFF_FFFF) == 50
    assert balancer.decide(syns[0], 0).reason is Reason.SCHEDULED


@both_cores
def test_removed_flows_count_no_more(core: Core) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], [A], forward=Forward.MASQUERADE, limits=(0, 1))
    balancer = start(core, make_table(service, pool=["10.2.0.1"]), SYN, ACK, ports=(20_000, 1))
    assert balancer.slot_counters(0).active == 1
    assert balancer.decide(tcp("198.51.100.7:2", VIP), 0).reason is Reason.LIMITED
    assert balancer.decide(SYN2, 0).reason is Reason.NO_PORT
    assert balancer.remove_flows(0, 0, balancer.groups) == 1
    assert (balancer.slot_counters(0).flows, balancer.slot_counters(0).active) == (0, 0)
    assert balancer.decide(tcp("198.51.100.7:2", VIP), 0).reason is Reason.SCHEDULED


@both_cores
def test_expired_flows_are_removed_too(core: Core) -> None:
    balancer = start(core, TABLE, SYN, SYN2)
    assert balancer.remove_flows(0, 0, 1) == 1
    assert balancer.expire(60_000) == 1
