"""What a browser makes of the proxy: names by TLS, sessions by cookie, WebSockets of a page."""

from __future__ import annotations

import base64
import hashlib
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.browser import Browser, browser, unavailable
from tests.support.lab import wait_for
from tests.support.proxy import Program, Proxy, Site, start_program

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
PORT = 8443
PAGE = f"https://shop.example:{PORT}/"

NAMES = """
    const names = [];
    for (let number = 0; number < %d; number++)
        names.push((await (await fetch('/', {credentials: '%s', cache: 'no-store'})).text()).trim());
    return names;
"""
OPEN_SOCKET = """
    window.socket = new WebSocket('wss://' + location.host + '/live');
    return new Promise((resolve, reject) => {
        window.socket.onopen = () => resolve('open');
        window.socket.onerror = () => reject('refused');
    });
"""
SAY = """
    return new Promise((resolve, reject) => {
        window.socket.onmessage = (event) => resolve(event.data);
        window.socket.onclose = () => reject('closed');
        window.socket.send('hello');
    });
"""


def start_server(site: Site, name: str, port: int) -> Program:
    """A server of pages and WebSockets."""
    argv = [sys.executable, "-m", "tests.support.websocket_echo", "--name", name, "--bind", site.address]
    server = start_program([*argv, "--port", str(port)], site.directory / f"{name}.log")
    site.programs.append(server)

    def listens() -> bool:
        server.check_running()
        with socket.socket() as sock:
            return sock.connect_ex((site.address, port)) == 0

    wait_for(listens, 10, f"{name} to listen")
    return server


@dataclass
class Shop:
    """A browser, and what it sees: pages by TLS of two servers that sessions stick to."""

    page: Browser
    proxy: Proxy
    servers: dict[str, Program]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("shop"))
        stack.callback(site.close)
        servers = {name: start_server(site, name, port) for name, port in (("b1", 8081), ("b2", 8082))}
        certificate = trustme.CA().issue_cert("shop.example", "other.example")
        certificate.private_key_and_cert_chain_pem.write_to_path(site.directory / "site.pem")
        proxy = site.start_proxy(config(site))
        # A browser that finds all names at the proxy, and trusts its key.
        leaf = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pin = base64.b64encode(hashlib.sha256(key).digest()).decode()
        flags = (
            f"--host-resolver-rules=MAP * {site.address}",
            f"--ignore-certificate-errors-spki-list={pin}",
        )
        yield Shop(stack.enter_context(browser(site.directory, *flags)), proxy, servers)


def config(site: Site) -> dict[str, Any]:
    """A listener with TLS, two hosts, and sessions by cookie."""
    tls = {"certificates": [str(site.directory / "site.pem")]}
    sticky = {"cookie": "SERVERID", "max_age": "1h", "same_site": "Strict"}
    backends = [f"{site.address}:8081", f"{site.address}:8082"]
    return {
        "workers": 2,
        "listeners": [{"name": "web", "listen": f"{site.address}:{PORT}", "tls": tls}],
        "routes": [
            {"match": {"host": "shop.example"}, "pool": "shop"},
            {"match": {"host": "other.example"}, "respond": {"body": "elsewhere"}},
        ],
        "pools": {"shop": {"scheduler": "round-robin", "sticky": sticky, "backends": backends}},
    }


def shown(page: Browser) -> str:
    """The page's text."""
    return str(page.run("return document.body.innerText")).strip()


def test_a_page_keeps_its_socket_over_a_reload(shop: Shop) -> None:
    page = shop.page
    page.open(PAGE)
    assert page.run(OPEN_SOCKET) == "open"
    before = page.run(SAY)
    assert shop.proxy.reload()["reloaded"]
    assert page.run(SAY) == before
    assert shown(page) == before.partition(":")[0]


def test_a_session_stays_with_its_backend_until_that_is_gone(shop: Shop) -> None:
    page, servers = shop.page, shop.servers
    page.open(PAGE)
    mine = shown(page)
    assert mine in servers
    for _ in range(4):
        page.open(PAGE)
        assert shown(page) == mine
    assert set(page.run(NAMES % (6, "same-origin"))) == {mine}
    # Without the cookie requests go round, so it is the cookie that holds the session.
    assert set(page.run(NAMES % (6, "omit"))) == set(servers)
    assert page.run(OPEN_SOCKET) == "open"
    assert page.run(SAY) == f"{mine}: hello"

    (cookie,) = page.cookies()
    assert (cookie["name"], cookie["domain"], cookie["path"]) == ("SERVERID", "shop.example", "/")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    assert page.run("return document.cookie") == ""
    # It is of one host.
    page.open(f"https://other.example:{PORT}/")
    assert (shown(page), page.cookies()) == ("elsewhere", [])

    page.open(PAGE)
    servers[mine].stop(signal.SIGKILL)
    (other,) = servers.keys() - {mine}
    assert page.run(NAMES % (4, "same-origin")) == [other] * 4
    page.open(PAGE)
    assert shown(page) == other
    (moved,) = page.cookies()
    assert moved["value"] != cookie["value"]
