"""Damaged packets over both cores, to services of every forwarding mode: no crash, one answer, and whatever
is sent in the place of a packet is a sound one.

Bounded by a number of packets; L4LB_FUZZ_SECONDS=600 goes on for as long as it says, each time elsewhere.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

from l4lb.dataplane.decision import Decision, Reason, Verdict
from l4lb.dataplane.reference.checksum import add_up
from l4lb.model import Forward, Scheduler
from tests.support.packets import icmp, patch, tcp, udp
from tests.support.tables import Svc, make_table
from tests.support.twins import FIRST_PORT, Twins, Workers

COUNT = 6_000

CLIENT, VIP, DNS, A = "198.51.100.7:40000", "192.0.2.1:80", "192.0.2.1:53", "10.2.0.11:8080"
CLIENT6, VIP6, DNS6 = "[2001:db8::7]:40000", "[2001:db8:1::1]:80", "[2001:db8:1::1]:53"
MASQUERADE, DSR, IPIP, IPIP6, GUE, GUE6 = (f"192.0.2.{n}:80" for n in range(11, 17))
MASQUERADE6, DSR6, MIXED6 = (f"[2001:db8:1::{n}]:80" for n in range(11, 14))
DOWN, DOWN6 = "192.0.2.17:80", "[2001:db8:1::17]:80"
POOL = ("10.2.0.1", "10.2.0.2", "fd00::1")


def both(name: str, forward: Forward, vip: str, backend: str, **more: Any) -> Svc:
    return Svc(name, [f"{vip}/tcp", f"{vip}/udp"], [backend], forward=forward, **more)


TABLE = make_table(
    Svc("web", ["192.0.2.1:80/tcp", "192.0.2.1:1000-2000/tcp"], [A, "10.2.0.12:8080"], Scheduler.MAGLEV),
    Svc("dns", ["192.0.2.1:53/udp", "192.0.2.2:53/udp"], ["10.2.0.41:5353"]),
    Svc("web6", ["[2001:db8:1::1]:any/tcp"], ["[fd00::11]"], Scheduler.LEAST_CONNECTIONS),
    Svc("dns6", ["[2001:db8:1::1]:53/udp"], ["[fd00::41]:5353"], Scheduler.SOURCE_HASH),
    both("hidden", Forward.MASQUERADE, MASQUERADE, "10.2.0.51:8080"),
    both("hidden6", Forward.MASQUERADE, MASQUERADE6, "[fd00::51]"),
    both("direct", Forward.DSR, DSR, "10.2.0.52"),
    both("direct6", Forward.DSR, DSR6, "[fd00::52]"),
    both("ipip", Forward.IPIP, IPIP, "10.3.0.1", mtu=100),
    both("ipip over 6", Forward.IPIP, IPIP6, "[fd00::61]", limits=(1, 1)),
    both("gue", Forward.GUE, GUE, "10.3.0.2"),
    both("gue over 6", Forward.GUE, GUE6, "[fd00::62]", mtu=120),
    both("6 over gue", Forward.GUE, MIXED6, "10.3.0.3", mtu=150),
    # Slots 14 and 15: the flows of such a service are reset with their second packet.
    both("down", Forward.NAT, DOWN, "10.2.0.17:8080", affinity=(32, 60_000)),
    both("down6", Forward.IPIP, DOWN6, "[fd00::17]", affinity=(64, 60_000)),
    learns=True,
    new_flows=40,
    resets=(14, 15),
    pool=POOL,
)

HEADERS = [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrFragment()]
SEEDS = [
    tcp(CLIENT, VIP),
    tcp(CLIENT, VIP, "PA", b"payload", tcp_options=[("MSS", 1460)]),
    tcp(CLIENT, VIP, options=[IPOption_Router_Alert()]),
    tcp(A, CLIENT, "SA"),
    tcp(CLIENT, VIP, "R"),
    udp(CLIENT, DNS, b"query"),
    udp("10.2.0.41:5353", CLIENT, b"answer"),
    tcp(CLIENT6, VIP6, "PA", b"payload"),
    tcp("[fd00::11]:80", CLIENT6, "SA"),
    udp(CLIENT6, DNS6, b"query"),
    icmp("198.51.100.7", "192.0.2.1"),
    *(tcp(CLIENT6, VIP6, extensions=[header]) for header in HEADERS),
    tcp(CLIENT6, VIP6, extensions=HEADERS),
    udp(CLIENT6, DNS6, b"query", extensions=[*HEADERS, IPv6ExtHdrDestOpt()]),
    *(udp(CLIENT, vip, b"datagram") for vip in (MASQUERADE, DSR, IPIP, IPIP6, GUE, GUE6)),
    *(udp(CLIENT, vip, bytes(100)) for vip in (MASQUERADE, IPIP, GUE, GUE6)),
    *(tcp(CLIENT, vip, options=[IPOption_Router_Alert()]) for vip in (MASQUERADE, IPIP6, GUE)),
    *(patch(tcp(CLIENT, vip, "A", bytes(61)), 6, "40") for vip in (IPIP, GUE6)),
    *(tcp(CLIENT6, vip, extensions=[IPv6ExtHdrDestOpt()]) for vip in (MASQUERADE6, MIXED6, DSR6)),
    *(udp(CLIENT6, vip, bytes(101)) for vip in (MASQUERADE6, MIXED6, DSR6)),
    *(udp(CLIENT, vip, b"end", ttl=1) for vip in (MASQUERADE, DSR, IPIP, GUE6)),
    *(udp(CLIENT6, vip, b"end", hlim=1) for vip in (MASQUERADE6, MIXED6)),
    *(tcp(CLIENT, DOWN, flags, b"down") for flags in ("S", "A", "PF")),
    *(tcp(CLIENT6, DOWN6, flags, extensions=[IPv6ExtHdrDestOpt()]) for flags in ("S", "A", "F")),
    *(udp("10.2.0.51:8080", f"10.2.0.{n}:{FIRST_PORT + 1}", b"answer") for n in (1, 2)),
    *(udp("[fd00::51]:80", f"[fd00::1]:{FIRST_PORT + n}", b"answer") for n in range(Workers.PORTS)),
]
STRUCTURE = (0, 1, 2, 3, 4, 5, 6, 7, 9, 32, 40, 41, 42, 43, 48, 49, 50, 51)
"""Where the fields stand that say how to read the rest."""
TELLING = (0x00, 0x01, 0x04, 0x06, 0x11, 0x2B, 0x2C, 0x3C, 0x40, 0x45, 0x4F, 0x50, 0x60, 0x7F, 0x80, 0xFF)


def packets(random: Random) -> Iterator[bytes]:
    while True:
        match random.randrange(10):
            case 0:
                yield random.randbytes(random.randrange(120))
            case 1:
                yield bytes([random.choice((0x45, 0x4F, 0x60))]) + random.randbytes(random.randrange(120))
            case _:
                yield damage(random, bytearray(random.choice(SEEDS)))


def damage(random: Random, packet: bytearray) -> bytes:
    for _ in range(random.randrange(4)):
        match random.randrange(5):
            case 0:
                packet[random.randrange(len(packet))] = random.randrange(256)
            case 1 | 2:
                packet[random.choice(STRUCTURE) % len(packet)] = random.choice(TELLING)
            case 3:
                del packet[random.randrange(1, len(packet) + 1) :]
            case 4:
                packet += random.randbytes(random.randrange(1, 24))
    return bytes(packet)


def test_damaged_packets_get_one_answer() -> None:
    seconds = float(os.environ.get("L4LB_FUZZ_SECONDS", "0"))
    seed = random_seed() if seconds else 1
    print(f"seed {seed}")
    random = Random(seed)
    end = time.monotonic() + seconds
    twins = Twins(TABLE, capacity=64)
    met: Counter[Reason] = Counter()
    sent = 0
    for number, packet in enumerate(packets(random)):
        if number >= COUNT and time.monotonic() >= end:
            break
        cut = random.randrange(4) == 0
        capture = packet[: random.randrange(len(packet) + 1)] if cut else packet
        decision = twins.decide(
            capture,
            length=len(packet) + random.choice((0, 0, 0, 7, 70_000)),
            checksum_ready=random.randrange(2) == 0,
            gso=random.randrange(4) == 0,
            rewrite=random.randrange(2) == 0,
        )
        met[decision.reason] += 1
        if decision.sent:
            sent += 1
            check_sent(capture, decision)
        twins.now_ms += random.choice((0, 0, 10, 10_000))
        if number % 1_000 == 0:
            twins.compare()
    twins.compare()
    # A search that stays in front of the first check would find nothing.
    assert sent > COUNT // 10
    assert min(met[reason] for reason in OFTEN) > 50
    unmet = {reason for reason in Reason if not met[reason]}
    assert unmet <= SELDOM


OFTEN = (
    Reason.FLOW,
    Reason.SCHEDULED,
    Reason.MALFORMED,
    Reason.FRAGMENT,
    Reason.TOO_BIG,
    Reason.TTL_EXPIRED,
)
SELDOM = {
    *(Reason.RESCHEDULED, Reason.STATELESS, Reason.HASHED, Reason.NO_BACKEND, Reason.REPLY_UNMATCHED),
    *(Reason.REJECTED, Reason.BACKENDS_FULL),
}
"""What this table, these times and so few clients do not lead to."""


def check_sent(capture: bytes, decision: Decision) -> None:
    """What is sent is one whole packet with right header checksums, and goes where it should."""
    assert decision.packet is not None
    packet = parse_sent(decision.packet)
    if decision.verdict is Verdict.ANSWER:
        came = IP(capture) if capture[0] >> 4 == 4 else IPv6(capture)
        assert (packet.src, packet.dst) == (came.dst, came.src)
        assert packet.version == came.version
        if decision.reason is Reason.RESET:
            check_reset(packet)
            return
        quote = decision.packet[28 if packet.version == 4 else 48 :]
        assert quote and capture.startswith(quote)
        if packet.version == 4:
            assert add_up(decision.packet[:20]) == add_up(decision.packet[20:]) == 0xFFFF
        return
    if packet.dst in ("10.3.0.1", "fd00::61"):
        parse_sent(decision.packet[20 if packet.version == 4 else 40 :])
    elif packet.dst in ("10.3.0.2", "10.3.0.3", "fd00::62"):
        assert (packet[UDP].dport, packet[UDP].len) == (TABLE.gue_port, len(packet[UDP]))
        assert packet.version == 4 or packet[UDP].chksum != 0
        gue = bytes(packet[UDP].payload)
        assert gue[:4] == bytes([0, 4 if gue[4] >> 4 == 4 else 41, 0, 0])
        parse_sent(gue[4:])


def check_reset(packet: IP | IPv6) -> None:
    """It is a bare TCP reset with the right checksums."""
    assert len(packet[TCP]) == 20
    assert packet[TCP].flags in ("R", "RA")
    built = packet.copy()
    del built[TCP].chksum
    if packet.version == 4:
        del built.chksum
    assert bytes(built) == bytes(packet)


def parse_sent(data: bytes) -> IP | IPv6:
    """The packet, whose length is what its header says; 0 is that of one to be segmented."""
    packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    assert len(data) == (
        (packet.len or len(data)) if packet.version == 4 else 40 + (packet.plen or len(data) - 40)
    )
    return packet


def random_seed() -> int:
    return int.from_bytes(os.urandom(4))
