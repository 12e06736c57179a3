"""Odd clients and odd backends: what the proxy answers is what nginx answers, or it has a reason.

Rows of `SAME` are answered alike. Rows of `OTHER` say what each answers; docs/proxy.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.support.lab import wait_for
from tests.support.nginx import start_nginx
from tests.support.odd_server import BODY, odd_server
from tests.support.proxy import Proxy, Site
from tests.support.speaking import Conversation, speak

PORT, NGINX_PORT = 8000, 8001
NGINX = """
upstream odd {{ server {odd}; keepalive 8; }}
server {{
    listen {address}:{port};
    location / {{
        proxy_pass http://odd;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_request_buffering off;
    }}
}}
"""


@dataclass
class Both:
    """The proxy, and nginx in front of the same server."""

    address: str
    proxy: Proxy

    def ask(
        self, data: bytes, methods: tuple[str, ...], half_close: bool
    ) -> tuple[Conversation, Conversation]:
        """What each answers to these bytes."""
        ours, nginx = (
            speak((self.address, port), data, methods, half_close=half_close) for port in (PORT, NGINX_PORT)
        )
        return ours, nginx


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    site = Site(tmp_path_factory.mktemp("beside"))
    with ExitStack() as stack:
        stack.callback(site.close)
        server = stack.enter_context(odd_server(site.address))
        served = NGINX.format(odd=server.endpoint, address=site.address, port=NGINX_PORT)
        start_nginx(site, "nginx", served, NGINX_PORT)
        proxy = site.start_proxy(
            {
                "workers": 1,
                "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}"}],
                "routes": [{"match": {"path": "/"}, "pool": "odd"}],
                "pools": {"odd": {"backends": [server.endpoint], "passive": False}},
            }
        )
        yield Both(site.address, proxy)


def get(path: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request that is the last one of its connection."""
    return kept(path, *headers, b"Connection: close", method=method, version=version)


def kept(path: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request behind which the connection goes on."""
    lines = b"".join(line + b"\r\n" for line in (b"Host: a", *headers))
    return b"%s %s HTTP/%s\r\n%s\r\n" % (method, path, version, lines)


def post(body: bytes, *headers: bytes, path: bytes = b"/echo") -> bytes:
    """A request with a body of known length."""
    return get(path, b"Content-Length: %d" % len(body), *headers, method=b"POST") + body


def chunked(body: bytes) -> bytes:
    """A request with that body as it is."""
    return get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST") + body


@dataclass(frozen=True)
class Row:
    """What is sent; `half_close`: the client says at once that no more comes."""

    data: bytes
    methods: tuple[str, ...] = ("GET",)
    half_close: bool = False


@dataclass(frozen=True)
class Other(Row):
    """What each answers: statuses, `cut` where an answer was cut off, and how the connection ended."""

    ours: str = ""
    nginx: str | None = None
    """None: not asked, since it depends on its version or takes its time-outs."""


def broken(path: str, nginx: str | None = None) -> Other:
    """An answer that is no HTTP, or not the HTTP of those who wish well."""
    return Other(get(path.encode()), ours="502 closed", nginx=nginx)


LARGE = b"x" * 100_000
ALIKE = [
    "/plain",
    "/empty-reason",
    "/unknown-status",
    "/until-close",
    "/old",
    "/old-kept",
    "/chunked",
    "/no-content",
    "/not-modified",
    "/nothing",
    "/cookies",
    "/latin",
    "/too-much",
    "/short",
    "/huge-head",
    "/folded",
    "/early",
    "/reset",
]

SAME = {
    **{
        path: Row(get(path.encode()))
        for path in (*ALIKE, "/short-chunk", "/no-last-chunk", "/silent", "/half-head")
    },
    **{f"HEAD {path}": Row(get(path.encode(), method=b"HEAD"), ("HEAD",)) for path in ALIKE},
    **{f"HTTP/1.0 {path}": Row(get(path.encode(), version=b"1.0")) for path in ALIKE},
    "HTTP/1.0 without Host": Row(b"GET /plain HTTP/1.0\r\n\r\n"),
    "HTTP/1.0 that stays": Row(
        kept(b"/plain", b"Connection: keep-alive", version=b"1.0") + get(b"/plain"), ("GET", "GET")
    ),
    "HTTP/1.0 and a chunked answer": Row(
        kept(b"/chunked", b"Connection: keep-alive", version=b"1.0") + get(b"/plain"), ("GET", "GET")
    ),
    "Proxy-Connection": Row(kept(b"/echo", b"Proxy-Connection: keep-alive", version=b"1.0")),
    "pipeline": Row(kept(b"/plain") * 5 + kept(b"/chunked") + get(b"/echo"), ("GET",) * 7),
    "pipeline of all kinds": Row(
        kept(b"/plain", method=b"HEAD") + kept(b"/no-content") + kept(b"/until-close") + get(b"/plain"),
        ("HEAD", "GET", "GET", "GET"),
    ),
    "close within a pipeline": Row(kept(b"/plain") + get(b"/plain") + kept(b"/plain"), ("GET",) * 3),
    "half-closed within a head": Row(b"GET /plain HTT", half_close=True),
    "half-closed within a body": Row(post(b"hello" * 9)[:-4], ("POST",), half_close=True),
    "garbage behind the last": Row(get(b"/plain") + b"garbage\r\n\r\n"),
    "an empty line between": Row(kept(b"/plain") + b"\r\n" + get(b"/plain"), ("GET", "GET")),
    "OPTIONS": Row(get(b"/echo", method=b"OPTIONS"), ("OPTIONS",)),
    "PROPFIND": Row(get(b"/echo", method=b"PROPFIND"), ("PROPFIND",)),
    "TRACE": Row(get(b"/echo", method=b"TRACE"), ("TRACE",)),
    "GET with a body": Row(get(b"/echo", b"Content-Length: 3") + b"abc"),
    "absolute": Row(get(b"http://a/echo?q")),
    "absolute without a path": Row(get(b"http://a")),
    "absolute in capitals": Row(get(b"HTTP://A/echo")),
    "Host with a port": Row(b"GET /echo HTTP/1.1\r\nHost: a:8000\r\nConnection: close\r\n\r\n"),
    "Host of IPv6": Row(b"GET /echo HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n"),
    "Host with an underscore": Row(b"GET /echo HTTP/1.1\r\nHost: a_b.c\r\nConnection: close\r\n\r\n"),
    "empty Host": Row(b"GET /echo HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"),
    "no Host": Row(b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n"),
    "escaped letters": Row(get(b"/%65cho")),
    "dot segments": Row(get(b"/x/../echo")),
    "two slashes": Row(get(b"//echo")),
    "above the root": Row(get(b"/../echo")),
    "escaped badly": Row(get(b"/echo%zz")),
    "escaped NUL": Row(get(b"/echo%00")),
    "signs in the query": Row(get(b'/echo?a=[1]|{2}^`"<>\\')),
    "long target": Row(get(b"/echo?" + b"a" * 8000)),
    "target beyond the limit": Row(get(b"/echo?" + b"a" * 8300)),
    "large headers": Row(get(b"/echo", *[b"X-%d: %s" % (number, b"a" * 7900) for number in range(3)])),
    "90 headers": Row(get(b"/echo", *[b"X-%d: a" % number for number in range(90)])),
    "header of nothing": Row(get(b"/echo", b"X:")),
    "header in tabs": Row(get(b"/echo", b"X:\t a \t")),
    "header in Latin-1": Row(get(b"/echo", b"X: \xe4")),
    "space before the colon": Row(get(b"/echo", b"X : y")),
    "folded header": Row(get(b"/echo", b"X: a\r\n b")),
    "Content-Length twice": Row(post(b"abc", b"Content-Length: 3"), ("POST",)),
    "Connection names a header": Row(kept(b"/plain", b"Connection: X-Foo, close", b"X-Foo: a")),
    "Range": Row(get(b"/plain", b"Range: bytes=0-9")),
    "POST": Row(post(b"hello"), ("POST",)),
    "chunked": Row(chunked(b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-T: a\r\n\r\n"), ("POST",)),
    "large chunk": Row(chunked(b"186a0\r\n" + LARGE + b"\r\n0\r\n\r\n"), ("POST",)),
    "chunk that is none": Row(chunked(b"zz\r\n"), ("POST",)),
    "HTTP/1.0 and Expect": Row(
        get(b"/echo", b"Content-Length: 5", b"Expect: 100-continue", version=b"1.0") + b"hello"
    ),
    "Upgrade to what nobody speaks": Row(
        kept(b"/echo", b"Connection: Upgrade", b"Upgrade: h2c") + get(b"/plain"), ("GET", "GET")
    ),
    "answered before the body": Row(post(LARGE, path=b"/early"), ("POST",)),
    "reset behind the body": Row(post(b"hello", path=b"/reset"), ("POST",)),
    "HTTP/2.0": Row(get(b"/echo", version=b"2.0")),
}

OTHER = {
    # Of the backend.
    "trailers": Other(get(b"/trailers"), ours="200 trailers closed", nginx="200 closed"),
    "early hints": Other(get(b"/hints"), ours="103 200 closed"),
    "hints for HTTP/1.0": Other(get(b"/hints", version=b"1.0"), ours="200 closed"),
    "100 that nobody asked for": Other(get(b"/continued"), ours="200 closed"),
    "head of 30 KB": Other(get(b"/large-head"), ours="200 closed", nginx="502 closed"),
    "length and chunked": broken("/both-lengths"),
    "two lengths": broken("/two-lengths"),
    "bare LF in an answer": broken("/bare-lf", nginx="200 closed"),
    "no HTTP at all": broken("/garbage"),
    "101 that nobody asked for": broken("/switching"),
    "half a head for HEAD": Other(
        get(b"/half-head", method=b"HEAD"), ("HEAD",), ours="502 closed", nginx="200 closed"
    ),
    "cut off for HTTP/1.0": Other(get(b"/short-chunk", version=b"1.0"), ours="200 reset", nginx="200 closed"),
    "no last chunk for HTTP/1.0": Other(
        get(b"/no-last-chunk", version=b"1.0"), ours="200 reset", nginx="200 closed"
    ),
    # Of the client. nginx does either: it gives up if it sees the end before the backend's answer.
    "half-closed": Other(kept(b"/plain"), half_close=True, ours="200 closed"),
    "half-closed behind a body": Other(
        kept(b"/echo", b"Content-Length: 5", method=b"POST") + b"hello",
        ("POST",),
        half_close=True,
        ours="200 closed",
    ),
    "half-closed pipeline": Other(
        kept(b"/plain") * 3, ("GET",) * 3, half_close=True, ours="200 200 200 closed"
    ),
    "two empty lines first": Other(b"\r\n\r\n" + get(b"/plain"), ours="400 closed", nginx="200 closed"),
    "garbage instead of the next": Other(
        kept(b"/plain") + b"garbage\r\n\r\n",
        ("GET", "GET"),
        ours="200 501 closed",
        nginx="200 400 closed",
    ),
    "HTTP/0.9": Other(b"GET /plain\r\n", half_close=True, ours="400 closed"),
    "HTTP/1.2": Other(get(b"/echo", version=b"1.2"), ours="505 closed", nginx="200 closed"),
    "OPTIONS *": Other(
        get(b"*", method=b"OPTIONS"), ("OPTIONS",), ours="404 closed", nginx="400 closed"
    ),
    "CONNECT": Other(
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ("CONNECT",), ours="405 closed", nginx=None
    ),
    "method in small letters": Other(get(b"/echo", method=b"get"), ours="501 closed", nginx="400 closed"),
    "absolute with another Host": Other(get(b"http://b/echo"), ours="400 closed", nginx="200 closed"),
    "UTF-8 that is not escaped": Other(get("/echo?é".encode()), ours="400 closed", nginx="200 closed"),
    "fragment": Other(get(b"/plain#x"), ours="400 closed", nginx="404 closed"),
    "headers beyond the limit": Other(
        get(b"/echo", *[b"X-%d: %s" % (number, b"a" * 7900) for number in range(5)]),
        ours="431 closed",
        nginx="400 closed",
    ),
    "one header of 8.5 KB": Other(
        get(b"/echo", b"X: " + b"a" * 8500), ours="200 closed", nginx="400 closed"
    ),
    "150 headers": Other(
        get(b"/echo", *[b"X-%d: a" % number for number in range(150)]), ours="431 closed", nginx="200 closed"
    ),
    "larger than max_body": Other(
        get(b"/echo", b"Content-Length: 2000000", method=b"POST"), ("POST",), ours="413 closed"
    ),
    "larger than max_body, and Expect": Other(
        get(b"/echo", b"Content-Length: 2000000", b"Expect: 100-continue", method=b"POST"),
        ("POST",),
        ours="413 closed",
    ),
    "Expect, and the body at once": Other(
        post(b"hello", b"Expect: 100-continue"), ("POST",), ours="200 closed", nginx="100 200 closed"
    ),
    "Expect of something else": Other(
        post(b"hello", b"Expect: tea"), ("POST",), ours="417 closed", nginx="200 closed"
    ),
    "bare LF": Other(
        b"GET /echo HTTP/1.1\nHost: a\nConnection: close\n\n", ours="400 closed", nginx="200 closed"
    ),
    "two spaces": Other(
        b"GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True, ours="400 closed", nginx=None
    ),
}  # fmt: skip


def shown(conversation: Conversation) -> str:
    """Statuses, and how it ended."""
    words = []
    for answer in conversation.answers:
        words += [str(status) for status in (*answer.interim, answer.status)]
        words += ["trailers"] * bool(answer.trailers) + ["cut"] * (not answer.whole)
    return " ".join([*words, conversation.end])


UNLIKE = ("date", "server", "connection", "content-type")


def alike(conversation: Conversation) -> list[object]:
    """What has to be the same: not the texts of a proxy's own answers, nor what it says of itself and the
    connection. (nginx gives answers without a type `text/plain`.)"""
    rows: list[object] = [shown(conversation), conversation.garbage]
    for answer in conversation.answers:
        if answer.status < 400 or answer.body.startswith(BODY):
            headers = sorted((name, value) for name, value in answer.headers if name not in UNLIKE)
            rows.append((answer.body, headers, answer.trailers))
    return rows


@pytest.mark.parametrize("name", SAME)
def test_the_same(both: Both, name: str) -> None:
    row = SAME[name]
    ours, nginx = both.ask(row.data, row.methods, row.half_close)
    assert alike(ours) == alike(nginx)


@pytest.mark.parametrize("name", OTHER)
def test_something_else_for_a_reason(both: Both, name: str) -> None:
    row = OTHER[name]
    ours = speak((both.address, PORT), row.data, row.methods, half_close=row.half_close)
    assert (shown(ours), ours.garbage) == (row.ours, b"")
    if row.nginx is not None:
        nginx = speak((both.address, NGINX_PORT), row.data, row.methods, half_close=row.half_close)
        assert shown(nginx) == row.nginx


def test_nothing_of_all_this_stays(both: Both) -> None:
    """Behind all the others: no connection and no request is left over."""
    assert speak((both.address, PORT), get(b"/plain")).statuses == [200]
    wait_for(lambda: both.proxy.status()["counters"]["requests_active"] == 0, 10, "all requests to end")
    wait_for(lambda: both.proxy.status()["counters"]["connections_open"] == 0, 10, "all connections to end")
    assert both.proxy.status()["restarts"] == 0
    assert not {"level=error", "level=warning", "Traceback"} & set(both.proxy.output().split())
