"""Who the client is behind proxies, and what the next server is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7.http1.build import Forwarding
from l7.wire.forwarded import MAX_HOPS, believe, lines_of
from l7.wire.peer import Peer, TlsInfo, make_peer
from l7.wire.rfc7239 import Node, parse_elements, parse_node
from l7.wire.trust import Trust

TRUST = Trust([ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32")])
PROXY = make_peer("web", b"http", ("10.0.0.1", 40000), ("10.0.0.9", 8080))


class Request:
    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}

    def header(self, name: bytes, /) -> bytes | None:
        return self.headers.get(name)


def told(request: Request, peer: Peer = PROXY) -> dict[str, str]:
    """The headers for the next server, for a request whose Host is `host`."""
    _, lines = believe(request, peer, TRUST)
    Forwarding(lines)
    return {
        name.decode(): (value if around is None else value + around[0] + b"host" + around[1]).decode()
        for name, value, around in lines
    }


@pytest.mark.parametrize(
    ("name", "request_", "client"),
    [
        ("nothing is said", Request(), "10.0.0.1"),
        ("one", Request(x_forwarded_for="203.0.113.5"), "203.0.113.5"),
        ("the first from the right", Request(x_forwarded_for="1.1.1.1, 203.0.113.5"), "203.0.113.5"),
        ("behind two", Request(x_forwarded_for="1.1.1.1,203.0.113.5 , 10.0.0.2"), "203.0.113.5"),
        ("a trusted host", Request(x_forwarded_for="1.1.1.1, 192.0.2.7"), "1.1.1.1"),
        ("its neighbour", Request(x_forwarded_for="1.1.1.1, 192.0.2.8"), "192.0.2.8"),
        ("all are trusted", Request(x_forwarded_for="10.0.0.3, 10.0.0.2"), "10.0.0.3"),
        ("IPv6", Request(x_forwarded_for="2001:db8::5, fd00::2"), "2001:db8::5"),
        ("IPv6 in brackets", Request(x_forwarded_for="[2001:DB8::5]"), "2001:db8::5"),
        ("IPv4 in IPv6", Request(x_forwarded_for="::ffff:203.0.113.5"), "203.0.113.5"),
        ("no address", Request(x_forwarded_for="203.0.113.5, unknown"), "10.0.0.1"),
        ("no address further left", Request(x_forwarded_for="x, 10.0.0.2"), "10.0.0.2"),
        ("empty", Request(x_forwarded_for=""), "10.0.0.1"),
        ("an empty item", Request(x_forwarded_for="203.0.113.5,"), "10.0.0.1"),
        ("a long item", Request(x_forwarded_for="1" * 10_000), "10.0.0.1"),
        ("Forwarded", Request(forwarded="for=1.1.1.1, for=203.0.113.5;proto=https"), "203.0.113.5"),
        ("Forwarded, IPv6", Request(forwarded='For="[2001:db8::5]:47011"'), "2001:db8::5"),
        ("Forwarded, hidden", Request(forwarded="for=203.0.113.5, for=_hidden"), "10.0.0.1"),
        ("Forwarded without for", Request(forwarded="for=203.0.113.5, proto=https"), "10.0.0.1"),
        ("Forwarded, malformed", Request(forwarded='for=203.0.113.5, for="'), "10.0.0.1"),
        ("both", Request(x_forwarded_for="203.0.113.5", forwarded="for=1.1.1.1"), "203.0.113.5"),
    ],
)
def test_client(name, request_, client):
    peer, _ = believe(request_, PROXY, TRUST)
    assert peer.address == client
    assert peer.packed == ip_address(client).packed
    assert (peer.listener, peer.local_address, peer.local_port) == ("web", "10.0.0.9", 8080)


@pytest.mark.parametrize(
    ("request_", "scheme"),
    [
        (Request(), b"http"),
        (Request(x_forwarded_proto="https"), b"https"),
        (Request(x_forwarded_proto="HTTPS", x_forwarded_for="1.1.1.1"), b"https"),
        (Request(x_forwarded_proto="ftp", x_forwarded_for="1.1.1.1"), b"http"),
        (Request(x_forwarded_proto="https, http", x_forwarded_for="1.1.1.1, 10.0.0.2"), b"https"),
        (Request(x_forwarded_proto="https, http", x_forwarded_for="1.1.1.1"), b"http"),
        (Request(x_forwarded_proto="https", x_forwarded_for="1.1.1.1, 10.0.0.3, 10.0.0.2"), b"https"),
        (Request(forwarded="for=1.1.1.1;proto=https, for=10.0.0.2;proto=http"), b"https"),
        (Request(forwarded="for=1.1.1.1;proto=gopher"), b"http"),
    ],
)
def test_scheme(request_, scheme):
    assert believe(request_, PROXY, TRUST)[0].scheme == scheme


def test_ports_of_clients():
    assert believe(Request(), PROXY, TRUST)[0].port == 40000
    assert believe(Request(x_forwarded_for="1.1.1.1:5"), PROXY, TRUST)[0].port == 5
    assert believe(Request(x_forwarded_for="1.1.1.1"), PROXY, TRUST)[0].port == 0


def test_what_an_untrusted_peer_is_told_about():
    peer = make_peer(
        "web", b"https", ("::ffff:203.0.113.5", 1), ("2001:db8::9", 443), TlsInfo("TLSv1.3", "x")
    )
    assert peer.packed == bytes([203, 0, 113, 5])
    assert lines_of(peer) == (
        (b"X-Forwarded-For", b"203.0.113.5", None),
        (b"X-Forwarded-Proto", b"https", None),
        (b"X-Forwarded-Host", b"", (b"", b"")),
        (b"X-Forwarded-Port", b"443", None),
        (b"X-Real-IP", b"203.0.113.5", None),
        (b"Forwarded", b"for=203.0.113.5;proto=https", (b';host="', b'"')),
    )
    six = make_peer("web", b"http", ("2001:DB8::5%eth0", 1), ("fe80::1%2", 80))
    assert (six.address, six.local_address) == ("2001:db8::5", "fe80::1")
    assert lines_of(six)[-1] == (b"Forwarded", b'for="[2001:db8::5]";proto=http', (b';host="', b'"'))


def test_what_a_trusted_peer_says_is_added_to():
    request = Request(
        x_forwarded_for="1.1.1.1, 203.0.113.5",
        x_forwarded_proto="https",
        x_forwarded_host="example.com",
        x_forwarded_port="443",
        x_real_ip="6.6.6.6",
        forwarded="for=203.0.113.5;proto=https",
    )
    assert told(request) == {
        "X-Forwarded-For": "1.1.1.1, 203.0.113.5, 10.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.com",
        "X-Forwarded-Port": "443",
        "X-Real-IP": "203.0.113.5",
        "Forwarded": 'for=203.0.113.5;proto=https, for=10.0.0.1;proto=http;host="host"',
    }
    assert believe(request, PROXY, TRUST)[0].forwarded_for == b"1.1.1.1, 203.0.113.5, 10.0.0.1"


def test_either_form_is_made_from_the_other():
    assert told(Request(x_forwarded_for="203.0.113.5, 2001:db8::5"))["Forwarded"] == (
        'for=203.0.113.5, for="[2001:db8::5]", for=10.0.0.1;proto=http;host="host"'
    )
    assert told(Request(forwarded='for="[2001:db8::5]:1", for=10.0.0.2'))["X-Forwarded-For"] == (
        "2001:db8::5, 10.0.0.2, 10.0.0.1"
    )
    assert told(Request()) == {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "host",
        "X-Forwarded-Port": "8080",
        "X-Real-IP": "10.0.0.1",
        "Forwarded": 'for=10.0.0.1;proto=http;host="host"',
    }


@pytest.mark.parametrize("host", ["a b", "a,", 'a"b', "a/b", "a:b", "a:1234567", "é", "[x]"])
def test_a_host_that_is_none_is_not_passed_on(host):
    assert told(Request(x_forwarded_host=host))["X-Forwarded-Host"] == "host"
    assert told(Request(forwarded=f'for=1.1.1.1;host="{host}"'))["X-Forwarded-Host"] == "host"


@pytest.mark.parametrize("port", ["", "x", "123456", "-1", "80 80"])
def test_a_port_that_is_none_is_not_passed_on(port):
    assert told(Request(x_forwarded_port=port))["X-Forwarded-Port"] == "8080"


def test_a_malformed_forwarded_is_replaced():
    for value in (
        'for="',
        "for=1.1.1.1;",
        "for=a b",
        "for=1.1.1.1;for=2.2.2.2",
        "for",
        "=1",
        ",",
        'for="\\"',
    ):
        assert told(Request(forwarded=value))["Forwarded"] == 'for=10.0.0.1;proto=http;host="host"'


def test_a_long_chain_is_not_walked_to_its_end():
    chain = ", ".join(["1.1.1.1"] + ["10.0.0.2"] * (MAX_HOPS - 1))
    assert believe(Request(x_forwarded_for=chain), PROXY, TRUST)[0].address == "1.1.1.1"
    assert believe(Request(x_forwarded_for=chain + ", 10.0.0.2"), PROXY, TRUST)[0].address == "10.0.0.2"
    assert told(Request(x_forwarded_for=chain + ", 10.0.0.2"))["X-Forwarded-For"].startswith("1.1.1.1, ")


def test_what_was_found_for_one_connection_serves_another_of_the_same_proxy():
    other = make_peer("web", b"http", ("10.0.0.1", 50000), ("10.0.0.9", 8080))
    said = Request(x_forwarded_for="unknown")
    assert believe(said, PROXY, TRUST)[0] == replace(PROXY, forwarded_for=b"unknown, 10.0.0.1")
    assert believe(said, other, TRUST)[0].port == 50000
    said = Request(x_forwarded_for="203.0.113.5")
    assert believe(said, PROXY, TRUST) == believe(said, other, TRUST)
    elsewhere = make_peer("web", b"http", ("10.0.0.2", 50000), ("10.0.0.9", 8080))
    assert believe(said, elsewhere, TRUST)[0].forwarded_for == b"203.0.113.5, 10.0.0.2"
    assert believe(said, PROXY, Trust([]))[0].address == "203.0.113.5"


WORDS = st.sampled_from(
    [
        "1.1.1.1",
        "10.0.0.2",
        "2001:db8::1",
        "[::1]",
        ":80",
        ",",
        ", ",
        ";",
        "for=",
        "proto=https",
        "host=",
        '"',
        "\\",
        "x",
    ]
)
VALUES = st.one_of(st.none(), st.lists(WORDS, max_size=12).map("".join), st.text("\t !~\xff", max_size=5))


@given(VALUES, VALUES, VALUES, VALUES, VALUES)
def test_whatever_a_trusted_peer_says_has_an_answer(chain, schemes, hosts, ports, elements):
    said = {
        "x_forwarded_for": chain,
        "x_forwarded_proto": schemes,
        "x_forwarded_host": hosts,
        "x_forwarded_port": ports,
        "forwarded": elements,
    }
    request = Request(**{name: value for name, value in said.items() if value is not None})
    peer, lines = believe(request, PROXY, TRUST)
    assert ip_address(peer.address).packed == peer.packed
    assert peer.scheme in (b"http", b"https")
    values = {
        name: (value if around is None else value + around[0] + b"a" + around[1])
        for name, value, around in lines
    }
    assert values[b"X-Real-IP"] == peer.address.encode()
    assert values[b"X-Forwarded-For"].endswith(b"10.0.0.1")
    written = parse_elements(values[b"Forwarded"])
    assert written is not None
    assert written[-1] == {b"for": b"10.0.0.1", b"proto": b"http", b"host": b"a"}


def test_trust():
    assert TRUST.covers(bytes([10, 255, 0, 1]))
    assert not TRUST.covers(bytes([11, 0, 0, 1]))
    assert TRUST.covers(bytes([0xFD]) + bytes(15))
    assert not TRUST.covers(bytes(16))
    assert TRUST
    assert not Trust([])
    assert not Trust([]).covers(bytes(4))
    assert Trust([ip_network("0.0.0.0/0")]).covers(bytes(4))
    assert not Trust([ip_network("0.0.0.0/0")]).covers(bytes(16))


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        (b"", [{}]),
        (b"for=a", [{b"for": b"a"}]),
        (b'FOR="a,;b";Proto=http , by=_x', [{b"for": b"a,;b", b"proto": b"http"}, {b"by": b"_x"}]),
        (rb'for="a\"b\\"', [{b"for": rb'a"b' + b"\\"}]),
        (b"for=a;", None),
        (b"for=a,", None),
        (b"for=a,,for=b", None),
        (b"for =a", None),
        (b"for=a b=c", None),
        (b'for="a', None),
        (b"for=[::1]", None),
    ],
)
def test_elements(value, elements):
    assert parse_elements(value) == elements


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (b"192.0.2.1", Node("192.0.2.1", bytes([192, 0, 2, 1]))),
        (b"192.0.2.1:80", Node("192.0.2.1", bytes([192, 0, 2, 1]), 80)),
        (b"192.0.2.1:_port", Node("192.0.2.1", bytes([192, 0, 2, 1]))),
        (b"[::1]:80", Node("::1", bytes(15) + b"\x01", 80)),
        (b"::1", Node("::1", bytes(15) + b"\x01")),
        (b"[::1]x", None),
        (b"[::1", None),
        (b"unknown", None),
        (b"_x", None),
        (b"", None),
        (b"192.0.2.01", None),
        (b"\xff", None),
    ],
)
def test_nodes(text, node):
    assert parse_node(text) == node


@pytest.mark.parametrize("text", ["example.com", "", "1.2.3"])
def test_what_is_no_address_makes_no_peer(text):
    with pytest.raises(ValueError, match=r"does not appear|address"):
        make_peer("web", b"http", (text, 1), ("10.0.0.9", 80))
