"""Rows of the table of ICMP errors, and one table and its flows for all of them.

An error in; a reason, and what Scapy builds, out. Rows are made by `rewritten`, `sent`, `marked` and `left`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Raw
from scapy.utils import checksum

from l4lb.dataplane.decision import Flow, State
from l4lb.dataplane.hashing import flow_hash
from l4lb.dataplane.icmp import Translator
from l4lb.dataplane.icmp_words import Hook, IcmpReason, Translation
from l4lb.dataplane.table import BackendEntry, Table
from l4lb.model import Forward, Scheduler
from tests.support.cores import KEY
from tests.support.packets import packed, patch, split
from tests.support.tables import Svc, make_table

_ICMPV6 = {1: ICMPv6DestUnreach, 2: ICMPv6PacketTooBig, 3: ICMPv6TimeExceeded, 4: ICMPv6ParamProblem}

IN, OUT = Hook.PREROUTING, Hook.POSTROUTING
ROUTER, ROUTER6 = "203.0.113.99", "2001:db8:99::1"
CLIENT, CLIENT6 = "198.51.100.7:40000", "[2001:db8:7::7]:40000"
WEB, DNS, WEB6 = "192.0.2.1:80", "192.0.2.1:53", "[2001:db8:1::1]:80"
A, B = "10.2.0.11:8080", "10.2.0.12:8080"
DIRECT, DIRECT2, DIRECT6 = "192.0.2.2:80", "192.0.2.3:80", "[2001:db8:1::2]:80"
IPIP, GUE, IPIP6 = "192.0.2.4:80", "192.0.2.5:80", "[2001:db8:1::5]:80"
HIDDEN, HIDDEN6, POOL, POOL6 = "192.0.2.6:80", "[2001:db8:1::6]:80", "10.2.0.1:2000", "[fd00::1]:2000"
MIXED = "192.0.2.7:80"
BIG = b"x" * 1460


def flow(client: str, vip: str, slot: int, source: str = "", protocol: int = 6) -> Flow:
    """A flow between endpoints as people write them; `source` is that of a masqueraded one."""
    (client_host, client_port), (vip_host, vip_port) = split(client), split(vip)
    source_host, source_port = split(source) if source else ("", 0)
    return Flow(
        packed(client_host),
        client_port,
        packed(vip_host),
        vip_port,
        protocol,
        slot,
        State.ESTABLISHED,
        expires_ms=1,
        packets=1,
        bytes=1,
        source=packed(source_host) if source else b"",
        source_port=source_port,
    )


class Flows:
    """A `FlowFinder` that knows these flows."""

    def __init__(self, *flows: Flow) -> None:
        self._by_key = {(f.client, f.client_port, f.vip, f.vip_port, f.protocol): f for f in flows}
        self._by_source = {(f.source, f.source_port, f.protocol): f for f in flows if f.source}

    def find(self, client: bytes, client_port: int, vip: bytes, vip_port: int, protocol: int) -> Flow | None:
        return self._by_key.get((client, client_port, vip, vip_port, protocol))

    def find_source(self, address: bytes, port: int, protocol: int) -> Flow | None:
        return self._by_source.get((address, port, protocol))


def icmp_error(
    source: str, destination: str, kind: int, code: int, quote: bytes, *, mtu: int = 0, **fields: Any
) -> bytes:
    """An ICMP error of the addresses' family, with checksums by Scapy; `fields` are those of IP or IPv6."""
    if ip_address(source).version == 4:
        message: Any = ICMP(type=kind, code=code)
        if (kind, code) == (3, 4):
            message.nexthopmtu = mtu
        return bytes(IP(src=source, dst=destination, **fields) / message / Raw(quote))
    message = _ICMPV6[kind](code=code)
    if kind == 2:
        message.mtu = mtu
    return bytes(IPv6(src=source, dst=destination, **fields) / message / Raw(quote))


TABLE = make_table(
    Svc("web", [WEB + "/tcp", "192.0.2.1:1000-2000/tcp"], [A, B], Scheduler.MAGLEV),  # slots 0, 1
    Svc("dns", [DNS + "/udp"], ["10.2.0.41"]),  # 2
    Svc("web6", [WEB6 + "/tcp", "[2001:db8:1::1]:53/udp"], ["[fd00::11]:8080"]),  # 3
    Svc(
        "direct", [DIRECT + "/tcp", DIRECT2 + "/tcp"], ["10.2.0.21", "10.2.0.22"], forward=Forward.DSR
    ),  # 4, 5
    Svc("direct6", [DIRECT6 + "/tcp"], ["[fd00::21]"], forward=Forward.DSR),  # 6
    Svc("ipip", [IPIP + "/tcp"], ["10.3.0.11"], forward=Forward.IPIP, mtu=1500),  # 7
    Svc("gue", [GUE + "/tcp"], ["10.3.0.12"], forward=Forward.GUE),  # 8
    Svc("ipip6", [IPIP6 + "/tcp"], ["[fd00::31]"], forward=Forward.IPIP),  # 9
    Svc("hidden", [HIDDEN + "/tcp"], ["10.4.0.11:8080"], forward=Forward.MASQUERADE),  # 10
    Svc("hidden6", [HIDDEN6 + "/tcp"], ["[fd00::41]:8080"], forward=Forward.MASQUERADE),  # 11
    Svc("mixed", [MIXED + "/tcp"], ["[fd00::32]"], forward=Forward.GUE),  # 12
    Svc("empty", ["192.0.2.8:80/tcp"], ["10.2.0.99:80 x0"]),  # 13
    pool=("10.2.0.1", "fd00::1"),
)
FLOWS = Flows(
    flow(CLIENT, WEB, 1),
    flow(CLIENT, "192.0.2.1:1500", 0),
    flow(CLIENT, DNS, 2, protocol=17),
    flow(CLIENT6, WEB6, 3),
    flow(CLIENT6, "[2001:db8:1::1]:53", 3, protocol=17),
    flow(CLIENT, DIRECT, 4),
    flow(CLIENT, DIRECT2, 5),
    flow(CLIENT6, DIRECT6, 6),
    flow(CLIENT, IPIP, 7),
    flow(CLIENT, GUE, 8),
    flow(CLIENT6, IPIP6, 9),
    flow(CLIENT, HIDDEN, 10, POOL),
    flow(CLIENT6, HIDDEN6, 11, POOL6),
    flow(CLIENT, MIXED, 12),
)


@dataclass(frozen=True)
class Row:
    name: str
    hook: Hook
    packet: bytes
    expected: Translation


def rewritten(name: str, hook: Hook, packet: bytes, reason: IcmpReason, out: bytes) -> Row:
    return Row(name, hook, packet, Translation(reason, out))


def sent(name: str, packet: bytes, reason: IcmpReason, out: bytes) -> Row:
    return Row(name, IN, packet, Translation(reason, out, sent=True))


def marked(name: str, packet: bytes, reason: IcmpReason, mark: int) -> Row:
    return Row(name, IN, packet, Translation(reason, mark=mark))


def left(name: str, packet: bytes, reason: IcmpReason, hook: Hook = IN) -> Row:
    return Row(name, hook, packet, Translation(reason))


def host(endpoint: str) -> str:
    return split(endpoint)[0]


def patched_length(packet: bytes, words: int) -> bytes:
    """An ICMP error over IPv4 that says how many 32-bit words its quote has (RFC 4884)."""
    error = patch(patch(packet, 25, f"{words:02x}"), 22, "0000")
    return patch(error, 22, f"{checksum(error[20:]):04x}")


def backend_in(slot: int) -> BackendEntry:
    return next(b for service in TABLE.services for b in service.backends if b.slot == slot)


def forward_of(slot: int) -> Forward:
    return next(s.forward for s in TABLE.services if any(b.slot == slot for b in s.backends))


def hash_of(client: str, vip: str) -> int:
    (client_host, client_port), (vip_host, vip_port) = split(client), split(vip)
    return flow_hash(KEY, packed(client_host), packed(vip_host), client_port, vip_port, 6)


def outer_of(slot: int, client: str, vip: str) -> tuple[str, int]:
    """Address and port of a flow's packets outside: the hash's bits behind 198.18.0.0/15 or 100::/64."""
    hash_ = hash_of(client, vip)
    if len(backend_in(slot).address) == 4:
        source = ip_address(int(ip_address("198.18.0.0")) | hash_ >> 32 & 0x1FFFF)
    else:
        source = ip_address(int(ip_address("100::")) | hash_)
    return str(source), 49152 + (hash_ >> 50)


def lookup_slots(table: Table, service: int) -> list[int]:
    return list(memoryview(table.services[service].lookup).cast("H"))


def to(endpoint: str, quote: bytes, *, mtu: int = 1400, source: str = "", **fields: object) -> bytes:
    """A too-big to this endpoint's host, from a router unless `source` says otherwise."""
    if ip_address(host(endpoint)).version == 4:
        return icmp_error(source or ROUTER, host(endpoint), 3, 4, quote, mtu=mtu, **fields)
    return icmp_error(source or ROUTER6, host(endpoint), 2, 0, quote, mtu=mtu, **fields)


def run(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def translate(packet: bytes, hook: Hook = IN, flows: Flows = FLOWS, table: Table = TABLE) -> Translation:
    return Translator(table, KEY).translate(packet, hook, flows)


def check(row: Row) -> None:
    got = translate(row.packet, row.hook)
    assert got == row.expected, f"{row.packet.hex()} became {got.packet.hex() if got.packet else got.reason}"
