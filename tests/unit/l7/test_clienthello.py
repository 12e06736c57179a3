"""The name in a ClientHello: of real clients, in pieces, and of those who send something else."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7.tls.clienthello import MAX_HELLO, server_name


def hello(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same hello in records of `size` bytes."""
    body = data[5:]
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("example.com", "example.com"), ("API.Example.COM", "api.example.com"), (None, ""), ("a.b.", "a.b")],
)
def test_the_name_that_a_client_asks_for(asked, found):
    assert server_name(hello(asked)) == found


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_a_hello_in_many_records(size):
    assert server_name(in_records(hello("example.com"), size)) == "example.com"


def test_every_part_of_a_hello_is_too_little():
    whole = hello("example.com")
    assert {server_name(whole[:i]) for i in range(len(whole))} == {None}
    split = in_records(whole, 40)
    assert {server_name(split[:i]) for i in range(len(split))} == {None}


def test_what_follows_the_hello_is_left_alone():
    assert server_name(hello("example.com") + b"\x17\x03\x03\x00\x05hello") == "example.com"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "not_tls"),
        (b"\x16\x02\x00\x00\x05hello", "not_tls"),
        (b"\x16\x03\x01\x00\x00", "not_tls"),
        (b"\x16\x03\x01\x40\x01", "not_tls"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "no_client_hello"),
        (b"\x16\x03\x01\x00\x05\x01" + (MAX_HELLO + 1).to_bytes(3, "big") + b"\x03", "hello_too_large"),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", "bad_client_hello"),
    ],
)
def test_what_is_no_hello_has_a_reason(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        server_name(data)


@given(st.data())
def test_whatever_is_changed_in_a_hello_there_is_an_answer_or_a_reason(data):
    whole = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = server_name(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ValueError as error:
        assert str(error) in {
            *("not_tls", "no_client_hello", "hello_too_large", "bad_client_hello", "bad_server_name")
        }
    else:
        assert found is None or found.isprintable()


HELLO = hello("example.com")
