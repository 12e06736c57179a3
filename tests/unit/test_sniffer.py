"""The filter of the sniffer, run by a small interpreter of classic BPF."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from l4lb.net.sniffer import Instruction, build_filter
from tests.support.packets import tcp, udp

VIPS4 = [ip_address("203.0.113.10"), ip_address("203.0.113.11")]
VIPS6 = [ip_address("2001:db8:f::10"), ip_address("2001:db8:f::11")]
VIP4, VIP6 = "203.0.113.11:80", "[2001:db8:f::11]:80"


def run(program: list[Instruction], packet: bytes, *, tagged: bool = False) -> bool:
    """Whether the filter lets it through; as in the kernel, what reads beyond the packet does not."""
    protocol = 0x86DD if packet[:1] >= b"\x60" else 0x0800
    known = {0xFFFFF000: protocol, 0xFFFFF000 + 48: int(tagged)}  # SKF_AD_OFF: what is not in the packet
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20 | 0x28 | 0x30:
                if operand in known:
                    accumulator = known[operand]
                    continue
                size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
                if operand + size > len(packet):
                    return False
                accumulator = int.from_bytes(packet[operand : operand + size])
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand > 0
            case _:
                pytest.fail(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(
    ("version", "client", "packet", "passes"),
    [
        (4, None, tcp("198.51.100.7:4000", VIP4), True),
        (4, None, udp("198.51.100.7:4000", "203.0.113.10:7"), True),
        (4, None, tcp("198.51.100.7:4000", "203.0.113.12:80"), False),
        (4, "198.51.100.0/24", tcp("198.51.100.7:4000", VIP4), True),
        (4, "198.51.100.0/25", tcp("198.51.100.200:4000", VIP4), False),
        (4, "0.0.0.0/0", tcp("198.51.100.200:4000", VIP4), True),
        (4, "198.51.100.7", tcp("198.51.100.7:4000", VIP4), True),
        (4, None, udp("198.51.100.7:4000", VIP4, frag=3), False),
        (4, None, udp("198.51.100.7:4000", VIP4, flags="MF"), False),
        (4, None, udp("198.51.100.7:4000", VIP4, flags="DF"), True),
        (4, None, b"", False),
        (6, None, tcp("[2001:db8::7]:4000", VIP6), True),
        (6, None, tcp("[2001:db8::7]:4000", "[2001:db8:f::10]:80"), True),
        (6, None, tcp("[2001:db8::7]:4000", "[2001:db8:f::12]:80"), False),
        (6, None, tcp("[2001:db8::7]:4000", "[2001:db9:f::11]:80"), False),
        (6, "2001:db8::/32", tcp("[2001:db8::7]:4000", VIP6), True),
        (6, "2001:db8:1::/47", tcp("[2001:db8:2::7]:4000", VIP6), False),
        (6, "::/0", tcp("[2001:db8:2::7]:4000", VIP6), True),
    ],
)  # fmt: skip
def test_only_packets_of_the_client_to_a_vip_pass(version, client, packet, passes):
    vips = VIPS4 if version == 4 else VIPS6
    network = ip_network(client, strict=False) if client else None
    assert run(build_filter(version, vips, network), packet) is passes


def test_the_other_version_and_what_is_tagged_for_another_device_do_not_pass():
    packet = tcp("198.51.100.7:4000", VIP4)
    assert run(build_filter(4, VIPS4, None), packet)
    assert not run(build_filter(4, VIPS4, None), packet, tagged=True)
    assert not run(build_filter(6, [], None), packet)


def test_more_addresses_than_have_room_are_not_asked_for():
    network = ip_network("198.51.100.0/24")
    many = [ip_address("10.0.0.0") + number for number in range(5000)]
    program = build_filter(4, many, network)
    assert len(program) < 4096
    assert run(program, tcp("198.51.100.7:4000", VIP4))
    assert not run(program, tcp("192.0.2.7:4000", VIP4))
