"""The queue loop over a socket pair: messages as a kernel sent them in, verdicts read on the other side."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP

from l4lb.dataplane.balancer import Balancer
from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import LEARN_AFTER, MARK_LEARN, forward_mark
from l4lb.model import Forward
from l4lb.net.nfqueue import QueueLoop
from tests.support.packets import udp
from tests.support.tables import Svc, make_table
from tests.unit.test_nfqueue_messages import RECORDED

NF_DROP, NF_ACCEPT = 0, 1
OTHERS = 0x3FF00000
# The recorded datagram is from 10.1.0.2:40000 to 10.2.0.11:5353: to the balancer, a service.
SERVICE = make_table(Svc("dns", ["10.2.0.11:5353/udp"], ["192.0.2.7:53"]))
LARGE = make_table(Svc("iperf", ["10.2.0.11:5201/tcp"], ["192.0.2.7:5201"]), replies_seen=False)
LEARNING = make_table(Svc("dns", ["10.2.0.11:5353/udp"], ["192.0.2.7:53"]), learns=True)
DIRECT = make_table(Svc("dns", ["10.2.0.11:5353/udp"], ["192.0.2.7"], forward=Forward.DSR))
FAR = make_table(Svc("dns", ["10.2.0.11:5353/udp"], ["192.0.2.7"], forward=Forward.IPIP))
HIDDEN = make_table(
    Svc("dns", ["10.2.0.11:5353/udp"], ["192.0.2.7:53"], forward=Forward.MASQUERADE), pool=("10.2.0.1",)
)
ELSEWHERE = make_table(Svc("dns", ["203.0.113.1:53/udp"], ["192.0.2.7:53"]))


@contextmanager
def serving(table, *, rewrite: bool) -> Iterator[tuple[socket.socket, QueueLoop, Balancer]]:
    """A loop that runs in a thread; ours is the kernel's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(10)
    balancer = Balancer(capacity=64, key=bytes(16), ports=(1024, 64))
    balancer.publish(table)
    loop = QueueLoop(balancer, theirs.fileno(), queue=9, copy_range=4096, rewrite=rewrite)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield ours, loop, balancer
    finally:
        loop.stop()
        ours.send(RECORDED["ack"])
        thread.join(10)
        assert not thread.is_alive()
        ours.close()
        theirs.close()


def numbered(message: bytes, number: int, mark: int | None = None) -> bytes:
    """The recorded message with another packet id, and another mark."""
    data = bytearray(message)
    at = 20
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if kind == 1:
            struct.pack_into(">I", data, at + 4, number)
        elif kind == 3 and mark is not None:
            struct.pack_into(">I", data, at + 4, mark)
        at += (length + 3) & ~3
    return bytes(data)


def verdicts(datagram: bytes) -> list[tuple[int, int, int, bytes | None]]:
    """(id, verdict, mark, payload) of every verdict in what the loop sent at once."""
    found = []
    while datagram:
        length, kind, flags, _, _ = struct.unpack_from("=IHHII", datagram)
        family, version, queue = struct.unpack_from(">BBH", datagram, 16)
        assert (kind, flags, family, version, queue) == (3 << 8 | 1, 1, 0, 0, 9)
        attributes = {}
        at = 20
        while at < length:
            size, number = struct.unpack_from("=HH", datagram, at)
            attributes[number] = datagram[at + 4 : at + size]
            at += (size + 3) & ~3
        verdict, packet_id = struct.unpack(">II", attributes[2])
        found.append((packet_id, verdict, int.from_bytes(attributes[3], "big"), attributes.get(10)))
        datagram = datagram[length:]
    return found


def test_a_mark_is_answered_with_40_bytes_and_keeps_the_bits_of_others():
    with serving(LARGE, rewrite=False) as (kernel, loop, balancer):
        kernel.send(numbered(RECORDED["tcp4_gso"], 17))
        answer = kernel.recv(65536)
        assert len(answer) == 40
        assert verdicts(answer) == [(17, NF_ACCEPT, forward_mark(0), None)]
        assert balancer.reasons()[Reason.SCHEDULED] == 1
        assert loop.counts()["packets"] == 1


def test_what_came_whole_is_rewritten_also_where_others_are_marked():
    with serving(SERVICE, rewrite=False) as (kernel, _, _):
        kernel.send(numbered(RECORDED["udp4"], 17, OTHERS | 0x80000000))
        ((number, verdict, mark, payload),) = verdicts(kernel.recv(65536))
        assert (number, verdict, mark) == (17, NF_ACCEPT, OTHERS)
        assert IP(payload).dst == "192.0.2.7"


def test_a_rewritten_packet_goes_back_whole_with_a_right_checksum():
    with serving(SERVICE, rewrite=True) as (kernel, _, _):
        kernel.send(RECORDED["udp4"])
        ((_, verdict, mark, payload),) = verdicts(kernel.recv(65536))
        assert (verdict, mark) == (NF_ACCEPT, 0)
        packet = IP(payload)
        assert (packet.dst, packet[UDP].dport, bytes(packet[UDP].payload)) == ("192.0.2.7", 53, b"recorded")
        # The kernel had left the checksum unfinished: it has to be there now, in full.
        del packet.chksum, packet[UDP].chksum
        assert bytes(packet) == payload


def test_what_is_not_balanced_keeps_the_mark_by_which_the_rules_drop_it():
    with serving(ELSEWHERE, rewrite=True) as (kernel, _, _):
        kernel.send(numbered(RECORDED["udp4"], 3, OTHERS | 0x8000_0000))
        assert verdicts(kernel.recv(65536)) == [(3, NF_ACCEPT, OTHERS | 0x8000_0000, None)]


def test_a_drop_is_a_drop():
    with serving(SERVICE, rewrite=True) as (kernel, loop, balancer):
        kernel.send(numbered(RECORDED["tcp4_gso"], 5))  # of which only the headers were copied
        assert verdicts(kernel.recv(65536)) == [(5, NF_DROP, 0, None)]
        assert balancer.reasons()[Reason.TRUNCATED] == 1
        assert loop.counts()["dropped"] == 1


def test_every_packet_of_a_burst_is_answered_once_and_in_order():
    with serving(SERVICE, rewrite=False) as (kernel, loop, _):
        for number in range(1, 101):
            kernel.send(numbered(RECORDED["udp4"], number))
        answered: list[int] = []
        while len(answered) < 100:
            answered += [number for number, *_ in verdicts(kernel.recv(65536))]
        assert answered == list(range(1, 101))
        assert loop.counts()["batches"] <= 100


def test_errors_and_nonsense_are_counted_and_skipped():
    with serving(SERVICE, rewrite=False) as (kernel, loop, _):
        kernel.send(RECORDED["refused_verdict"])
        kernel.send(RECORDED["ack"])
        kernel.send(b"\x01\x02\x03")
        kernel.send(RECORDED["udp4"][:40])
        kernel.send(bytes(9000))  # longer than any message of this queue
        kernel.send(RECORDED["udp6"])
        kernel.recv(65536)
        counts = loop.counts()
        assert (counts["verdict_errors"], counts["acks"], counts["unreadable"]) == (1, 1, 3)
        assert counts["packets"] == 1


def test_a_socket_that_fails_ends_the_loop_with_its_error():
    balancer = Balancer(capacity=64, key=bytes(16))
    balancer.publish(SERVICE)
    loop = QueueLoop(balancer, 1 << 20, queue=9, copy_range=160, rewrite=False)
    with pytest.raises(OSError, match="queue 9"):
        loop.run()


def test_what_goes_straight_to_its_backend_is_left_to_the_kernel_though_it_came_whole():
    with serving(DIRECT, rewrite=True) as (kernel, _, _):
        kernel.send(numbered(RECORDED["udp4"], 17, OTHERS))
        assert verdicts(kernel.recv(65536)) == [(17, NF_ACCEPT, OTHERS | forward_mark(0), None)]


def test_what_the_kernel_shall_learn_goes_back_as_it_came():
    with serving(LEARNING, rewrite=False) as (kernel, _, balancer):
        for number in range(1, LEARN_AFTER):
            kernel.send(numbered(RECORDED["udp4"], number))
            ((_, _, mark, payload),) = verdicts(kernel.recv(65536))
            assert mark == 0 and payload is not None
        kernel.send(numbered(RECORDED["udp4"], 18))
        assert verdicts(kernel.recv(65536)) == [(18, NF_ACCEPT, MARK_LEARN | forward_mark(0), None)]
        assert balancer.reasons()[Reason.FLOW] == LEARN_AFTER - 1


@pytest.mark.parametrize("table", [FAR, HIDDEN], ids=["tunnel", "masquerade"])
def test_without_a_raw_socket_what_should_be_sent_is_lost_and_counted(table):
    with serving(table, rewrite=True) as (kernel, loop, balancer):
        kernel.send(numbered(RECORDED["udp4"], 17, OTHERS))
        assert verdicts(kernel.recv(65536)) == [(17, NF_DROP, OTHERS, None)]
        kernel.send(RECORDED["ack"])  # behind it the packet is done with
        kernel.send(numbered(RECORDED["udp4"], 18))
        kernel.recv(65536)
        counts = loop.counts()
        assert counts["send_failed"] >= 1
        assert (counts["sent"], counts["dropped"]) == (0, 0)
        assert balancer.reasons()[Reason.SCHEDULED] == 1


def test_a_reset_goes_through_the_raw_socket_also_where_packets_are_marked():
    with serving(LARGE, rewrite=False) as (kernel, loop, balancer):
        kernel.send(numbered(RECORDED["tcp4_gso"], 17))
        kernel.recv(65536)
        balancer.publish(replace(LARGE, resets=frozenset({0})))
        kernel.send(numbered(RECORDED["tcp4_gso"], 18))
        assert verdicts(kernel.recv(65536)) == [(18, NF_DROP, 0, None)]
        kernel.send(numbered(RECORDED["tcp4_gso"], 19))  # behind it the reset is done with
        kernel.recv(65536)
        assert (loop.counts()["send_failed"], loop.counts()["dropped"]) == (1, 0)
        assert balancer.reasons()[Reason.RESET] == 1


def test_packets_too_close_in_one_datagram_are_not_taken():
    # The kernel sends one packet a datagram. In front of each there must be room for outer headers.
    small = message(1, udp("10.1.0.2:40000", "10.2.0.11:5353", b"x"))
    with serving(FAR, rewrite=True) as (kernel, loop, _):
        kernel.send(small + message(2, udp("10.1.0.2:40001", "10.2.0.11:5353", b"y")))
        assert [number for number, *_ in verdicts(kernel.recv(65536))] == [1]
        assert loop.counts()["unreadable"] == 1


def message(number: int, packet: bytes) -> bytes:
    """The shortest message that carries a packet."""
    attributes = struct.pack("=HHIHBx", 11, 1, socket.htonl(number), 0, 0)
    attributes += struct.pack("=HH", 4 + len(packet), 10) + packet + bytes(-len(packet) % 4)
    return struct.pack("=IHHIIBBH", 20 + len(attributes), 3 << 8, 0, 0, 0, 2, 0, 0) + attributes
