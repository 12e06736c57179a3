"""Rows of packets inside others, byte for byte (docs/design/decision.md, section 9, ipip and gue).

What is sent is what Scapy builds around the packet that it builds with one hop less to live.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from scapy.layers.inet import IPOption_Router_Alert
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.reference.hashing import flow_hash
from l4lb.model import Forward, Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import gue, ipip, packed, patch, split, tcp, time_exceeded, too_big, udp
from tests.support.rows import Row, both_ways, check, refused, rows, sent, start, told
from tests.support.tables import Svc, make_table

CLIENT, CLIENT6 = "198.51.100.7:40000", "[2001:db8::7]:40000"
IPIP, GUE, IPIP_BY_6, GUE_BY_6 = (f"192.0.2.{n}:80" for n in range(1, 5))
IPIP6, GUE6, IPIP6_BY_4, GUE6_BY_4 = (f"[2001:db8:1::{n}]:80" for n in range(1, 5))
NARROW, NARROW6, NARROW_GUE, NARROW_BY_6 = (
    "192.0.2.5:80",
    "[2001:db8:1::5]:80",
    "192.0.2.6:80",
    "192.0.2.7:80",
)
A, A6 = "10.3.0.11", "fd00::11"
HOST = ("10.2.0.1/32", "fd00::1/128")
MTU = 1400


def far(name: str, vip: str, backend: str, forward: Forward, **fields: Any) -> Svc:
    """A service of one backend for TCP and UDP."""
    return Svc(name, [f"{vip}/tcp", f"{vip}/udp"], [backend], forward=forward, **fields)


# Slots are numbered in this order. Sources: 198.18.0.0/15 and 100::/64 for IPIP, the host's for GUE.
SERVICES = [
    far("ipip", IPIP, A, Forward.IPIP),
    far("gue", GUE, A, Forward.GUE, sources=HOST),
    far("ipip by 6", IPIP_BY_6, A6, Forward.IPIP),
    far("gue by 6", GUE_BY_6, A6, Forward.GUE, sources=HOST),
    far("ipip6", IPIP6, A6, Forward.IPIP),
    far("gue6", GUE6, A6, Forward.GUE, sources=HOST),
    far("ipip6 by 4", IPIP6_BY_4, A, Forward.IPIP),
    far("gue6 by 4", GUE6_BY_4, A, Forward.GUE, sources=HOST),
    far("narrow", NARROW, A, Forward.IPIP, mtu=MTU),
    far("narrow6", NARROW6, A6, Forward.IPIP, mtu=MTU),
    far("narrow gue", NARROW_GUE, A, Forward.GUE, sources=HOST, mtu=MTU),
    far("narrow by 6", NARROW_BY_6, A6, Forward.GUE, sources=HOST, mtu=MTU),
]
TABLE = make_table(*SERVICES)
SLOT = {service.listens[0].removesuffix("/tcp"): slot for slot, service in enumerate(SERVICES)}


def hash_of(vip: str, protocol: int, client: str = "") -> int:
    (host, port), (vip_host, vip_port) = split(client or (CLIENT6 if "[" in vip else CLIENT)), split(vip)
    return flow_hash(KEY, packed(host), packed(vip_host), port, vip_port, protocol)


def source_of(hash_: int, backend: str) -> str:
    """The outer source of IPIP: 17 bits of the hash behind 198.18.0.0/15, 64 behind 100::/64."""
    if ip_address(backend).version == 4:
        return str(ip_address(int(ip_address("198.18.0.0")) + (hash_ >> 32) % (1 << 17)))
    return str(ip_address(int(ip_address("100::")) + hash_ % (1 << 64)))


def by_ipip(packet: bytes, vip: str, backend: str, protocol: int = 6, **fields: Any) -> bytes:
    hash_ = hash_of(vip, protocol)
    if ip_address(backend).version == 6:
        fields = {"fl": hash_ & 0xFFFFF, **fields}
    return ipip(packet, source_of(hash_, backend), backend, **fields)


def by_gue(packet: bytes, vip: str, backend: str, protocol: int = 6, **fields: Any) -> bytes:
    hash_ = hash_of(vip, protocol)
    port = 49152 + (hash_ >> 50)
    if ip_address(backend).version == 6:
        return gue(packet, f"[fd00::1]:{port}", f"[{backend}]:6080", **{"fl": hash_ & 0xFFFFF, **fields})
    return gue(packet, f"10.2.0.1:{port}", f"{backend}:6080", **fields)


def new(name: str, vip: str, packet: bytes, out: bytes, **kernel: Any) -> Row:
    return sent(name, packet, Reason.SCHEDULED, SLOT[vip], out, **kernel)


# One more hop to live than what goes inside.
SYN, SYN_INSIDE = tcp(CLIENT, IPIP), tcp(CLIENT, IPIP, ttl=63)
GUE_SYN, GUE_SYN_INSIDE = tcp(CLIENT, GUE), tcp(CLIENT, GUE, ttl=63)
ACK, ACK_INSIDE = tcp(CLIENT, IPIP, "A"), tcp(CLIENT, IPIP, "A", ttl=63)
SYN6, SYN6_INSIDE = tcp(CLIENT6, IPIP6), tcp(CLIENT6, IPIP6, hlim=63)
QUERY, QUERY_INSIDE = udp(CLIENT, GUE, b"query"), udp(CLIENT, GUE, b"query", ttl=63)


def pair(build: Any, client: str, vip: str, *args: Any, **fields: Any) -> tuple[bytes, bytes]:
    """A packet, and as it goes inside."""
    hops = "hlim" if "[" in vip else "ttl"
    return build(client, vip, *args, **{hops: 64}, **fields), build(
        client, vip, *args, **{hops: 63}, **fields
    )


def row(name: str, vip: str, backend: str, packets: tuple[bytes, bytes], **outer: Any) -> Row:
    packet, inside = packets
    wrap = by_gue if "gue" in SERVICES[SLOT[vip]].name else by_ipip
    protocol = inside[6] if "[" in vip else inside[9]
    return new(name, vip, packet, wrap(inside, vip, backend, 17 if protocol == 17 else 6, **outer))


ALERT = {"options": [IPOption_Router_Alert()]}
EXTENDED = {"extensions": [IPv6ExtHdrDestOpt()]}


@both_cores
@both_ways
@rows(
    row("IPv4 in IPv4", IPIP, A, pair(tcp, CLIENT, IPIP)),
    row("IPv4 in IPv6", IPIP_BY_6, A6, pair(tcp, CLIENT, IPIP_BY_6)),
    row("IPv6 in IPv6", IPIP6, A6, pair(tcp, CLIENT6, IPIP6)),
    row("IPv6 in IPv4 may not be fragmented", IPIP6_BY_4, A, pair(tcp, CLIENT6, IPIP6_BY_4), flags="DF"),
    row("GUE: IPv4 in IPv4", GUE, A, pair(tcp, CLIENT, GUE)),
    row("GUE: IPv4 in IPv6", GUE_BY_6, A6, pair(tcp, CLIENT, GUE_BY_6)),
    row("GUE: IPv6 in IPv6", GUE6, A6, pair(tcp, CLIENT6, GUE6)),
    row("GUE: IPv6 in IPv4", GUE6_BY_4, A, pair(tcp, CLIENT6, GUE6_BY_4), flags="DF"),
    row("UDP", IPIP, A, pair(udp, CLIENT, IPIP, b"query")),
    row("UDP in GUE", GUE6, A6, pair(udp, CLIENT6, GUE6, b"odd")),
    row("TOS", IPIP, A, pair(tcp, CLIENT, IPIP, tos=0xB9), tos=0xB9),
    row("TOS in IPv6", GUE_BY_6, A6, pair(tcp, CLIENT, GUE_BY_6, tos=0xB9), tc=0xB9),
    row("traffic class", IPIP6, A6, pair(tcp, CLIENT6, IPIP6, tc=0xB9, fl=0x12345), tc=0xB9),
    row("traffic class in IPv4", GUE6_BY_4, A, pair(tcp, CLIENT6, GUE6_BY_4, tc=3), tos=3, flags="DF"),
    row("IPv4 options", IPIP, A, pair(tcp, CLIENT, IPIP, **ALERT)),
    row("extension headers", GUE6, A6, pair(tcp, CLIENT6, GUE6, **EXTENDED)),
    new("padding is not carried", IPIP, SYN + b"padding", by_ipip(SYN_INSIDE, IPIP, A)),
    new("two hops to live", IPIP, tcp(CLIENT, IPIP, ttl=2), by_ipip(tcp(CLIENT, IPIP, ttl=1), IPIP, A)),
    sent("a known flow", ACK, Reason.FLOW, 0, by_ipip(ACK_INSIDE, IPIP, A), SYN),
)
def test_encapsulation(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


DF, DF_INSIDE = (patch(packet, 6, "4000") for packet in (SYN, SYN_INSIDE))
"""DF set, which the checksum does not know of: it stays wrong by the same difference."""
CHECKSUM, UDP_CHECKSUM = 36, 26


@both_cores
@both_ways
@rows(
    new("DF goes outside", IPIP, DF, by_ipip(DF_INSIDE, IPIP, A, flags="DF")),
    new(
        "the reserved flag does not",
        IPIP,
        patch(SYN, 6, "8000"),
        by_ipip(patch(SYN_INSIDE, 6, "8000"), IPIP, A),
    ),
    new(
        "a checksum that is ready is left",
        IPIP,
        patch(SYN, CHECKSUM, "beef"),
        by_ipip(patch(SYN_INSIDE, CHECKSUM, "beef"), IPIP, A),
    ),
    new(
        "... also 0 of UDP",
        GUE,
        patch(QUERY, UDP_CHECKSUM, "0000"),
        by_gue(patch(QUERY_INSIDE, UDP_CHECKSUM, "0000"), GUE, A, 17),
    ),
    new(
        "... also 0 of UDP over IPv6",
        GUE6,
        patch(udp(CLIENT6, GUE6), 46, "0000"),
        by_gue(patch(udp(CLIENT6, GUE6, hlim=63), 46, "0000"), GUE6, A6, 17),
    ),
    new(
        "one that is not ready is computed",
        IPIP,
        patch(SYN, CHECKSUM, "beef"),
        by_ipip(SYN_INSIDE, IPIP, A),
        checksum_ready=False,
    ),
    new(
        "... of UDP",
        GUE,
        patch(QUERY, UDP_CHECKSUM, "beef"),
        by_gue(QUERY_INSIDE, GUE, A, 17),
        checksum_ready=False,
    ),
    new(
        "... in full although it was to be segmented",
        IPIP,
        patch(SYN, CHECKSUM, "beef"),
        by_ipip(SYN_INSIDE, IPIP, A),
        checksum_ready=False,
        gso=True,
    ),
)
def test_checksums_and_flags_inside(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


# What cannot go on -----------------------------------------------------------------------------------

FITS = bytes(MTU - 20 - 40)
"""Payload of the largest TCP packet that IPv4 over IPv4 takes."""
FITS6 = bytes(MTU - 40 - 60)
BIG_PACKET = tcp(CLIENT, NARROW, "S", FITS + b"!")
VIP_HOST, VIP6_HOST = "192.0.2.5", "2001:db8:1::5"


def df(packet: bytes) -> bytes:
    """With DF. Every checksum of IP is built, so the flag is, too."""
    return patch(patch(packet, 6, "4000"), 10, f"{_less(packet[10:12], 0x4000):04x}")


def _less(checksum: bytes, added: int) -> int:
    value = int.from_bytes(checksum) - added
    return value if value >= 0 else value + 0xFFFF


TOO_BIG = df(BIG_PACKET)
TOO_BIG6 = tcp(CLIENT6, NARROW6, "S", FITS6 + b"!")
LARGEST, LARGEST_INSIDE = (tcp(CLIENT, NARROW, "S", FITS, ttl=ttl) for ttl in (64, 63))
LARGEST6, LARGEST6_INSIDE = (tcp(CLIENT6, NARROW6, "S", FITS6, hlim=ttl) for ttl in (64, 63))
DYING, DYING6 = tcp(CLIENT, IPIP, "S", bytes(600), ttl=1), tcp(CLIENT6, IPIP6, "S", bytes(1300), hlim=1)
GUE_BIG = df(tcp(CLIENT, NARROW_GUE, "S", FITS))
BY_6_BIG = df(tcp(CLIENT, NARROW_BY_6, "S", FITS))
FULL = [tcp(f"198.51.100.9:{port}", NARROW) for port in range(1, 17)]


@both_cores
@both_ways
@rows(
    # TTL
    told("its last hop", DYING, Reason.TTL_EXPIRED, time_exceeded(DYING, "192.0.2.1", "198.51.100.7")),
    told(
        "... was the one before",
        patch(SYN, 8, "00"),
        Reason.TTL_EXPIRED,
        time_exceeded(patch(SYN, 8, "00"), "192.0.2.1", "198.51.100.7"),
    ),
    told("... over IPv6", DYING6, Reason.TTL_EXPIRED, time_exceeded(DYING6, "2001:db8:1::1", "2001:db8::7")),
    told(
        "... with RST, which begins no flow",
        tcp(CLIENT, IPIP, "R", ttl=1),
        Reason.TTL_EXPIRED,
        time_exceeded(tcp(CLIENT, IPIP, "R", ttl=1), "192.0.2.1", "198.51.100.7"),
    ),
    told(
        "the quote ends where the packet does",
        tcp(CLIENT, IPIP, ttl=1) + b"padding",
        Reason.TTL_EXPIRED,
        time_exceeded(tcp(CLIENT, IPIP, ttl=1), "192.0.2.1", "198.51.100.7"),
    ),
    told(
        "its checksum is not made right",
        patch(DYING, CHECKSUM, "beef"),
        Reason.TTL_EXPIRED,
        time_exceeded(patch(DYING, CHECKSUM, "beef"), "192.0.2.1", "198.51.100.7"),
        checksum_ready=False,
    ),
    # Size
    new("the largest that fits", NARROW, LARGEST, by_ipip(LARGEST_INSIDE, NARROW, A)),
    new("the largest that fits, IPv6", NARROW6, LARGEST6, by_ipip(LARGEST6_INSIDE, NARROW6, A6)),
    told("a byte more", TOO_BIG, Reason.TOO_BIG, too_big(TOO_BIG, VIP_HOST, "198.51.100.7", MTU - 20)),
    new(
        "... that may be fragmented",
        NARROW,
        BIG_PACKET,
        by_ipip(tcp(CLIENT, NARROW, "S", FITS + b"!", ttl=63), NARROW, A),
    ),
    told(
        "a byte more, IPv6", TOO_BIG6, Reason.TOO_BIG, too_big(TOO_BIG6, VIP6_HOST, "2001:db8::7", MTU - 40)
    ),
    told("GUE takes 12", GUE_BIG, Reason.TOO_BIG, too_big(GUE_BIG, "192.0.2.6", "198.51.100.7", MTU - 32)),
    told("... over IPv6", BY_6_BIG, Reason.TOO_BIG, too_big(BY_6_BIG, "192.0.2.7", "198.51.100.7", MTU - 52)),
    told(
        "padding does not count",
        TOO_BIG + b"padding",
        Reason.TOO_BIG,
        too_big(TOO_BIG, VIP_HOST, "198.51.100.7", MTU - 20),
    ),
    told(
        "too big for a full table's tunnel",
        TOO_BIG,
        Reason.TOO_BIG,
        too_big(TOO_BIG, VIP_HOST, "198.51.100.7", MTU - 20),
        *FULL,
    ),
    told(
        "it ends here before it is too big",
        patch(TOO_BIG, 8, "01"),
        Reason.TTL_EXPIRED,
        time_exceeded(patch(TOO_BIG, 8, "01"), VIP_HOST, "198.51.100.7"),
    ),
    # Cut
    refused("cut", tcp(CLIENT, IPIP, "S", b"hello")[:44], Reason.TRUNCATED, length=45),
    refused("cut before its last hop", DYING[:600], Reason.TRUNCATED, length=640),
    refused("cut before it is too big", TOO_BIG[:1000], Reason.TRUNCATED, length=1381),
)
def test_what_does_not_go_on(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
def test_a_packet_that_dies_or_is_cut_begins_and_renews_no_flow(core: Core) -> None:
    balancer = start(core, TABLE, DYING, DYING6)
    balancer.decide(DYING[:600], 0, length=640, rewrite=False)
    assert balancer.flow_count() == 0
    balancer.decide(SYN, 0)
    balancer.decide(DYING, 30_000)
    [flow] = balancer.flows()
    assert (flow.packets, flow.expires_ms) == (1, 60_000)
    assert balancer.slot_counters(0).packets_in == 1


@both_cores
def test_a_packet_that_is_too_big_begins_and_renews_its_flow_and_counts_for_no_slot(core: Core) -> None:
    balancer = start(core, TABLE, TOO_BIG)
    [flow] = balancer.flows()
    assert (flow.packets, flow.bytes, flow.expires_ms) == (1, 1381, 60_000)
    assert balancer.decide(TOO_BIG, 30_000).reason is Reason.TOO_BIG
    [flow] = balancer.flows()
    assert (flow.packets, flow.expires_ms) == (2, 90_000)
    counters = balancer.slot_counters(SLOT[NARROW])
    assert (counters.packets_in, counters.scheduled, counters.flows) == (0, 0, 1)


@both_cores
def test_bytes_are_counted_without_what_the_tunnel_adds(core: Core) -> None:
    balancer = start(core, TABLE, GUE_SYN + b"padding")
    counters = balancer.slot_counters(SLOT[GUE])
    assert (counters.packets_in, counters.bytes_in, counters.scheduled) == (1, 40, 1)


@both_cores
@pytest.mark.parametrize(
    ("network", "backend", "bits"),
    [
        ("198.18.0.0/15", A, 17),
        ("10.2.0.1/32", A, 0),
        ("0.0.0.0/0", A, 32),
        ("100::/64", A6, 64),
        ("fd00::1/128", A6, 0),
        ("fd00:1:2:3:4::/80", A6, 48),
        ("fd00:1:2::/48", A6, 64),  # of more than 64 bits the last 64
    ],
)
def test_the_outer_source_is_filled_up_from_the_hash(
    core: Core, network: str, backend: str, bits: int
) -> None:
    table = make_table(far("ipip", IPIP, backend, Forward.IPIP, sources=(network,)))
    balancer = start(core, table)
    base = int(ip_network(network).network_address)
    for port in range(1024, 1034):
        client = f"198.51.100.7:{port}"
        out = balancer.decide(tcp(client, IPIP), 0).packet
        hash_ = hash_of(IPIP, 6, client)
        if ip_address(backend).version == 4:
            assert out[12:16] == (base | (hash_ >> 32) % (1 << bits)).to_bytes(4)
        else:
            assert out[8:24] == (base | hash_ % (1 << bits)).to_bytes(16)


@both_cores
@pytest.mark.parametrize("reason", [Reason.STATELESS, Reason.HASHED])
def test_without_a_flow_a_packet_goes_to_the_backend_of_the_hash(core: Core, reason: Reason) -> None:
    service = Svc("ipip", ["192.0.2.1:80/tcp"], ["10.3.0.11", "10.3.0.12"], Scheduler.MAGLEV, Forward.IPIP)
    new_flows = 1 if reason is Reason.HASHED else 0
    balancer = start(core, make_table(service, new_flows=new_flows))
    balancer.publish(make_table(service, new_flows=new_flows))
    expected = balancer.preview(SYN, 0).slot
    for port in range(1, 17):
        balancer.decide(tcp(f"198.51.100.9:{port}", IPIP), 0)
    decision = balancer.decide(SYN, 0)
    assert (decision.reason, decision.slot) == (reason, expected)
    backend = f"10.3.0.1{expected + 1}"
    assert decision.packet == by_ipip(SYN_INSIDE, IPIP, backend)


@both_cores
def test_gue_goes_to_the_table_s_port(core: Core) -> None:
    balancer = start(core, replace(TABLE, gue_port=5555))
    out = balancer.decide(GUE_SYN, 0).packet
    assert int.from_bytes(out[22:24]) == 5555
    assert out == patch(by_gue(GUE_SYN_INSIDE, GUE, A), 22, f"{5555:04x}")


@both_cores
@pytest.mark.parametrize(
    "packet", [SYN, GUE_SYN, DYING, TOO_BIG, SYN6], ids=["ipip", "gue", "ttl", "big", "six"]
)
def test_preview_says_what_would_be_decided_without_a_packet(core: Core, packet: bytes) -> None:
    balancer = start(core, TABLE)
    foreseen = balancer.preview(packet, 0)
    assert balancer.flow_count() == 0
    decided = balancer.decide(packet, 0)
    assert decided.sent
    assert foreseen == replace(decided, mark=0, packet=None, sent=False)
