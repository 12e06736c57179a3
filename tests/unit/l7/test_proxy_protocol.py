"""The PROXY protocol: headers read whole and byte by byte, refused, and built."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7.wire.proxyprotocol import (
    MAX_V1,
    MAX_V2,
    SIGNATURE,
    ProxyHeader,
    ProxyProtocolError,
    build_header,
    parse_header,
)
from tests.support.damage import damaged, rounds

CLIENT, HERE = (ip_address("192.0.2.1"), 40000), (ip_address("198.51.100.1"), 443)
CLIENT6, HERE6 = (ip_address("2001:db8::1"), 1), (ip_address("2001:db8::2"), 65535)
REST = b"GET / HTTP/1.1\r\n"


def v2(command: int, family: int, addresses: bytes, tlvs: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses + tlvs)) + addresses + tlvs


def ends(source: bytes, destination: bytes, *ports: int) -> bytes:
    return source + destination + struct.pack("!HH", *ports)


ENDS4 = ends(CLIENT[0].packed, HERE[0].packed, 40000, 443)
ENDS6 = ends(CLIENT6[0].packed, HERE6[0].packed, 1, 65535)
TLV = b"\x04\x00\x01x"

READ = {
    "v1, IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n", CLIENT, HERE),
    "v1, IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8:0:0::2 1 65535\r\n", CLIENT6, HERE6),
    "v1, port 0": (b"PROXY TCP4 192.0.2.1 198.51.100.1 0 443\r\n", (CLIENT[0], 0), HERE),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", None, None),
    "v1, unknown, with anything": (b"PROXY UNKNOWN ffff::1 x\xff\x00 \r\n", None, None),
    "v1, the longest": (b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 16) + b"\r\n", None, None),
    "v2, IPv4": (v2(0x21, 0x11, ENDS4), CLIENT, HERE),
    "v2, IPv6": (v2(0x21, 0x21, ENDS6), CLIENT6, HERE6),
    "v2, TLVs": (v2(0x21, 0x11, ENDS4, TLV * 100), CLIENT, HERE),
    "v2, the longest": (v2(0x21, 0x11, ENDS4, bytes(MAX_V2 - 28)), CLIENT, HERE),
    "v2, local": (v2(0x20, 0x00, b""), None, None),
    "v2, local with addresses": (v2(0x20, 0x11, ENDS4), None, None),
    "v2, local of a family of nobody": (v2(0x20, 0xFF, b"abc"), None, None),
    "v2, unspecified": (v2(0x21, 0x00, b"", TLV), None, None),
    "v2, Unix": (v2(0x21, 0x31, bytes(216)), None, None),
}

REFUSED = {
    "no header": REST,
    "TLS": b"\x16\x03\x01",
    "POST": b"POST / HTTP/1.1\r\n",
    "v1, lower case": b"proxy TCP4 192.0.2.1 198.51.100.1 40000 443\r\n",
    "v1, LF": b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\n" + b"x" * MAX_V1,
    "v1, too long": b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n",
    "v1, another family": b"PROXY UDP4 192.0.2.1 198.51.100.1 40000 443\r\n",
    "v1, nothing": b"PROXY \r\n",
    "v1, no word": b"PROXYUNKNOWN\r\n",
    "v1, a space more": b"PROXY TCP4  192.0.2.1 198.51.100.1 40000 443\r\n",
    "v1, a space behind": b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443 \r\n",
    "v1, a tab": b"PROXY TCP4\t192.0.2.1 198.51.100.1 40000 443\r\n",
    "v1, a port less": b"PROXY TCP4 192.0.2.1 198.51.100.1 40000\r\n",
    "v1, zeros in front of a port": b"PROXY TCP4 192.0.2.1 198.51.100.1 040000 443\r\n",
    "v1, a port too large": b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
    "v1, a port with a sign": b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
    "v1, zeros in front of an address": b"PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
    "v1, a short address": b"PROXY TCP4 192.0.2 198.51.100.1 1 443\r\n",
    "v1, mixed families": b"PROXY TCP4 2001:db8::1 198.51.100.1 1 443\r\n",
    "v1, IPv4 as IPv6": b"PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n",
    "v1, a zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 443\r\n",
    "v1, not ASCII": "PROXY TCP4 192.0.2.\u0661 198.51.100.1 1 443\r\n".encode(),
    "v2, wrong signature": b"\r\n\r\n\x00\r\nQUIT\r" + b"\x21\x11\x00\x0c" + ENDS4,
    "v2, empty lines": b"\r\n\r\nGET / HTTP/1.1\r\n",
    "v2, version 1": v2(0x11, 0x11, ENDS4),
    "v2, another command": v2(0x22, 0x11, ENDS4),
    "v2, datagrams": v2(0x21, 0x12, ENDS4),
    "v2, a family of nobody": v2(0x21, 0x41, ENDS4),
    "v2, short addresses": v2(0x21, 0x11, ENDS4[:-1]),
    "v2, IPv4 addresses for IPv6": v2(0x21, 0x21, ENDS4),
    "v2, too long": v2(0x21, 0x11, ENDS4, bytes(MAX_V2 - 27)),
}


def parse_by_byte(data: bytes) -> ProxyHeader | None:
    """As a connection does: asked again with each byte more, until there is an answer."""
    for length in range(len(data) + 1):
        header = parse_header(data[:length])
        if header is not None:
            return header
    return None


@pytest.mark.parametrize("name", READ)
def test_read(name):
    data, source, destination = READ[name]
    header = ProxyHeader(len(data), source, destination)
    assert parse_header(data + REST) == header
    assert parse_by_byte(data + REST) == header
    assert parse_header(data[:-1]) is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(ProxyProtocolError):
        parse_header(REFUSED[name])
    with pytest.raises(ProxyProtocolError):
        parse_by_byte(REFUSED[name])


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ENDPOINTS = st.tuples(ADDRESSES, st.integers(0, 65535))


@given(st.sampled_from((1, 2)), ENDPOINTS, ENDPOINTS)
def test_what_is_built_is_read_again(version, source, destination):
    built = build_header(version, source, destination)
    header = parse_header(built + REST)
    assert header is not None
    assert header.length == len(built)
    assert header.source is not None and header.destination is not None
    for end, read in ((source, header.source), (destination, header.destination)):
        assert read[1] == end[1]
        # Ends of different families are both IPv6.
        widened = source[0].version != destination[0].version and end[0].version == 4
        assert read[0] == (ip_address(f"::ffff:{end[0]}") if widened else end[0])


def test_built_as_the_specification_has_it():
    assert build_header(1, CLIENT, HERE) == b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n"
    assert build_header(2, CLIENT, HERE) == v2(0x21, 0x11, ENDS4)
    assert build_header(2, CLIENT6, HERE6) == v2(0x21, 0x21, ENDS6)
    assert build_header(1, None, None) == b"PROXY UNKNOWN\r\n"
    assert build_header(2, None, None) == v2(0x20, 0x00, b"")


def test_damaged_headers_have_one_answer():
    """Byte by byte and at once the answer is the same, and no header reaches beyond what is there."""
    seeds = [data + REST for data, _, _ in READ.values()] + list(REFUSED.values())
    answers = set()
    for _, random in rounds(2_000):
        data = damaged(random, seeds)[:600]
        try:
            header = parse_header(data)
        except ProxyProtocolError as error:
            answers.add(str(error)[:20])
            with pytest.raises(ProxyProtocolError):
                parse_by_byte(data)
        else:
            assert parse_by_byte(data) == header
            assert header is None or header.length <= len(data)
    assert len(answers) > 5
