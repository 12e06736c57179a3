"""The table of decisions: what was before, a packet in, the reason, the slot, the mark, the packet out.

Every row runs over both cores, and both ways of carrying it out. It is the executable half of
docs/design/decision.md, whose sections are named below. Rows of the same kind stand in
test_rewrite_rows.py (checksums, section 9), test_state_rows.py (TCP states, section 8), test_dsr_rows.py,
test_tunnel_rows.py and test_masquerade_rows.py (section 9), test_learning.py, test_new_flow_limit.py,
test_source_limits.py (section 10), test_one_packet_rows.py, test_affinity_rows.py (section 12) and
test_leaving_rows.py (section 13).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

from l4lb.dataplane.decision import Reason
from l4lb.model import Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import icmp, patch, tcp, udp
from tests.support.rows import Row, answered, both_ways, check, forwarded, play, refused, rows
from tests.support.tables import Slots, Svc, make_table

CLIENT, OTHER = "198.51.100.7:40000", "198.51.100.8:40000"
VIP = "192.0.2.1:80"
LOW, RANGE, HIGH = "192.0.2.1:7000", "192.0.2.1:7003", "192.0.2.1:7009"
ANY_1, ANY, ANY_LAST = "192.0.2.9:1", "192.0.2.9:2222", "192.0.2.9:65535"
A, B = "10.2.0.11:8080", "10.2.0.12:8080"
CLIENT6, VIP6, A6 = "[2001:db8::7]:40000", "[2001:db8:1::1]:80", "[fd00::11]:8080"
DNS, DNS2, RESOLVER = "192.0.2.1:53", "192.0.2.2:53", "10.2.0.41:5353"
DNS6, RESOLVER6 = "[2001:db8:1::1]:53", "[fd00::41]:5353"

WEB = Svc("web", ["192.0.2.1:80/tcp"], [A, B])
OTHERS = [
    Svc("web6", ["[2001:db8:1::1]:80/tcp"], [A6]),
    Svc("range", ["192.0.2.1:7000-7009/udp"], ["10.2.0.21"]),
    Svc("any", ["192.0.2.9:any/tcp"], ["10.2.0.31"]),
    Svc("dns", ["192.0.2.1:53/udp", "192.0.2.2:53/udp"], [RESOLVER]),
    Svc("dns6", ["[2001:db8:1::1]:53/udp"], [RESOLVER6]),
    Svc("drained", ["192.0.2.1:81/tcp"], ["10.2.0.51:8080 x0"]),
]
# Slots are numbered in this order: A 0, B 1, A6 2, range 3, any 4, RESOLVER 5, RESOLVER6 6, drained 7.
# Frontends: VIP 0, VIP6 1, RANGE 2, ANY 3, DNS 4, DNS2 5, DNS6 6.
TABLE = make_table(WEB, *OTHERS)
A_DRAINED = make_table(Svc("web", ["192.0.2.1:80/tcp"], [f"{A} x0", B]))
ALL_DRAINED = make_table(Svc("web", ["192.0.2.1:80/tcp"], [f"{A} x0", f"{B} x0"]))
A_REMOVED = make_table(Svc("web", ["192.0.2.1:80/tcp"], [B]), slots=Slots({("web", B): 1}))
A_REMOVED_B_DRAINED = make_table(Svc("web", ["192.0.2.1:80/tcp"], [f"{B} x0"]), slots=Slots({("web", B): 1}))
MAGLEV = make_table(Svc("web", ["192.0.2.1:80/tcp"], [A, B], Scheduler.MAGLEV))

# 1. Parse ---------------------------------------------------------------------------------------------

SYN = tcp(CLIENT, VIP)  # 20 bytes of IP, 20 of TCP
QUERY = udp(CLIENT, DNS, b"query")  # 20 of IP, 8 of UDP, 5
SYN6 = tcp(CLIENT6, VIP6)  # 40 of IPv6, 20 of TCP
QUERY6 = udp(CLIENT6, DNS6, b"query")
ALERTED = tcp(CLIENT, VIP, options=[IPOption_Router_Alert()])  # 24 of IP, 20 of TCP

HOP, DEST = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt


def syn6(*extensions: Any) -> bytes:
    return tcp(CLIENT6, VIP6, extensions=extensions)


@both_cores
@both_ways
@rows(
    refused("nothing", b"", Reason.TRUNCATED),
    refused("no known version", patch(SYN, 0, "55"), Reason.MALFORMED),
    refused("version 0", bytes(40), Reason.MALFORMED),
    # IPv4, in the order of the checks
    refused("v4: one byte", SYN[:1], Reason.TRUNCATED, length=40),
    refused("v4: 19 bytes, and ihl 4 behind them", patch(SYN, 0, "44")[:19], Reason.TRUNCATED, length=40),
    refused("v4: ihl 4", patch(SYN, 0, "44"), Reason.MALFORMED),
    refused("v4: total below ihl", patch(SYN, 2, "0013"), Reason.MALFORMED),
    refused("v4: total 0 without gso", patch(SYN, 2, "0000"), Reason.MALFORMED),
    refused("v4: total above the length", patch(SYN, 2, "0029"), Reason.MALFORMED),
    refused("v4: total above the length, options cut", patch(ALERTED, 2, "ffff")[:20], Reason.MALFORMED),
    refused("v4: options cut", ALERTED[:23], Reason.TRUNCATED, length=44),
    refused("v4: options cut, and a fragment", patch(ALERTED, 6, "2000")[:23], Reason.TRUNCATED, length=44),
    refused("v4: ihl beyond the packet", patch(SYN, 0, "4f"), Reason.MALFORMED),
    refused("v4: first fragment", patch(SYN, 6, "2000"), Reason.FRAGMENT),
    refused("v4: last fragment", patch(SYN, 6, "0001"), Reason.FRAGMENT),
    refused("v4: fragment of ICMP", patch(icmp("198.51.100.7", "192.0.2.1"), 6, "2000"), Reason.FRAGMENT),
    refused("v4: fragment too short for a header", patch(SYN, 2, "0014 0000 2000")[:20], Reason.FRAGMENT),
    # IPv6
    refused("v6: 39 bytes", SYN6[:39], Reason.TRUNCATED, length=60),
    refused("v6: payload above the length", patch(SYN6, 4, "0015"), Reason.MALFORMED),
    refused("v6: payload 0 without gso", patch(SYN6, 4, "0000"), Reason.MALFORMED),
    refused("v6: nine extension headers", syn6(HOP(), *[DEST()] * 8), Reason.MALFORMED),
    refused("v6: extension header beyond the packet", patch(syn6(DEST()), 4, "0007")[:47], Reason.MALFORMED),
    refused("v6: extension header cut", syn6(DEST())[:47], Reason.TRUNCATED, length=68),
    refused("v6: extension header longer than the packet", patch(syn6(DEST()), 41, "ff"), Reason.MALFORMED),
    refused("v6: hop-by-hop behind another", syn6(DEST(), HOP()), Reason.MALFORMED),
    refused("v6: hop-by-hop twice", syn6(HOP(), HOP()), Reason.MALFORMED),
    refused("v6: hop-by-hop behind another, and cut", syn6(DEST(), HOP())[:55], Reason.TRUNCATED, length=76),
    refused("v6: source routed", syn6(IPv6ExtHdrRouting(addresses=["fd00::1"])), Reason.SOURCE_ROUTED),
    refused("v6: first fragment", syn6(IPv6ExtHdrFragment(m=1)), Reason.FRAGMENT),
    refused("v6: last fragment", syn6(IPv6ExtHdrFragment(offset=1)), Reason.FRAGMENT),
    refused("v6: fragment of ICMPv6", patch(syn6(IPv6ExtHdrFragment(m=1)), 40, "3a"), Reason.FRAGMENT),
    # TCP and UDP
    refused("icmp", icmp("198.51.100.7", "192.0.2.1"), Reason.OTHER_PROTOCOL),
    refused("sctp, cut", patch(SYN, 9, "84")[:20], Reason.OTHER_PROTOCOL, length=40),
    refused("v6: no next header", patch(SYN6, 6, "3b"), Reason.OTHER_PROTOCOL),
    refused("v6: AH is not skipped", patch(syn6(DEST()), 6, "33"), Reason.OTHER_PROTOCOL),
    refused("v6: ESP is not skipped", patch(syn6(DEST()), 6, "32"), Reason.OTHER_PROTOCOL),
    refused("v6: mobility is not skipped", patch(syn6(DEST()), 6, "87"), Reason.OTHER_PROTOCOL),
    refused("tcp: header beyond the packet", patch(SYN, 2, "0027"), Reason.MALFORMED),
    refused("tcp: header cut", SYN[:39], Reason.TRUNCATED, length=40),
    refused("tcp: header cut behind the ports", SYN[:24], Reason.TRUNCATED, length=40),
    refused("tcp: data offset 4", patch(SYN, 32, "40"), Reason.MALFORMED),
    refused("tcp: data offset beyond the packet", patch(SYN, 32, "60"), Reason.MALFORMED),
    refused("udp: header beyond the packet", patch(QUERY, 2, "001b"), Reason.MALFORMED),
    refused("udp: header cut", QUERY[:27], Reason.TRUNCATED, length=33),
    refused("udp: length 7", patch(QUERY, 24, "0007"), Reason.MALFORMED),
    refused("udp: length 0 without gso", patch(QUERY, 24, "0000"), Reason.MALFORMED),
    refused("udp: length 7 with gso", patch(QUERY, 24, "0007"), Reason.MALFORMED, gso=True),
    refused("udp: length beyond the packet", patch(QUERY, 24, "000e"), Reason.MALFORMED),
    refused("v6: udp length beyond the packet", patch(QUERY6, 44, "000e"), Reason.MALFORMED),
)
def test_parse(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(tcp(CLIENT, VIP, "S", b"hello")[:44], Reason.SCHEDULED, id="to a service"),
        pytest.param(tcp(CLIENT, VIP, "R", b"hello")[:44], Reason.NO_FLOW, id="without a flow"),
        pytest.param(tcp(CLIENT, "192.0.2.7:80", "S", b"hello")[:44], Reason.NOT_BALANCED, id="not balanced"),
    ],
)
def test_a_cut_payload_is_an_error_only_where_the_packet_is_rewritten(
    core: Core, packet: bytes, reason: Reason
) -> None:
    for rewrite, expected in ((True, Reason.TRUNCATED), (False, reason)):
        balancer = core.balancer.Balancer(capacity=16, key=KEY)
        balancer.publish(TABLE)
        assert balancer.decide(packet, 0, length=45, rewrite=rewrite).reason is expected


# 2. Whose packet is it --------------------------------------------------------------------------------


@both_cores
@both_ways
@rows(
    forwarded("one port", SYN, Reason.SCHEDULED, 0, tcp(CLIENT, A)),
    forwarded("v6", SYN6, Reason.SCHEDULED, 2, tcp(CLIENT6, A6)),
    forwarded("first of a range", udp(CLIENT, LOW), Reason.SCHEDULED, 3, udp(CLIENT, "10.2.0.21:7000")),
    forwarded("last of a range", udp(CLIENT, HIGH), Reason.SCHEDULED, 3, udp(CLIENT, "10.2.0.21:7009")),
    forwarded("port 1 is any port", tcp(CLIENT, ANY_1), Reason.SCHEDULED, 4, tcp(CLIENT, "10.2.0.31:1")),
    forwarded("65535 is, too", tcp(CLIENT, ANY_LAST), Reason.SCHEDULED, 4, tcp(CLIENT, "10.2.0.31:65535")),
    forwarded("a backend as client", tcp(A, VIP), Reason.SCHEDULED, 0, tcp(A, A)),
    refused("below a range", udp(CLIENT, "192.0.2.1:6999"), Reason.NOT_BALANCED),
    refused("above a range", udp(CLIENT, "192.0.2.1:7010"), Reason.NOT_BALANCED),
    refused("port 0 is not any port", tcp(CLIENT, "192.0.2.9:0"), Reason.NOT_BALANCED),
    refused("another port", tcp(CLIENT, "192.0.2.1:82"), Reason.NOT_BALANCED),
    refused("another address", tcp(CLIENT, "192.0.2.3:80"), Reason.NOT_BALANCED),
    refused("another protocol", udp(CLIENT, VIP), Reason.NOT_BALANCED),
    refused("from a backend's other port", tcp("10.2.0.11:22", CLIENT, "SA"), Reason.NOT_BALANCED),
    refused("from a backend's other protocol", udp(A, CLIENT), Reason.NOT_BALANCED),
    refused("from beside a backend's range", udp("10.2.0.21:7010", CLIENT), Reason.NOT_BALANCED),
)
def test_whose_packet_it_is(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# 3. To a service --------------------------------------------------------------------------------------

TO_A, TO_B = tcp(CLIENT, A), tcp(CLIENT, B)
ACK = tcp(CLIENT, VIP, "A")
SYN2, TO_B2 = tcp(OTHER, VIP), tcp(OTHER, B)
ACK2, ACK_TO_B2 = tcp(OTHER, VIP, "A"), tcp(OTHER, B, "A")
FIN2 = tcp(OTHER, VIP, "FA")
GONE = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], ["10.2.0.19:8080"]), slots=Slots({("web", "10.2.0.19:8080"): 9})
)
OTHER_PORT = "198.51.100.7:40001"
TO_LOW, TO_HIGH = udp(CLIENT, LOW), udp(CLIENT, HIGH)
CLIENTS = [f"198.51.100.9:{port}" for port in range(1, 17)]
FULL = [tcp(client, VIP) for client in CLIENTS]
"""As many flows as the smallest table holds."""


@both_cores
@both_ways
@rows(
    forwarded("the next client gets the next backend", SYN, Reason.SCHEDULED, 1, TO_B, tcp(OTHER, VIP)),
    forwarded("a known flow stays", SYN, Reason.FLOW, 0, TO_A, SYN),
    forwarded("... with its ACK", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN),
    forwarded("... with RST", tcp(CLIENT, VIP, "R"), Reason.FLOW, 0, tcp(CLIENT, A, "R"), SYN),
    forwarded("... a little before its time", SYN, Reason.FLOW, 0, TO_A, SYN, 59_999),
    forwarded("... but not when its time has run out", SYN, Reason.SCHEDULED, 1, TO_B, SYN, 60_000),
    forwarded("... whose time each packet renews", SYN, Reason.FLOW, 0, TO_A, SYN, 59_000, SYN, 59_000),
    forwarded(
        "another port of the client", tcp(OTHER_PORT, VIP), Reason.SCHEDULED, 1, tcp(OTHER_PORT, B), SYN
    ),
    forwarded("another port of the VIP", TO_HIGH, Reason.SCHEDULED, 3, udp(CLIENT, "10.2.0.21:7009"), TO_LOW),
    # A new flow
    forwarded("picked up with ACK", ACK, Reason.SCHEDULED, 0, tcp(CLIENT, A, "A")),
    forwarded("picked up with FIN", tcp(CLIENT, VIP, "FA"), Reason.SCHEDULED, 0, tcp(CLIENT, A, "FA")),
    forwarded("picked up without flags", tcp(CLIENT, VIP, ""), Reason.SCHEDULED, 0, tcp(CLIENT, A, "")),
    # ... by the hash, whatever the scheduler would choose: A would be next
    forwarded("picked up by the hash", ACK2, Reason.SCHEDULED, 1, ACK_TO_B2),
    forwarded("... with FIN", FIN2, Reason.SCHEDULED, 1, tcp(OTHER, B, "FA")),
    forwarded("... without flags", tcp(OTHER, VIP, ""), Reason.SCHEDULED, 1, tcp(OTHER, B, "")),
    forwarded("... it takes no turn", SYN, Reason.SCHEDULED, 0, TO_A, ACK2),
    forwarded("... and stays there", ACK2, Reason.FLOW, 1, ACK_TO_B2, ACK2),
    forwarded("... even when rescheduled", ACK2, Reason.RESCHEDULED, 1, ACK_TO_B2, GONE, SYN2, TABLE),
    forwarded("SYN with FIN takes a turn", tcp(OTHER, VIP, "SF"), Reason.SCHEDULED, 0, tcp(OTHER, A, "SF")),
    forwarded("SYN with FIN", tcp(CLIENT, VIP, "SF"), Reason.SCHEDULED, 0, tcp(CLIENT, A, "SF")),
    forwarded("SYN with ECN", tcp(CLIENT, VIP, "SEC"), Reason.SCHEDULED, 0, tcp(CLIENT, A, "SEC")),
    refused("RST begins none", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW),
    refused("RST with ACK begins none", tcp(CLIENT, VIP, "RA"), Reason.NO_FLOW),
    refused("RST with SYN begins none", tcp(CLIENT, VIP, "RS"), Reason.NO_FLOW),
    refused("SYN with ACK begins none", tcp(CLIENT, VIP, "SA"), Reason.NO_FLOW),
    refused("RST after its flow's time begins none", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW, SYN, 60_000),
    refused("no backend with weight", tcp(CLIENT, "192.0.2.1:81"), Reason.NO_BACKEND),
    refused("RST where no backend has weight", tcp(CLIENT, "192.0.2.1:81", "R"), Reason.NO_FLOW),
    # The table changes
    forwarded("drained: its flows stay", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, A_DRAINED),
    forwarded("drained: new ones go elsewhere", SYN, Reason.SCHEDULED, 1, TO_B, A_DRAINED),
    forwarded("all drained: flows stay", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, ALL_DRAINED),
    refused("all drained: new ones do not", SYN, Reason.NO_BACKEND, ALL_DRAINED),
    forwarded("removed: chosen anew", ACK, Reason.RESCHEDULED, 1, tcp(CLIENT, B, "A"), SYN, A_REMOVED),
    forwarded("... once", ACK, Reason.FLOW, 1, tcp(CLIENT, B, "A"), SYN, A_REMOVED, ACK),
    refused("... not with RST", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW, SYN, A_REMOVED),
    refused("... not where none has weight", ACK, Reason.NO_BACKEND, SYN, A_REMOVED_B_DRAINED),
    forwarded("... in a full table", FULL[0], Reason.RESCHEDULED, 1, tcp(CLIENTS[0], B), *FULL, A_REMOVED),
    forwarded("removed, its time run out", SYN, Reason.SCHEDULED, 1, TO_B, SYN, A_REMOVED, 60_000),
    refused("service removed", ACK, Reason.NOT_BALANCED, SYN, make_table(OTHERS[0])),
    forwarded("removed and back", ACK, Reason.FLOW, 0, tcp(CLIENT, A, "A"), SYN, A_REMOVED, TABLE),
    # A full table
    forwarded("full: hashed, nothing remembered", SYN2, Reason.STATELESS, 1, TO_B2, *FULL),
    forwarded("... so the next packet again", SYN2, Reason.STATELESS, 1, TO_B2, *FULL, SYN2),
    forwarded("... its ACK meets the same", ACK2, Reason.SCHEDULED, 1, ACK_TO_B2, *FULL, SYN2, 60_000),
    forwarded("... as maglev chooses", SYN2, Reason.SCHEDULED, 1, TO_B2, MAGLEV),
    forwarded("full: others elsewhere", SYN, Reason.STATELESS, 0, TO_A, *FULL),
    forwarded("full: known flows stay", FULL[15], Reason.FLOW, 1, tcp(CLIENTS[15], B), *FULL),
    forwarded("full of expired flows", SYN, Reason.SCHEDULED, 0, TO_A, *FULL, 60_000),
    forwarded("full, one expired", SYN, Reason.SCHEDULED, 0, TO_A, FULL[0], 30_000, *FULL[1:], 30_000),
    refused("full: no backend comes first", SYN, Reason.NO_BACKEND, *FULL, ALL_DRAINED),
    refused("full: no flow comes first", tcp(CLIENT, VIP, "R"), Reason.NO_FLOW, *FULL),
)
def test_to_a_service(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# 5. From a backend ------------------------------------------------------------------------------------

SYN_ACK = tcp(A, CLIENT, "SA")
FROM_VIP = tcp(VIP, CLIENT, "SA")
ANSWER = udp(RESOLVER, CLIENT, b"answer")
FROM_DNS, FROM_DNS2 = udp(DNS, CLIENT, b"answer"), udp(DNS2, CLIENT, b"answer")
FROM_RANGE, FROM_ANY = udp("10.2.0.21:7003", CLIENT), tcp("10.2.0.31:2222", CLIENT)
ASKED = udp(CLIENT, DNS, b"query")
ASKED2 = udp(CLIENT, DNS2, b"query")


@both_cores
@both_ways
@rows(
    answered("an answer", SYN_ACK, Reason.REPLY, 0, 0, FROM_VIP, SYN),
    answered("v6", tcp(A6, CLIENT6, "SA"), Reason.REPLY, 2, 1, tcp(VIP6, CLIENT6, "SA"), SYN6),
    answered("the port is kept", FROM_RANGE, Reason.REPLY, 3, 2, udp(RANGE, CLIENT), udp(CLIENT, RANGE)),
    answered("any port is kept", FROM_ANY, Reason.REPLY, 4, 3, tcp(ANY, CLIENT), tcp(CLIENT, ANY)),
    answered("without a flow, one VIP", SYN_ACK, Reason.REPLY_STATIC, 0, 0, FROM_VIP),
    answered("without a flow, port kept", FROM_RANGE, Reason.REPLY_STATIC, 3, 2, udp(RANGE, CLIENT)),
    answered("the flow is another backend's", tcp(B, CLIENT, "SA"), Reason.REPLY_STATIC, 1, 0, FROM_VIP, SYN),
    answered("the flow's time has run out", SYN_ACK, Reason.REPLY_STATIC, 0, 0, FROM_VIP, SYN, 60_000),
    answered("even with RST", tcp(A, CLIENT, "R"), Reason.REPLY_STATIC, 0, 0, tcp(VIP, CLIENT, "R")),
    answered("two VIPs, the flow says which", ANSWER, Reason.REPLY, 5, 4, FROM_DNS, ASKED),
    answered("... or the other", ANSWER, Reason.REPLY, 5, 5, FROM_DNS2, ASKED2),
    answered("... or both: the first", ANSWER, Reason.REPLY, 5, 4, FROM_DNS, ASKED2, ASKED),
    answered(
        "... whose time is over", ANSWER, Reason.REPLY, 5, 5, FROM_DNS2, ASKED, 200_000, ASKED2, 100_000
    ),
    refused("two VIPs, no flow", ANSWER, Reason.REPLY_UNMATCHED),
    refused("two VIPs, another client's flow", ANSWER, Reason.REPLY_UNMATCHED, udp(OTHER, DNS)),
    refused("its service is removed", SYN_ACK, Reason.NOT_BALANCED, SYN, make_table(OTHERS[0])),
)
def test_from_a_backend(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_an_expired_flow_that_an_answer_meets_is_removed(core: Core) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(TABLE)
    play(balancer, [ASKED, ASKED2])
    assert balancer.flow_count() == 2
    assert balancer.decide(ANSWER, 300_000).reason is Reason.REPLY_UNMATCHED
    assert balancer.flow_count() == 0


# What `preview` and `find` tell, which change nothing --------------------------------------------------


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize(
    ("before", "wait_ms"),
    [
        pytest.param([], 0, id="new"),
        pytest.param([tcp(CLIENT, VIP), SYN2], 0, id="known"),
        pytest.param([tcp(CLIENT, VIP), SYN2], 60_000, id="its time has run out"),
        pytest.param([tcp(CLIENT, VIP), tcp(OTHER, VIP, "FA")], 0, id="its port is reused"),
        pytest.param([*FULL, tcp(CLIENT, VIP)], 0, id="no room"),
        pytest.param([*FULL, tcp(CLIENT, VIP)], 60_000, id="room after expiry"),
        pytest.param([SYN2, A_REMOVED], 0, id="its backend is removed"),
        pytest.param([ALL_DRAINED], 0, id="no backend"),
    ],
)
def test_preview_foresees_what_decide_does(
    core: Core, scheduler: Scheduler, before: list[Any], wait_ms: int
) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(make_table(Svc("web", ["192.0.2.1:80/tcp"], [A, B], scheduler)))
    now_ms = play(balancer, before) + wait_ms
    flows, reasons = sorted(map(repr, balancer.flows())), balancer.reasons()
    foreseen = [balancer.preview(SYN2, now_ms) for _ in range(2)]
    assert sorted(map(repr, balancer.flows())) == flows
    assert balancer.reasons() == reasons
    decided = balancer.decide(SYN2, now_ms, rewrite=False)
    assert foreseen == [replace(decided, mark=0)] * 2


@both_cores
def test_preview_is_of_packets_to_a_service(core: Core) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(TABLE)
    for packet in (SYN_ACK, ANSWER, tcp(CLIENT, "192.0.2.7:80")):
        assert balancer.preview(packet, 0).reason is Reason.NOT_BALANCED
    assert balancer.preview(b"", 0).reason is Reason.TRUNCATED


@both_cores
def test_find_gives_the_flow_of_a_packet_to_a_service(core: Core) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(TABLE)
    assert balancer.find(SYN, 0) is None
    balancer.decide(SYN, 0)
    [flow] = balancer.flows()
    assert balancer.find(ACK, 59_999) == flow
    assert balancer.find(SYN2, 0) is None
    assert balancer.find(SYN_ACK, 0) is None
    assert balancer.find(SYN, 60_000) is None
    assert balancer.flow_count() == 1


@both_cores
@pytest.mark.parametrize("verb", ["decide", "preview", "find"])
def test_nothing_is_decided_before_a_table_is_published(core: Core, verb: str) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    with pytest.raises(RuntimeError, match="no table was published"):
        getattr(balancer, verb)(SYN, 0)


@both_cores
def test_a_balancer_rounds_its_capacity_up_and_demands_a_key_of_16_bytes(core: Core) -> None:
    capacities = [core.balancer.Balancer(capacity=flows, key=KEY).capacity for flows in (1, 16, 17, 100, 128)]
    assert capacities == [16, 16, 32, 128, 128]
    with pytest.raises(ValueError, match="16 bytes"):
        core.balancer.Balancer(capacity=16, key=bytes(15))
