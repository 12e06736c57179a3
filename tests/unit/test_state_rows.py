"""TCP states and timers over both cores (docs/design/decision.md, section 8).

The tables of that page are the rows: they are read from it, so the page cannot say anything else than
what both cores do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from l4lb.dataplane.decision import Flow, Reason, State
from l4lb.dataplane.table import Timeouts
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Step, play
from tests.support.tables import Svc, make_table

PAGE = Path(__file__).parents[2] / "docs/design/decision.md"

CLIENT, VIP, A = "198.51.100.7:40000", "192.0.2.1:80", "10.2.0.11:8080"
DNS, RESOLVER = "192.0.2.1:53", "10.2.0.41:5353"
SERVICES = Svc("web", ["192.0.2.1:80/tcp"], [A]), Svc("dns", ["192.0.2.1:53/udp"], [RESOLVER])
SEEN = make_table(*SERVICES)
UNSEEN = make_table(*SERVICES, replies_seen=False)


def client(flags: str) -> bytes:
    return tcp(CLIENT, VIP, flags)


def backend(flags: str) -> bytes:
    return tcp(A, CLIENT, flags)


PATHS: dict[State, list[Step]] = {
    State.SYN_RECV: [client("S")],
    State.ESTABLISHED: [client("S"), client("A")],
    State.FIN_WAIT: [client("S"), client("A"), backend("FA")],
    State.TIME_WAIT: [client("S"), client("FA")],
    State.CLOSE: [client("FA")],
    State.CLOSE_WAIT: [client("S"), client("A"), client("FA")],
}
"""How a flow comes into each state where answers are seen."""


class Transition(NamedTuple):
    sender: str
    kind: str
    old: State
    new: State | None
    """None: the flow begins anew."""

    def __str__(self) -> str:
        return f"{self.kind} {self.sender} in {self.old.name}"


CLIENT_SEEN, CLIENT_ALONE, BACKEND = "from the client", "from the client, answers unseen", "from the backend"


def read_transitions() -> list[Transition]:
    """The cells of the page's three tables."""
    seen = read_table(CLIENT_SEEN)
    alone = read_table(CLIENT_ALONE)
    kinds = {transition.kind for transition in alone}
    alone += [cell._replace(sender=CLIENT_ALONE) for cell in seen if cell.kind not in kinds]
    return seen + alone + read_table(BACKEND)


def read_table(sender: str) -> list[Transition]:
    _, _, text = PAGE.read_text().partition(f"| {sender} | SYN_RECV")
    body, _, _ = f"| {sender} | SYN_RECV{text}".partition("\n\n")
    heading, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
    return [
        Transition(sender, kind, State[old], None if new == "(anew)" else State[new])
        for kind, *states in lines
        if kind != "the others"
        for old, new in zip(heading[1:], states, strict=True)
    ]


TRANSITIONS = read_transitions()
FLAGS = {"SYN": "S", "FIN": "FA", "ACK": "PA", "RST": "RA"}


def test_the_page_was_read() -> None:
    assert len(TRANSITIONS) == 3 * 4 * 6


@both_cores
@pytest.mark.parametrize("transition", TRANSITIONS, ids=str)
def test_transition(core: Core, transition: Transition) -> None:
    sender, kind, old, new = transition
    balancer = start(core, *PATHS[old])
    assert only_flow(balancer).state is old
    if sender == CLIENT_ALONE:
        balancer.publish(UNSEEN)
    packet = backend(FLAGS[kind]) if sender == BACKEND else client(FLAGS[kind])
    reason = balancer.decide(packet, 7_000).reason
    if new is None:
        assert reason is Reason.SCHEDULED
    else:
        assert reason is (Reason.REPLY if sender == BACKEND else Reason.FLOW)
    flow = only_flow(balancer)
    assert flow.state is (new or State.SYN_RECV)
    assert flow.expires_ms == 7_000 + Timeouts().of(flow.state)


@both_cores
@pytest.mark.parametrize("old", PATHS)
@pytest.mark.parametrize(("packet", "reason"), [(client(""), Reason.FLOW), (backend("UEC"), Reason.REPLY)])
def test_a_packet_without_a_class_renews_the_time_alone(
    core: Core, old: State, packet: bytes, reason: Reason
) -> None:
    balancer = start(core, *PATHS[old])
    assert balancer.decide(packet, 7_000).reason is reason
    assert only_flow(balancer).state is old
    assert only_flow(balancer).expires_ms == 7_000 + Timeouts().of(old)


@both_cores
@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ("S", State.SYN_RECV),
        ("A", State.SYN_RECV),
        ("PA", State.SYN_RECV),
        ("", State.SYN_RECV),
        ("SF", State.SYN_RECV),
        ("F", State.CLOSE),
        ("FA", State.CLOSE),
    ],
)
def test_the_first_packet_of_a_flow(core: Core, flags: str, state: State) -> None:
    flow = only_flow(start(core, client(flags)))
    assert flow.state is state
    assert flow.expires_ms == Timeouts().of(state)


@both_cores
@pytest.mark.parametrize("old", [State.FIN_WAIT, State.TIME_WAIT, State.CLOSE, State.CLOSE_WAIT])
@pytest.mark.parametrize("flags", ["SA", "SF", "SFA"])
def test_only_a_plain_syn_reuses_the_port_of_a_closing_flow(core: Core, old: State, flags: str) -> None:
    balancer = start(core, *PATHS[old])
    assert balancer.decide(client(flags), 0).reason is Reason.FLOW
    assert only_flow(balancer).state is old


@both_cores
def test_rst_comes_before_syn_before_fin_before_ack(core: Core) -> None:
    for flags, state in (("RSFA", State.CLOSE), ("SFA", State.ESTABLISHED), ("FA", State.CLOSE_WAIT)):
        assert only_flow(start(core, *PATHS[State.ESTABLISHED], client(flags))).state is state


@both_cores
def test_a_port_that_is_reused_forgets_what_was_counted(core: Core) -> None:
    balancer = start(core, *PATHS[State.CLOSE_WAIT])
    assert (only_flow(balancer).packets, only_flow(balancer).bytes) == (3, 120)
    assert balancer.decide(client("S"), 0).reason is Reason.SCHEDULED
    assert (only_flow(balancer).packets, only_flow(balancer).bytes) == (1, 40)
    assert balancer.slot_counters(0).scheduled == 2


@both_cores
def test_active_flows_are_the_established_ones(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    balancer = core.balancer.Balancer(capacity=16, key=KEY, shared=shared)
    balancer.publish(SEEN)
    counted = []
    for packet in (client("S"), client("A"), client("A"), backend("FA"), client("S"), client("A")):
        balancer.decide(packet, 0)
        counted.append((shared.flows(0), shared.active(0)))
    assert counted == [(1, 0), (1, 1), (1, 1), (1, 0), (1, 0), (1, 1)]
    assert balancer.expire(900_000) == 1
    assert (shared.flows(0), shared.active(0)) == (0, 0)
    assert balancer.slot_counters(0).active == 0


# Timers ----------------------------------------------------------------------------------------------

TIMERS = [
    (State.SYN_RECV, 60_000),
    (State.ESTABLISHED, 900_000),
    (State.FIN_WAIT, 120_000),
    (State.TIME_WAIT, 120_000),
    (State.CLOSE, 10_000),
    (State.CLOSE_WAIT, 60_000),
]


@both_cores
@pytest.mark.parametrize(("state", "timeout_ms"), TIMERS)
def test_a_flow_is_remembered_for_the_time_of_its_state(core: Core, state: State, timeout_ms: int) -> None:
    ack = client("A")
    assert start(core, *PATHS[state]).decide(ack, timeout_ms - 1).reason is Reason.FLOW
    assert start(core, *PATHS[state]).decide(ack, timeout_ms).reason is Reason.SCHEDULED
    for now_ms, removed in ((timeout_ms - 1, 0), (timeout_ms, 1)):
        balancer = start(core, *PATHS[state])
        assert balancer.expire(now_ms) == removed
        assert balancer.flow_count() == 1 - removed


@both_cores
def test_udp_has_one_state_and_one_timer(core: Core) -> None:
    balancer = start(core)
    query, answer = udp(CLIENT, DNS, b"query"), udp(RESOLVER, CLIENT, b"answer")
    for now_ms, packet, reason in (
        (0, query, Reason.SCHEDULED),
        (299_999, query, Reason.FLOW),
        (599_899, answer, Reason.REPLY),
        (899_798, query, Reason.FLOW),
        (1_199_800, query, Reason.SCHEDULED),
    ):
        assert balancer.decide(packet, now_ms).reason is reason, now_ms
        assert only_flow(balancer).state is State.UDP
        assert only_flow(balancer).expires_ms == (now_ms + 300_000) // 100 * 100


@both_cores
def test_deadlines_are_tenths_of_a_second_rounded_down(core: Core) -> None:
    balancer = start(core)
    balancer.decide(client("S"), 199)
    assert only_flow(balancer).expires_ms == 60_100
    assert balancer.expire(60_099) == 0
    assert balancer.expire(60_100) == 1


@both_cores
def test_timeouts_are_the_table_s_and_a_publish_changes_them_from_the_next_packet_on(core: Core) -> None:
    balancer = start(core, client("S"))
    balancer.publish(make_table(*SERVICES, timeouts=Timeouts(syn_recv=1_000)))
    assert only_flow(balancer).expires_ms == 60_000
    balancer.decide(client("S"), 500)
    assert only_flow(balancer).expires_ms == 1_500


def start(core: Core, *steps: Step) -> Any:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(SEEN)
    play(balancer, steps)
    return balancer


def only_flow(balancer: Any) -> Flow:
    [flow] = balancer.flows()
    assert isinstance(flow, Flow)
    return flow


@both_cores
def test_what_began_and_what_failed_is_told_once(core: Core) -> None:
    balancer = start(core, client("S"))
    assert balancer.take_beginnings() == []
    balancer.decide(client("S"), 0)
    assert balancer.take_beginnings() == [(0, 0, 1)]
    balancer.decide(client("A"), 0)
    balancer.decide(tcp("198.51.100.8:1", VIP, "S"), 0)
    balancer.decide(tcp("198.51.100.8:1", VIP, "A"), 0)
    assert balancer.take_beginnings() == [(0, 2, 0)]
    assert balancer.take_beginnings() == []
    balancer.publish(make_table(SERVICES[1]))
    assert balancer.take_beginnings() == []


@both_cores
def test_what_began_is_told_also_when_its_backend_is_gone(core: Core) -> None:
    balancer = start(core, client("S"), client("A"))
    balancer.publish(make_table(SERVICES[1]))
    assert balancer.take_beginnings() == [(0, 1, 0)]
