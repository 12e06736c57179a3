"""udp and dns against sockets on loopback, and what they and ping read from bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply

from l4lb.model import CheckType, Expectation, HealthCheck
from l4lb.net.checks import dns, ping, syn
from l4lb.net.checks.judge import CheckFailedError
from l4lb.net.checks.kinds import check
from l4lb.net.checks.target import Outcome, Target
from tests.support.packets import tcp

LOCAL = ip_address("127.0.0.1")
SOON_S, LATE_S = 0.2, 30.0
Answers = Callable[[bytes], list[bytes]]


def ask(how: HealthCheck, answers: Answers) -> Outcome:
    """The outcome of a check of a server that answers each datagram with these."""

    def serve(sock: socket.socket) -> None:
        data, peer = sock.recvfrom(65535)
        for answer in answers(data):
            sock.sendto(answer, peer)

    async def run() -> Outcome:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((str(LOCAL), 0))
            asyncio.get_running_loop().add_reader(sock, serve, sock)
            try:
                return await check(Target(LOCAL, sock.getsockname()[1]), how)
            finally:
                asyncio.get_running_loop().remove_reader(sock)

    return asyncio.run(run())


def udp(timeout_s: float = LATE_S, **expect: str) -> HealthCheck:
    return HealthCheck(
        CheckType.UDP, timeout_s=timeout_s, payload=b"ping\x00", expect=Expectation(**expect)  # type: ignore[arg-type]
    )  # fmt: skip


def nothing(_: bytes) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("how", "answer", "why"),
    [
        (udp(body="ping"), b"you said ping", None),
        (udp(pattern="^p.ng$"), b"pong", None),
        (udp(body="pong"), b"what?", "the answer does not have 'pong'"),
        (udp(pattern="^p.ng$"), b"\xff\xfe", "the answer does not match '^p.ng$'"),
        (udp(), b"\xff", None),
        (udp(), b"", None),
    ],
)
def test_udp_answers(how, answer, why):
    outcome = ask(how, lambda _: [answer])
    assert (outcome.ok, outcome.why) == (why is None, why or "answered")


def test_udp_sends_the_payload():
    got = []
    assert ask(udp(), lambda data: [got.append(data) or data]).ok
    assert got == [b"ping\x00"]


def test_silence_is_a_success_only_where_no_answer_is_expected():
    outcome = ask(udp(SOON_S), nothing)
    assert (outcome.ok, outcome.why) == (True, "no ICMP error in 0.2 s; no answer is expected")
    assert outcome.took_s >= SOON_S
    outcome = ask(udp(SOON_S, body="pong"), nothing)
    assert (outcome.ok, outcome.why) == (False, "no answer in 0.2 s")


@pytest.mark.parametrize("how", [udp(), udp(body="x"), HealthCheck(CheckType.DNS, timeout_s=LATE_S)])
def test_a_closed_port_is_a_failure(how):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((str(LOCAL), 0))
        port = sock.getsockname()[1]
    outcome = asyncio.run(check(Target(LOCAL, port), how))
    assert (outcome.ok, outcome.why) == (False, "connection refused")


def resolver(**words: object) -> Answers:
    """Answers queries as Scapy builds it."""

    def answer(data: bytes) -> list[bytes]:
        query = DNS(data)
        fields = {"id": query.id, "qr": 1, "qd": query.qd, "ancount": None} | words
        return [bytes(DNS(**fields))]

    return answer


def named(timeout_s: float = LATE_S, query: str = "www.example") -> HealthCheck:
    return HealthCheck(CheckType.DNS, timeout_s=timeout_s, query=query)


RECORDS = [DNSRR(rrname="www.example", type="A", rdata="192.0.2.1", ttl=60)]


@pytest.mark.parametrize("query", ["www.example", "WWW.example.", ".", "_x.a-b.example"])
def test_dns_answers(query):
    outcome = ask(named(query=query), resolver(an=RECORDS))
    assert (outcome.ok, outcome.why) == (True, "answered: no error")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (resolver(rcode=3), "answered: no such name"),
        (resolver(), "answered: no error"),
        (resolver(tc=1), "answered: no error"),
        (lambda data: [b"\0\0garbage garbage", *resolver()(data)], "answered: no error"),
        (lambda data: [data[:2] + b"\x81\x80" + data[4:].upper()], "answered: no error"),
    ],
    ids=["no-such-name", "no-records", "truncated", "after-anothers", "other-case"],
)
def test_dns_successes(answers, why, monkeypatch):
    monkeypatch.setattr(dns.secrets, "randbelow", lambda limit: 4711)  # not the garbage's
    outcome = ask(named(), answers)
    assert (outcome.ok, outcome.why) == (True, why)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (resolver(rcode=2), "the server says: server failure"),
        (resolver(rcode=5), "the server says: refused"),
        (resolver(rcode=5, qd=[]), "the server says: refused"),
        (resolver(rcode=9), "the server says: code 9"),
        (resolver(qd=DNSQR(qname="other.example")), "the answer is to another question"),
        (resolver(qd=[]), "the answer is to another question"),
        (lambda data: [data], "the answer is not DNS: it is a query"),
        (lambda data: [b"what?"], "the answer is not DNS: too short"),
        (lambda data: [b""], "the answer is not DNS: too short"),
        (lambda data: [resolver(an=RECORDS)(data)[0][:-1]], "the answer is not DNS: a record is cut"),
        (lambda data: [resolver(ancount=9)(data)[0]], "the answer is not DNS: a record is cut"),
        (
            lambda data: [resolver(ancount=1)(data)[0] + b"\x80" * 20],
            "the answer is not DNS: a name is broken",
        ),
    ],
)
def test_dns_failures(answers, why):
    outcome = ask(named(), answers)
    assert (outcome.ok, outcome.why) == (False, why)


def test_dns_hanging():
    assert ask(named(SOON_S), nothing).why == "no answer in 0.2 s"
    outcome = ask(named(SOON_S), lambda data: [bytes([data[0] ^ 1]) + data[1:]])
    assert (outcome.ok, outcome.why) == (False, "no answer with the id of the query in 0.2 s")


def test_a_name_that_is_none_fails_without_raising():
    outcome = ask(named(query="a..b"), nothing)
    assert not outcome.ok
    assert outcome.why == "the check itself failed: ValueError: 'a..b' is no domain name"


@given(st.binary(max_size=80), st.integers(0, 80))
def test_no_bytes_make_the_dns_parser_raise_another_error(data, kept):
    query = dns.build_query(7, "www.example")
    good = resolver(an=RECORDS)(query)[0]
    for packet in (data, b"\0\7" + data, good[:kept] + data, good[: len(query)] + data):
        with contextlib.suppress(CheckFailedError):
            assert dns.parse_answer(packet, query) in (None, *range(16))


TOKEN = bytes(range(16))


def test_what_is_an_echo_reply():
    reply = bytes(ICMP(type=0, id=9, seq=1) / TOKEN)
    request = bytes(ICMP(type=8, id=9, seq=1) / TOKEN)
    v4, v6 = socket.AF_INET, socket.AF_INET6
    assert ping.is_reply(v4, reply, TOKEN, headed=False)
    assert ping.is_reply(v4, bytes(IP(options=b"\1\1\1\1") / reply), TOKEN, headed=True)
    assert ping.is_reply(v6, bytes(ICMPv6EchoReply(id=9, seq=1, data=TOKEN)), TOKEN, headed=False)
    for other in (request, reply[:-1], reply[:8], b"", bytes(ICMP(type=0) / TOKEN[::-1])):
        assert not ping.is_reply(v4, other, TOKEN, headed=False)
    assert not ping.is_reply(v4, bytes(IP() / request), TOKEN, headed=True)


def test_an_echo_request_is_as_scapy_builds_it():
    assert ping.build_request(socket.AF_INET, 9, TOKEN) == bytes(ICMP(type=8, id=9, seq=1) / TOKEN)


@pytest.mark.parametrize(
    ("flags", "source", "to", "ack", "found"),
    [
        ("SA", 80, 4000, 8, "SA"),
        ("RA", 80, 4000, 8, "RA"),
        ("SA", 80, 4000, 9, None),
        ("SA", 81, 4000, 8, None),
        ("SA", 80, 4001, 8, None),
        ("A", 80, 4000, 8, None),
        ("R", 80, 4000, 8, None),
    ],
)
def test_what_is_an_answer_to_a_syn(flags, source, to, ack, found):
    packet = tcp(f"127.0.0.1:{source}", f"127.0.0.9:{to}", flags)
    packet = packet[:28] + struct.pack("!I", ack) + packet[32:]
    answer = syn.answer_flags(packet, Target(LOCAL, 80), port=4000, number=7)
    assert answer == {"SA": 0x12, "RA": 0x14, None: None}[found]
    assert syn.answer_flags(packet[20:], Target(ip_address("::1"), 80), 4000, 7) == answer
    assert syn.answer_flags(packet[:25], Target(LOCAL, 80), 4000, 7) is None
