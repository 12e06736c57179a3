"""Ordinary clients as they are: curl, ab, wrk and h2load, before nginx and Python's own server."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import wait_for
from tests.support.nginx import listens, start_nginx
from tests.support.odd_server import odd_server
from tests.support.proxy import Proxy, Site, start_program
from tests.support.wrk import faultless

PORT, NGINX, OLD = 8000, 8081, 8082
SIZE = 5_000_000


@dataclass
class Front:
    """A proxy before nginx (`/`), Python's server of HTTP/1.0 (`/old/`) and one that sends back (`/echo`)."""

    site: Site
    proxy: Proxy
    page: bytes
    ipv6_port: int

    def url(self, path: str) -> str:
        return f"http://{self.site.address}:{PORT}{path}"

    def curl(self, path: str, *words: str | Path) -> tuple[str, bytes]:
        """What curl writes of it (`-w`), and the body."""
        out = self.site.directory / "out"
        argv = ["curl", "-sS", "-o", out, "-w", "%{http_code} %{num_connects}", *words, self.url(path)]
        done = subprocess.run(argv, text=True, capture_output=True, timeout=30, check=True)
        return done.stdout, out.read_bytes()

    def run(self, *argv: str) -> str:
        """What a program prints that ends well."""
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is missing: run `scripts/setup`")
        done = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("clients"))
        stack.callback(site.close)
        page = os.urandom(SIZE)
        www = site.directory / "www"
        (www / "old").mkdir(parents=True)
        for name in ("page", "old/page"):
            (www / name).write_bytes(page)
        (www / "small").write_text("small\n")
        start_nginx(site, "nginx", f"server {{ listen {site.address}:{NGINX}; root {www}; }}", NGINX)
        argv = [sys.executable, "-m", "http.server", "--bind", site.address, "-d", www, str(OLD)]
        site.programs.append(start_program(argv, site.directory / "old.log"))
        wait_for(lambda: listens(site, OLD), 10, "the server of HTTP/1.0")
        echo = stack.enter_context(odd_server(site.address))
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            ipv6_port = probe.getsockname()[1]
        yield Front(site, site.start_proxy(config(site, echo.endpoint, ipv6_port)), page, ipv6_port)


def config(site: Site, echo: str, ipv6_port: int) -> dict[str, Any]:
    return {
        "workers": 2,
        "access_log": False,
        "listeners": [{"name": "web", "listen": [f"{site.address}:{PORT}", f"[::1]:{ipv6_port}"]}],
        "defaults": {"max_body": "8MiB"},
        "routes": [
            {"match": {"path": "/old/"}, "pool": "old"},
            {"match": {"path": "/echo"}, "pool": "echo"},
            {"match": {"path": "/"}, "pool": "nginx"},
        ],
        "pools": {
            "nginx": {"backends": [f"{site.address}:{NGINX}"]},
            "old": {"backends": [f"{site.address}:{OLD}"]},
            "echo": {"backends": [echo]},
        },
    }


@pytest.mark.parametrize("path", ["/page", "/old/page"])
def test_curl_gets_pages_whole(front: Front, path: str) -> None:
    for words in ((), ("--http1.0",), ("-H", "Connection: close")):
        assert front.curl(path, *words) == ("200 1", front.page)


def test_curl_gets_parts_and_nothing_new(front: Front) -> None:
    assert front.curl("/page", "-r", "1000-1999") == ("206 1", front.page[1000:2000])
    assert front.curl("/page", "-r", "-10") == ("206 1", front.page[-10:])
    assert front.curl("/page", "-r", "9000000-")[0] == "416 1"
    etag = front.site.directory / "etag"
    assert front.curl("/page", "--etag-save", etag)[0] == "200 1"
    assert front.curl("/page", "--etag-compare", etag)[0] == "304 1"
    status, head = front.curl("/page", "-I")
    assert status == "200 1" and f"Content-Length: {SIZE}".encode() in head


@pytest.mark.parametrize(
    "words",
    [(), ("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked"), ("--http1.0",)],
    ids=["length", "100-continue", "chunked", "HTTP/1.0"],
)
def test_curl_uploads(front: Front, words: tuple[str, ...]) -> None:
    upload = front.site.directory / "www" / "page"
    status, body = front.curl("/echo", "--data-binary", f"@{upload}", *words)
    assert status == "200 1"
    assert hashlib.sha256(body.partition(b"\n")[2]).digest() == hashlib.sha256(front.page).digest()


def test_curl_is_told_before_it_uploads_too_much(front: Front) -> None:
    more = front.site.directory / "more"
    more.write_bytes(bytes(9 << 20))
    for words in (("-H", "Expect: 100-continue"), ("-H", "Expect:")):
        status, body = front.curl("/echo", "--data-binary", f"@{more}", *words)
        assert (status, body[:3]) == ("413 1", b"413")


def test_curl_over_ipv6(front: Front) -> None:
    url = f"http://[::1]:{front.ipv6_port}/echo"
    assert front.run("curl", "-gsS", url) == "GET /echo\n"


def test_curl_keeps_its_connection(front: Front) -> None:
    out = front.site.directory / "out"
    argv = ["curl", "-sS", "-w", "%{http_code} %{num_connects}\n"]
    for _ in range(5):
        argv += ["-o", str(out), front.url("/small")]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["200 1", *["200 0"] * 4]


@pytest.mark.parametrize("words", [(), ("-k",)], ids=["close", "keep-alive"])
def test_ab(front: Front, words: tuple[str, ...]) -> None:
    # ab speaks HTTP/1.0 and keeps connections by `Connection: keep-alive`.
    said = front.run("ab", "-q", "-n", "1000", "-c", "20", *words, front.url("/small"))
    assert re.search(r"Complete requests: +1000\n", said) and re.search(r"Failed requests: +0\n", said)
    kept = re.search(r"Keep-Alive requests: +(\d+)\n", said)
    assert (kept is not None and kept[1] == "1000") == bool(words)


def test_wrk(front: Front) -> None:
    said = front.run("wrk", "-t1", "-c20", "-d1s", front.url("/small"))
    faultless(said)


def test_h2load_in_its_http_1_mode(front: Front) -> None:
    said = front.run("h2load", "--h1", "-n1000", "-c20", "-m4", front.url("/small"))
    assert "1000 succeeded, 0 failed, 0 errored" in said
