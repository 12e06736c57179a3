"""Rows of packets that are rewritten, byte for byte (docs/design/decision.md, section 9).

What goes out is what Scapy builds for the new addresses and ports, so its checksums judge ours.
"""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)

from l4lb.dataplane.decision import Reason
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, patch, split, tcp, udp
from tests.support.rows import Row, answered, both_ways, check, forwarded, rows
from tests.support.tables import Svc, make_table

CLIENT, VIP, A = "198.51.100.7:40000", "192.0.2.1:80", "10.2.0.11:8080"
DNS, RESOLVER = "192.0.2.1:53", "10.2.0.41:5353"
KEPT, KEEPER = "192.0.2.2:443", "10.2.0.51:443"
CLIENT6, VIP6, A6 = "[2001:db8::7]:40000", "[2001:db8:1::1]:80", "[fd00::11]:8080"
DNS6, RESOLVER6 = "[2001:db8:1::1]:53", "[fd00::41]:5353"

SLOTS = {A: 0, A6: 1, RESOLVER: 2, RESOLVER6: 3, KEEPER: 4}
"""Frontends have the same numbers: every service has one port and one backend."""

TABLE = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], [A]),
    Svc("web6", ["[2001:db8:1::1]:80/tcp"], [A6]),
    Svc("dns", ["192.0.2.1:53/udp"], [RESOLVER]),
    Svc("dns6", ["[2001:db8:1::1]:53/udp"], [RESOLVER6]),
    Svc("kept", ["192.0.2.2:any/tcp"], ["10.2.0.51"]),
)

# Offsets without options and extension headers.
IP_LENGTH, IP_CHECKSUM, TCP_CHECKSUM, UDP_LENGTH, UDP_CHECKSUM = 2, 10, 36, 24, 26
TCP6_CHECKSUM, UDP6_CHECKSUM = 56, 46

LAZY = {"checksum_ready": False}
SEGMENTED = {"checksum_ready": False, "gso": True}


def to(backend: str, name: str, packet: bytes, out: bytes, **kernel: Any) -> Row:
    return forwarded(name, packet, Reason.SCHEDULED, SLOTS[backend], out, **kernel)


def back(backend: str, name: str, packet: bytes, out: bytes) -> Row:
    return answered(name, packet, Reason.REPLY_STATIC, SLOTS[backend], SLOTS[backend], out)


def patched(backend: str, name: str, packet: bytes, out: bytes, at: int, field: str, **kernel: Any) -> Row:
    """The same odd bytes in both: a change that checksums do not know of stays one."""
    return to(backend, name, patch(packet, at, field), patch(out, at, field), **kernel)


def wrong(backend: str, name: str, packet: bytes, out: bytes, at: int, value: int) -> Row:
    """A checksum that is wrong by some difference goes out wrong by the same."""
    right_in, right_out = (int.from_bytes(side[at : at + 2]) for side in (packet, out))
    expected = (value + right_out - right_in) % 0xFFFF
    return to(backend, name, patch(packet, at, f"{value:04x}"), patch(out, at, f"{expected:04x}"))


def partial(source: str, destination: str, protocol: int, size: int) -> str:
    """The folded sum of the pseudo header, in hexadecimal: what segmentation begins with."""
    addresses = packed(split(source)[0]) + packed(split(destination)[0])
    return f"{(int.from_bytes(addresses) + protocol + size) % 0xFFFF or 0xFFFF:04x}"


# What is carried over --------------------------------------------------------------------------------

ALERT = [IPOption_Router_Alert()]
MSS = [("MSS", 1460), ("WScale", 7)]
SYN, TO_A = tcp(CLIENT, VIP), tcp(CLIENT, A)
SYN6, TO_A6 = tcp(CLIENT6, VIP6), tcp(CLIENT6, A6)
ALERTED, ALERTED_TO_A = tcp(CLIENT, VIP, options=ALERT), tcp(CLIENT, A, options=ALERT)
MSS_SYN, MSS_TO_A = tcp(CLIENT, VIP, tcp_options=MSS), tcp(CLIENT, A, tcp_options=MSS)


def extended(name: str, *extensions: Any) -> Row:
    packet = tcp(CLIENT6, VIP6, "S", b"odd", extensions=extensions)
    return to(A6, name, packet, tcp(CLIENT6, A6, "S", b"odd", extensions=extensions))


@both_cores
@both_ways
@rows(
    to(A, "payload", tcp(CLIENT, VIP, payload=b"even"), tcp(CLIENT, A, payload=b"even")),
    to(A, "payload of odd length", tcp(CLIENT, VIP, payload=b"odd"), tcp(CLIENT, A, payload=b"odd")),
    to(A, "IPv4 options", ALERTED, ALERTED_TO_A),
    patched(A, "IPv4 options, malformed", ALERTED, ALERTED_TO_A, 20, "9400ffff"),
    to(A, "TCP options", MSS_SYN, MSS_TO_A),
    patched(A, "TCP options, malformed", MSS_SYN, MSS_TO_A, 40, "0200ffff"),
    to(A, "padding behind the packet", SYN + b"padding", TO_A + b"padding"),
    patched(A, "TOS", SYN, TO_A, 1, "ff"),
    patched(A, "identification, TTL", SYN, TO_A, 4, "ffff 4000 01"),
    patched(A, "the reserved flag of IPv4", SYN, TO_A, 6, "8000"),
    patched(A, "the reserved bits of TCP", SYN, TO_A, 32, "5f02"),
    patched(A, "window, urgent pointer", SYN, TO_A, 33, "22 ffff"),
    patched(A6, "traffic class, flow label, hop limit", SYN6, TO_A6, 0, "6fffffff 0014 06 01"),
    to(A6, "padding behind an IPv6 packet", SYN6 + b"padding", TO_A6 + b"padding"),
    extended("hop-by-hop", IPv6ExtHdrHopByHop()),
    extended("destination options", IPv6ExtHdrDestOpt()),
    extended("destination options, 24 bytes", IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(20))])),
    extended("routing, no segments left", IPv6ExtHdrRouting(segleft=0)),
    extended("routing, 24 bytes", IPv6ExtHdrRouting(segleft=0, addresses=["fd00::1"])),
    extended("atomic fragment", IPv6ExtHdrFragment(id=0xFFFFFFFF)),
    extended("atomic fragment, reserved bits", IPv6ExtHdrFragment(res1=0xFF, res2=3)),
    extended("one of each", IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment()),
    extended("eight", IPv6ExtHdrHopByHop(), *[IPv6ExtHdrDestOpt()] * 7),
)
def test_nothing_else_changes(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# Checksums that are ready ----------------------------------------------------------------------------

QUERY, TO_RESOLVER = udp(CLIENT, DNS, b"query"), udp(CLIENT, RESOLVER, b"query")
QUERY6, TO_RESOLVER6 = udp(CLIENT6, DNS6, b"query"), udp(CLIENT6, RESOLVER6, b"query")


def zeroing(build: Any, source: str, destination: str, at: int) -> bytes:
    """A payload with which the checksum at `at` comes to 0."""
    packet: bytes = build(source, destination, payload=bytes(2))
    return packet[at : at + 2]


ZERO = {
    end: zeroing(build, CLIENT6 if "[" in end else CLIENT, end, at)
    for build, end, at in (
        (tcp, VIP, TCP_CHECKSUM),
        (tcp, A, TCP_CHECKSUM),
        (udp, DNS, UDP_CHECKSUM),
        (udp, RESOLVER, UDP_CHECKSUM),
        (udp, RESOLVER6, UDP6_CHECKSUM),
    )
}
ZERO_ID = int.from_bytes(tcp(CLIENT, A, id=0)[IP_CHECKSUM : IP_CHECKSUM + 2])


def zero(packet: Any, source: str, old: str, new: str, end: str) -> tuple[bytes, bytes]:
    return packet(source, old, payload=ZERO[end]), packet(source, new, payload=ZERO[end])


@both_cores
@both_ways
@rows(
    to(A, "tcp", SYN, TO_A),
    to(A6, "tcp over IPv6", SYN6, TO_A6),
    to(RESOLVER, "udp", QUERY, TO_RESOLVER),
    to(RESOLVER6, "udp over IPv6", QUERY6, TO_RESOLVER6),
    to(KEEPER, "port kept", tcp(CLIENT, KEPT), tcp(CLIENT, KEEPER)),
    back(A, "tcp, back", tcp(A, CLIENT, "SA", b"odd"), tcp(VIP, CLIENT, "SA", b"odd")),
    back(A6, "tcp over IPv6, back", tcp(A6, CLIENT6, "SA"), tcp(VIP6, CLIENT6, "SA")),
    back(RESOLVER, "udp, back", udp(RESOLVER, CLIENT, b"answer"), udp(DNS, CLIENT, b"answer")),
    back(RESOLVER6, "udp over IPv6, back", udp(RESOLVER6, CLIENT6, b"x"), udp(DNS6, CLIENT6, b"x")),
    back(KEEPER, "port kept, back", tcp(KEEPER, CLIENT, "SA"), tcp(KEPT, CLIENT, "SA")),
    back(A, "padding, back", tcp(A, CLIENT, "SA") + b"pad", tcp(VIP, CLIENT, "SA") + b"pad"),
    # 0 and 0xffff are the same number, but not the same bits
    to(A, "IPv4 comes to 0", tcp(CLIENT, VIP, id=ZERO_ID), tcp(CLIENT, A, id=ZERO_ID)),
    to(A, "tcp comes from 0", *zero(tcp, CLIENT, VIP, A, VIP)),
    to(A, "tcp comes to 0 and stays it", *zero(tcp, CLIENT, VIP, A, A)),
    to(RESOLVER, "udp comes from 0xffff", *zero(udp, CLIENT, DNS, RESOLVER, DNS)),
    to(RESOLVER, "udp comes to 0 and is written 0xffff", *zero(udp, CLIENT, DNS, RESOLVER, RESOLVER)),
    to(RESOLVER6, "... over IPv6, too", *zero(udp, CLIENT6, DNS6, RESOLVER6, RESOLVER6)),
    patched(RESOLVER, "udp without a checksum has none", QUERY, TO_RESOLVER, UDP_CHECKSUM, "0000"),
    back(RESOLVER, "... back", udp(RESOLVER, CLIENT, checksum=0), udp(DNS, CLIENT, checksum=0)),
    wrong(RESOLVER6, "0 over IPv6 is a wrong one", QUERY6, TO_RESOLVER6, UDP6_CHECKSUM, 0),
    wrong(RESOLVER, "udp wrong", QUERY, TO_RESOLVER, UDP_CHECKSUM, 0xFFFF),
    wrong(A, "tcp wrong", SYN, TO_A, TCP_CHECKSUM, 0x1234),
    wrong(A, "tcp 0", SYN, TO_A, TCP_CHECKSUM, 0),
    wrong(A, "tcp 0xffff", SYN, TO_A, TCP_CHECKSUM, 0xFFFF),
    wrong(A6, "tcp over IPv6 wrong", SYN6, TO_A6, TCP6_CHECKSUM, 0xFFFF),
    wrong(A, "IPv4 wrong", SYN, TO_A, IP_CHECKSUM, 0x1234),
    wrong(A, "IPv4 0", SYN, TO_A, IP_CHECKSUM, 0),
    wrong(A, "IPv4 0xffff", SYN, TO_A, IP_CHECKSUM, 0xFFFF),
    to(A, "ready, to be segmented", SYN, TO_A, gso=True),
)
def test_a_ready_checksum_is_adjusted(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# Checksums that the kernel has not computed ----------------------------------------------------------

ODD, ODD_TO_A = tcp(CLIENT, VIP, "PA", b"odd"), tcp(CLIENT, A, "PA", b"odd")
TAIL = f"{20 + 8 + 5 + 3:04x}"
"""An IP length that covers three bytes more than the UDP length."""
TAILED = patch(QUERY, IP_LENGTH, TAIL) + b"end"
TAILED_TO_RESOLVER = patch(TO_RESOLVER, IP_LENGTH, TAIL) + b"end"


def computed(backend: str, name: str, packet: bytes, out: bytes, at: int) -> Row:
    """Whatever the field holds, the right checksum goes out."""
    return to(backend, name, patch(packet, at, "beef"), out, **LAZY)


@both_cores
@both_ways
@rows(
    computed(A, "tcp", SYN, TO_A, TCP_CHECKSUM),
    computed(A, "tcp, odd", ODD, ODD_TO_A, TCP_CHECKSUM),
    computed(A, "tcp, padding is not covered", ODD + b"padding", ODD_TO_A + b"padding", TCP_CHECKSUM),
    computed(A, "tcp comes to 0 and stays it", *zero(tcp, CLIENT, VIP, A, A), TCP_CHECKSUM),
    computed(A, "tcp options", MSS_SYN, MSS_TO_A, TCP_CHECKSUM),
    computed(A, "IPv4 options", ALERTED, ALERTED_TO_A, TCP_CHECKSUM + 4),
    computed(A6, "tcp over IPv6", SYN6, TO_A6, TCP6_CHECKSUM),
    computed(RESOLVER, "udp", QUERY, TO_RESOLVER, UDP_CHECKSUM),
    computed(RESOLVER6, "udp over IPv6", QUERY6, TO_RESOLVER6, UDP6_CHECKSUM),
    computed(RESOLVER, "udp comes to 0", *zero(udp, CLIENT, DNS, RESOLVER, RESOLVER), UDP_CHECKSUM),
    computed(RESOLVER, "udp, what its length covers", TAILED, TAILED_TO_RESOLVER, UDP_CHECKSUM),
    to(RESOLVER, "0 is not none here", patch(QUERY, UDP_CHECKSUM, "0000"), TO_RESOLVER, **LAZY),
)
def test_a_checksum_that_is_not_ready_is_computed(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# Packets that the kernel has yet to segment ----------------------------------------------------------

BIG = bytes(70_000)
BIG_TCP, BIG_TCP_TO_A = (tcp(CLIENT, end, "A", BIG, len=0) for end in (VIP, A))
BIG_TCP6, BIG_TCP6_TO_A6 = (tcp(CLIENT6, end, "A", BIG, plen=0) for end in (VIP6, A6))
BIG_UDP, BIG_UDP_TO_RESOLVER = (
    patch(udp(CLIENT, end, bytes(100)), UDP_LENGTH, "0000") for end in (DNS, RESOLVER)
)
BIG_SIZE = 20 + len(BIG)


def segmented(backend: str, name: str, packet: bytes, out: bytes, at: int, *covered: Any) -> Row:
    """The sum of the pseudo header goes out, whatever was in the field."""
    return to(backend, name, patch(packet, at, "beef"), patch(out, at, partial(*covered)), **SEGMENTED)


@both_cores
@both_ways
@rows(
    segmented(A, "tcp", ODD, ODD_TO_A, TCP_CHECKSUM, CLIENT, A, 6, 23),
    segmented(A, "tcp with padding", ODD + b"pad", ODD_TO_A + b"pad", TCP_CHECKSUM, CLIENT, A, 6, 23),
    segmented(A6, "tcp over IPv6", SYN6, TO_A6, TCP6_CHECKSUM, CLIENT6, A6, 6, 20),
    segmented(RESOLVER, "udp", QUERY, TO_RESOLVER, UDP_CHECKSUM, CLIENT, RESOLVER, 17, 13),
    segmented(RESOLVER, "udp, a tail", TAILED, TAILED_TO_RESOLVER, UDP_CHECKSUM, CLIENT, RESOLVER, 17, 13),
    segmented(
        RESOLVER, "udp of length 0", BIG_UDP, BIG_UDP_TO_RESOLVER, UDP_CHECKSUM, CLIENT, RESOLVER, 17, 108
    ),
    segmented(A, "BIG TCP", BIG_TCP, BIG_TCP_TO_A, TCP_CHECKSUM, CLIENT, A, 6, BIG_SIZE),
    segmented(A6, "BIG TCP over IPv6", BIG_TCP6, BIG_TCP6_TO_A6, TCP6_CHECKSUM, CLIENT6, A6, 6, BIG_SIZE),
    to(A, "BIG TCP, the checksum ready", BIG_TCP, BIG_TCP_TO_A, gso=True),
)
def test_a_packet_to_be_segmented_gets_the_sum_of_its_pseudo_header(
    core: Core, row: Row, rewrite: bool
) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
@pytest.mark.parametrize("rewrite", [True, False])
def test_bytes_are_counted_up_to_the_end_of_the_packet(core: Core, rewrite: bool) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(TABLE)
    balancer.decide(SYN + b"padding", 0, rewrite=rewrite)
    balancer.decide(BIG_TCP, 0, gso=True, rewrite=rewrite)
    balancer.decide(tcp(A, CLIENT, "A", b"odd") + b"padding", 0, rewrite=rewrite)
    counters = balancer.slot_counters(SLOTS[A])
    assert (counters.packets_in, counters.bytes_in) == (2, 40 + 40 + len(BIG))
    assert (counters.packets_out, counters.bytes_out) == (1, 43)
    [flow] = balancer.flows()
    assert (flow.packets, flow.bytes) == (2, 40 + 40 + len(BIG))
