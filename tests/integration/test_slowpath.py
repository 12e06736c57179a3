"""The slow path on a real queue: rules of the test's own, errors from raw sockets, and what arrives."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from l4lb.dataplane.balancer import Balancer
from l4lb.dataplane.decision import Flow
from l4lb.dataplane.icmp_words import Hook
from l4lb.dataplane.table import MARK_MASK, Table, forward_mark
from l4lb.errors import L4lbError
from l4lb.model import Forward
from l4lb.net import nft
from l4lb.net.queue import read_kernel_queues
from l4lb.net.rawsocket import RawSender
from l4lb.net.slowpath import SlowPath
from tests.support.cores import KEY
from tests.support.icmp import Flows, flow, icmp_error
from tests.support.lab import Host, Lab
from tests.support.packets import tcp
from tests.support.tables import Svc, make_table

pytestmark = pytest.mark.root
QUEUE = 77
OTHERS = 0x0010_0000
ETH_P_ALL = 3

CLIENT, CLIENT6 = "10.1.0.2:40000", "[2001:db8:1::2]:40000"
WEB, WEB6, DIRECT, FAR, HIDDEN = (
    "203.0.113.10:80",
    "[2001:db8:f::10]:80",
    "203.0.113.11:80",
    "203.0.113.12:80",
    "203.0.113.13:80",
)
B1, B1_6, POOL = "10.2.0.11:8080", "[2001:db8:2::11]:8080", "10.2.0.1:2000"
TABLE = make_table(
    Svc("web", [WEB + "/tcp"], [B1]),
    Svc("web6", [WEB6 + "/tcp"], [B1_6]),
    Svc("direct", [DIRECT + "/tcp"], ["10.2.0.11"], forward=Forward.DSR),
    Svc("far", [FAR + "/tcp"], ["10.2.0.11"], forward=Forward.IPIP),
    Svc("hidden", [HIDDEN + "/tcp"], [B1], forward=Forward.MASQUERADE),
    pool=("10.2.0.1",),
)
FLOWS = Flows(
    flow(CLIENT, WEB, 0),
    flow(CLIENT6, WEB6, 1),
    flow(CLIENT, DIRECT, 2),
    flow(CLIENT, FAR, 3),
    flow(CLIENT, HIDDEN, 4, POOL),
)
ERRORS = "{ destination-unreachable, time-exceeded }"
RULES = f"""
table inet slow {{
  counter clean {{ }}
  counter marked {{ }}
  chain to_slow {{ }}
  chain queue_in {{
    type filter hook prerouting priority -300;
    icmp type {ERRORS} meta mark set {Hook.PREROUTING.mark | OTHERS:#x} goto to_slow
    icmpv6 type packet-too-big meta mark set {Hook.PREROUTING.mark | OTHERS:#x} goto to_slow
  }}
  chain apply_in {{
    type filter hook prerouting priority -290;
    meta l4proto {{ icmp, icmpv6 }} meta mark {OTHERS:#x} counter name clean
    meta mark & {MARK_MASK:#x} == {forward_mark(2):#x} counter name marked ip daddr set 10.2.0.11
  }}
  chain queue_out {{
    type filter hook postrouting priority 80;
    icmp type {ERRORS} meta mark set {Hook.POSTROUTING.mark | OTHERS:#x} goto to_slow
  }}
}}
"""


class FlowsBalancer:
    """A worker's balancer that knows certain flows."""

    def find(self, packet: bytes, now_ms: int) -> Flow | None:
        layer = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        size = 4 if layer.version == 4 else 16
        addresses = packet[12:20] if size == 4 else packet[8:40]
        segment = layer[TCP]
        return FLOWS.find(addresses[:size], segment.sport, addresses[size:], segment.dport, 6)

    def find_source(self, address: bytes, port: int, protocol: int, now_ms: int) -> Flow | None:
        return FLOWS.find_source(address, port, protocol)


def workers(*balancers: Any) -> Callable[[], Sequence[Any]]:
    return lambda: [SimpleNamespace(balancer=balancer) for balancer in balancers]


@pytest.fixture
def gateway(lab: Lab) -> Iterator[Host]:
    """The gateway with rules that queue errors."""
    with lab.gateway.enter():
        nft.run_nft(RULES)
        nft.add_queue_rules("slow", {"to_slow": QUEUE})
    yield lab.gateway
    with lab.gateway.enter():
        nft.delete_table("slow")


@contextmanager
def serving(
    gateway: Host, table: Callable[[], Table] = lambda: TABLE, balancer: Any = None
) -> Iterator[SlowPath]:
    failures: list[str] = []
    with gateway.enter():
        slow = SlowPath(
            QUEUE,
            key=KEY,
            table=table,
            workers=workers(balancer or FlowsBalancer()),
            on_failure=failures.append,
        )
    slow.start()
    try:
        yield slow
    finally:
        slow.stop()
    assert not failures


def exchange(sender: Host, packet: bytes, receiver: Host, count: int = 1) -> list[bytes]:
    """Sends a packet and returns what ICMP, IPIP and ICMPv6 errors the receiver gets."""
    with (
        receiver.enter(),
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as sock,
    ):
        sock.settimeout(5)
        with sender.enter():
            raw = RawSender()
            raw.send(packet)
            raw.close()
        found: list[bytes] = []
        while len(found) < count:
            data, where = sock.recvfrom(65536)
            if where[2] != socket.PACKET_OUTGOING and is_error(data):
                found.append(data)
        return found


def is_error(packet: bytes) -> bool:
    if packet[0] >> 4 == 4:
        return packet[9] == 4 or (packet[9] == 1 and packet[20] in (3, 11))
    return packet[0] >> 4 == 6 and packet[6] == 58 and packet[40] < 128


def counted(slow: SlowPath) -> dict[str, int]:
    return {name: count for name, count in slow.counts().items() if count}


def test_about_an_answer_goes_to_the_backend_of_the_flow(lab, gateway):
    balancer = Balancer(capacity=16, key=KEY)
    balancer.publish(TABLE)
    balancer.decide(tcp(CLIENT, WEB), time.monotonic_ns() // 1_000_000)
    with serving(gateway, balancer=balancer) as slow:
        error = icmp_error(
            "10.1.0.2", "203.0.113.10", 3, 4, tcp(WEB, CLIENT, "A", bytes(600))[:500], mtu=1400, id=7
        )
        ours = icmp_error(
            "10.1.0.2", "10.2.0.11", 3, 4, tcp(B1, CLIENT, "A", bytes(600))[:500], mtu=1400, id=7, ttl=63
        )
        assert exchange(lab.client, error, lab.host("b1")) == [ours]
        assert counted(slow) == {
            "packets": 2,
            "to_backend": 1,
            "not_balanced": 1,
        }  # the second in postrouting
    with gateway.enter():
        assert nft.read_counters("slow")["clean"] == 1


def test_over_ipv6(lab, gateway):
    with serving(gateway) as slow:
        error = icmp_error("2001:db8:1::2", "2001:db8:f::10", 2, 0, tcp(WEB6, CLIENT6), mtu=1400)
        ours = icmp_error("2001:db8:1::2", "2001:db8:2::11", 2, 0, tcp(B1_6, CLIENT6), mtu=1400, hlim=63)
        assert exchange(lab.client, error, lab.host("b1")) == [ours]
        assert counted(slow) == {"packets": 1, "to_backend": 1}


def test_of_direct_return_the_kernel_sends_it_on_by_its_mark(lab, gateway):
    with serving(gateway):
        error = icmp_error("10.1.0.2", "203.0.113.11", 11, 0, tcp(DIRECT, CLIENT), id=7)
        (got,) = exchange(lab.client, error, lab.host("b1"))
        assert got[20:] == error[20:]
    with gateway.enter():
        assert nft.read_counters("slow")["marked"] == 1


def test_through_a_tunnel_to_the_backend(lab, gateway):
    with serving(gateway) as slow:
        error = icmp_error("10.1.0.2", "203.0.113.12", 11, 0, tcp(FAR, CLIENT), id=7)
        (got,) = exchange(lab.client, error, lab.host("b1"))
        assert IP(got).dst == "10.2.0.11" and IP(got).src.startswith(("198.18.", "198.19."))
        assert got[20:] == icmp_error("10.1.0.2", "203.0.113.12", 11, 0, tcp(FAR, CLIENT), id=7, ttl=63)
        assert slow.counts()["to_backend"] == 1


def test_about_a_packet_to_a_backend_is_told_of_the_vip(lab, gateway):
    with serving(gateway) as slow:
        error = icmp_error("10.2.0.11", "10.1.0.2", 3, 3, tcp(CLIENT, B1), id=7)
        ours = icmp_error("203.0.113.10", "10.1.0.2", 3, 3, tcp(CLIENT, WEB), id=7, ttl=63)
        assert exchange(lab.host("b1"), error, lab.client) == [ours]
        assert counted(slow) == {"packets": 2, "not_balanced": 1, "to_client": 1}


def test_about_a_masqueraded_packet_goes_to_the_client(lab, gateway):
    with serving(gateway) as slow:
        error = icmp_error("10.2.0.11", "10.2.0.1", 3, 3, tcp(POOL, B1), id=7)
        ours = icmp_error("203.0.113.13", "10.1.0.2", 3, 3, tcp(CLIENT, HIDDEN), id=7, ttl=63)
        assert exchange(lab.host("b1"), error, lab.client) == [ours]
        assert slow.counts()["to_client"] == 1


def test_about_a_tunnels_packet_the_client_is_told_of_the_one_inside(lab, gateway):
    with serving(gateway):
        (there,) = exchange(
            lab.client, icmp_error("10.1.0.2", "203.0.113.12", 11, 0, tcp(FAR, CLIENT), id=7), lab.host("b1")
        )
        source = IP(there).src  # the flow's outer source
        tunneled = bytes(IP(src=source, dst="10.2.0.11", proto=4) / tcp(CLIENT, FAR, "A", bytes(600)))
        error = icmp_error("10.2.0.11", source, 3, 4, tunneled[:548], mtu=1400)
        (got,) = exchange(lab.host("b1"), error, lab.client)
        assert (IP(got).src, IP(got).dst) == ("203.0.113.12", "10.1.0.2")
        assert (
            got[20:]
            == icmp_error(
                "203.0.113.12", "10.1.0.2", 3, 4, tcp(CLIENT, FAR, "A", bytes(600))[:528], mtu=1380
            )[20:]
        )


def test_whatever_happens_the_packet_is_accepted(lab, gateway):
    def fail() -> Table:
        raise RuntimeError("no table")

    with serving(gateway, table=fail) as slow:
        error = icmp_error("10.2.0.11", "10.1.0.2", 3, 3, tcp(CLIENT, B1), id=7)
        ours = icmp_error("10.2.0.11", "10.1.0.2", 3, 3, tcp(CLIENT, B1), id=7, ttl=63)
        assert exchange(lab.host("b1"), error, lab.client) == [ours]
        assert counted(slow) == {"packets": 2, "failed": 2}
        with gateway.enter():
            assert [queue.waiting for queue in read_kernel_queues() if queue.number == QUEUE] == [0]


def test_a_stopped_one_gives_the_queue_up(gateway):
    with serving(gateway), pytest.raises(L4lbError, match="another process"), serving(gateway):
        pass
    with serving(gateway):
        pass
