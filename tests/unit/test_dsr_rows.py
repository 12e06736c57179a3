"""Rows of direct return: the packet stays, its mark names the backend and the VIP (docs/design/decision.md,
section 9)."""

from __future__ import annotations

from typing import Any

import pytest

from l4lb.dataplane.decision import Reason, State
from l4lb.dataplane.table import forward_mark
from l4lb.model import Forward
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, both_ways, check, marked, refused, rows, start
from tests.support.tables import Svc, make_table

CLIENT, OTHER, CLIENT6 = "198.51.100.7:40000", "198.51.100.8:40000", "[2001:db8::7]:40000"
VIP, VIP2, VIP3, VIP6 = "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "[2001:db8:1::1]:80"
A, B = "10.2.0.11", "10.2.0.12"
LISTENS = ["192.0.2.1:80/tcp", "192.0.2.2:80/tcp", "192.0.2.2:80/udp", "192.0.2.3:80/tcp"]

# Slots: A 0, B 1, fd00::11 2.
TABLE = make_table(
    Svc("web", LISTENS, [A, B], forward=Forward.DSR),
    Svc("web6", ["[2001:db8:1::1]:80/tcp"], ["fd00::11"], forward=Forward.DSR),
)
SYN, SYN2 = tcp(CLIENT, VIP), tcp(CLIENT, VIP2)
FULL = [tcp(f"198.51.100.9:{port}", VIP) for port in range(1, 17)]
LAZY = {"checksum_ready": False}


@both_cores
@both_ways
@rows(
    marked("the first VIP", SYN, Reason.SCHEDULED, 0, 0x40000001),
    marked("the second VIP", SYN2, Reason.SCHEDULED, 0, 0x40020001),
    marked("... by UDP", udp(CLIENT, VIP2), Reason.SCHEDULED, 0, 0x40020001),
    marked("the third VIP", tcp(CLIENT, VIP3), Reason.SCHEDULED, 0, 0x40040001),
    marked("another backend", SYN2, Reason.SCHEDULED, 1, 0x40020002, tcp(OTHER, VIP)),
    marked("another service", tcp(CLIENT6, VIP6), Reason.SCHEDULED, 2, 0x40000003),
    marked("a known flow", tcp(CLIENT, VIP2, "A"), Reason.FLOW, 0, 0x40020001, SYN2),
    marked("no room", SYN2, Reason.STATELESS, 0, 0x40020001, *FULL),
    marked("its time to live is the kernel's", tcp(CLIENT, VIP, ttl=1), Reason.SCHEDULED, 0, 0x40000001),
    marked("a checksum that is not ready", SYN, Reason.SCHEDULED, 0, 0x40000001, **LAZY),
    refused("the backend answers past us", tcp("10.2.0.11:80", CLIENT, "SA"), Reason.NOT_BALANCED, SYN),
)
def test_direct_return(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


def test_marks_are_those_of_the_table() -> None:
    assert [forward_mark(0, vip) for vip in range(3)] == [0x40000001, 0x40020001, 0x40040001]


@both_cores
@pytest.mark.parametrize("replies_seen", [True, False])
@pytest.mark.parametrize(
    "forward", [Forward.DSR, Forward.IPIP, Forward.GUE], ids=lambda forward: forward.value
)
def test_states_are_those_of_flows_whose_answers_are_unseen(
    core: Core, forward: Forward, replies_seen: bool
) -> None:
    table = make_table(Svc("web", ["192.0.2.1:80/tcp"], [A], forward=forward), replies_seen=replies_seen)
    assert states(start(core, table), "S", "A", "FA") == [
        State.SYN_RECV,
        State.ESTABLISHED,
        State.FIN_WAIT,  # CLOSE_WAIT where answers are seen
    ]


def states(balancer: Any, *flags: str) -> list[State]:
    """The states that the only flow goes through."""
    seen = []
    for letters in flags:
        balancer.decide(tcp(CLIENT, VIP, letters), 0)
        [flow] = balancer.flows()
        seen.append(flow.state)
    return seen
