"""What the queue loop sends in the place of packets, on real raw sockets, as it arrives on the wire.

The loop stands in the lab's gateway, the kernel's end of its queue in the test.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from scapy.layers.inet import ICMP, IP, UDP, defragment
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment, defragment6
from scapy.layers.l2 import Ether

from l4lb.dataplane.balancer import Balancer
from l4lb.dataplane.table import Table
from l4lb.model import Forward
from l4lb.net.nfqueue import QueueLoop
from l4lb.net.rawsocket import open_raw
from tests.support.cores import KEY
from tests.support.lab import Lab
from tests.support.lab.wait import wait_for
from tests.support.packets import udp
from tests.support.tables import Svc, make_table
from tests.unit.test_nfqueue_messages import RECORDED
from tests.unit.test_queue_loop import NF_DROP, message, verdicts

pytestmark = pytest.mark.root
ETH_P_ALL = 3
CLIENT, CLIENT6 = "10.1.0.2:40000", "[2001:db8:1::2]:40000"
HIDDEN, IPIP, IPIP6, GUE, GUE6 = (f"203.0.113.{n}:53" for n in range(10, 15))
HIDDEN6 = "[2001:db8:f::10]:53"
TABLE = make_table(
    Svc("hidden", [HIDDEN + "/udp"], ["10.2.0.11:5353"], forward=Forward.MASQUERADE),
    Svc("hidden6", [HIDDEN6 + "/udp"], ["[2001:db8:2::11]:5353"], forward=Forward.MASQUERADE),
    Svc("ipip", [IPIP + "/udp"], ["10.2.0.11"], forward=Forward.IPIP),
    Svc("ipip6", [IPIP6 + "/udp"], ["[2001:db8:2::11]"], forward=Forward.IPIP),
    Svc("gue", [GUE + "/udp"], ["10.2.0.11"], forward=Forward.GUE),
    Svc("gue6", [GUE6 + "/udp"], ["[2001:db8:2::11]"], forward=Forward.GUE),
    pool=("10.2.0.1", "2001:db8:2::1"),
)


class Wire:
    """The gateway's end of a loop's queue, and what leaves by an interface."""

    def __init__(self, kernel: socket.socket, tap: socket.socket, loop: QueueLoop) -> None:
        self.loop = loop
        self._kernel = kernel
        self._tap = tap
        self._number = 0

    def queue(self, packet: bytes) -> None:
        """Queues a packet; its verdict is to drop it, since another one is sent."""
        self._number += 1
        self._kernel.send(message(self._number, packet))
        assert verdicts(self._kernel.recv(65536)) == [(self._number, NF_DROP, 0, None)]

    def counts_reach(self, *, sent: int, failed: int = 0) -> bool:
        """Waits for these counts, which are made behind the sending."""

        def reached() -> bool:
            counts = self.loop.counts()
            return (counts["sent"], counts["send_failed"]) == (sent, failed)

        return wait_for(reached, 5, f"{sent} sent and {failed} failed")

    def take(self, count: int = 1) -> list[IP | IPv6]:
        """The next packets on the wire that are not the kernel's own."""
        found: list[IP | IPv6] = []
        while len(found) < count:
            frame = Ether(self._tap.recv(65536))
            if frame.type in (0x0800, 0x86DD) and not is_neighbours(frame):
                found.append(frame.payload)
        return found


def is_neighbours(frame: Ether) -> bool:
    """Whether it is ICMPv6 that hosts of a link say to each other, unasked."""
    return IPv6 in frame and frame[IPv6].nh in (0, 58) and ICMPv6TimeExceeded not in frame


@contextmanager
def wire(lab: Lab, interface: str, table: Table = TABLE) -> Iterator[Wire]:
    kernel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with lab.gateway.enter():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        tap.bind((interface, 0))
        raw4, raw6 = open_raw(socket.AF_INET), open_raw(socket.AF_INET6)
    assert raw4 is not None and raw6 is not None
    with closing(kernel), closing(theirs), closing(tap), closing(raw4), closing(raw6):
        for sock in (kernel, tap):
            sock.settimeout(10)
        balancer = Balancer(capacity=64, key=KEY, ports=(1024, 64))
        balancer.publish(table)
        loop = QueueLoop(
            balancer,
            theirs.fileno(),
            queue=9,
            copy_range=65531,
            rewrite=True,
            raw4=raw4.fileno(),
            raw6=raw6.fileno(),
        )
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield Wire(kernel, tap, loop)
        finally:
            loop.stop()
            kernel.send(RECORDED["ack"])
            thread.join(10)


@pytest.mark.parametrize(
    ("source", "vip", "backend"),
    [(CLIENT, HIDDEN, "10.2.0.11"), (CLIENT6, HIDDEN6, "2001:db8:2::11")],
    ids=["ipv4", "ipv6"],
)
def test_a_masqueraded_packet_leaves_by_the_backends_link(lab, source, vip, backend):
    with wire(lab, "lan0") as queued:
        queued.queue(udp(source, vip, b"query"))
        (packet,) = queued.take()
        assert (packet.dst, packet[UDP].dport, bytes(packet[UDP].payload)) == (backend, 5353, b"query")
        assert packet.src == ("10.2.0.1" if packet.version == 4 else "2001:db8:2::1")
        assert 1024 <= packet[UDP].sport < 1088
        queued.queue(udp(endpoint(backend, 5353), endpoint(packet.src, packet[UDP].sport), b"answer"))
        assert queued.counts_reach(sent=2)


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@pytest.mark.parametrize(("source", "vip", "header"), [(CLIENT, HIDDEN, 28), (CLIENT6, HIDDEN6, 48)])
def test_the_sender_is_told_that_its_time_to_live_ended(lab, source, vip, header):
    packet = udp(source, vip, b"query", **({"ttl": 1} if header == 28 else {"hlim": 1}))
    with wire(lab, "wan0") as queued:
        queued.queue(packet)
        (answer,) = queued.take()
        assert bytes(answer)[header:] == packet
        if answer.version == 4:
            assert (answer.src, answer.dst, answer[ICMP].type) == ("203.0.113.10", "10.1.0.2", 11)
        else:
            assert (answer.src, answer.dst) == ("2001:db8:f::10", "2001:db8:1::2")


@pytest.mark.parametrize("size", [100, 1473, 3000, 20_000])
@pytest.mark.parametrize(
    ("vip", "header"), [(IPIP, 20), (IPIP6, 40), (GUE, 32), (GUE6, 52)], ids=["ipip", "ipip6", "gue", "gue6"]
)
def test_a_tunnel_carries_what_does_not_fit_in_fragments(lab, vip, header, size):
    packet = udp(CLIENT, vip, bytes(n % 251 for n in range(size)))
    fragments = 1 + (header + len(packet) > 1500) * ((header + len(packet)) // 1480)
    with wire(lab, "lan0") as queued:
        queued.queue(packet)
        found = [queued.take()[0]]
        while is_more_to_come(found[-1]):
            found += queued.take()
        assert fragments <= len(found) <= fragments + 2
        whole = found[0] if len(found) == 1 else join(found)
        inside = bytes(whole)[header:]
        assert inside[20:] == packet[20:]  # its TTL is one less
        assert IP(inside).ttl == IP(packet).ttl - 1
        assert queued.counts_reach(sent=1)


def is_more_to_come(packet: IP | IPv6) -> bool:
    if packet.version == 4:
        return bool(packet.flags.MF)
    return IPv6ExtHdrFragment in packet and bool(packet[IPv6ExtHdrFragment].m)


def join(fragments: list[IP | IPv6]) -> IP | IPv6:
    """The packet that was cut, as a host would put it together."""
    if fragments[0].version == 6:
        return defragment6(fragments)
    assert len({fragment.id for fragment in fragments}) == 1
    (whole,) = defragment(fragments)
    return whole


def test_a_packet_that_may_not_be_cut_is_lost_and_counted(lab):
    with wire(lab, "lan0") as queued:
        queued.queue(udp(CLIENT, IPIP, bytes(1500), flags="DF"))
        queued.queue(udp(CLIENT, IPIP, b"small"))
        assert bytes(queued.take()[0]).endswith(b"small")
        assert queued.counts_reach(sent=1, failed=1)
