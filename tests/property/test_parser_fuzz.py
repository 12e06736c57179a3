"""Damaged packets over both cores: no crash, and one answer.

Bounded by a number of packets; L4LB_FUZZ_SECONDS=600 goes on for as long as it says, each time elsewhere.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

from scapy.layers.inet import IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

from l4lb.dataplane.decision import Reason
from l4lb.model import Scheduler
from tests.support.packets import icmp, tcp, udp
from tests.support.tables import Svc, make_table
from tests.support.twins import Twins

COUNT = 6_000

CLIENT, VIP, DNS, A = "198.51.100.7:40000", "192.0.2.1:80", "192.0.2.1:53", "10.2.0.11:8080"
CLIENT6, VIP6, DNS6 = "[2001:db8::7]:40000", "[2001:db8:1::1]:80", "[2001:db8:1::1]:53"

TABLE = make_table(
    Svc("web", ["192.0.2.1:80/tcp", "192.0.2.1:1000-2000/tcp"], [A, "10.2.0.12:8080"], Scheduler.MAGLEV),
    Svc("dns", ["192.0.2.1:53/udp", "192.0.2.2:53/udp"], ["10.2.0.41:5353"]),
    Svc("web6", ["[2001:db8:1::1]:any/tcp"], ["[fd00::11]"], Scheduler.LEAST_CONNECTIONS),
    Svc("dns6", ["[2001:db8:1::1]:53/udp"], ["[fd00::41]:5353"], Scheduler.SOURCE_HASH),
)

HEADERS = [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrFragment()]
SEEDS = [
    tcp(CLIENT, VIP),
    tcp(CLIENT, VIP, "PA", b"payload", tcp_options=[("MSS", 1460)]),
    tcp(CLIENT, VIP, options=[IPOption_Router_Alert()]),
    tcp(A, CLIENT, "SA"),
    udp(CLIENT, DNS, b"query"),
    udp("10.2.0.41:5353", CLIENT, b"answer"),
    tcp(CLIENT6, VIP6, "PA", b"payload"),
    tcp("[fd00::11]:80", CLIENT6, "SA"),
    udp(CLIENT6, DNS6, b"query"),
    icmp("198.51.100.7", "192.0.2.1"),
    *(tcp(CLIENT6, VIP6, extensions=[header]) for header in HEADERS),
    tcp(CLIENT6, VIP6, extensions=HEADERS),
    udp(CLIENT6, DNS6, b"query", extensions=[*HEADERS, IPv6ExtHdrDestOpt()]),
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
    for number, packet in enumerate(packets(random)):
        if number >= COUNT and time.monotonic() >= end:
            break
        cut = random.randrange(4) == 0
        met[
            twins.decide(
                packet[: random.randrange(len(packet) + 1)] if cut else packet,
                length=len(packet) + random.choice((0, 0, 0, 7, 70_000)),
                checksum_ready=random.randrange(2) == 0,
                gso=random.randrange(4) == 0,
                rewrite=random.randrange(2) == 0,
            ).reason
        ] += 1
        twins.now_ms += random.choice((0, 0, 10, 10_000))
        if number % 1_000 == 0:
            twins.compare()
    twins.compare()
    # A search that stays in front of the first check would find nothing.
    assert (
        min(met[reason] for reason in (Reason.FLOW, Reason.SCHEDULED, Reason.MALFORMED, Reason.FRAGMENT)) > 50
    )


def random_seed() -> int:
    return int.from_bytes(os.urandom(4))
