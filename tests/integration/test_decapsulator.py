"""The program that takes packets out of tunnels, asked with packets that Scapy built."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.support import servers
from tests.support.lab import Host, Lab, unique_prefix, wait_for
from tests.support.servers import Decapsulator

pytestmark = pytest.mark.root

VIP = {4: "203.0.113.10", 6: "2001:db8:f::10"}
CLIENT = {4: "10.1.0.2", 6: "2001:db8:1::2"}
BACKEND = {4: "10.2.0.11", 6: "2001:db8:2::11"}
SOURCE = {4: "198.18.3.4", 6: "100::304"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PROTOCOL = {4: 4, 6: 41}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(unique_prefix("decap"), 1, shape="past-gateway") as made:
        servers.start_echo(made.host("b1")).wait_ready()
        yield made


@pytest.fixture(scope="module")
def decapsulator(lab: Lab) -> Decapsulator:
    started = servers.start_decapsulator(lab.host("b1"))
    started.wait_ready()
    # As strict as distributions have it.
    lab.host("b1").run(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.decap0.rp_filter=1"])
    words = ("--forward", "ipip", "--tunnel-device", servers.DECAPSULATOR_DEVICE, "--apply")
    servers.real_server(lab.host("b1"), "--vip", VIP[4], "--vip", VIP[6], *words)
    return started


def inner(version: int, port: int, *, payload: bytes = b"hello", checksum: int | None = None) -> Packet:
    if version == 4:
        header = IP(src=CLIENT[4], dst=VIP[4], ttl=63)
    else:
        header = IPv6(src=CLIENT[6], dst=VIP[6], hlim=63)
    return header / UDP(sport=port, dport=servers.ECHO_PORT, chksum=checksum) / Raw(payload)


def outer(version: int, **fields: int) -> Packet:
    if version == 4:
        return IP(src=SOURCE[4], dst=BACKEND[4], tos=0x28, flags="DF", **fields)
    return IPv6(src=SOURCE[6], dst=BACKEND[6], tc=0x28, fl=0xABCDE, hlim=64, **fields)


def send(host: Host, packet: Packet) -> None:
    """Sends a packet with the IP header that it has."""
    version = packet.version
    with host.enter(), socket.socket(FAMILY[version], socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(bytes(packet), (BACKEND[version], 0))


def asked(lab: Lab, version: int) -> socket.socket:
    """A socket of the client that hears answers from the VIP alone."""
    with lab.client.enter():
        sock = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind((CLIENT[version], 0))
    sock.connect((VIP[version], servers.ECHO_PORT))
    return sock


@pytest.mark.parametrize("kind", ["ipip", "gue"])
@pytest.mark.parametrize("outside", [4, 6])
@pytest.mark.parametrize("inside", [4, 6])
def test_packets_come_out_and_are_answered_past_the_gateway(
    lab: Lab, decapsulator: Decapsulator, kind: str, outside: int, inside: int
) -> None:
    before = decapsulator.counts()
    with asked(lab, inside) as sock:
        packet = inner(inside, sock.getsockname()[1])
        if kind == "ipip":
            field = {"proto": PROTOCOL[inside]} if outside == 4 else {"nh": PROTOCOL[inside]}
            whole = outer(outside, **field) / Raw(bytes(packet))
        else:
            gue = bytes([0, PROTOCOL[inside], 0, 0])
            udp = UDP(sport=50123, dport=servers.GUE_PORT)
            whole = outer(outside) / udp / Raw(gue + bytes(packet))
        send(lab.gateway, whole)
        assert sock.recv(100) == b"b1:hello"
    seen = decapsulator.seen()[-1]
    assert bytes.fromhex(seen.pop("inner")) == bytes(packet)
    assert seen == {
        "kind": kind,
        "outer": outside,
        "source": SOURCE[outside],
        "destination": BACKEND[outside],
        "tos": 0x28,
        "ttl": 64,
        "flow_label": 0xABCDE if outside == 6 else None,
        "dont_fragment": True if (outside, kind) == (4, "ipip") else None,
        "source_port": 50123 if kind == "gue" else None,
        "inner_length": len(packet),
    }
    after = decapsulator.counts()
    assert {name: after[name] - before[name] for name in after} == {
        "ipip": int(kind == "ipip"),
        "gue": int(kind == "gue"),
        "bytes": len(packet),
        "refused": 0,
    }


@pytest.mark.parametrize(
    ("header", "inside"),
    [
        (b"\x40\x04\x00\x00", 4),  # variant 1
        (b"\x20\x04\x00\x00", 4),  # a control message
        (b"\x01\x04\x00\x00\x00\x00\x00\x00", 4),  # options
        (b"\x00\x04\x00\x01", 4),  # a flag
        (b"\x00\x29\x00\x00", 4),  # announces IPv6
        (b"\x00\x11\x00\x00", 4),  # announces UDP
    ],
)
def test_what_the_balancer_would_not_send_is_refused(
    lab: Lab, decapsulator: Decapsulator, header: bytes, inside: int
) -> None:
    before = decapsulator.counts()
    payload = header + bytes(inner(inside, 4000))
    send(lab.gateway, outer(4) / UDP(sport=50123, dport=servers.GUE_PORT) / Raw(payload))
    wait_for(lambda: decapsulator.counts()["refused"] == before["refused"] + 1, 5, "the refusal")
    assert decapsulator.counts()["gue"] == before["gue"]


def test_a_wrong_checksum_inside_is_left_to_the_hosts_stack(lab: Lab, decapsulator: Decapsulator) -> None:
    with asked(lab, 4) as sock:
        port = sock.getsockname()[1]
        for checksum in (0xDEAD, None):
            payload = b"wrong" if checksum else b"right"
            bad = inner(4, port, payload=payload, checksum=checksum)
            send(lab.gateway, outer(4, proto=4) / Raw(bytes(bad)))
        assert sock.recv(100) == b"b1:right"


def test_an_outer_packet_in_fragments_comes_out_whole(lab: Lab, decapsulator: Decapsulator) -> None:
    with asked(lab, 4) as sock:
        packet = inner(4, sock.getsockname()[1], payload=b"x" * 1400)
        whole = IP(src=SOURCE[4], dst=BACKEND[4], proto=4, id=7) / Raw(bytes(packet))
        for fragment in whole.fragment(800):
            send(lab.gateway, fragment)
        assert sock.recv(2000) == b"b1:" + b"x" * 1400


def test_it_says_nothing_to_the_sender(lab: Lab, decapsulator: Decapsulator) -> None:
    lab.gateway.run(["ip", "addr", "add", f"{SOURCE[4]}/32", "dev", "lo"])
    heard = "table inet heard { counter unreachable { }; chain i { type filter hook input priority 0;"
    lab.gateway.run(["nft", f"{heard} icmp type destination-unreachable counter name unreachable; }}; }}"])
    lab.host("b1").run(["ip", "route", "add", f"{SOURCE[4]}/32", "via", "10.2.0.1"])
    with asked(lab, 4) as sock:
        send(lab.gateway, outer(4, proto=4) / Raw(bytes(inner(4, sock.getsockname()[1]))))
        assert sock.recv(100) == b"b1:hello"
    assert "packets 0 " in lab.gateway.run(["nft", "list", "counters"]).stdout
