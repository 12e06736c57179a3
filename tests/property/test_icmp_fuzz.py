"""Damaged ICMP errors: nothing raises, and what comes out is right wherever it came from.

Bounded by a number of packets; L4LB_FUZZ_SECONDS=600 goes on for as long as it says, each time elsewhere.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

from scapy.layers.inet import IP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment

from l4lb.dataplane.icmp import Translator
from l4lb.dataplane.icmp_words import Hook, IcmpReason, Translation
from tests.support.cores import KEY
from tests.support.icmp import (
    CLIENT,
    CLIENT6,
    DIRECT,
    FLOWS,
    GUE,
    HIDDEN,
    HIDDEN6,
    IPIP,
    IPIP6,
    MIXED,
    POOL,
    TABLE,
    WEB,
    WEB6,
    B,
    outer_of,
    to,
)
from tests.support.packets import gue, ipip, tcp, udp

COUNT = 8_000
TELLING = (0x00, 0x01, 0x04, 0x06, 0x11, 0x29, 0x2B, 0x2C, 0x3A, 0x3C, 0x40, 0x45, 0x4F, 0x60, 0x80, 0xFF)
HEADERS = [IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment()]
SEEDS = [
    to(WEB, tcp(WEB, CLIENT, "A", bytes(600))[:548]),
    to(WEB, tcp(WEB, CLIENT)[:28]),
    to(WEB, tcp(WEB, CLIENT, options=[IPOption_Router_Alert()]), options=[IPOption_Router_Alert()]),
    to(WEB6, tcp(WEB6, CLIENT6, "A", bytes(600))),
    to(WEB6, udp("[2001:db8:1::1]:53", CLIENT6, b"x", extensions=HEADERS)),
    to(DIRECT, tcp(DIRECT, CLIENT)),
    to(HIDDEN, tcp(HIDDEN, CLIENT)),
    to(HIDDEN6, tcp(HIDDEN6, CLIENT6)),
    to(IPIP, tcp(IPIP, CLIENT)),
    to(GUE, tcp(GUE, CLIENT)),
    to(MIXED, tcp(MIXED, CLIENT)),
    to(CLIENT, tcp(CLIENT, B)),
    to(CLIENT6, tcp(CLIENT6, "[fd00::11]:8080")),
    to(POOL, tcp(POOL, "10.4.0.11:8080")),
]
TUNNELED = [
    (7, ipip(tcp(CLIENT, IPIP, "A"), outer_of(7, CLIENT, IPIP)[0], "10.3.0.11")),
    (8, gue(tcp(CLIENT, GUE, "A"), "{}:{}".format(*outer_of(8, CLIENT, GUE)), "10.3.0.12:6080")),
    (9, ipip(tcp(CLIENT6, IPIP6, "A"), outer_of(9, CLIENT6, IPIP6)[0], "fd00::31")),
    (12, gue(tcp(CLIENT, MIXED, "A"), "[{}]:{}".format(*outer_of(12, CLIENT, MIXED)), "[fd00::32]:6080")),
]
for _, packet in TUNNELED:
    layer = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    SEEDS.append(to(f"[{layer.src}]:0" if layer.version == 6 else f"{layer.src}:0", packet))


def errors(random: Random) -> Iterator[bytes]:
    while True:
        packet = bytearray(random.choice(SEEDS))
        for _ in range(random.randrange(4)):
            match random.randrange(4):
                case 0:
                    packet[random.randrange(len(packet))] = random.randrange(256)
                case 1:
                    packet[random.randrange(min(len(packet), 90))] = random.choice(TELLING)
                case 2:
                    del packet[random.randrange(1, len(packet) + 1) :]
                case 3:
                    packet += random.randbytes(random.randrange(1, 24))
        # Most would end at their checksum or length: make these right again, four times in five.
        yield mend(bytes(packet)) if random.randrange(5) else bytes(packet)


def mend(packet: bytes) -> bytes:
    """The packet with its length and ICMP checksum made right, as far as it is one."""
    data = bytearray(packet)
    if len(data) >= 28 and data[0] >> 4 == 4:
        at = (data[0] & 15) * 4
        data[2:4] = len(data).to_bytes(2)
        pseudo = b""
    elif len(data) >= 48 and data[0] >> 4 == 6:
        at = 40
        data[4:6] = (len(data) - 40).to_bytes(2)
        pseudo = bytes(data[8:40]) + (len(data) - 40).to_bytes(4) + (58).to_bytes(4)
    else:
        return packet
    data[at + 2 : at + 4] = bytes(2)
    data[at + 2 : at + 4] = plain_checksum(pseudo + bytes(data[at:])).to_bytes(2)
    return bytes(data)


def plain_checksum(data: bytes) -> int:
    """Word by word, as RFC 1071 has it."""
    data += bytes(len(data) & 1)
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def inspect(packet: bytes, got: Translation) -> None:
    """What must hold of any answer."""
    if got.packet is None:
        assert not got.sent
        return
    assert got.mark == 0
    assert got.reason <= IcmpReason.OUT_OF_TUNNEL
    if not got.sent:
        assert len(got.packet) <= len(packet)
    if got.packet[0] >> 4 == 4:
        header = (got.packet[0] & 15) * 4
        assert int.from_bytes(got.packet[2:4]) == len(got.packet)
        if got.packet[9] == 1:
            assert plain_checksum(got.packet[header:]) == 0
        else:
            assert got.packet[9] in (4, 17, 41) and plain_checksum(got.packet[:header]) == 0
    else:
        assert int.from_bytes(got.packet[4:6]) == len(got.packet) - 40
        if got.packet[6] == 58:
            length = len(got.packet) - 40
            pseudo = got.packet[8:40] + length.to_bytes(4) + (58).to_bytes(4)
            assert plain_checksum(pseudo + got.packet[40:]) == 0


def test_damaged_errors_never_raise_and_come_out_right() -> None:
    seconds = float(os.environ.get("L4LB_FUZZ_SECONDS", "0"))
    seed = int.from_bytes(os.urandom(4)) if seconds else 1
    print(f"seed {seed}")
    random = Random(seed)
    end = time.monotonic() + seconds
    translator = Translator(TABLE, KEY)
    met: Counter[IcmpReason] = Counter()
    for number, packet in enumerate(errors(random)):
        if number >= COUNT and time.monotonic() >= end:
            break
        hook = random.choice(list(Hook))
        try:
            got = translator.translate(packet, hook, FLOWS)
            inspect(packet, got)
        except Exception as error:
            raise AssertionError(f"{hook.name} {packet.hex()}") from error
        met[got.reason] += 1
    # A search that stays in front of the first check would find nothing.
    often = (IcmpReason.TO_BACKEND, IcmpReason.TO_CLIENT, IcmpReason.OUT_OF_TUNNEL, IcmpReason.NO_FLOW)
    assert min(met[reason] for reason in (*often, IcmpReason.FRAGMENT, IcmpReason.TRUNCATED)) > 50, met
