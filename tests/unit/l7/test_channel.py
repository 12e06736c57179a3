"""Messages between processes: whole, bounded, with descriptors, and after one end was replaced."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from l7.process import channel as module
from l7.process.channel import Channel, ChannelClosedError, make_pair


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = make_pair()
    yield one, other
    one.close()
    other.close()


def received(end: Channel) -> list[object]:
    return [message for message, _ in end.receive()]


def test_messages_arrive_in_order_and_nothing_is_there_before(pair):
    one, other = pair
    assert other.receive() == []
    one.send({"n": 1})
    one.send({"n": 2, "text": "a\nb"})
    assert received(other) == [{"n": 1}, {"n": 2, "text": "a\nb"}]


def test_what_the_socket_does_not_take_waits_for_flush(pair):
    one, other = pair
    text = "x" * (4 << 20)
    one.send({"text": text})
    one.send({"n": 2})
    assert one.is_waiting
    messages: list[object] = []
    while len(messages) < 2:
        messages += received(other)
        one.flush()
    assert messages == [{"text": text}, {"n": 2}]
    assert not one.is_waiting


def test_a_message_carries_descriptors_that_the_receiver_owns(pair):
    one, other = pair
    reader, writer = os.pipe()
    one.send({"n": 1})
    one.send({"n": 2}, [writer])
    os.close(writer)
    (_, none), (message, [got]) = other.receive()
    assert none == [] and message == {"n": 2}
    os.write(got, b"hello")
    os.close(got)
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_half_a_message_of_a_killed_process_is_left_out(pair):
    one, other = pair
    one.sock.send(b'{"n": 1}\n{"half": ')
    assert received(other) == [{"n": 1}]
    successor = Channel(socket.socket(fileno=os.dup(one.fileno())))
    successor.begin_anew()
    successor.send({"n": 2})
    assert received(other) == [{"n": 2}]
    successor.close()


@pytest.mark.parametrize("line", [b"\n", b"nonsense\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_object_is_left_out(pair, line):
    one, other = pair
    one.sock.send(line + b'{"n": 1}\n')
    assert received(other) == [{"n": 1}]


def test_a_closed_end_is_told(pair):
    one, other = pair
    one.send({"last": True})
    one.close()
    assert received(other) == [{"last": True}]
    with pytest.raises(ChannelClosedError):
        other.receive()
    with pytest.raises(ChannelClosedError):
        other.send({"n": 1})


def test_what_waits_and_one_message_are_bounded(pair, monkeypatch):
    one, other = pair
    monkeypatch.setattr(module, "MOST_WAITING", 1 << 20)
    monkeypatch.setattr(module, "LARGEST_LINE", 1000)
    with pytest.raises(ChannelClosedError, match="does not read"):
        one.send({"text": "x" * (2 << 20)})
    one.sock.send(json.dumps({"text": "y" * 2000}).encode())
    with pytest.raises(ChannelClosedError, match="a message of more than"):
        other.receive()
