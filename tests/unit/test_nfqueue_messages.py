"""Netlink messages as a kernel sent them (tests/data), and as it never should."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from l4lb.net.nfqueue import parse_messages
from l4lb.net.queue import read_kernel_queues

RECORDED = {
    name: bytes.fromhex(text)
    for name, text in json.loads(
        (Path(__file__).parent.parent / "data" / "nfqueue_messages.json").read_text()
    )["messages"].items()
}


def only(datagram: bytes):
    messages = parse_messages(datagram)
    assert len(messages) == 1
    return messages[0]


def test_a_small_udp_packet():
    kind, fields = only(RECORDED["udp4"])
    assert kind == "packet" and fields is not None
    assert (fields["id"], fields["mark"], fields["length"]) == (1, 0x80000000, 36)
    assert not fields["checksum_ready"] and not fields["gso"]
    packet = IP(fields["payload"])
    assert (packet.src, packet[UDP].dport, bytes(packet[UDP].payload)) == ("10.1.0.2", 5353, b"recorded")


def test_an_ipv6_packet():
    kind, fields = only(RECORDED["udp6"])
    assert kind == "packet" and fields is not None
    packet = IPv6(fields["payload"])
    assert (packet.dst, packet[UDP].sport) == ("2001:db8:2::11", 40000)


def test_a_super_packet_of_which_only_headers_were_copied():
    kind, fields = only(RECORDED["tcp4_gso"])
    assert kind == "packet" and fields is not None
    assert fields["gso"] and not fields["checksum_ready"]
    assert len(fields["payload"]) == 160 < fields["length"] == 7292
    assert IP(fields["payload"])[TCP].dport == 5201


def test_a_refused_verdict_and_an_acknowledgement():
    assert only(RECORDED["refused_verdict"]) == ("error", None)
    assert only(RECORDED["ack"]) == ("ack", None)


def test_several_messages_in_one_datagram():
    datagram = RECORDED["udp4"] + RECORDED["refused_verdict"] + RECORDED["udp6"]
    assert [kind for kind, _ in parse_messages(datagram)] == ["packet", "error", "packet"]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_truncation_is_read_without_a_packet(name):
    datagram = RECORDED[name]
    for length in range(1, len(datagram)):
        assert [kind for kind, _ in parse_messages(datagram[:length])] == ["broken"]


def test_an_attribute_that_is_too_long_is_broken():
    datagram = bytearray(RECORDED["udp4"])
    struct.pack_into("=H", datagram, 20, 60000)
    assert only(bytes(datagram))[0] == "broken"


def test_a_message_of_another_subsystem_is_skipped():
    assert only(struct.pack("=IHHII", 16, 0x0A00, 0, 0, 0))[0] == "other"


@given(st.sampled_from(sorted(RECORDED)), st.data())
def test_mutated_messages_are_always_answered(name, data):
    datagram = bytearray(RECORDED[name])
    for _ in range(data.draw(st.integers(1, 6))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    for kind, fields in parse_messages(bytes(datagram)):
        assert (fields is not None) == (kind == "packet")
        if fields is not None:
            assert len(fields["payload"]) <= min(fields["length"], len(datagram))


def test_the_kernels_table_of_queues(tmp_path):
    table = tmp_path / "nfnetlink_queue"
    table.write_text(
        "    3  12345    17 2   160     5     6     1034  1\n"
        "    4  12346     0 2   160     0     0        0  1\n"
    )
    third, fourth = read_kernel_queues(table)
    assert (third.number, third.waiting, third.dropped_full, third.dropped_socket) == (3, 17, 5, 6)
    assert (fourth.number, fourth.waiting) == (4, 0)


def test_a_kernel_without_queues_has_none(tmp_path):
    assert read_kernel_queues(tmp_path / "missing") == []
