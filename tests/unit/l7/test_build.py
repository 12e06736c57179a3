"""Heads that are built: forwarded requests, forwarded answers, answers of the proxy's own."""

from __future__ import annotations

import pytest

from l7.http1.body import BodyKind
from l7.http1.build import BuildFlag, Forwarding, Overrides, build_answer, build_request, build_response
from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from l7.http1.response import ResponseHead

CLOSE, KEEP_ALIVE, UPGRADE, EXPECT = BuildFlag
DATE = b"Date: Mon, 23 Nov 2026 18:00:00 GMT\r\n"


def lines(*given: bytes) -> bytes:
    return b"".join([line + b"\r\n" for line in (*given, b"")])


def request(*given: bytes) -> RequestHead:
    head = RequestHead()
    head.feed(lines(*given))
    assert head.state == HeadState.HEAD_COMPLETE, head.reason
    return head


def answer(*given: bytes, for_head: bool = False) -> ResponseHead:
    head = ResponseHead()
    head.restart(for_head)
    head.feed(lines(*given))
    assert head.state == HeadState.HEAD_COMPLETE, head.reason
    return head


def forwarded(
    *given: bytes,
    target: bytes | None = None,
    host: bytes | None = None,
    without: tuple[bytes, ...] = (),
    forwarding: Forwarding | None = None,
    more: bytes = b"",
    flags: int = 0,
) -> list[bytes]:
    overrides = Overrides(without) if without else None
    built = build_request(request(*given), target, host, overrides, forwarding, more, flags)
    assert built.endswith(b"\r\n\r\n")
    return built[:-4].split(b"\r\n")


def answered(
    head: ResponseHead,
    kind: int | None = None,
    length: int | None = None,
    without: tuple[bytes, ...] = (),
    more: bytes = b"",
    flags: int = 0,
) -> list[bytes]:
    overrides = Overrides(without) if without else None
    kind = head.body_kind if kind is None else kind
    length = head.content_length if length is None else length
    built = build_response(head, kind, length, overrides, more, DATE, flags)
    assert built.endswith(b"\r\n\r\n")
    return built[:-4].split(b"\r\n")


GET, HOST = b"GET /a?b HTTP/1.1", b"Host: example.com:80"


def test_end_to_end_headers_stay_in_their_order_and_as_they_were_written():
    assert forwarded(GET, b"ACCEPT: */*", HOST, b"b:1", b"C:  2 ", b"d:", b"E: 3", b"b: 4") == [
        *(GET, HOST, b"ACCEPT: */*", b"b: 1", b"C: 2", b"d: ", b"E: 3", b"b: 4"),
    ]


def test_headers_for_this_connection_stay_behind():
    assert forwarded(
        *(GET, HOST, b"A: 1", b"Connection: keep-alive, X-Hop , x-other", b"Keep-Alive: timeout=5", b"B: 2"),
        *(
            b"x-hop: 1",
            b"Proxy-Connection: close",
            b"TE: trailers",
            b"HTTP2-Settings: x",
            b"X-Other: 2",
            b"C: 3",
        ),
        *(b"X-HOP: 2", b"Proxy-Authorization: x"),
    ) == [GET, HOST, b"A: 1", b"B: 2", b"C: 3"]


def test_names_that_cgi_would_take_for_known_ones_stay_behind():
    assert forwarded(GET, HOST, b"X_Forwarded_For: 1", b"Content_Length: 5", b"x_y: 1") == [
        GET,
        HOST,
        b"x_y: 1",
    ]


def test_start_line():
    assert forwarded(GET, HOST, target=b"/c/d?e")[0] == b"GET /c/d?e HTTP/1.1"
    assert forwarded(b"GET /a HTTP/1.0", HOST) == [b"GET /a HTTP/1.1", HOST]
    assert forwarded(b"GET http://a/b HTTP/1.1", b"Host: A") == [b"GET /b HTTP/1.1", b"Host: A"]
    assert forwarded(b"OPTIONS http://a HTTP/1.1", b"Host: a") == [b"OPTIONS * HTTP/1.1", b"Host: a"]


def test_host():
    assert forwarded(GET, HOST, host=b"backend:8080") == [GET, b"Host: backend:8080"]
    assert forwarded(b"GET /a HTTP/1.0", host=b"backend") == [b"GET /a HTTP/1.1", b"Host: backend"]
    assert forwarded(GET, HOST, without=(b"host",), more=b"Host: set\r\n") == [GET, b"Host: set"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((), ()),
        ((b"content-length:  05",), (b"Content-Length: 5",)),
        ((b"Content-Length: 0",), (b"Content-Length: 0",)),
        ((b"Content-Length: " + b"9" * 18,), (b"Content-Length: " + b"9" * 18,)),
        ((b"transfer-encoding: CHUNKED",), (b"Transfer-Encoding: chunked",)),
    ],
)
def test_the_body_of_a_request_is_announced_anew(given, sent):
    assert forwarded(GET, HOST, *given) == [GET, HOST, *sent]


def test_overrides():
    given = (
        GET,
        HOST,
        b"User-Agent: a",
        b"X-A: 1",
        b"x_a: 2",
        b"X-Ab: 3",
        b"X-B: 4",
        b"y" * 70 + b": 5",
        b"Z: 6",
    )
    assert forwarded(*given, without=(b"X-A", b"user-agent", b"Y" * 70), more=b"X-A: 7\r\n") == [
        *(GET, HOST, b"X-Ab: 3", b"X-B: 4", b"Z: 6", b"X-A: 7"),
    ]
    assert forwarded(GET, HOST, b"y" * 70 + b": 5", without=(b"y" * 71,)) == [GET, HOST, b"y" * 70 + b": 5"]


def test_an_edit_cannot_bring_framing_back():
    """Such edits are refused when the configuration is read; here they do no harm."""
    assert (
        forwarded(GET, HOST, b"Content-Length: 5", without=(b"content-length",))[-1] == b"Content-Length: 5"
    )


FORWARDING = Forwarding(
    [
        (b"X-Forwarded-For", b"192.0.2.1", None),
        (b"X-Forwarded-Host", b"", (b"", b"")),
        (b"Forwarded", b"for=192.0.2.1;proto=http", (b';host="', b'"')),
    ]
)


def test_forwarding_headers_replace_what_the_client_says():
    given = (GET, HOST, b"x-forwarded-FOR: 1", b"A: 1", b"Forwarded: for=2", b"X-Forwarded-Proto: https")
    assert forwarded(*given, forwarding=FORWARDING) == [
        *(GET, HOST, b"A: 1", b"X-Forwarded-Proto: https", b"X-Forwarded-For: 192.0.2.1"),
        *(b"X-Forwarded-Host: example.com:80", b'Forwarded: for=192.0.2.1;proto=http;host="example.com:80"'),
    ]


def test_a_host_that_nobody_named_is_not_forwarded():
    assert forwarded(b"GET / HTTP/1.0", forwarding=FORWARDING)[2:] == [
        *(b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=192.0.2.1;proto=http"),
    ]


def test_an_edit_wins_over_a_forwarding_header():
    assert forwarded(
        GET,
        HOST,
        forwarding=FORWARDING,
        without=(b"x-forwarded-for", b"forwarded"),
        more=b"X-Forwarded-For: b\r\n",
    ) == [GET, HOST, b"X-Forwarded-Host: example.com:80", b"X-Forwarded-For: b"]


def test_forwarding_headers_are_bounded():
    with pytest.raises(ValueError, match="more than 8"):
        Forwarding([(b"A", b"b", None)] * 9)


def test_persistence_of_a_request():
    assert forwarded(GET, HOST, b"Connection: close") == [GET, HOST]
    assert forwarded(GET, HOST, flags=CLOSE) == [GET, HOST, b"Connection: close"]


def test_upgrade():
    given = (GET, HOST, b"Connection: upgrade, x", b"Upgrade: websocket", b"X: 1", b"Sec-WebSocket-Key: k")
    assert forwarded(*given, flags=UPGRADE) == [
        *(GET, HOST, b"Sec-WebSocket-Key: k", b"Connection: upgrade", b"Upgrade: websocket"),
    ]
    assert forwarded(*given) == [GET, HOST, b"Sec-WebSocket-Key: k"]


def test_expectation():
    given = (GET, HOST, b"Expect: 100-continue", b"Content-Length: 5")
    assert forwarded(*given, flags=EXPECT) == [GET, HOST, b"Content-Length: 5", b"Expect: 100-continue"]
    assert forwarded(*given) == [GET, HOST, b"Content-Length: 5"]


OK = b"HTTP/1.1 200 OK"


def test_an_answer_keeps_its_headers_and_gets_a_date():
    head = answer(
        b"HTTP/1.0 200 Fine by me", b"Server: x", b"set-cookie: a", b"Set-Cookie: b", b"Content-Length: 5"
    )
    assert answered(head) == [
        *(b"HTTP/1.1 200 Fine by me", b"Server: x", b"set-cookie: a", b"Set-Cookie: b", DATE[:-2]),
        b"Content-Length: 5",
    ]
    assert answered(answer(OK, b"Date: x", b"Content-Length: 0")) == [OK, b"Date: x", b"Content-Length: 0"]
    assert answered(answer(b"HTTP/1.1 103 x", b"Link: a")) == [b"HTTP/1.1 103 x", b"Link: a"]


def test_headers_of_the_backends_connection_stay_behind():
    head = answer(
        OK, b"Connection: keep-alive, X", b"Keep-Alive: timeout=5", b"X: 1", b"Y: 2", b"Content-Length: 5"
    )
    assert answered(head, flags=CLOSE) == [OK, b"Y: 2", DATE[:-2], b"Content-Length: 5", b"Connection: close"]
    assert answered(head, flags=KEEP_ALIVE)[-1] == b"Connection: keep-alive"


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (BodyKind.BODY_CHUNKED, [b"Transfer-Encoding: chunked"]),
        (BodyKind.BODY_LENGTH, [b"Content-Length: 7"]),
        (BodyKind.BODY_UNTIL_CLOSE, []),
        (BodyKind.BODY_NONE, []),
    ],
)
def test_the_body_of_an_answer_is_announced_anew(kind, sent):
    assert answered(answer(OK, b"Content-Length: 5"), kind, 7) == [OK, DATE[:-2], *sent]


def test_the_length_that_a_get_would_have_is_kept():
    assert answered(answer(OK, b"Content-Length: 5", for_head=True))[-1] == b"Content-Length: 5"
    assert answered(answer(b"HTTP/1.1 304 x", b"Content-Length: 5"))[-1] == b"Content-Length: 5"
    assert answered(answer(b"HTTP/1.1 204 x", b"Content-Length: 5"))[-1] == DATE[:-2]


def test_upgrades_of_an_answer():
    given = (b"Connection: upgrade", b"Upgrade: websocket")
    switched = answer(b"HTTP/1.1 101 Switching Protocols", *given)
    assert answered(switched, flags=UPGRADE) == [b"HTTP/1.1 101 Switching Protocols", *given]
    assert answered(answer(OK, *given, b"Content-Length: 0")) == [OK, DATE[:-2], b"Content-Length: 0"]
    assert answered(answer(b"HTTP/1.1 426 x", *given, b"Content-Length: 0"))[-2:] == list(given)


def test_edits_of_an_answer():
    head = answer(OK, b"Server: x", b"X-A: 1", b"Content-Length: 0")
    assert answered(head, without=(b"server", b"x-a"), more=b"X-A: 2\r\n") == [
        *(OK, DATE[:-2], b"X-A: 2", b"Content-Length: 0"),
    ]


def test_nothing_is_built_from_half_a_head():
    head, reply = RequestHead(), ResponseHead()
    head.feed(b"GET / HTTP/1.1\r\nA: b\r\n")
    with pytest.raises(ValueError, match="not complete"):
        build_request(head, None, None, None, None, b"", 0)
    with pytest.raises(ValueError, match="not complete"):
        build_response(reply, BodyKind.BODY_NONE, 0, None, b"", b"", 0)


def test_a_405_says_what_is_allowed():
    allow = b"\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    assert allow in build_answer(405, b"text/plain", b"", b"", b"", 0, False)
    own = build_answer(405, b"text/plain", b"", b"ALLOW: GET\r\n", b"", 0, False)
    assert own.lower().count(b"allow:") == 1


def test_answers_of_the_proxys_own():
    text = b"text/plain"
    assert build_answer(503, text, b"sorry", b"A: b\r\n", DATE, CLOSE, False) == (
        b"HTTP/1.1 503 Service Unavailable\r\n" + DATE + b"A: b\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 5\r\nConnection: close\r\n\r\nsorry"
    )
    assert build_answer(503, text, b"sorry", b"", DATE, 0, True).endswith(b"Content-Length: 5\r\n\r\n")
    assert build_answer(302, text, b"", b"Location: /\r\n", DATE, 0, False) == (
        b"HTTP/1.1 302 Found\r\n" + DATE + b"Location: /\r\nContent-Length: 0\r\n\r\n"
    )
    assert (
        build_answer(204, text, b"", b"", DATE, 0, False) == b"HTTP/1.1 204 No Content\r\n" + DATE + b"\r\n"
    )
    assert build_answer(299, text, b"", b"", b"", 0, False) == b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"
