"""Heads of requests: what is read of them, and what is refused; each whole and byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from tests.support.http1 import each_byte, read_request


@dataclass(frozen=True)
class Row:
    name: str
    data: bytes
    refused: str | None = None
    facts: dict[str, Any] | None = None


def head(line: bytes = b"GET / HTTP/1.1", *headers: bytes, host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *headers, b"", b""])


def post(*headers: bytes) -> bytes:
    return head(b"POST / HTTP/1.1", *headers)


def read(name: str, data: bytes, **facts: Any) -> Row:
    return Row(name, data, facts=facts)


def refused(rule: str, name: str, data: bytes) -> Row:
    return Row(name, data, rule)


def upgrade(*headers: bytes) -> bytes:
    return head(b"GET / HTTP/1.1", b"Connection: Upgrade", *headers)


READ = [
    read("the shortest", head(), method=b"GET", target=b"/", host="a", path="/", query=b"", version=11),
    read("an empty line before it", b"\r\n" + head(), method=b"GET", target=b"/"),
    read("no header, HTTP/1.0", head(b"GET / HTTP/1.0", host=b""), host="", authority=b"", version=10),
    read("a method of its own", head(b"M-SEARCH / HTTP/1.1"), method=b"M-SEARCH", is_idempotent=False),
    *(
        read(f"{method.decode()}", head(method + b" / HTTP/1.1"), method=method, is_idempotent=again)
        for method, again in (
            *((b"GET", True), (b"HEAD", True), (b"PUT", True), (b"DELETE", True), (b"OPTIONS", True)),
            *((b"POST", False), (b"PATCH", False), (b"PROPFIND", False)),
        )
    ),
    # Targets
    read("query", head(b"GET /a?b=c?d HTTP/1.1"), target=b"/a?b=c?d", path="/a", query=b"b=c?d"),
    read("empty query", head(b"GET /a? HTTP/1.1"), target=b"/a?", path="/a", query=b""),
    read("every visible character", head(b"GET /!\"$&'()*+,-.:;<=>@[\\]^_`{|}~ HTTP/1.1")),
    read("percent", head(b"GET /a%20%C3%A9 HTTP/1.1"), path="/a é", target=b"/a%20%C3%A9"),
    read("percent, not UTF-8", head(b"GET /%FF HTTP/1.1"), path="/\udcff"),
    read("escaped slash", head(b"GET /a%2Fb HTTP/1.1"), path="/a/b"),
    read("slashes", head(b"GET //a///b/ HTTP/1.1"), path="/a/b/", target=b"//a///b/"),
    read("dot segments", head(b"GET /a/./b/../c HTTP/1.1"), path="/a/c"),
    read("escaped dot segments", head(b"GET /a/b/%2e%2E/c HTTP/1.1"), path="/a/c"),
    read("dot segment at the end", head(b"GET /a/b/.. HTTP/1.1"), path="/a/"),
    read("three dots", head(b"GET /.../x HTTP/1.1"), path="/.../x"),
    read("a name with a dot in front", head(b"GET /.well-known/x HTTP/1.1"), path="/.well-known/x"),
    read(
        "% in a query is not looked at",
        head(b"GET /?a=100%&b=/../ HTTP/1.1"),
        path="/",
        query=b"a=100%&b=/../",
    ),
    read("*", head(b"OPTIONS * HTTP/1.1"), target=b"*", path="*", query=b""),
    read("URI", head(b"GET http://a/b?c HTTP/1.1"), target=b"/b?c", path="/b", query=b"c", host="a"),
    read("URI of https, case", head(b"GET HTTPS://A/b HTTP/1.1"), target=b"/b", host="a"),
    read("URI with a port", head(b"GET http://a:80/ HTTP/1.1", host=b"Host: a:80"), authority=b"a:80"),
    read("URI without a path", head(b"GET http://a HTTP/1.1"), target=b"/", path="/", authority=b"a"),
    read("URI with a query alone", head(b"GET http://a?b HTTP/1.1"), target=b"/?b", path="/", query=b"b"),
    read("URI of the whole server", head(b"OPTIONS http://a HTTP/1.1"), target=b"*", path="*"),
    read("URI of the root", head(b"OPTIONS http://a/ HTTP/1.1"), target=b"/", path="/"),
    read("URI with dots", head(b"GET http://a/b/../c HTTP/1.1"), target=b"/b/../c", path="/c"),
    read("URI, HTTP/1.0 without Host", head(b"GET http://a/b HTTP/1.0", host=b""), host="a", authority=b"a"),
    read(
        "URI alone, HTTP/1.0", head(b"GET http://a HTTP/1.0", host=b""), host="a", target=b"/", authority=b"a"
    ),
    # Host
    *(
        read(f"Host {host.decode()}", head(host=b"Host: " + host), authority=host, host=name)
        for host, name in (
            (b"Example.COM", "example.com"),
            (b"example.com:8080", "example.com"),
            (b"example.com.", "example.com"),
            (b"example.com.:80", "example.com"),
            (b"example.com:", "example.com"),
            (b"127.0.0.1:65535", "127.0.0.1"),
            (b"[2001:DB8::1]:80", "[2001:db8::1]"),
            (b"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
            (b"a_b-c.d", "a_b-c.d"),
        )
    ),
    # Headers
    read(
        "white space around values",
        head(b"GET / HTTP/1.1", b"A:b", b"C: \t d e\t ", b"E:", b"F:   "),
        headers=[(b"Host", b"a"), (b"A", b"b"), (b"C", b"d e"), (b"E", b""), (b"F", b"")],
    ),
    read(
        "every character of a token",
        head(b"GET / HTTP/1.1", b"!#$%&'*+-.^_`|~09azAZ: x"),
        headers=[(b"Host", b"a"), (b"!#$%&'*+-.^_`|~09azAZ", b"x")],
    ),
    read(
        "obs-text and tabs in a value",
        head(b"GET / HTTP/1.1", b"A: \xe9\tb\xff" + bytes(range(0x80, 0x100))),
        headers=[(b"Host", b"a"), (b"A", b"\xe9\tb\xff" + bytes(range(0x80, 0x100)))],
    ),
    # Bodies
    read("no body", post(), content_length=-1, is_chunked=False),
    read("length", post(b"Content-Length: 5"), content_length=5, is_chunked=False),
    read("length of nothing", post(b"content-length: 0"), content_length=0),
    read("length with zeros in front", post(b"Content-Length: 0005"), content_length=5),
    read("length, the largest", post(b"Content-Length: " + b"9" * 18), content_length=10**18 - 1),
    read("chunked", post(b"Transfer-Encoding: chunked"), content_length=-1, is_chunked=True),
    read("chunked, case", post(b"TRANSFER-encoding:\tChunKed "), is_chunked=True),
    # Connections
    read("goes on", head(), keeps_alive=True),
    read("close", head(b"GET / HTTP/1.1", b"Connection: close"), keeps_alive=False),
    read(
        "close among others",
        head(b"GET / HTTP/1.1", b"Connection: x, , CLOSE ,keep-alive"),
        keeps_alive=False,
    ),
    read(
        "two Connection", head(b"GET / HTTP/1.1", b"Connection: a", b"Connection: close"), keeps_alive=False
    ),
    read("HTTP/1.0 ends", head(b"GET / HTTP/1.0"), keeps_alive=False),
    read("HTTP/1.0 goes on", head(b"GET / HTTP/1.0", b"Connection: Keep-Alive"), keeps_alive=True),
    read("empty Connection", head(b"GET / HTTP/1.1", b"Connection:"), keeps_alive=True),
    # Upgrades
    read("upgrade", upgrade(b"Upgrade: websocket"), asks_upgrade=True, upgrade=b"websocket"),
    read("upgrade to one of several", upgrade(b"Upgrade: a/1, b"), asks_upgrade=True, upgrade=b"a/1, b"),
    read("upgrade that Connection does not name", head(b"GET / HTTP/1.1", b"Upgrade: x"), asks_upgrade=False),
    read("Connection without Upgrade", upgrade(), asks_upgrade=False, upgrade=None),
    read("upgrade with a body", upgrade(b"Upgrade: x", b"Content-Length: 1"), asks_upgrade=False),
    read("upgrade with chunks", upgrade(b"Upgrade: x", b"Transfer-Encoding: chunked"), asks_upgrade=False),
    read(
        "upgrade in HTTP/1.0",
        head(b"GET / HTTP/1.0", b"Connection: Upgrade", b"Upgrade: x"),
        asks_upgrade=False,
    ),
    # Expectations
    read("expects", post(b"Expect: 100-Continue", b"Content-Length: 1"), expects_continue=True),
    read(
        "expects, chunked",
        post(b"Expect: 100-continue", b"Transfer-Encoding: chunked"),
        expects_continue=True,
    ),
    read("expects without a body", post(b"Expect: 100-continue"), expects_continue=False),
    read(
        "an expectation of HTTP/1.0",
        head(b"POST / HTTP/1.0", b"Expect: what", b"Content-Length: 1"),
        expects_continue=False,
    ),
    # An alias of a known field means nothing.
    read("Content_Length", post(b"Content_Length: 5"), content_length=-1),
    read("Transfer_Encoding", post(b"Transfer_Encoding: chunked"), is_chunked=False),
]

REFUSED = [
    refused("bare_lf", "LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("bare_lf", "LF behind a header", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    refused("bare_lf", "LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("bare_lf", "LF in a name", head(b"GET / HTTP/1.1", b"A\nB: c")),
    refused("bare_cr", "CR in a value", head(b"GET / HTTP/1.1", b"A: b\rc")),
    refused("bare_cr", "CR in a name", head(b"GET / HTTP/1.1", b"A\rB: c")),
    refused("bare_cr", "CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    refused("bare_cr", "CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("control", "NUL in a value", head(b"GET / HTTP/1.1", b"A: b\x00c")),
    refused("control", "DEL in a value", head(b"GET / HTTP/1.1", b"A: b\x7fc")),
    refused("control", "vertical tab in a value", head(b"GET / HTTP/1.1", b"A: b\x0bc")),
    refused("control", "NUL in the request line", head(b"GET /\x00 HTTP/1.1")),
    refused("control", "TLS", b"\x16\x03\x01\x02\x00\x01\x00\n"),
    refused("header_name", "an empty name", head(b"GET / HTTP/1.1", b": b")),
    refused("header_name", "no colon", head(b"GET / HTTP/1.1", b"A")),
    refused("header_name", "a space in a name", head(b"GET / HTTP/1.1", b"A b: c")),
    refused("header_name", "NUL in a name", head(b"GET / HTTP/1.1", b"A\x00: c")),
    refused("header_name", "obs-text in a name", head(b"GET / HTTP/1.1", b"A\xe9: c")),
    refused("header_name", "a bracket in a name", head(b"GET / HTTP/1.1", b"A[]: c")),
    refused("header_name", "a quote in front of a name", head(b"GET / HTTP/1.1", b'"A: c')),
    refused("space_before_colon", "space", head(b"GET / HTTP/1.1", b"A : b")),
    refused("space_before_colon", "tab", head(b"GET / HTTP/1.1", b"A\t: b")),
    refused("folded_line", "folding by a space", head(b"GET / HTTP/1.1", b"A: b", b" c")),
    refused("folded_line", "folding by a tab", head(b"GET / HTTP/1.1", b"A: b", b"\tc: d")),
    refused("folded_line", "white space behind the request line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    # Request line
    *(
        refused("request_line", name, head(line))
        for name, line in (
            ("HTTP/0.9", b"GET /"),
            ("nothing but a method", b"GET"),
            ("two spaces", b"GET  / HTTP/1.1"),
            ("two spaces behind", b"GET /  HTTP/1.1"),
            ("a space at the end", b"GET / HTTP/1.1 "),
            ("a space in front", b" GET / HTTP/1.1"),
            ("tabs", b"GET\t/\tHTTP/1.1"),
            ("a tab in the target", b"GET /a\tb HTTP/1.1"),
            ("a space in the target", b"GET /a b HTTP/1.1"),
            ("no target", b"GET HTTP/1.1"),
            ("another protocol", b"GET / HTCP/1.1"),
            ("lower case", b"GET / http/1.1"),
            ("no minor version", b"GET / HTTP/1"),
            ("two digits", b"GET / HTTP/1.10"),
            ("no method", b"/ HTTP/1.1"),
            ("bytes above 127", b"\xfe\xfd\xfc"),
        )
    ),
    refused("request_line", "two empty lines before it", b"\r\n\r\n" + head()),
    refused("method", "lower case", head(b"get / HTTP/1.1")),
    refused("method", "mixed case", head(b"Get / HTTP/1.1")),
    refused("method", "other characters of a token", head(b"GET1 / HTTP/1.1")),
    refused("method", "too long", head(b"A" * 33 + b" / HTTP/1.1")),
    refused("method_not_allowed", "CONNECT", head(b"CONNECT a:443 HTTP/1.1")),
    refused("method_not_allowed", "TRACE", head(b"TRACE / HTTP/1.1")),
    refused("target", "* of GET", head(b"GET * HTTP/1.1")),
    refused("target", "* and more", head(b"OPTIONS *a HTTP/1.1")),
    refused("target", "no slash", head(b"GET a HTTP/1.1")),
    refused("target", "another scheme", head(b"GET ftp://a/ HTTP/1.1")),
    refused("target", "a scheme alone", head(b"GET http:// HTTP/1.1")),
    refused("target", "a URI without authority", head(b"GET http:///a HTTP/1.1")),
    refused("target", "a URI with one slash", head(b"GET http:/a HTTP/1.1")),
    refused("target", "authority", head(b"GET a:80 HTTP/1.1")),
    refused("target_not_ascii", "UTF-8", head("GET /é HTTP/1.1".encode())),
    refused("target_fragment", "in a path", head(b"GET /a#b HTTP/1.1")),
    refused("target_fragment", "in a query", head(b"GET /?a#b HTTP/1.1")),
    refused("target_escape", "cut off", head(b"GET /%2 HTTP/1.1")),
    refused("target_escape", "% alone", head(b"GET /% HTTP/1.1")),
    refused("target_escape", "no digits", head(b"GET /%zz HTTP/1.1")),
    refused("target_escape", "NUL", head(b"GET /a%00b HTTP/1.1")),
    refused("target_above_root", "dots", head(b"GET /../a HTTP/1.1")),
    refused("target_above_root", "dots further on", head(b"GET /a/../../b HTTP/1.1")),
    refused("target_above_root", "escaped", head(b"GET /%2e%2e%2fa HTTP/1.1")),
    refused("target_above_root", "at the end", head(b"GET /.. HTTP/1.1")),
    refused("version", "2.0", head(b"GET / HTTP/2.0")),
    refused("version", "1.2", head(b"GET / HTTP/1.2")),
    refused("version", "0.9", head(b"GET / HTTP/0.9")),
    refused("http2_preface", "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # Host
    refused("host_missing", "none", head(host=b"")),
    refused("host_missing", "by another name", head(host=b"Hosts: a")),
    refused("host_repeated", "twice", head(b"GET / HTTP/1.1", b"Host: a")),
    refused("host_repeated", "twice, HTTP/1.0", head(b"GET / HTTP/1.0", b"hOST: a")),
    *(
        refused("host_invalid", repr(host), head(host=b"Host: " + host))
        for host in (
            *(b"", b":80", b".", b".a", b"a b", b"a,b", b"a/b", b"a@b", b"a?b", b"a%20b", b"a:b", b"a:-1"),
            *(
                b"a:65536",
                b"a:000080",
                b"a:80:80",
                b"[::1",
                b"::1",
                b"[]",
                b"[::1]a",
                b"[g::1]",
                b"[::1%25eth0]",
            ),
            *(b"a" * 256, "é".encode(), b"a\tb", b"a;b", b'"a"', b"<a>"),
        )
    ),
    refused("host_differs", "another name", head(b"GET http://b/ HTTP/1.1")),
    refused("host_differs", "a port more", head(b"GET http://a:80/ HTTP/1.1")),
    refused("host_differs", "a user", head(b"GET http://u@a/ HTTP/1.1")),
    # Framing: how requests are smuggled
    refused("length_and_coding", "CL.TE", post(b"Content-Length: 4", b"Transfer-Encoding: chunked")),
    refused("length_and_coding", "TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4")),
    refused(
        "length_and_coding", "TE.CL, another coding", post(b"Transfer-Encoding: x", b"Content-Length: 4")
    ),
    *(
        refused("length_invalid", repr(value), post(b"Content-Length: " + value))
        for value in (
            *(
                b"",
                b"+5",
                b"-5",
                b"5,5",
                b"5, 5",
                b"5 5",
                b"0x5",
                b"5.0",
                b"5;",
                b'"5"',
                b"five",
                b"1" + b"0" * 18,
            ),
            *("\u0665".encode(), b"5\xa0"),
        )
    ),
    refused("length_repeated", "equal", post(b"Content-Length: 5", b"Content-Length: 5")),
    refused("length_repeated", "different", post(b"Content-Length: 5", b"content-length: 6")),
    *(
        refused("coding", repr(value), post(b"Transfer-Encoding: " + value))
        for value in (
            *(b"", b"identity", b"gzip", b"xchunked", b"chunkedx", b"chunked, identity", b"chunked, chunked"),
            *(
                b'"chunked"',
                b"chunked;q=1",
                b"chunked gzip",
                b"gzip, chunked x",
                b",",
                b"chunked,",
                b"[chunked]",
            ),
            *(b"cow", b"chunked\xa0", b"chunke", b"'chunked'"),
        )
    ),
    refused("coding", "TE.TE", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    refused(
        "coding", "TE.TE, chunked twice", post(b"Transfer-Encoding: chunked", b"Transfer-encoding: chunked")
    ),
    refused("coding", "TE.TE, chunked last", post(b"Transfer-Encoding: cow", b"Transfer-Encoding: chunked")),
    refused("coding_unknown", "gzip", post(b"Transfer-Encoding: gzip, chunked")),
    refused("coding_unknown", "an empty one", post(b"Transfer-Encoding: , chunked")),
    refused("coding_in_http10", "chunked", head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked")),
    refused("space_before_colon", "Transfer-Encoding", post(b"Transfer-Encoding : chunked")),
    refused("folded_line", "Transfer-Encoding", post(b"Transfer-Encoding:", b" chunked")),
    refused("control", "Transfer-Encoding behind a vertical tab", post(b"Transfer-Encoding:\x0bchunked")),
    refused("bare_lf", "Transfer-Encoding behind LF", post(b"A: b\nTransfer-Encoding: chunked")),
    refused("bare_cr", "Transfer-Encoding behind CR", post(b"A: b\rTransfer-Encoding: chunked")),
    refused("header_name", "NUL behind Transfer-Encoding", post(b"Transfer-Encoding\x00: chunked")),
    refused("header_name", "DEL in front of Transfer-Encoding", post(b"\x7fTransfer-Encoding: chunked")),
    # Connection and expectations
    refused("connection", "no tokens", head(b"GET / HTTP/1.1", b"Connection: a b")),
    refused("connection", "a quote", head(b"GET / HTTP/1.1", b'Connection: "close"')),
    refused("connection", "too many", head(b"GET / HTTP/1.1", b"Connection: " + b"a," * 33)),
    refused("connection", "too many in two", head(b"GET / HTTP/1.1", *[b"Connection: " + b"a," * 17] * 2)),
    refused("connection", "two Upgrade", upgrade(b"Upgrade: a", b"Upgrade: b")),
    refused("connection", "an empty Upgrade", upgrade(b"Upgrade:")),
    refused("connection", "an Upgrade of no tokens", upgrade(b'Upgrade: "a"')),
    *(
        refused(
            "connection_names_field", name.decode(), head(b"GET / HTTP/1.1", b"Connection: close, " + name)
        )
        for name in (
            *(
                b"Host",
                b"content-length",
                b"Transfer-Encoding",
                b"Cookie",
                b"Authorization",
                b"X-Forwarded-For",
            ),
            *(b"x-real-ip", b"Forwarded", b"Content-Type", b"X_Forwarded_For"),
        )
    ),
    refused("expectation", "another", post(b"Expect: 200-ok")),
    refused("expectation", "two", post(b"Expect: 100-continue", b"Expect: 100-continue")),
    refused("expectation", "and more", post(b"Expect: 100-continue, x")),
]


def row_id(row: Row) -> str:
    return f"{row.refused}: {row.name}" if row.refused else row.name


@pytest.mark.parametrize("row", READ, ids=row_id)
def test_read(row):
    rest = b"rest of the connection"
    whole = read_request([row.data + rest])
    assert whole.is_complete, whole.refused
    assert whole.used == len(row.data)
    assert {name: whole.facts[name] for name in row.facts} == row.facts
    assert read_request(each_byte(row.data + rest)) == whole


@pytest.mark.parametrize("row", REFUSED, ids=row_id)
def test_refused(row):
    assert read_request([row.data]).refused == row.refused
    assert read_request(each_byte(row.data)).refused == row.refused


def test_a_line_is_refused_as_soon_as_it_is_complete():
    assert read_request([b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r"]).refused is None
    assert read_request([b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n"]).refused == "space_before_colon"
    assert read_request([b"get / HTTP/1.1"]).refused is None
    assert read_request([b"get / HTTP/1.1\r\n"]).refused == "method"


# Bounds

LINE, BYTES, COUNT = 64, 256, 4


def bounded() -> RequestHead:
    return RequestHead(request_line=LINE, header_bytes=BYTES, header_count=COUNT)


def sized(line: int, total: int) -> bytes:
    """A head whose first line has `line` bytes and that has `total` in all."""
    start = b"GET /" + b"a" * (line - 14) + b" HTTP/1.1\r\nHost: a\r\nB: "
    return start + b"b" * (total - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("line fits", sized(LINE, 150), None),
        ("line too long", sized(LINE + 1, 150), "line_too_long"),
        ("line without end", b"GET /" + b"a" * LINE, "line_too_long"),
        ("line that may still fit", b"GET /" + b"a" * (LINE - 4), None),
        ("a wrong line that is too long", b"GET /\xff" + b"a" * LINE + b"\r\n", "line_too_long"),
        ("line behind an empty one", b"\r\n" + sized(LINE, 150), None),
        ("line behind an empty one, too long", b"\r\n" + sized(LINE + 1, 150), "line_too_long"),
        ("head fits", sized(LINE, BYTES), None),
        ("head too long", sized(LINE, BYTES + 1), "header_bytes"),
        ("head without end", sized(LINE, BYTES + 4)[:-4], None),
        ("head without end, too long", sized(LINE, BYTES + 5)[:-4], "header_bytes"),
        ("a wrong header that is too long", sized(LINE, BYTES * 2)[:-4] + b"\x00\r\n", "header_bytes"),
        ("headers fit", head(b"GET / HTTP/1.1", *[b"A: b"] * (COUNT - 1)), None),
        ("too many headers", head(b"GET / HTTP/1.1", *[b"A: b"] * COUNT), "header_count"),
        ("a wrong one too many", head(b"GET / HTTP/1.1", *[b"A: b"] * (COUNT - 1), b"A"), "header_count"),
    ],
)
def test_bounds(name, data, rule):
    whole = read_request([data], bounded())
    assert whole.refused == rule
    assert read_request(each_byte(data), bounded()) == whole
    if whole.is_complete or whole.refused:
        assert read_request([data + b"x" * 2000], bounded()) == whole


def test_a_head_may_be_followed_by_more_than_the_bound():
    request = bounded()
    data = sized(LINE, BYTES)
    assert request.feed(data[:50]) == 50
    assert request.feed(data[50:] + bytes(10_000)) == BYTES - 50
    assert request.state == HeadState.HEAD_COMPLETE


def test_one_parser_reads_one_head_after_another():
    request = RequestHead()
    assert request.feed(post(b"Content-Length: 5", b"Cookie: a=1")) > 0
    assert (request.content_length, request.host, request.cookie(b"a")) == (5, "a", b"1")
    request.restart()
    assert request.state == HeadState.HEAD_MORE
    data = head(b"GET /b HTTP/1.1", host=b"Host: b")
    assert request.feed(data[:20]) == 20
    assert request.feed(data[20:]) == len(data) - 20
    assert (request.content_length, request.host, request.cookie(b"a")) == (-1, "b", None)
    assert (request.target, request.path, request.header(b"content-length")) == (b"/b", "/b", None)
    request.restart()
    request.feed(b"x\n")
    assert (request.state, request.reason) == (HeadState.HEAD_REFUSED, "bare_lf")
    assert request.feed(data) == 0
    request.restart()
    assert (request.feed(data), request.reason) == (len(data), None)


def test_headers_by_name():
    request = RequestHead()
    request.feed(head(b"GET / HTTP/1.1", b"Accept: a", b"Cookie: b=1", b"ACCEPT: c", b"cookie: d=2", b"E:"))
    assert request.header(b"accept") == b"a, c"
    assert request.header(b"cookie") == b"b=1; d=2"
    assert request.header(b"e") == b""
    assert request.header(b"accep") is None
    assert request.header(b"") is None


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        ([b"a=1"], b"1"),
        ([b"aa=2; a=1"], b"1"),
        ([b"a=1; a=2"], b"1"),
        ([b"b=2", b"c=3; a=1"], b"1"),
        ([b"a="], b""),
        ([b"a=x=y"], b"x=y"),
        ([b'a="1"'], b'"1"'),
        ([b"b;a=1 ;c"], b"1"),
        ([b"A=1; ab=2; a"], None),
        ([b";;"], None),
        ([], None),
    ],
)
def test_cookies(cookies, value):
    request = RequestHead()
    request.feed(head(b"GET / HTTP/1.1", *[b"Cookie: " + cookie for cookie in cookies]))
    assert request.cookie(b"a") == value


def test_an_id_is_made_once_and_only_when_it_is_asked_for():
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"%032x" % len(made))
        return made[-1]

    request = RequestHead(make_id=make)
    request.feed(head())
    assert made == []
    assert request.id == request.id == b"%032x" % 0
    request.restart()
    request.feed(head())
    assert request.id == b"%032x" % 1
    assert RequestHead().id == b"0" * 32
