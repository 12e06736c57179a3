"""Checks that need root or a network of their own: ping, syn, marks, hosts that are away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from l4lb.model import CheckType, Expectation, HealthCheck
from l4lb.net import nft
from l4lb.net.checks import ping
from l4lb.net.checks.kinds import check
from l4lb.net.checks.target import Outcome, Target
from tests.support.lab import Lab

pytestmark = pytest.mark.root
B1, B1_6 = ip_address("10.2.0.11"), ip_address("2001:db8:2::11")
NOBODY, NOBODY6 = ip_address("10.2.0.99"), ip_address("2001:db8:2::99")
FAMILIES = pytest.mark.parametrize("address", [B1, B1_6], ids=["ipv4", "ipv6"])
SOCKETS = pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_RAW], ids=["ping-socket", "raw"])
PORT, CLOSED = 8080, 8081
LATE_S = 30.0
MARK = 0x77
COUNTING = f"""
table inet checks {{
  counter marked {{ }}
  counter unmarked {{ }}
  chain out {{
    type filter hook output priority 0;
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report }} return
    meta l4proto tcp tcp flags & (syn | rst) == rst meta mark 0 return
    meta mark {MARK:#x} counter name marked return
    counter name unmarked
  }}
}}
"""
SILENT = """
table inet silent {
  chain in {
    type filter hook input priority 0;
    tcp dport 8080 drop
    icmp type echo-request drop
  }
}
"""


@pytest.fixture(scope="module", autouse=True)
def servers(lab: Lab) -> None:
    """A web server and an echo server on b1."""
    host = lab.host("b1")
    host.popen([sys.executable, "-m", "tests.support.http_server", "--name", "b1", "--port", str(PORT)])
    host.popen([sys.executable, "-m", "tests.support.udp_echo", "--name", "b1"])
    host.wait_listening(PORT)
    host.wait_listening(7, "udp")


@pytest.fixture
def groups(lab: Lab) -> Iterator[None]:
    """The gateway allows ping sockets, whatever the namespace began with."""
    with lab.gateway.enter():
        path = Path("/proc/sys/net/ipv4/ping_group_range")
        before = path.read_text()
        path.write_text("0 0")
    yield
    with lab.gateway.enter():
        path.write_text("\t".join(before.split()))


@contextlib.contextmanager
def rules(lab: Lab, host: str, text: str, table: str) -> Iterator[None]:
    with lab.host(host).enter():
        nft.run_nft(text)
    try:
        yield
    finally:
        with lab.host(host).enter():
            nft.delete_table(table)


def ask(lab: Lab, kind: CheckType, target: Target, timeout_s: float = LATE_S, **words: object) -> Outcome:
    """The outcome of a check that the gateway makes."""
    with lab.gateway.enter():
        return asyncio.run(check(target, HealthCheck(kind, timeout_s=timeout_s, **words)))  # type: ignore[arg-type]


@FAMILIES
@SOCKETS
def test_ping(lab, groups, address, kind):
    with lab.gateway.enter():
        outcome = asyncio.run(ping.ping(Target(address, 0), LATE_S, (kind,)))
    assert (outcome.ok, outcome.why) == (True, "echo reply")


@FAMILIES
def test_ping_without_ping_sockets(lab, groups, address):
    with lab.gateway.enter():
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("1 0")
    assert ask(lab, CheckType.PING, Target(address, 0)).ok


@pytest.mark.parametrize("address", [NOBODY, NOBODY6], ids=["ipv4", "ipv6"])
def test_a_host_that_is_away_is_a_failure_as_soon_as_the_kernel_knows(lab, address):
    kinds = [CheckType.PING, CheckType.UDP, CheckType.DNS, CheckType.TCP, CheckType.SYN, CheckType.HTTP]

    async def all_at_once() -> list[Outcome]:
        asked = (check(Target(address, PORT), HealthCheck(kind, timeout_s=LATE_S)) for kind in kinds)
        return await asyncio.gather(*asked)

    with lab.gateway.enter():
        outcomes = dict(zip(kinds, asyncio.run(all_at_once()), strict=True))
    found = {kind: (outcome.ok, outcome.why) for kind, outcome in outcomes.items()}
    assert found == dict.fromkeys(kinds, (False, "host unreachable"))


def test_ping_without_an_answer_ends_with_the_timeout(lab):
    with rules(lab, "b1", SILENT, "silent"):
        outcome = ask(lab, CheckType.PING, Target(B1, 0), timeout_s=0.3)
    assert (outcome.ok, outcome.why) == (False, "no answer in 0.3 s")


@FAMILIES
def test_syn(lab, address):
    outcome = ask(lab, CheckType.SYN, Target(address, PORT))
    assert (outcome.ok, outcome.why) == (True, "SYN-ACK")
    outcome = ask(lab, CheckType.SYN, Target(address, CLOSED))
    assert (outcome.ok, outcome.why) == (False, "connection refused")


def test_syn_leaves_no_connection(lab):
    assert ask(lab, CheckType.SYN, Target(B1, PORT)).ok
    # An answered connect afterwards: what the check sent has arrived before it, on the same way.
    assert ask(lab, CheckType.TCP, Target(B1, PORT)).ok
    shown = lab.host("b1").run(["ss", "-Htna", "state", "syn-recv"])
    assert shown.stdout == ""


def test_syn_without_an_answer_ends_with_the_timeout(lab):
    ask(lab, CheckType.SYN, Target(B1, PORT))  # Scapy is loaded
    with rules(lab, "b1", SILENT, "silent"):
        outcome = ask(lab, CheckType.SYN, Target(B1, PORT), timeout_s=0.3)
    assert (outcome.ok, outcome.why) == (False, "no answer in 0.3 s")


@FAMILIES
@pytest.mark.parametrize(
    ("kind", "port", "words"),
    [
        (CheckType.TCP, PORT, {}),
        (CheckType.HTTP, PORT, {"expect": Expectation(body="b1")}),
        (CheckType.SYN, PORT, {}),
        (CheckType.UDP, 7, {"payload": b"hello", "expect": Expectation(pattern="^b1:hello$")}),
        (CheckType.PING, 0, {}),
    ],
    ids=lambda value: value.value if isinstance(value, CheckType) else "",
)
def test_all_packets_of_a_check_have_its_mark_and_source(lab, address, kind, port, words):
    source = ip_address("10.2.0.1" if address.version == 4 else "2001:db8:2::1")
    with rules(lab, "gateway", COUNTING, "checks"):
        assert ask(lab, kind, Target(address, port, mark=MARK, source=source), **words).ok
        with lab.gateway.enter():
            counted = nft.read_counters("checks")
    assert counted["marked"] > 0
    assert counted["unmarked"] == 0


def test_a_mark_without_the_right_to_set_it_is_a_failure(lab, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    outcome = ask(lab, CheckType.UDP, Target(B1, 7, mark=MARK))
    assert not outcome.ok
    assert outcome.why == "not permitted on this host: a firewall, or a capability is missing"
