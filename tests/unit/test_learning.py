"""Which packets tell the kernel to remember a flow (docs/design/decision.md, section 9, learning)."""

from __future__ import annotations

import pytest

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import MARK_LEARN, forward_mark, reply_mark
from l4lb.model import Forward
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, answered, both_ways, check, forwarded, marked, rows, start
from tests.support.tables import Slots, Svc, make_table

CLIENT, VIP, DNS, DIRECT = "198.51.100.7:40000", "192.0.2.1:80", "192.0.2.1:53", "192.0.2.2:80"
A, RESOLVER, B = "10.2.0.11:8080", "10.2.0.41:5353", "10.2.0.12:8080"
NAT = Svc("web", ["192.0.2.1:80/tcp"], [A])
DNS_SERVICE = Svc("dns", ["192.0.2.1:53/udp"], [RESOLVER])
DSR = Svc("direct", ["192.0.2.3:80/tcp", "192.0.2.2:80/tcp"], ["10.2.0.51"], forward=Forward.DSR)

# Slots: A 0, RESOLVER 1, direct 2. Frontends: VIP 0, DNS 1.
TABLE = make_table(NAT, DNS_SERVICE, DSR, replies_seen=False, learns=True)
A_REMOVED = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], [B]), DNS_SERVICE, slots=Slots({("web", B): 3}), learns=True
)


def client(flags: str, vip: str = VIP) -> bytes:
    return tcp(CLIENT, vip, flags)


def to_a(flags: str) -> bytes:
    return tcp(CLIENT, A, flags)


def backend(flags: str) -> bytes:
    return tcp(A, CLIENT, flags)


def to_client(flags: str) -> bytes:
    return tcp(VIP, CLIENT, flags)


SYN, ACK = client("S"), client("A")
QUERY, ANSWER = udp(CLIENT, DNS, b"?"), udp(RESOLVER, CLIENT, b"!")
TO_RESOLVER, FROM_DNS = udp(CLIENT, RESOLVER, b"?"), udp(DNS, CLIENT, b"!")
TO_0, TO_1 = 0xC0000001, 0xC0000002


# Five packets from the client: the sixth teaches.
OPEN = (SYN, ACK, ACK, ACK, ACK)
PICKED_UP = (ACK, ACK, ACK, ACK, ACK)
ASKED = (QUERY, QUERY, QUERY, QUERY, QUERY)
DIRECT_OPEN = (client("S", DIRECT), *[client("A", DIRECT)] * 4)


@both_cores
@both_ways
@rows(
    # TCP over NAT
    forwarded("SYN", SYN, Reason.SCHEDULED, 0, to_a("S")),
    forwarded("the fifth packet", ACK, Reason.FLOW, 0, to_a("A"), *OPEN[:4]),
    marked("the sixth", ACK, Reason.FLOW, 0, TO_0, *OPEN),
    marked("data", client("PA"), Reason.FLOW, 0, TO_0, *OPEN),
    marked("no flags", client(""), Reason.FLOW, 0, TO_0, *OPEN),
    forwarded("answers do not count", ACK, Reason.FLOW, 0, to_a("A"), SYN, *[backend("A")] * 6),
    forwarded("the first FIN", client("FA"), Reason.FLOW, 0, to_a("FA"), *OPEN),
    forwarded("an ACK behind it", ACK, Reason.FLOW, 0, to_a("A"), *OPEN, client("FA")),
    forwarded("RST", client("R"), Reason.FLOW, 0, to_a("R"), *OPEN),
    forwarded("SYN in an established flow", SYN, Reason.FLOW, 0, to_a("S"), *OPEN),
    forwarded("SYNs alone", SYN, Reason.FLOW, 0, to_a("S"), *[SYN] * 6),
    marked("picked up without SYN", ACK, Reason.FLOW, 0, TO_0, *PICKED_UP),
    forwarded("its backend is new", ACK, Reason.RESCHEDULED, 3, tcp(CLIENT, B, "A"), *OPEN, A_REMOVED),
    # Answers are never learned: the rules know their VIP, or ask.
    answered("SYN and ACK", backend("SA"), Reason.REPLY, 0, 0, to_client("SA"), SYN),
    answered("an answer", backend("PA"), Reason.REPLY, 0, 0, to_client("PA"), *OPEN, ACK),
    answered("without a flow", backend("A"), Reason.REPLY_STATIC, 0, 0, to_client("A")),
    # UDP
    forwarded("the first query", QUERY, Reason.SCHEDULED, 1, TO_RESOLVER),
    answered("its answer", ANSWER, Reason.REPLY, 1, 1, FROM_DNS, *ASKED, QUERY),
    forwarded("the fifth query", QUERY, Reason.FLOW, 1, TO_RESOLVER, *ASKED[:4]),
    marked("the sixth query", QUERY, Reason.FLOW, 1, TO_1, *ASKED),
    # DSR: the second of the service's VIPs
    marked("DSR: SYN", client("S", DIRECT), Reason.SCHEDULED, 2, 0x40020003),
    marked("DSR: the sixth", client("A", DIRECT), Reason.FLOW, 2, 0xC0020003, *DIRECT_OPEN),
)
def test_learning(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


def test_marks_are_those_of_the_table() -> None:
    assert forward_mark(0) | MARK_LEARN == TO_0
    assert forward_mark(2, 1) | MARK_LEARN == 0xC0020003


@both_cores
@pytest.mark.parametrize("forward", [Forward.IPIP, Forward.GUE, Forward.MASQUERADE])
def test_what_is_sent_is_not_learned(core: Core, forward: Forward) -> None:
    service = Svc("web", ["192.0.2.1:80/tcp"], [A], forward=forward)
    balancer = start(core, make_table(service, learns=True, pool=["10.2.0.1"]), *OPEN)
    decision = balancer.decide(ACK, 0)
    assert (decision.reason, decision.mark, decision.sent) == (Reason.FLOW, 0, True)


@both_cores
def test_nothing_is_learned_where_the_kernel_does_not(core: Core) -> None:
    balancer = start(core, make_table(NAT, DNS_SERVICE, replies_seen=False), *OPEN, *ASKED)
    assert balancer.decide(ACK, 0).mark == forward_mark(0)
    assert balancer.decide(backend("A"), 0).mark == reply_mark(0)
    assert balancer.decide(QUERY, 0).mark == forward_mark(1)
