"""Errors about plain packets (docs/design/icmp.md, A to C), and those that are left alone."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Raw

from l4lb.dataplane.hashing import siphash
from l4lb.dataplane.icmp_words import IcmpReason, Translation
from l4lb.dataplane.table import forward_mark
from l4lb.model import Scheduler
from tests.support.cores import KEY
from tests.support.icmp import (
    BIG,
    CLIENT,
    CLIENT6,
    DIRECT,
    DIRECT2,
    DIRECT6,
    DNS,
    HIDDEN,
    HIDDEN6,
    IN,
    OUT,
    POOL,
    POOL6,
    ROUTER,
    TABLE,
    WEB,
    WEB6,
    A,
    B,
    Flows,
    check,
    flow,
    hash_of,
    host,
    icmp_error,
    left,
    lookup_slots,
    marked,
    patched_length,
    rewritten,
    run,
    sent,
    to,
    translate,
)
from tests.support.packets import icmp, packed, patch, tcp, udp
from tests.support.tables import Svc, make_table

ALERT = [IPOption_Router_Alert()]


# A: about an answer, to the backend.

ABOUT_ANSWERS = [
    *(
        rewritten(
            f"of TCP, {size} bytes quoted",
            IN,
            to(WEB, tcp(WEB, CLIENT, "A", BIG)[:size]),
            IcmpReason.TO_BACKEND,
            to(B, tcp(B, CLIENT, "A", BIG)[:size]),
        )
        for size in (24, 28, 36, 38, 39, 40, 548, 1500)
    ),
    *(
        rewritten(
            f"of UDP over IPv6, {size} bytes quoted",
            IN,
            to(WEB6, udp("[2001:db8:1::1]:53", CLIENT6, BIG)[:size]),
            IcmpReason.TO_BACKEND,
            to("[fd00::11]:0", udp("[fd00::11]:8080", CLIENT6, BIG)[:size]),
        )
        for size in (44, 46, 48, 1232)
    ),
    rewritten(
        "of a UDP service that keeps ports",
        IN,
        to(DNS, udp(DNS, CLIENT, b"answer")),
        IcmpReason.TO_BACKEND,
        to("10.2.0.41:0", udp("10.2.0.41:53", CLIENT, b"answer")),
    ),
    rewritten(
        "of UDP without a checksum",
        IN,
        to(DNS, udp(DNS, CLIENT, b"answer", checksum=0)),
        IcmpReason.TO_BACKEND,
        to("10.2.0.41:0", udp("10.2.0.41:53", CLIENT, b"answer", checksum=0)),
    ),
    rewritten(
        "from a range of ports",
        IN,
        to(WEB, tcp("192.0.2.1:1500", CLIENT, "A")),
        IcmpReason.TO_BACKEND,
        to(A, tcp(A, CLIENT, "A")),
    ),
    rewritten(
        "with options in both headers, and a time to live of 1",
        IN,
        icmp_error(ROUTER, "192.0.2.1", 11, 0, tcp(WEB, CLIENT, options=ALERT), options=ALERT, id=7, ttl=1),
        IcmpReason.TO_BACKEND,
        icmp_error(ROUTER, "10.2.0.12", 11, 0, tcp(B, CLIENT, options=ALERT), options=ALERT, id=7, ttl=1),
    ),
    rewritten(
        "of a first fragment",
        IN,
        to(WEB, patch(tcp(WEB, CLIENT), 6, "2000")),
        IcmpReason.TO_BACKEND,
        to(B, patch(tcp(B, CLIENT), 6, "2000")),
    ),
    rewritten(
        "of IPv6 with extension headers, the first of fragments",
        IN,
        to(WEB6, tcp(WEB6, CLIENT6, extensions=[IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1, id=9)])),
        IcmpReason.TO_BACKEND,
        to(
            "[fd00::11]:0",
            tcp("[fd00::11]:8080", CLIENT6, extensions=[IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1, id=9)]),
        ),
    ),
    rewritten(
        "with padding and extensions behind the quote (RFC 4884), which stay",
        IN,
        patched_length(to(WEB, tcp(WEB, CLIENT) + bytes(88) + b"extension!!!"), 32),
        IcmpReason.TO_BACKEND,
        patched_length(to(B, tcp(B, CLIENT) + bytes(88) + b"extension!!!"), 32),
    ),
    marked("of direct return", to(DIRECT, tcp(DIRECT, CLIENT)), IcmpReason.TO_BACKEND, forward_mark(4)),
    marked(
        "of direct return, the second VIP",
        to(DIRECT2, tcp(DIRECT2, CLIENT)),
        IcmpReason.TO_BACKEND,
        forward_mark(5, 1),
    ),
    marked(
        "of direct return over IPv6",
        to(DIRECT6, tcp(DIRECT6, CLIENT6)),
        IcmpReason.TO_BACKEND,
        forward_mark(6),
    ),
    sent(
        "of a masqueraded flow",
        to(HIDDEN, tcp(HIDDEN, CLIENT, "A", BIG)[:548], ttl=60),
        IcmpReason.TO_BACKEND,
        to("10.4.0.11:0", tcp("10.4.0.11:8080", POOL, "A", BIG)[:548], ttl=59),
    ),
    sent(
        "of a masqueraded flow over IPv6",
        to(HIDDEN6, tcp(HIDDEN6, CLIENT6, "A", BIG)[:1232], hlim=60),
        IcmpReason.TO_BACKEND,
        to("[fd00::41]:0", tcp("[fd00::41]:8080", POOL6, "A", BIG)[:1232], hlim=59),
    ),
    left(
        "of a masqueraded flow, at the end of its time",
        to(HIDDEN, tcp(HIDDEN, CLIENT), ttl=1),
        IcmpReason.TTL_EXPIRED,
    ),
]


@run(ABOUT_ANSWERS)
def test_about_answers(row):
    check(row)


def test_without_a_flow_the_consistent_hash_finds_the_backend():
    source = "198.51.100.7:41000"
    slots = lookup_slots(TABLE, 0)
    slot = slots[(hash_of(source, WEB) >> 32) * len(slots) >> 32]
    backend = (A, B)[slot]
    got = translate(to(WEB, tcp(WEB, source)), flows=Flows())
    assert got == Translation(IcmpReason.TO_BACKEND_HASHED, to(backend, tcp(backend, source)))


def test_a_flow_whose_backend_is_gone_is_no_flow():
    got = translate(to(DNS, udp(DNS, CLIENT, b"x")), flows=Flows(flow(CLIENT, DNS, 99, protocol=17)))
    assert got.reason is IcmpReason.TO_BACKEND_HASHED


def test_by_source_where_the_scheduler_chooses_by_source():
    table = make_table(Svc("web", [WEB + "/tcp"], [A, B], Scheduler.SOURCE_HASH))
    slots = lookup_slots(table, 0)
    slot = slots[(siphash(KEY, packed("198.51.100.7")) >> 32) * len(slots) >> 32]
    for port in range(40000, 40010):
        source = f"198.51.100.7:{port}"
        got = translate(to(WEB, tcp(WEB, source)), flows=Flows(), table=table)
        assert got.packet == to((A, B)[slot], tcp((A, B)[slot], source))


def test_nothing_can_be_hashed_to_the_masquerade_port():
    assert translate(to(HIDDEN, tcp(HIDDEN, CLIENT)), flows=Flows()).reason is IcmpReason.NO_FLOW


def test_nobody_takes_the_answers_of_a_service_without_backends():
    quote = tcp("192.0.2.8:80", CLIENT)
    assert translate(to("192.0.2.8:80", quote), flows=Flows()).reason is IcmpReason.NO_FLOW


def test_a_wrong_checksum_in_the_quote_stays_wrong():
    wrong, right = patch(tcp(WEB, CLIENT), 36, "1234"), tcp(WEB, CLIENT)
    out = translate(to(WEB, wrong)).packet
    assert out is not None
    before = IP(wrong)[TCP].chksum - IP(right)[TCP].chksum
    after = IP(out[28:])[TCP].chksum - IP(tcp(B, CLIENT))[TCP].chksum
    assert (after - before) % 0xFFFF == 0


def test_half_a_checksum_at_the_end_of_the_quote_is_left_alone():
    before = to(WEB, tcp(WEB, CLIENT)[:37])
    out = translate(before).packet
    assert out is not None and out[-1] == before[-1]
    assert out[:-1][28:] == tcp(B, CLIENT)[:36]


# B: about a packet to a backend, on its way to the client.

ABOUT_PACKETS = [
    rewritten(
        "by a router",
        OUT,
        to(CLIENT, tcp(CLIENT, B, "A", BIG)[:548]),
        IcmpReason.TO_CLIENT,
        to(CLIENT, tcp(CLIENT, WEB, "A", BIG)[:548]),
    ),
    rewritten(
        "by the backend itself",
        OUT,
        icmp_error("10.2.0.41", host(CLIENT), 3, 3, udp(CLIENT, "10.2.0.41:53", b"query"), tos=0xC0),
        IcmpReason.TO_CLIENT,
        icmp_error(host(DNS), host(CLIENT), 3, 3, udp(CLIENT, DNS, b"query"), tos=0xC0),
    ),
    rewritten(
        "by the backend itself over IPv6",
        OUT,
        icmp_error("fd00::11", host(CLIENT6), 1, 4, tcp(CLIENT6, "[fd00::11]:8080")),
        IcmpReason.TO_CLIENT,
        icmp_error(host(WEB6), host(CLIENT6), 1, 4, tcp(CLIENT6, WEB6)),
    ),
    rewritten(
        "about direct return, by the gateway itself",
        OUT,
        to(CLIENT, tcp(CLIENT, "10.2.0.22:80", "A", BIG)[:548]),
        IcmpReason.TO_CLIENT,
        to(CLIENT, tcp(CLIENT, DIRECT2, "A", BIG)[:548]),
    ),
    rewritten(
        "about direct return over IPv6",
        OUT,
        to(CLIENT6, tcp(CLIENT6, "[fd00::21]:80")),
        IcmpReason.TO_CLIENT,
        to(CLIENT6, tcp(CLIENT6, DIRECT6)),
    ),
    left(
        "about a connection past the VIP",
        to("198.51.100.7:0", tcp("198.51.100.7:41000", B)),
        IcmpReason.NO_FLOW,
        OUT,
    ),
    left(
        "about a flow of another backend",
        to(CLIENT, tcp("198.51.100.7:40000", "10.2.0.21:81")),
        IcmpReason.NOT_BALANCED,
        OUT,
    ),
    left(
        "about another port of a backend",
        to(CLIENT, tcp(CLIENT, "10.2.0.12:22")),
        IcmpReason.NOT_BALANCED,
        OUT,
    ),
    left("about a packet to nobody", to(CLIENT, tcp(CLIENT, "10.9.9.9:80")), IcmpReason.NOT_BALANCED, OUT),
    left(
        "about a packet of the client to the VIP", to(CLIENT, tcp(CLIENT, WEB)), IcmpReason.NOT_BALANCED, OUT
    ),
    left("to someone else", to("198.51.100.8:0", tcp(CLIENT, B)), IcmpReason.NOT_BALANCED, OUT),
]


@run(ABOUT_PACKETS)
def test_about_packets_to_backends(row):
    check(row)


def test_the_flow_tells_which_of_several_vips_it_was():
    table = make_table(Svc("one", [WEB + "/tcp"], [A]), Svc("two", ["192.0.2.9:80/tcp"], [A]))
    flows = Flows(flow(CLIENT, "192.0.2.9:80", 1))
    got = translate(to(CLIENT, tcp(CLIENT, A)), OUT, flows, table)
    assert got == Translation(IcmpReason.TO_CLIENT, to(CLIENT, tcp(CLIENT, "192.0.2.9:80")))


# C: about what the gateway sent in its own name.

ABOUT_MASQUERADED = [
    sent(
        "by a router",
        to(POOL, tcp(POOL, "10.4.0.11:8080", "A", BIG)[:548], ttl=60),
        IcmpReason.TO_CLIENT,
        to(CLIENT, tcp(CLIENT, HIDDEN, "A", BIG)[:548], ttl=59),
    ),
    sent(
        "by the backend itself",
        icmp_error("10.4.0.11", "10.2.0.1", 3, 3, tcp(POOL, "10.4.0.11:8080"), ttl=64),
        IcmpReason.TO_CLIENT,
        icmp_error(host(HIDDEN), host(CLIENT), 3, 3, tcp(CLIENT, HIDDEN), ttl=63),
    ),
    sent(
        "by the backend itself over IPv6",
        icmp_error("fd00::41", "fd00::1", 1, 4, tcp(POOL6, "[fd00::41]:8080"), hlim=64),
        IcmpReason.TO_CLIENT,
        icmp_error(host(HIDDEN6), host(CLIENT6), 1, 4, tcp(CLIENT6, HIDDEN6), hlim=63),
    ),
    left("at the end of its time", to(POOL, tcp(POOL, "10.4.0.11:8080"), ttl=1), IcmpReason.TTL_EXPIRED),
    left("to another backend", to(POOL, tcp(POOL, "10.4.0.12:8080")), IcmpReason.NO_FLOW),
    left("to another port of the backend", to(POOL, tcp(POOL, "10.4.0.11:8081")), IcmpReason.NO_FLOW),
    left("of the host's own", to(POOL, tcp("10.2.0.1:50000", "10.4.0.11:8080")), IcmpReason.NO_FLOW),
]


@run(ABOUT_MASQUERADED)
def test_about_masqueraded_packets(row):
    check(row)


# All else.


def redirect() -> bytes:
    return bytes(
        IP(src=ROUTER, dst=host(WEB)) / ICMP(type=5, code=1, gw="192.0.2.254") / Raw(tcp(WEB, CLIENT))
    )


def redirect6() -> bytes:
    message = ICMPv6ND_Redirect(tgt="fe80::1", dst=host(CLIENT6))
    return bytes(IPv6(src="fe80::2", dst=host(WEB6), hlim=255) / message / Raw(tcp(WEB6, CLIENT6)))


LEFT_ALONE = [
    left("nothing", b"", IcmpReason.TRUNCATED),
    left("no ICMP", tcp(CLIENT, WEB), IcmpReason.NOT_AN_ERROR),
    left("an echo request", icmp(host(CLIENT), host(WEB)), IcmpReason.NOT_AN_ERROR),
    left(
        "an IPv6 echo request",
        bytes(IPv6(src=host(CLIENT6), dst=host(WEB6)) / ICMPv6EchoRequest()),
        IcmpReason.NOT_AN_ERROR,
    ),
    left("a redirect", redirect(), IcmpReason.NOT_AN_ERROR),
    left("an IPv6 redirect", redirect6(), IcmpReason.NOT_AN_ERROR),
    left(
        "about an ICMP error",
        to(WEB, icmp_error(host(WEB), host(CLIENT), 3, 3, tcp(CLIENT, WEB))),
        IcmpReason.ABOUT_ICMP,
    ),
    left("about an echo reply", to(WEB, icmp(host(WEB), host(CLIENT))), IcmpReason.ABOUT_ICMP),
    left(
        "about GRE",
        to(WEB, bytes(IP(src=host(WEB), dst=host(CLIENT), proto=47) / Raw(bytes(60)))),
        IcmpReason.OTHER_PROTOCOL,
    ),
    left("about a later fragment", to(WEB, patch(tcp(WEB, CLIENT), 6, "0020")), IcmpReason.FRAGMENT),
    left(
        "about a later IPv6 fragment",
        to(WEB6, tcp(WEB6, CLIENT6, extensions=[IPv6ExtHdrFragment(offset=9)])),
        IcmpReason.FRAGMENT,
    ),
    left("a fragment", to(WEB, tcp(WEB, CLIENT), flags="MF"), IcmpReason.FRAGMENT),
    left("a wrong checksum", patch(to(WEB, tcp(WEB, CLIENT)), 22, "abcd"), IcmpReason.MALFORMED),
    left("a wrong IPv6 checksum", patch(to(WEB6, tcp(WEB6, CLIENT6)), 42, "abcd"), IcmpReason.MALFORMED),
    left("shorter than it says", to(WEB, tcp(WEB, CLIENT))[:-1], IcmpReason.MALFORMED),
    left(
        "an ICMP header of 4 bytes",
        bytes(IP(src=ROUTER, dst=host(WEB), proto=1) / Raw(b"\3\0\0\0")),
        IcmpReason.MALFORMED,
    ),
    left("no quote", to(WEB, b""), IcmpReason.TRUNCATED),
    left("a quote of a header", to(WEB, tcp(WEB, CLIENT)[:20]), IcmpReason.TRUNCATED),
    left("a quote with half of the ports", to(WEB, tcp(WEB, CLIENT)[:23]), IcmpReason.TRUNCATED),
    left("a quote of another family", to(WEB, tcp(WEB6, CLIENT6)), IcmpReason.MALFORMED),
    left("a quote of no IP", to(WEB, bytes(40)), IcmpReason.MALFORMED),
    left("a quoted header of 16 bytes", to(WEB, patch(tcp(WEB, CLIENT), 0, "44")), IcmpReason.MALFORMED),
    left("a quoted total without ports", to(WEB, patch(tcp(WEB, CLIENT), 2, "0016")), IcmpReason.MALFORMED),
    left("about another port of the VIP", to(WEB, tcp("192.0.2.1:81", CLIENT)), IcmpReason.NOT_BALANCED),
    left(
        "about another protocol's port of the VIP",
        to(WEB, udp("192.0.2.1:80", CLIENT)),
        IcmpReason.NOT_BALANCED,
    ),
    left(
        "to the VIP about someone else's packet",
        to(WEB, tcp("192.0.2.2:80", CLIENT)),
        IcmpReason.NOT_BALANCED,
    ),
    left(
        "to the host about its own connection",
        to("10.1.0.1:0", tcp("10.1.0.1:4000", CLIENT)),
        IcmpReason.NOT_BALANCED,
    ),
]


@run(LEFT_ALONE)
def test_left_alone(row):
    check(row)


def test_every_reason_has_a_text():
    assert all(reason.text for reason in IcmpReason)
    assert len({reason.text for reason in IcmpReason}) == len(IcmpReason)
