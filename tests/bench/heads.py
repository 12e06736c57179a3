"""Nanoseconds a request head, in process: parsed, and written anew for the backend. No kernel, no network.

The peer is httptools (llhttp), as asyncio servers use it: one callback a header, collected in a list. It
decides less: Host, targets and the options of Connection are then still to be looked at.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import httptools

from l7.http1.build import Forwarding, build_request
from l7.http1.head import HeadState
from l7.http1.request import RequestHead
from l7.wire.forwarded import lines_of
from l7.wire.peer import make_peer
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Settings, alternate

ABOUT = "nanoseconds a request head in process, beside httptools"
PROGRAMS: tuple[str, ...] = ()
DEFAULTS = Settings(runs=7, seconds=0.3)
QUICK = Settings(runs=1, seconds=0.02, quick=True)
NEEDS_LAB = False

BROWSER = (
    b"GET /static/app/main.js?v=12345 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 "
    b'Safari/537.36\r\nsec-ch-ua-platform: "Linux"\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n'
    b"Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\nReferer: https://www.example.com/static/app/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; _ga=GA1.2.1234567890.1234567890; theme=dark\r\n"
    b'If-None-Match: "5f3e-1234567890abc"\r\n\r\n'
)
HEADS = {"wrk": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", "browser": BROWSER}
FASTER = Target(1 / 3, of="httptools", sense="at_most")


class Collected:
    """What a server on httptools keeps of a request."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.target = b""
        self.is_complete = False

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


def run(settings: Settings) -> list[Measure]:
    """Parsing beside httptools, then writing."""
    measures = []
    for name, data in HEADS.items():
        found = alternate(
            {
                "ours": _timer(_ours(data), settings.seconds),
                "httptools": _timer(_theirs(data), settings.seconds),
            },
            settings.runs,
            name,
        )
        ours, theirs = found["ns"].values()
        measures.append(Measure(f"ns_to_parse/{name}", "ns", "less", ours, {"httptools": theirs}, (FASTER,)))
    for name, data in HEADS.items():
        found = alternate({"ours": _timer(_built(data), settings.seconds)}, settings.runs, name)
        measures.append(Measure(f"ns_to_build/{name}", "ns", "less", found["ns"]["ours"]))
    return measures


def _ours(data: bytes) -> Callable[[], None]:
    head = RequestHead()

    def once() -> None:
        head.restart()
        head.feed(data)

    once()
    assert head.state == HeadState.HEAD_COMPLETE
    return once


def _theirs(data: bytes) -> Callable[[], object]:
    def once() -> Collected:
        collected = Collected()
        httptools.HttpRequestParser(collected).feed_data(data)
        return collected

    assert once().is_complete
    return once


def _built(data: bytes) -> Callable[[], None]:
    """With all forwarding headers, for a client that is no trusted proxy."""
    head = RequestHead()
    head.feed(data)
    forwarding = Forwarding(lines_of(make_peer("web", b"https", ("192.0.2.1", 40000), ("198.51.100.1", 443))))

    def once() -> None:
        build_request(head, None, None, None, forwarding, b"", 0)

    return once


def _timer(once: Callable[[], object], seconds: float) -> Callable[[], Sample]:
    def measure() -> Sample:
        rounds = 1000
        while True:
            gc.collect()
            began = time.perf_counter()
            for _ in range(rounds):
                once()
            took = time.perf_counter() - began
            if took >= seconds:
                return {"ns": took / rounds * 1e9}
            rounds = max(rounds * 2, round(rounds * seconds / took * 1.1))

    return measure
