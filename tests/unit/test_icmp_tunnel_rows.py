"""Errors about packets of tunnels (docs/design/icmp.md, D), and those that travel in one (A)."""

from __future__ import annotations

from ipaddress import ip_address

from l4lb.dataplane.icmp_words import IcmpReason, Translation
from l4lb.model import Forward
from tests.support.icmp import (
    BIG,
    CLIENT,
    CLIENT6,
    GUE,
    IPIP,
    IPIP6,
    MIXED,
    ROUTER,
    ROUTER6,
    WEB,
    Flows,
    backend_in,
    check,
    forward_of,
    hash_of,
    host,
    icmp_error,
    left,
    outer_of,
    patched_length,
    run,
    sent,
    to,
    translate,
)
from tests.support.packets import gue, ipip, tcp, udp

# A: about an answer, through the tunnel to the backend.

ABOUT_ANSWERS = [
    sent(
        "of IPIP",
        to(IPIP, tcp(IPIP, CLIENT), ttl=60, tos=0xC0),
        IcmpReason.TO_BACKEND,
        ipip(
            to(IPIP, tcp(IPIP, CLIENT), ttl=59, tos=0xC0), outer_of(7, CLIENT, IPIP)[0], "10.3.0.11", tos=0xC0
        ),
    ),
    sent(
        "of GUE",
        to(GUE, tcp(GUE, CLIENT), ttl=60, flags="DF"),
        IcmpReason.TO_BACKEND,
        gue(
            to(GUE, tcp(GUE, CLIENT), ttl=59, flags="DF"),
            "{}:{}".format(*outer_of(8, CLIENT, GUE)),
            "10.3.0.12:6080",
            flags="DF",
        ),
    ),
    sent(
        "of IPIP over IPv6",
        to(IPIP6, tcp(IPIP6, CLIENT6), hlim=60, tc=3),
        IcmpReason.TO_BACKEND,
        ipip(
            to(IPIP6, tcp(IPIP6, CLIENT6), hlim=59, tc=3),
            outer_of(9, CLIENT6, IPIP6)[0],
            "fd00::31",
            tc=3,
            fl=hash_of(CLIENT6, IPIP6) & 0xFFFFF,
        ),
    ),
    sent(
        "of IPv4 in GUE over IPv6, whose UDP checksum is right",
        to(MIXED, tcp(MIXED, CLIENT), ttl=60),
        IcmpReason.TO_BACKEND,
        gue(
            to(MIXED, tcp(MIXED, CLIENT), ttl=59),
            "[{}]:{}".format(*outer_of(12, CLIENT, MIXED)),
            "[fd00::32]:6080",
            fl=hash_of(CLIENT, MIXED) & 0xFFFFF,
        ),
    ),
    left("of a tunnel, at the end of its time", to(IPIP, tcp(IPIP, CLIENT), ttl=1), IcmpReason.TTL_EXPIRED),
    left(
        "of a tunnel that it does not fit into",
        to(IPIP, tcp(IPIP, CLIENT, "A", BIG), flags="DF"),
        IcmpReason.TOO_BIG,
    ),
]


@run(ABOUT_ANSWERS)
def test_about_answers(row):
    check(row)


# D: about a tunnel's packet.


def tunneled(slot: int, client: str, vip: str, inside: bytes) -> tuple[str, bytes]:
    """The outer source, and the tunnel's packet that holds `inside`."""
    source, port = outer_of(slot, client, vip)
    member = backend_in(slot)
    address = str(ip_address(member.address))
    if forward_of(slot) is Forward.IPIP:
        return source, ipip(inside, source, address)
    form = "[{}]:{}" if ":" in address else "{}:{}"
    return source, gue(inside, form.format(source, port), form.format(address, 6080))


def about_tunnel(
    slot: int,
    client: str,
    vip: str,
    kind: int,
    code: int,
    *,
    mtu: int = 0,
    size: int = 548,
    inside: bytes = b"",
) -> bytes:
    source, packet = tunneled(slot, client, vip, inside or tcp(client, vip, "A", BIG))
    return icmp_error(ROUTER6 if ":" in source else ROUTER, source, kind, code, packet[:size], mtu=mtu)


def told_of(client: str, vip: str, kind: int, code: int, size: int, *, mtu: int = 0) -> bytes:
    """What the client is told, in packets as docs/design/decision.md has them."""
    fields = {"hlim": 64} if ":" in host(vip) else {"tos": 0xC0, "ttl": 64, "id": 0}
    quote = tcp(client, vip, "A", BIG)[:size]
    return icmp_error(host(vip), host(client), kind, code, quote, mtu=mtu, **fields)


ABOUT_TUNNELS = [
    sent(
        "IPIP, too big",
        about_tunnel(7, CLIENT, IPIP, 3, 4, mtu=1400),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, IPIP, 3, 4, 528, mtu=1380),
    ),
    sent(
        "GUE, too big",
        about_tunnel(8, CLIENT, GUE, 3, 4, mtu=1400),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, GUE, 3, 4, 516, mtu=1368),
    ),
    sent(
        "IPIP over IPv6, too big",
        about_tunnel(9, CLIENT6, IPIP6, 2, 0, mtu=1400, size=1232),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT6, IPIP6, 2, 0, 1192, mtu=1360),
    ),
    sent(
        "IPIP over IPv6, smaller than IPv6 can be told",
        about_tunnel(9, CLIENT6, IPIP6, 2, 0, mtu=1280, size=1232),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT6, IPIP6, 2, 0, 1192, mtu=1280),
    ),
    sent(
        "IPv4 in GUE over IPv6, too big",
        about_tunnel(12, CLIENT, MIXED, 2, 0, mtu=1400, size=1232),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, MIXED, 3, 4, 548, mtu=1348),
    ),
    sent(
        "IPv4 in GUE over IPv6, no route",
        about_tunnel(12, CLIENT, MIXED, 1, 0),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, MIXED, 3, 1, 548 - 52),
    ),
    sent(
        "IPv4 in GUE over IPv6, prohibited",
        about_tunnel(12, CLIENT, MIXED, 1, 1),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, MIXED, 3, 13, 548 - 52),
    ),
    sent(
        "IPIP, absurdly small",
        about_tunnel(7, CLIENT, IPIP, 3, 4, mtu=1),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, IPIP, 3, 4, 528, mtu=68),
    ),
    sent(
        "no such protocol, the least quote that will do",
        about_tunnel(7, CLIENT, IPIP, 3, 2, size=48),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, IPIP, 3, 1, 28),
    ),
    sent(
        "no such port",
        about_tunnel(8, CLIENT, GUE, 3, 3),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, GUE, 3, 1, 516),
    ),
    sent(
        "no such protocol over IPv6",
        about_tunnel(9, CLIENT6, IPIP6, 4, 1),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT6, IPIP6, 1, 3, 508),
    ),
    sent(
        "a loop",
        about_tunnel(7, CLIENT, IPIP, 11, 0),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT, IPIP, 3, 1, 528),
    ),
    sent(
        "a loop over IPv6",
        about_tunnel(9, CLIENT6, IPIP6, 3, 0),
        IcmpReason.OUT_OF_TUNNEL,
        told_of(CLIENT6, IPIP6, 1, 3, 508),
    ),
    left("too big, without a size", about_tunnel(7, CLIENT, IPIP, 3, 4), IcmpReason.NO_COUNTERPART),
    left("a lost fragment", about_tunnel(7, CLIENT, IPIP, 11, 1), IcmpReason.NO_COUNTERPART),
    left("a bad header", about_tunnel(7, CLIENT, IPIP, 12, 0), IcmpReason.NO_COUNTERPART),
    left("a quote too short", about_tunnel(7, CLIENT, IPIP, 3, 1, size=47), IcmpReason.TRUNCATED),
    left(
        "a quote without the packet inside",
        about_tunnel(7, CLIENT, IPIP, 3, 1, size=28),
        IcmpReason.TRUNCATED,
    ),
    left("a quote that ends in GUE", about_tunnel(8, CLIENT, GUE, 3, 3, size=29), IcmpReason.TRUNCATED),
    left(
        "an outer source that the flow does not have",
        about_tunnel(7, CLIENT, IPIP, 3, 1, inside=tcp("198.51.100.7:40001", IPIP, "A", BIG)),
        IcmpReason.NO_FLOW,
    ),
    left(
        "a packet inside to another service",
        about_tunnel(7, CLIENT, IPIP, 3, 1, inside=tcp(CLIENT, WEB)),
        IcmpReason.NOT_BALANCED,
    ),
    left(
        "a packet inside to nobody",
        about_tunnel(7, CLIENT, IPIP, 3, 1, inside=tcp(CLIENT, "192.0.2.99:80")),
        IcmpReason.NOT_BALANCED,
    ),
    left(
        "an ICMP error inside",
        about_tunnel(7, CLIENT, IPIP, 3, 1, inside=to(IPIP, tcp(IPIP, CLIENT))),
        IcmpReason.ABOUT_ICMP,
    ),
    left(
        "a tunnel inside",
        about_tunnel(7, CLIENT, IPIP, 3, 1, inside=ipip(tcp(CLIENT, IPIP), host(CLIENT), host(IPIP))),
        IcmpReason.OTHER_PROTOCOL,
    ),
    left(
        "UDP to a backend of tunnels, but no GUE",
        to("198.18.0.1:0", udp("198.18.0.1:50000", "10.3.0.12:53")),
        IcmpReason.NOT_BALANCED,
    ),
    left(
        "GUE with options",
        to("198.18.0.1:0", udp("198.18.0.1:50000", "10.3.0.12:6080", b"\1\4\0\0" + bytes(60))),
        IcmpReason.NOT_BALANCED,
    ),
]


@run(ABOUT_TUNNELS)
def test_about_tunnels(row):
    check(row)


def test_without_a_flow_a_tunnel_is_known_by_its_hash():
    got = translate(about_tunnel(7, CLIENT, IPIP, 3, 1), flows=Flows())
    assert got == Translation(IcmpReason.OUT_OF_TUNNEL, told_of(CLIENT, IPIP, 3, 1, 528), sent=True)


def test_extensions_are_no_part_of_what_the_client_is_quoted():
    source, packet = tunneled(7, CLIENT, IPIP, tcp(CLIENT, IPIP, "A", BIG))
    error = patched_length(icmp_error(ROUTER, source, 3, 1, packet[:128] + b"extension!!!"), 32)
    assert translate(error).packet == told_of(CLIENT, IPIP, 3, 1, 108)
